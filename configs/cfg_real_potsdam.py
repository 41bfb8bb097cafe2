# ISPRS Potsdam, one 512 x 512 tile at 0.05 m: far finer than what the encoder was trained on.
_base_ = './_base_/real.py'

model = dict(name_path='./configs/cls_real_isprs.txt', bg_idx=5)

test_dataloader = dict(
    dataset=dict(
        type='PotsdamDataset',
        data_root=f'{_base_.samples}/potsdam',
        data_prefix=dict(img_path='img_dir', seg_map_path='ann_dir'),
    ),
)
