# WHU-OPT-SAR, radar images.
_base_ = './_base_/sar_whole.py'

model = dict(
    name_path='./configs/cls_whu_sar.txt',
    bg_idx=6,  # others
)

test_dataloader = dict(
    dataset=dict(
        type='WHUSARDataset',
        data_root=f'{_base_.data_folder}/whu-opt-sar',
        data_prefix=dict(img_path='crop512/test/sar_dir', seg_map_path='crop512/test/ann_dir'),
    ),
)
