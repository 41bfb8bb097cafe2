# OpenEarthMap, validation part without xBD.
_base_ = './_base_/optical.py'

model = dict(
    name_path='./configs/cls_openearthmap.txt',
    prob_thd=0.1,
)

test_dataloader = dict(
    dataset=dict(
        type='OpenEarthMapDataset',
        data_root=f'{_base_.data_folder}/OpenEarthMap_val',
        data_prefix=dict(img_path='images', seg_map_path='labels'),
    ),
)
