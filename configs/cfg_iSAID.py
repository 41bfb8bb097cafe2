# iSAID, 896 x 896 tiles.
_base_ = './_base_/optical.py'

model = dict(
    name_path='./configs/cls_iSAID.txt',
    prob_thd=0.4,
)

test_dataloader = dict(
    dataset=dict(
        type='iSAIDDataset',
        data_root=f'{_base_.data_folder}/iSAID',
        data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val'),
    ),
)
