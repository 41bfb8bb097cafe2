# DeepGlobe, roads.
_base_ = './_base_/optical.py'

model = dict(
    name_path='./configs/cls_road.txt',
    prob_thd=0.7,
)

test_dataloader = dict(
    dataset=dict(
        type='RoadValDataset',
        data_root=f'{_base_.data_folder}/GlobalRoadSet_Val',
        data_prefix=dict(img_path='DeepGlobe_test_1530/image_cvt', seg_map_path='DeepGlobe_test_1530/label_cvt'),
    ),
)
