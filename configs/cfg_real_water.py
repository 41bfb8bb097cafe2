# Water in a Sentinel-2 chip of Sen1Floods11 at 10 m, labelled by hand, brought to 5 m.
_base_ = './_base_/real.py'

model = dict(name_path='./configs/cls_real_water.txt')

test_pipeline = [
    dict(type='LoadOpticalImage', bands=(4, 3, 2)),
    dict(type='Resize', scale=(1024, 1024), keep_ratio=True),
    *_base_.test_pipeline[2:],
]
test_dataloader = dict(
    dataset=dict(
        type='WaterDataset',
        data_root=f'{_base_.samples}/sen1floods11',
        data_prefix=dict(img_path='', seg_map_path=''),
        img_suffix='_S2Hand.tif',
        seg_map_suffix='_LabelHand.tif',
        pipeline=test_pipeline,
    ),
)
