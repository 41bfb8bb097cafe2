# UAVid, 1280 x 1080 tiles.
_base_ = './_base_/optical.py'

model = dict(
    name_path='./configs/cls_uavid.txt',
    prob_thd=0.3,
)

test_dataloader = dict(
    dataset=dict(
        type='UAVidDataset',
        data_root=f'{_base_.data_folder}/UAVid',
        data_prefix=dict(img_path='img_dir/test', seg_map_path='ann_dir/test'),
    ),
)
