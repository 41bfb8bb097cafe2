# ISPRS Vaihingen, 512 x 512 tiles.
_base_ = './_base_/optical.py'

model = dict(
    name_path='./configs/cls_vaihingen.txt',
    prob_thd=0.1,
    bg_idx=5,  # clutter
)

test_dataloader = dict(
    dataset=dict(
        type='ISPRSDataset',
        data_root=f'{_base_.data_folder}/vaihingen',
        data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val'),
    ),
)
