# FUSAR-Map.
_base_ = './_base_/sar.py'

model = dict(name_path='./configs/cls_fusar.txt')

test_dataloader = dict(
    dataset=dict(
        type='FUSARDataset',
        data_root=f'{_base_.data_folder}/FUSAR-Map',
        ann_file='test.txt',
        data_prefix=dict(img_path='sar', seg_map_path='label'),
    ),
)
