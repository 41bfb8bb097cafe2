# ISPRS Potsdam, 512 x 512 tiles.
_base_ = './_base_/optical.py'

model = dict(
    name_path='./configs/cls_potsdam.txt',
    prob_thd=0.1,
    bg_idx=5,  # clutter,background
)

test_dataloader = dict(
    dataset=dict(
        type='PotsdamDataset',
        data_root=f'{_base_.data_folder}/potsdam',
        data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val'),
    ),
)
