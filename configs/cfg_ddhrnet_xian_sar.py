# DDHRNet Xi'an, radar images.
_base_ = './_base_/sar_whole.py'

model = dict(name_path='./configs/cls_ddhrnet_xian.txt')

test_dataloader = dict(
    dataset=dict(
        type='DDHR_Xian_SARDataset',
        data_root=f'{_base_.data_folder}/DDHRNet_DATA',
        ann_file='xian/no_cloud/val.txt',
        data_prefix=dict(img_path='xian/no_cloud/sar', seg_map_path='xian/no_cloud/label'),
    ),
)
