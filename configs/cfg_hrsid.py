# HRSID, ships in radar images.
_base_ = './_base_/optical.py'

model = dict(
    name_path='./configs/cls_ship.txt',
    prob_thd=0.6,
    slide_crop=0,  # the whole image at once
)

test_dataloader = dict(
    dataset=dict(
        type='HRSID_SARDataset',
        data_root=f'{_base_.data_folder}/HRSID',
        ann_file='HRSID_JPG/label/test.txt',
        data_prefix=dict(img_path='HRSID_JPG/JPEGImages', seg_map_path='HRSID_JPG/label/test'),
    ),
)
