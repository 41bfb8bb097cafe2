# LoveDA, three tiles of 1024 x 1024 pixels at 0.3 m, brought to 1.2 m.
_base_ = './_base_/real.py'

model = dict(name_path='./configs/cls_loveda.txt')

test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='Resize', scale=(256, 256), keep_ratio=True, interpolation='area'),
    *_base_.test_pipeline[2:],
]
test_dataloader = dict(
    dataset=dict(
        type='LoveDADataset',
        data_root=f'{_base_.samples}/loveda',
        data_prefix=dict(img_path='img_dir', seg_map_path='ann_dir'),
        pipeline=test_pipeline,
    ),
)
