# LoveDA, validation part.
_base_ = './_base_/optical.py'

model = dict(
    name_path='./configs/cls_loveda.txt',
    prob_thd=0.3,
)

test_dataloader = dict(
    dataset=dict(
        type='LoveDADataset',
        data_root=f'{_base_.data_folder}/LoveDA',
        data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val'),
    ),
)
