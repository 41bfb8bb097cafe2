# WHU building, satellite images II (East Asia).
_base_ = './_base_/optical.py'

model = dict(
    name_path='./configs/cls_building.txt',
    prob_thd=0.7,
)

test_dataloader = dict(
    dataset=dict(
        type='WHUDataset',
        data_root=f'{_base_.data_folder}/WHU_Sat_II',
        data_prefix=dict(
            img_path='Satellite_dataset_Ⅱ_East_Asia/1.cropped/test/image',
            seg_map_path='Satellite_dataset_Ⅱ_East_Asia/1.cropped/test/label_cvt',
        ),
        img_suffix='.tif',
        seg_map_suffix='.tif',
    ),
)
