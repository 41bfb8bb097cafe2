# Water in the Sentinel-1 image of the same chip at 10 m: its VH band alone, as MiniSAR learned from.
_base_ = './_base_/real.py'

model = dict(clip_type='MiniSAR', name_path='./configs/cls_real_water.txt')

test_pipeline = [
    dict(type='LoadSARImage', bands=(2,)),  # a band alone is stretched from -25 to 0 dB, whatever its polarisation
    dict(type='Resize', scale=(512, 512), keep_ratio=True),
    *_base_.test_pipeline[2:],
]
test_dataloader = dict(
    dataset=dict(
        type='WaterDataset',
        data_root=f'{_base_.samples}/sen1floods11',
        data_prefix=dict(img_path='', seg_map_path=''),
        img_suffix='_S1Hand.tif',
        seg_map_suffix='_LabelHand.tif',
        pipeline=test_pipeline,
    ),
)
