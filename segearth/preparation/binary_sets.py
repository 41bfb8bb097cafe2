"""Data sets of one class against the background: buildings, roads, water."""

from __future__ import annotations

from segearth.preparation.label_rules import Threshold
from segearth.preparation.recipes import Recipe
from segearth.preparation.tiling import Tiling

BLACK_AND_WHITE = Threshold(128)
INRIA_TEST = {  # numbers of the images whose tiles are evaluated; published labels are those of the training part
    'vienna': (3, 6, 9, 11, 15, 18, 20),
    'chicago': (10, 14, 23, 26),
    'austin': (1, 7, 12, 22, 24, 36),
    'tyrol-w': (1, 3, 25, 36),
    'kitsap': (9, 14, 25, 34, 35, 36),
}
WATER_FOLDER = 'WaterBodiesDatasetPreprocessed/WaterBodiesDatasetPreprocessed'
WHU_SATELLITE_FOLDER = 'Satellite_dataset_Ⅱ_East_Asia/1.cropped/test'
ANY_PICTURE = r'\.(jpe?g|png|tiff?)'


def _road_test_set(title: str, config: str, folder: str) -> Recipe:
    return Recipe(
        title=title,
        config=config,
        source=f'GlobalRoadSet_Val (or {folder} in it: img, and gt or label)',
        image=rf'{folder}/img/(?P<key>[^/]+){ANY_PICTURE}',
        label=rf'{folder}/(gt|label)/(?P<key>[^/]+){ANY_PICTURE}',
        rule=BLACK_AND_WHITE,
        data_folder='GlobalRoadSet_Val',
        image_folder=f'{folder}/img',
        label_folder=f'{folder}/label_cvt',
        image_suffix='.jpg',
    )


BINARY_SETS: dict[str, Recipe] = {
    'whu_aerial': Recipe(
        title='WHU building, aerial',
        config='cfg_whu_aerial.py',
        source='the cropped aerial tiles: val/image, val/label',
        image=r'val/image/(?P<key>[^/]+)\.(png|tiff?)',
        label=r'val/label/(?P<key>[^/]+)\.(png|tiff?)',
        rule=BLACK_AND_WHITE,
        data_folder='WHU-BD',
        image_folder='val/image',
        label_folder='val/label_cvt',
    ),
    'whu_sat_II': Recipe(
        title='WHU building, satellite II (East Asia)',
        config='cfg_whu_sat_II.py',
        source='the cropped tiles of satellite data set II: test/image, test/label',
        image=r'test/image/(?P<key>[^/]+)\.(png|tiff?)',
        label=r'test/label/(?P<key>[^/]+)\.(png|tiff?)',
        rule=BLACK_AND_WHITE,
        data_folder='WHU_Sat_II',
        image_folder=f'{WHU_SATELLITE_FOLDER}/image',
        label_folder=f'{WHU_SATELLITE_FOLDER}/label_cvt',
        image_suffix='.tif',
        label_suffix='.tif',
    ),
    'inria': Recipe(
        title='Inria aerial image labelling',
        config='cfg_inria.py',
        source='AerialImageDataset: train/images, train/gt',
        image=r'train/images/(?P<key>[a-z-]+\d+)\.tiff?',
        label=r'train/gt/(?P<key>[a-z-]+\d+)\.tiff?',
        rule=BLACK_AND_WHITE,
        data_folder='Inria',
        image_folder='AerialImageDataset/train/img_dir/split_test',
        label_folder='AerialImageDataset/train/ann_dir/split_test',
        tiling=Tiling(window=(1000, 1000), stride=(1000, 1000)),
        names=frozenset(f'{city}{number}' for city, numbers in INRIA_TEST.items() for number in numbers),
    ),
    'xBD': Recipe(
        title='xBD, before the disaster',
        config='cfg_xBD.py',
        source='the test part: test/images, test/targets',
        image=r'test/images/(?P<key>[^/]+_pre_disaster)\.png',
        label=r'test/targets/(?P<key>[^/]+_pre_disaster)_target\.png',
        rule=Threshold(1, is_brightness=False),
        data_folder='xBD',
        image_folder='test/images_pre',
        label_folder='test/targets_cvt_pre',
    ),
    'chn6-cug': Recipe(
        title='CHN6-CUG',
        config='cfg_chn6-cug.py',
        source='CHN6-CUG: val with ..._sat.jpg and ..._mask.png',
        image=r'val/([^/]+/)*(?P<key>[^/]+)_sat\.jpe?g',
        label=r'val/([^/]+/)*(?P<key>[^/]+)_mask\.png',
        rule=BLACK_AND_WHITE,
        data_folder='CHN6-CUG',
        image_folder='val/image_cvt',
        label_folder='val/label_cvt',
        image_suffix='.jpg',
    ),
    'deepglobe_road': Recipe(
        title='DeepGlobe roads',
        config='cfg_deepglobe_road.py',
        source='GlobalRoadSet_Val (or DeepGlobe_test_1530 in it: ..._sat.jpg, ..._mask.png)',
        image=r'DeepGlobe_test_1530/([^/]+/)*(?P<key>[^/]+)_sat\.jpe?g',
        label=r'DeepGlobe_test_1530/([^/]+/)*(?P<key>[^/]+)_mask\.png',
        rule=BLACK_AND_WHITE,
        data_folder='GlobalRoadSet_Val',
        image_folder='DeepGlobe_test_1530/image_cvt',
        label_folder='DeepGlobe_test_1530/label_cvt',
        image_suffix='.jpg',
    ),
    'massachusetts_road': _road_test_set('Massachusetts roads', 'cfg_massachusetts_road.py', 'Massachusetts_test_49'),
    'spacenet_road': _road_test_set('SpaceNet roads', 'cfg_spacenet_road.py', 'SpaceNet_test_567'),
    'wbs-si': Recipe(
        title='WBS-SI, water bodies',
        config='cfg_wbs-si.py',
        source='WaterBodiesDatasetPreprocessed: Images, Masks',
        image=r'Images/(?P<key>water_body_\d+)\.jpe?g',
        label=r'Masks/(?P<key>water_body_\d+)\.(jpe?g|png)',
        rule=BLACK_AND_WHITE,
        data_folder='water-body-segmentation-in-satellite-images',
        image_folder=f'{WATER_FOLDER}/Images',
        label_folder=f'{WATER_FOLDER}/Masks_cvt',
        image_suffix='.jpg',
        written_list='val.txt',
        note=(
            'The published figure is of 499 images. Their list is tools/dataset_converters/wbs-si_val.txt of the '
            'SegEarth-OV repository: pass it with --list'
        ),
    ),
}
