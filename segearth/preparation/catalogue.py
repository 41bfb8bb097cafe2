"""The data sets that can be prepared, and the programs that do it."""

from dataclasses import replace

from segearth.io.labels import IGNORE_INDEX
from segearth.preparation.label_rules import Colours, Ids, Polygons, Threshold
from segearth.preparation.recipe import Recipe, Tiling

ISPRS_COLOURS = Colours((
    ((0, 0, 0), 0),  # boundary between objects; ignored, as the data set classes reduce the zero label
    ((255, 255, 255), 1),  # impervious surface
    ((0, 0, 255), 2),  # building
    ((0, 255, 255), 3),  # low vegetation
    ((0, 255, 0), 4),  # tree
    ((255, 255, 0), 5),  # car
    ((255, 0, 0), 6),  # clutter
))  # fmt: skip
ISAID_COLOURS = Colours(tuple((colour, number) for number, colour in enumerate((
    (0, 0, 0), (0, 0, 63), (0, 63, 63), (0, 63, 0), (0, 63, 127), (0, 63, 191), (0, 63, 255), (0, 127, 63),
    (0, 127, 127), (0, 0, 127), (0, 0, 191), (0, 0, 255), (0, 191, 127), (0, 127, 191), (0, 127, 255), (0, 100, 155),
))))  # fmt: skip
UAVID_COLOURS = Colours((
    ((0, 0, 0), 0),  # background clutter
    ((128, 0, 0), 1),  # building
    ((128, 64, 128), 2),  # road
    ((192, 0, 192), 3),  # static car
    ((0, 128, 0), 4),  # tree
    ((128, 128, 0), 5),  # low vegetation
    ((64, 64, 0), 6),  # human
    ((64, 0, 128), 3),  # moving car: one class with the static ones
))  # fmt: skip
# YESeg-OPT-SAR publishes 0 background, 1 bare ground, 2 low vegetation, 3 trees, 4 houses, 5 water, 6 roads, 7 other;
# the six classes of the benchmark are 1 to 6. Background, other and all numbers beyond say of no pixel what it is.
YESEG_IDS = Ids(IGNORE_INDEX + 1, ((1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (6, 5)))

BY_ROWS = '{name}_{y1}_{y2}_{x1}_{x2}'  # how the original names the tiles of iSAID and UAVid
ISPRS_TILING = Tiling(window=(512, 512), stride=(512, 512))  # mmsegmentation's converter asks for 256 but steps by 512

INRIA_TEST = {  # numbers of the images whose tiles are evaluated; published labels are those of the training part
    'vienna': (3, 6, 9, 11, 15, 18, 20), 'chicago': (10, 14, 23, 26), 'austin': (1, 7, 12, 22, 24, 36),
    'tyrol-w': (1, 3, 25, 36), 'kitsap': (9, 14, 25, 34, 35, 36),
}  # fmt: skip
POTSDAM_TEST = frozenset({  # row_column
    '5_15', '6_15', '6_13', '3_13', '4_14', '6_14', '5_14', '2_13', '4_15', '2_14', '5_13', '4_13', '3_14', '7_13',
})  # fmt: skip
VAIHINGEN_TEST = frozenset(map('area{}'.format, (2, 4, 6, 8, 10, 12, 14, 16, 20, 22, 24, 27, 29, 31, 33, 35, 38)))
WATER_FOLDER = 'WaterBodiesDatasetPreprocessed/WaterBodiesDatasetPreprocessed'
WHU_SATELLITE_FOLDER = 'Satellite_dataset_Ⅱ_East_Asia/1.cropped/test'
ANY_PICTURE = r'\.(jpe?g|png|tiff?)'


def _road_test_set(name: str, title: str, folder: str) -> Recipe:
    return Recipe(
        name=name, title=title, source=f'GlobalRoadSet_Val (or {folder} in it: img, and gt or label)',
        image=rf'{folder}/img/(?P<key>[^/]+){ANY_PICTURE}', label=rf'{folder}/(gt|label)/(?P<key>[^/]+){ANY_PICTURE}',
        data_folder='GlobalRoadSet_Val', image_folder=f'{folder}/img', label_folder=f'{folder}/label_cvt',
        image_suffix='.jpg',
    )  # fmt: skip


BINARY_SETS = (
    Recipe(
        name='whu_aerial', title='WHU building, aerial', source='the cropped aerial tiles: val/image, val/label',
        image=r'val/image/(?P<key>[^/]+)\.(png|tiff?)', label=r'val/label/(?P<key>[^/]+)\.(png|tiff?)',
        data_folder='WHU-BD', image_folder='val/image', label_folder='val/label_cvt',
    ),
    Recipe(
        name='whu_sat_II', title='WHU building, satellite II (East Asia)',
        source='the cropped tiles of satellite data set II: test/image, test/label',
        image=r'test/image/(?P<key>[^/]+)\.(png|tiff?)', label=r'test/label/(?P<key>[^/]+)\.(png|tiff?)',
        data_folder='WHU_Sat_II', image_folder=f'{WHU_SATELLITE_FOLDER}/image',
        label_folder=f'{WHU_SATELLITE_FOLDER}/label_cvt', image_suffix='.tif', label_suffix='.tif',
    ),
    Recipe(
        name='inria', title='Inria aerial image labelling', source='AerialImageDataset: train/images, train/gt',
        image=r'train/images/(?P<key>[a-z-]+\d+)\.tiff?', label=r'train/gt/(?P<key>[a-z-]+\d+)\.tiff?',
        data_folder='Inria', image_folder='AerialImageDataset/train/img_dir/split_test',
        label_folder='AerialImageDataset/train/ann_dir/split_test', tiling=Tiling((1000, 1000), (1000, 1000)),
        names=frozenset(f'{city}{number}' for city, numbers in INRIA_TEST.items() for number in numbers),
    ),
    Recipe(
        name='xBD', title='xBD, before the disaster', source='the test part: test/images, test/targets',
        image=r'test/images/(?P<key>[^/]+_pre_disaster)\.png',
        label=r'test/targets/(?P<key>[^/]+_pre_disaster)_target\.png',
        data_folder='xBD', image_folder='test/images_pre', label_folder='test/targets_cvt_pre',
        rule=Threshold(1, is_brightness=False),
    ),
    Recipe(
        name='chn6-cug', title='CHN6-CUG', source='CHN6-CUG: val with ..._sat.jpg and ..._mask.png',
        image=r'val/([^/]+/)*(?P<key>[^/]+)_sat\.jpe?g', label=r'val/([^/]+/)*(?P<key>[^/]+)_mask\.png',
        data_folder='CHN6-CUG', image_folder='val/image_cvt', label_folder='val/label_cvt', image_suffix='.jpg',
    ),
    Recipe(
        name='deepglobe_road', title='DeepGlobe roads',
        source='GlobalRoadSet_Val (or DeepGlobe_test_1530 in it: ..._sat.jpg, ..._mask.png)',
        image=r'DeepGlobe_test_1530/([^/]+/)*(?P<key>[^/]+)_sat\.jpe?g',
        label=r'DeepGlobe_test_1530/([^/]+/)*(?P<key>[^/]+)_mask\.png',
        data_folder='GlobalRoadSet_Val', image_folder='DeepGlobe_test_1530/image_cvt',
        label_folder='DeepGlobe_test_1530/label_cvt', image_suffix='.jpg',
    ),
    _road_test_set('massachusetts_road', 'Massachusetts roads', 'Massachusetts_test_49'),
    _road_test_set('spacenet_road', 'SpaceNet roads', 'SpaceNet_test_567'),
    Recipe(
        name='wbs-si', title='WBS-SI, water bodies', source='WaterBodiesDatasetPreprocessed: Images, Masks',
        image=r'Images/(?P<key>water_body_\d+)\.jpe?g', label=r'Masks/(?P<key>water_body_\d+)\.(jpe?g|png)',
        data_folder='water-body-segmentation-in-satellite-images', image_folder=f'{WATER_FOLDER}/Images',
        label_folder=f'{WATER_FOLDER}/Masks_cvt', image_suffix='.jpg', written_list='val.txt',
        note=(
            'The published figure is of 499 images. Their list is tools/dataset_converters/wbs-si_val.txt of the '
            'SegEarth-OV repository: pass it with --list'
        ),
    ),
)  # fmt: skip

UAVID = Recipe(
    name='uavid', title='UAVid, test part', source='UAVid: test_gt (or uavid_test, test) with seq.../Images, Labels',
    image=r'(uavid_)?test(_gt)?/(?P<sequence>seq\d+)/Images/(?P<frame>\d+)\.png',
    label=r'(uavid_)?test(_gt)?/(?P<sequence>seq\d+)/Labels/(?P<frame>\d+)\.png',
    data_folder='UAVid', image_folder='img_dir/test', label_folder='ann_dir/test',
    rule=UAVID_COLOURS, pair_name='{sequence}_{frame}', tiling=Tiling((1080, 1280), (1080, 1280), BY_ROWS),
    note='Some releases lack the labels of the test part; uavid-val prepares the validation part instead',
)  # fmt: skip
COLOUR_SETS = (
    Recipe(
        name='potsdam', title='ISPRS Potsdam',
        source='a folder with 2_Ortho_RGB.zip and 5_Labels_all_noBoundary.zip (or these unpacked)',
        image=r'top_potsdam_(?P<row>\d+)_(?P<column>\d+)_RGB\.tiff?',
        label=r'top_potsdam_(?P<row>\d+)_(?P<column>\d+)_label_noBoundary\.tiff?',
        data_folder='potsdam', image_folder='img_dir/val', label_folder='ann_dir/val',
        rule=ISPRS_COLOURS, pair_name='{row}_{column}', tiling=ISPRS_TILING, names=POTSDAM_TEST,
    ),
    Recipe(
        name='vaihingen', title='ISPRS Vaihingen',
        source=(
            'a folder with ISPRS_semantic_labeling_Vaihingen.zip and '
            'ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE.zip (or these unpacked)'
        ),
        image=r'top/top_mosaic_09cm_area(?P<number>\d+)\.tiff?',
        label=r'top_mosaic_09cm_area(?P<number>\d+)_noBoundary\.tiff?',
        data_folder='vaihingen', image_folder='img_dir/val', label_folder='ann_dir/val',
        rule=ISPRS_COLOURS, pair_name='area{number}', tiling=ISPRS_TILING, names=VAIHINGEN_TEST,
    ),
    Recipe(
        name='iSAID', title='iSAID, validation part',
        source='iSAID: val with P....png (images of DOTA) and P..._instance_color_RGB.png, or archives of them',
        image=r'val/([^/]+/)*(?P<key>P\d+)\.png', label=r'val/([^/]+/)*(?P<key>P\d+)_instance_color_RGB\.png',
        data_folder='iSAID', image_folder='img_dir/val', label_folder='ann_dir/val',
        rule=ISAID_COLOURS, label_suffix='_instance_color_RGB.png',
        tiling=Tiling((896, 896), stride=(512, 512), tile_name=BY_ROWS, is_padded=True),
    ),
    UAVID,
    replace(
        UAVID, name='uavid-val', title='UAVid, validation part',
        source='UAVid: uavid_val (or val) with seq.../Images, Labels',
        image=UAVID.image.replace('test', 'val'), label=UAVID.label.replace('test', 'val'),
        image_folder='img_dir/val', label_folder='ann_dir/val', is_benchmark=False,
        note=(
            'Not the part the published figure is of. Evaluate it with --cfg-options '
            'test_dataloader.dataset.data_prefix.img_path=img_dir/val '
            'test_dataloader.dataset.data_prefix.seg_map_path=ann_dir/val'
        ),
    ),
)  # fmt: skip

HRSID = Recipe(
    name='hrsid', title='HRSID, ships', source='HRSID_JPG: JPEGImages, annotations/test2017.json',
    image=r'JPEGImages/(?P<key>[^/]+)\.jpg', label=r'annotations/test2017\.json',
    data_folder='HRSID', image_folder='HRSID_JPG/JPEGImages', label_folder='HRSID_JPG/label/test',
    rule=Polygons(), image_suffix='.jpg', written_list='HRSID_JPG/label/test.txt',
    note='The masks of the original evaluation are not public; these may differ from them along the outlines',
)  # fmt: skip
LOVEDA = Recipe(
    name='loveda', title='LoveDA, validation part',
    source='Val.zip: Val/Rural and Val/Urban with images_png, masks_png',
    image=r'Val/(Rural|Urban)/images_png/(?P<key>\d+)\.png', label=r'Val/(Rural|Urban)/masks_png/(?P<key>\d+)\.png',
    data_folder='LoveDA', image_folder='img_dir/val', label_folder='ann_dir/val', rule=Ids(8),
)  # fmt: skip
OPEN_EARTH_MAP = Recipe(
    name='openearthmap', title='OpenEarthMap, validation part without xBD',
    source='OpenEarthMap_wo_xBD: REGION/images, REGION/labels, val.txt',
    image=r'images/(?P<key>[^/]+)\.tiff?', label=r'labels/(?P<key>[^/]+)\.tiff?',
    data_folder='OpenEarthMap_val', image_folder='images', label_folder='labels',
    rule=Ids(9), image_suffix='.tif', label_suffix='.tif', list_name='val.txt', is_list_required=True,
)  # fmt: skip
YESEG = Recipe(
    name='yeseg', title='YESeg-OPT-SAR, radar images', config='cfg_yeseg_sar.py',
    source='YESeg-OPT-SAR: sar, label, test.txt',
    image=r'sar/(?P<key>[^/]+)\.png', label=r'label/(?P<key>[^/]+)\.png',
    data_folder='YESeg-OPT-SAR', image_folder='sar', label_folder='cvt_label',
    rule=YESEG_IDS, list_name='test.txt', written_list='test.txt',
    note="Evaluated are the images of the set's test.txt; pass another list with --list",
)  # fmt: skip

PROGRAMS: dict[str, dict[str, Recipe]] = {
    'binary_masks': {recipe.name: recipe for recipe in BINARY_SETS},
    'colour_tiles': {recipe.name: recipe for recipe in COLOUR_SETS},
    **{recipe.name: {recipe.name: recipe} for recipe in (HRSID, LOVEDA, OPEN_EARTH_MAP, YESEG)},
}
"""Program in tools/dataset_converters -> what it prepares; a program of one data set is called without its name."""


def preparation_command(config: str) -> str | None:
    """The command that prepares the data set of a config (``cfg_loveda.py``); None for sets used as downloaded."""
    for program, recipes in PROGRAMS.items():
        for name, recipe in recipes.items():
            if recipe.config == config and recipe.is_benchmark:
                words = [name] if len(recipes) > 1 else []
                return ' '.join(['python', f'tools/dataset_converters/{program}.py', *words, 'SOURCE'])
    return None
