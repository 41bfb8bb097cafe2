"""Data sets of large images with colour-coded labels, cut into tiles."""

from __future__ import annotations

from dataclasses import replace

from segearth.preparation.label_rules import Colours
from segearth.preparation.recipes import Recipe
from segearth.preparation.tiling import Tiling

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

ISPRS_TILING = Tiling(window=(512, 512), stride=(512, 512))  # mmsegmentation's converter asks for 256 but steps by 512
BY_ROWS = '{name}_{y1}_{y2}_{x1}_{x2}'  # how the original names the tiles of iSAID and UAVid
ISAID_TILING = Tiling(window=(896, 896), stride=(512, 512), crop_name=BY_ROWS, is_padded=True)
UAVID_TILING = Tiling(window=(1080, 1280), stride=(1080, 1280), crop_name=BY_ROWS)  # 1280 wide

POTSDAM_TEST = frozenset({  # row_column
    '5_15', '6_15', '6_13', '3_13', '4_14', '6_14', '5_14', '2_13', '4_15', '2_14', '5_13', '4_13', '3_14', '7_13',
})  # fmt: skip
VAIHINGEN_TEST = frozenset(
    f'area{number}' for number in (2, 4, 6, 8, 10, 12, 14, 16, 20, 22, 24, 27, 29, 31, 33, 35, 38)
)

UAVID = Recipe(
    title='UAVid, test part',
    config='cfg_uavid.py',
    source='UAVid: test_gt (or uavid_test, test) with seq.../Images, Labels',
    image=r'(uavid_)?test(_gt)?/(?P<sequence>seq\d+)/Images/(?P<frame>\d+)\.png',
    label=r'(uavid_)?test(_gt)?/(?P<sequence>seq\d+)/Labels/(?P<frame>\d+)\.png',
    rule=UAVID_COLOURS,
    data_folder='UAVid',
    image_folder='img_dir/test',
    label_folder='ann_dir/test',
    name='{sequence}_{frame}',
    tiling=UAVID_TILING,
    note='Some releases lack the labels of the test part; uavid-val prepares the validation part instead',
)

COLOUR_SETS: dict[str, Recipe] = {
    'potsdam': Recipe(
        title='ISPRS Potsdam',
        config='cfg_potsdam.py',
        source='a folder with 2_Ortho_RGB.zip and 5_Labels_all_noBoundary.zip (or these unpacked)',
        image=r'top_potsdam_(?P<row>\d+)_(?P<column>\d+)_RGB\.tiff?',
        label=r'top_potsdam_(?P<row>\d+)_(?P<column>\d+)_label_noBoundary\.tiff?',
        rule=ISPRS_COLOURS,
        data_folder='potsdam',
        image_folder='img_dir/val',
        label_folder='ann_dir/val',
        name='{row}_{column}',
        tiling=ISPRS_TILING,
        names=POTSDAM_TEST,
    ),
    'vaihingen': Recipe(
        title='ISPRS Vaihingen',
        config='cfg_vaihingen.py',
        source=(
            'a folder with ISPRS_semantic_labeling_Vaihingen.zip and '
            'ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE.zip (or these unpacked)'
        ),
        image=r'top/top_mosaic_09cm_area(?P<number>\d+)\.tiff?',
        label=r'top_mosaic_09cm_area(?P<number>\d+)_noBoundary\.tiff?',
        rule=ISPRS_COLOURS,
        data_folder='vaihingen',
        image_folder='img_dir/val',
        label_folder='ann_dir/val',
        name='area{number}',
        tiling=ISPRS_TILING,
        names=VAIHINGEN_TEST,
    ),
    'iSAID': Recipe(
        title='iSAID, validation part',
        config='cfg_iSAID.py',
        source='iSAID: val with P....png (images of DOTA) and P..._instance_color_RGB.png, or archives of them',
        image=r'val/([^/]+/)*(?P<key>P\d+)\.png',
        label=r'val/([^/]+/)*(?P<key>P\d+)_instance_color_RGB\.png',
        rule=ISAID_COLOURS,
        data_folder='iSAID',
        image_folder='img_dir/val',
        label_folder='ann_dir/val',
        label_suffix='_instance_color_RGB.png',
        tiling=ISAID_TILING,
    ),
    'uavid': UAVID,
    'uavid-val': replace(
        UAVID,
        title='UAVid, validation part',
        source='UAVid: uavid_val (or val) with seq.../Images, Labels',
        image=UAVID.image.replace('test', 'val'),
        label=UAVID.label.replace('test', 'val'),
        image_folder='img_dir/val',
        label_folder='ann_dir/val',
        is_benchmark=False,
        note=(
            'Not the part the published figure is of. Evaluate it with --cfg-options '
            'test_dataloader.dataset.data_prefix.img_path=img_dir/val '
            'test_dataloader.dataset.data_prefix.seg_map_path=ann_dir/val'
        ),
    ),
}
