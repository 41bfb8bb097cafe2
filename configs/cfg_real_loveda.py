# LoveDA, three tiles of 1024 x 1024 pixels at 0.3 m.
_base_ = './_base_/real.py'

model = dict(name_path='./configs/cls_loveda.txt')

test_dataloader = dict(
    dataset=dict(
        type='LoveDADataset',
        data_root=f'{_base_.samples}/loveda',
        data_prefix=dict(img_path='img_dir', seg_map_path='ann_dir'),
    ),
)
