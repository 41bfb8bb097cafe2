# Sen1Floods11, hand-labelled part: VV and VH of Sentinel-1 in decibels, labels -1 (no data), 0 and 1 (water).
# Not of the paper's benchmark; it shows how raw radar files are evaluated.
_base_ = '../_base_/sar.py'

model = dict(name_path='./configs/cls_water.txt')

test_dataloader = dict(
    dataset=dict(
        type='WaterDataset',
        data_root=f'{_base_.data_folder}/sen1floods11',
        data_prefix=dict(img_path='S1Hand', seg_map_path='LabelHand'),
        img_suffix='_S1Hand.tif',
        seg_map_suffix='_LabelHand.tif',
    ),
)
