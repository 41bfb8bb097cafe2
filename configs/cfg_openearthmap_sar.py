# OpenEarthMap-SAR.
_base_ = './_base_/sar.py'

model = dict(name_path='./configs/cls_openearthmap.txt')

test_dataloader = dict(
    dataset=dict(
        type='OpenEarthMapDataset',
        data_root=f'{_base_.data_folder}/OpenEarthMap_SAR',
        data_prefix=dict(img_path='test/sar_images', seg_map_path='test/labels'),
    ),
)
