# The generated benchmark with the embedded encoder: runs offline on a CPU, with no weights to fetch.
_base_ = './_base_/optical.py'

model = dict(
    clip_type='Demo',
    vit_type=None,
    name_path='./configs/cls_demo.txt',
)

test_dataloader = dict(
    dataset=dict(
        type='DemoDataset',
        data_root=f'{_base_.data_folder}/demo',
        data_prefix=dict(img_path='img_dir', seg_map_path='ann_dir'),
    ),
)
