# The generated radar benchmark with the embedded SAR encoder: runs offline on a CPU.
_base_ = './_base_/sar.py'

model = dict(
    clip_type='DemoSAR',
    vit_type=None,
    model_type='SegEarth',  # what the encoder was aligned at
    ssa_last_n_layers=1,
    name_path='./configs/cls_demo.txt',
)

test_dataloader = dict(
    dataset=dict(
        type='DemoSARDataset',
        data_root=f'{_base_.data_folder}/demo_sar',
        data_prefix=dict(img_path='img_dir', seg_map_path='ann_dir'),
    ),
)
