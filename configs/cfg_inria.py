# Inria aerial image labelling, buildings.
_base_ = './_base_/optical.py'

model = dict(
    name_path='./configs/cls_building.txt',
    prob_thd=0.6,
)

test_dataloader = dict(
    dataset=dict(
        type='InriaDataset',
        data_root=f'{_base_.data_folder}/Inria',
        data_prefix=dict(
            img_path='AerialImageDataset/train/img_dir/split_test',
            seg_map_path='AerialImageDataset/train/ann_dir/split_test',
        ),
    ),
)
