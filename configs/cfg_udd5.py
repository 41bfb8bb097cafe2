# UDD5.
_base_ = './_base_/optical.py'

model = dict(
    name_path='./configs/cls_udd5.txt',
    prob_thd=0.4,
    bg_idx=4,  # background
)

test_dataloader = dict(
    dataset=dict(
        type='UDD5Dataset',
        data_root=f'{_base_.data_folder}/UDD5',
        data_prefix=dict(img_path='val/src', seg_map_path='val/gt'),
    ),
)
