# VDD.
_base_ = './_base_/optical.py'

model = dict(
    name_path='./configs/cls_vdd.txt',
    prob_thd=0.3,
)

test_dataloader = dict(
    dataset=dict(
        type='VDDDataset',
        data_root=f'{_base_.data_folder}/VDD',
        data_prefix=dict(img_path='test/src', seg_map_path='test/gt'),
    ),
)
