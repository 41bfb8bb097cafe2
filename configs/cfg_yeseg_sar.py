# YESeg-OPT-SAR, radar images.
_base_ = './_base_/sar_whole.py'

model = dict(
    name_path='./configs/cls_yeseg.txt',
    prob_thd=0.3,
)

test_dataloader = dict(
    dataset=dict(
        type='YESegSARDataset',
        data_root=f'{_base_.data_folder}/YESeg-OPT-SAR',
        ann_file='test.txt',
        data_prefix=dict(img_path='sar', seg_map_path='cvt_label'),
    ),
)
