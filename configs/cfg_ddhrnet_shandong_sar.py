# DDHRNet Shandong, radar images.
_base_ = './_base_/sar_whole.py'

model = dict(name_path='./configs/cls_ddhrnet_shandong.txt')

test_dataloader = dict(
    dataset=dict(
        type='DDHR_Shandong_SARDataset',
        data_root=f'{_base_.data_folder}/DDHRNet_DATA',
        ann_file='shandong/val.txt',
        data_prefix=dict(img_path='shandong/sar', seg_map_path='shandong/label'),
    ),
)
