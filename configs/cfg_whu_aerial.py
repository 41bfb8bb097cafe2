# WHU building, aerial images.
_base_ = './_base_/optical.py'

model = dict(
    name_path='./configs/cls_building.txt',
    prob_thd=0.6,
)

test_dataloader = dict(
    dataset=dict(
        type='WHUDataset',
        data_root=f'{_base_.data_folder}/WHU-BD',
        data_prefix=dict(img_path='val/image', seg_map_path='val/label_cvt'),
    ),
)
