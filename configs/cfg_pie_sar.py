# PIE-RGB-SAR, radar images.
_base_ = './_base_/sar_whole.py'

model = dict(name_path='./configs/cls_pie.txt')

test_dataloader = dict(
    dataset=dict(
        type='PIESARDataset',
        data_root=f'{_base_.data_folder}/PIE-RGB-SAR',
        ann_file='val.txt',
        data_prefix=dict(img_path='sar', seg_map_path='label'),
    ),
)
