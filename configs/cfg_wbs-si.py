# WBS-SI, water bodies.
_base_ = './_base_/optical.py'

model = dict(
    name_path='./configs/cls_water.txt',
    prob_thd=0.6,
)

test_dataloader = dict(
    dataset=dict(
        type='WaterDataset',
        data_root=f'{_base_.data_folder}/water-body-segmentation-in-satellite-images',
        ann_file='val.txt',  # the 499 validation names, water_body_N, one a line
        data_prefix=dict(
            img_path='WaterBodiesDatasetPreprocessed/WaterBodiesDatasetPreprocessed/Images',
            seg_map_path='WaterBodiesDatasetPreprocessed/WaterBodiesDatasetPreprocessed/Masks_cvt',
        ),
    ),
)
