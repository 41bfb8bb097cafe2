# DDHRNet Korea, radar images.
_base_ = './_base_/sar_whole.py'

model = dict(name_path='./configs/cls_ddhrnet_korea.txt')

test_dataloader = dict(
    dataset=dict(
        type='DDHR_Korea_SARDataset',
        data_root=f'{_base_.data_folder}/DDHRNet_DATA',
        ann_file='korea/no_cloud/val.txt',
        data_prefix=dict(img_path='korea/no_cloud/sar', seg_map_path='korea/no_cloud/label'),
    ),
)
