# xBD, buildings before the disaster.
_base_ = './_base_/optical.py'

model = dict(
    name_path='./configs/cls_building.txt',
    cls_token_lambda=0,  # the paper switches Global Bias Alleviation off here
)

test_dataloader = dict(
    dataset=dict(
        type='xBDDataset',
        data_root=f'{_base_.data_folder}/xBD',
        data_prefix=dict(img_path='test/images_pre', seg_map_path='test/targets_cvt_pre'),
    ),
)
