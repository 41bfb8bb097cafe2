# Water in a Sentinel-2 chip of Sen1Floods11 at 10 m, labelled by hand.
_base_ = './_base_/real.py'

model = dict(name_path='./configs/cls_real_water.txt')

test_pipeline = [dict(type='LoadOpticalImage', bands=(4, 3, 2)), *_base_.test_pipeline[1:]]
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
