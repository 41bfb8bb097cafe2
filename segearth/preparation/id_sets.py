"""Data sets whose labels hold ids already: chosen, gathered or renumbered."""

from __future__ import annotations

from segearth.preparation.label_rules import IGNORE_INDEX, Ids
from segearth.preparation.recipes import Recipe

# YESeg-OPT-SAR publishes 0 background, 1 bare ground, 2 low vegetation, 3 trees, 4 houses, 5 water, 6 roads, 7 other;
# the six classes of the benchmark are 1 to 6. Background, other and all numbers beyond say of no pixel what it is.
YESEG_CLASSES = ((1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (6, 5))

OPEN_EARTH_MAP = Recipe(
    title='OpenEarthMap, validation part without xBD',
    config='cfg_openearthmap.py',
    source='OpenEarthMap_wo_xBD: REGION/images, REGION/labels, val.txt',
    image=r'images/(?P<key>[^/]+)\.tiff?',
    label=r'labels/(?P<key>[^/]+)\.tiff?',
    rule=Ids(9),
    data_folder='OpenEarthMap_val',
    image_folder='images',
    label_folder='labels',
    image_suffix='.tif',
    label_suffix='.tif',
    list_name='val.txt',
    is_list_required=True,
)
LOVEDA = Recipe(
    title='LoveDA, validation part',
    config='cfg_loveda.py',
    source='Val.zip: Val/Rural and Val/Urban with images_png, masks_png',
    image=r'Val/(Rural|Urban)/images_png/(?P<key>\d+)\.png',
    label=r'Val/(Rural|Urban)/masks_png/(?P<key>\d+)\.png',
    rule=Ids(8),
    data_folder='LoveDA',
    image_folder='img_dir/val',
    label_folder='ann_dir/val',
)
YESEG = Recipe(
    title='YESeg-OPT-SAR, radar images',
    config='cfg_yeseg_sar.py',
    source='YESeg-OPT-SAR: sar, label, test.txt',
    image=r'sar/(?P<key>[^/]+)\.png',
    label=r'label/(?P<key>[^/]+)\.png',
    rule=Ids(IGNORE_INDEX + 1, YESEG_CLASSES),
    data_folder='YESeg-OPT-SAR',
    image_folder='sar',
    label_folder='cvt_label',
    list_name='test.txt',
    written_list='test.txt',
    note="Evaluated are the images of the set's test.txt; pass another list with --list",
)
