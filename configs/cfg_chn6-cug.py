# CHN6-CUG, roads.
_base_ = './_base_/optical.py'

model = dict(
    name_path='./configs/cls_road.txt',
    prob_thd=0.8,
)

test_dataloader = dict(
    dataset=dict(
        type='CHN6_CUGDataset',
        data_root=f'{_base_.data_folder}/CHN6-CUG',
        data_prefix=dict(img_path='val/image_cvt', seg_map_path='val/label_cvt'),
    ),
)
