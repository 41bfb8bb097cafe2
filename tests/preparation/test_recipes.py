"""Each data set in miniature, in the layout its authors publish."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS
from PIL import Image

import segearth.register  # noqa: F401 - configs refer to what it registers
from segearth.errors import DataError, MissingFileError
from segearth.paths import PROJECT_ROOT
from segearth.preparation.prepare import prepare
from segearth.preparation.recipe import PROGRAMS
from segearth.published import PUBLISHED

BINARY_SETS, COLOUR_SETS = PROGRAMS['binary_masks'], PROGRAMS['colour_tiles']
LOVEDA, OPEN_EARTH_MAP, YESEG = (PROGRAMS[name][name] for name in ('loveda', 'openearthmap', 'yeseg'))
ALL = {name: recipe for recipes in PROGRAMS.values() for name, recipe in recipes.items()}
PAIRS = {  # published image and label, and the name that results
    'whu_aerial': ('WHU/val/image/2_1.tif', 'WHU/val/label/2_1.tif', '2_1'),
    'whu_sat_II': ('East Asia/1.cropped/test/image/7.tif', 'East Asia/1.cropped/test/label/7.tif', '7'),
    'xBD': ('test/images/x_1_pre_disaster.png', 'test/targets/x_1_pre_disaster_target.png', 'x_1_pre_disaster'),
    'chn6-cug': ('CHN6-CUG/val/images/am_sat.jpg', 'CHN6-CUG/val/gt/am_mask.png', 'am'),
    'deepglobe_road': ('DeepGlobe_test_1530/image/6_sat.jpg', 'DeepGlobe_test_1530/label/6_mask.png', '6'),
    'massachusetts_road': ('Massachusetts_test_49/img/1.jpg', 'Massachusetts_test_49/label/1.png', '1'),
    'spacenet_road': ('SpaceNet_test_567/img/1.jpg', 'SpaceNet_test_567/gt/1.png', '1'),
}


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == 'L', path
        return np.array(image)


def labels_of(recipe, data: Path) -> dict[str, np.ndarray]:
    folder = data / recipe.data_folder
    images = {path.name.removesuffix(recipe.image_suffix) for path in (folder / recipe.image_folder).iterdir()}
    labels = {
        path.name.removesuffix(recipe.label_suffix): read(path) for path in (folder / recipe.label_folder).iterdir()
    }
    assert images == labels.keys()
    return labels


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / 'data'


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tmp_path / 'raw'


@pytest.mark.parametrize('name', ALL)
def test_results_lie_where_the_config_looks(name: str, tmp_path: Path) -> None:
    recipe = ALL[name]
    dataset = Config.fromfile(PROJECT_ROOT / 'configs' / recipe.config).test_dataloader.dataset
    assert Path(dataset.data_root).name == recipe.data_folder
    assert dataset.get('ann_file') == recipe.written_list
    (tmp_path / dataset.data_prefix.img_path).mkdir(parents=True)  # mmseg's iSAID looks for it
    settings = {**dataset, 'data_root': str(tmp_path), 'pipeline': [], 'lazy_init': True}
    read = DATASETS.get(settings.pop('type'))(**settings)
    label_suffix = '.jpg' if name == 'wbs-si' else recipe.label_suffix  # WaterDataset takes a PNG of the name too
    assert (read.img_suffix, read.seg_map_suffix) == (recipe.image_suffix, label_suffix)
    if name != 'uavid-val':
        assert dataset.data_prefix == {'img_path': recipe.image_folder, 'seg_map_path': recipe.label_folder}


def test_counts_are_of_configs_that_exist() -> None:
    assert all((PROJECT_ROOT / 'configs' / f'{name}.py').is_file() for name in PUBLISHED)


@pytest.mark.parametrize('is_packed', [False, True])
@pytest.mark.parametrize('name', PAIRS)
def test_binary_set(name: str, is_packed: bool, raw: Path, data: Path, save, pack, mask) -> None:
    image, label, result = PAIRS[name]
    is_ids = name == 'xBD'
    save(image, (6, 8))
    save(label, mask // 64 if is_ids else mask)
    save(f'{Path(label).parent.parent}/readme.png', (1, 1))
    source = pack(image.split('/')[0], f'{image.split("/")[0]}.zip') if is_packed else raw
    summary = prepare(BINARY_SETS[name], [source], data)
    labels = labels_of(BINARY_SETS[name], data)
    assert summary.num_results == summary.outcome.written == 1
    assert np.array_equal(labels[result], mask // 64 >= 1 if is_ids else mask >= 128)


def test_xbd_leaves_out_images_after_the_disaster(raw: Path, data: Path, save, mask) -> None:
    for time in ('pre', 'post'):
        save(f'test/images/x_{time}_disaster.png', (6, 8))
        save(f'test/targets/x_{time}_disaster_target.png', mask // 255)
    prepare(BINARY_SETS['xBD'], [raw], data)
    assert labels_of(BINARY_SETS['xBD'], data).keys() == {'x_pre_disaster'}


def test_inria_takes_its_test_split_in_tiles(raw: Path, data: Path, save) -> None:
    recipe = BINARY_SETS['inria']
    for name in (*recipe.names, 'austin2', 'vienna1'):
        size = (1200, 1000) if name == 'kitsap9' else (20, 30)
        save(f'AerialImageDataset/train/images/{name}.tif', np.zeros((*size, 3)))
        save(f'AerialImageDataset/train/gt/{name}.tif', np.full(size, 255))
    prepare(recipe, [raw / 'AerialImageDataset'], data)
    labels = labels_of(recipe, data)
    assert len(labels) == 28
    assert {'kitsap9_0_0_1000_1000', 'kitsap9_0_200_1000_1200', 'austin1_0_0_30_20'} <= labels.keys()
    assert all((label == 1).all() for label in labels.values())


def test_wbs_si_with_and_without_its_list(raw: Path, data: Path, save, mask, tmp_path: Path) -> None:
    recipe = BINARY_SETS['wbs-si']
    for number in (1, 2, 10):
        save(f'W/Images/water_body_{number}.jpg', (6, 8))
        save(f'W/Masks/water_body_{number}.jpg', mask, quality=95)
    summary = prepare(recipe, [raw / 'W'], data)
    written = data / recipe.data_folder / 'val.txt'
    assert summary.is_whole_source and summary.num_results == 3
    assert written.read_text().split() == ['water_body_1', 'water_body_2', 'water_body_10']
    assert labels_of(recipe, data)['water_body_2'].max() == 1
    names = tmp_path / 'list.txt'
    names.write_text('water_body_10.jpg\nwater_body_2\n\n')
    assert not prepare(recipe, [raw / 'W'], data, list_file=names).is_whole_source
    assert written.read_text().split() == ['water_body_2', 'water_body_10']
    prepare(recipe, [raw / 'W'], data)
    assert written.read_text().split() == ['water_body_2', 'water_body_10']  # the list that was given stays


def test_potsdam_from_two_archives(raw: Path, data: Path, save, pack) -> None:
    recipe = COLOUR_SETS['potsdam']
    colours = np.zeros((600, 700, 3))
    colours[:, 512:] = 0, 0, 255
    for name in (*recipe.names, '2_10'):
        size = (600, 700) if name == '7_13' else (9, 9)
        save(f'2_Ortho_RGB/top_potsdam_{name}_RGB.tif', size)
        save(f'5_Labels/top_potsdam_{name}_label_noBoundary.tif', colours[: size[0], : size[1]])
    pack('2_Ortho_RGB', '2_Ortho_RGB.zip')
    pack('5_Labels', '5_Labels_all_noBoundary.zip')
    summary = prepare(recipe, [raw], data)
    labels = labels_of(recipe, data)
    assert summary.num_results == 13 + 4 == len(labels)
    assert labels['7_13_188_0_700_512'].shape == (512, 512)
    assert (labels['7_13_188_88_700_600'][:, 512 - 188 :] == 2).all()
    assert (labels['7_13_0_0_512_512'] == 0).all()


def test_vaihingen_takes_images_from_top_and_eroded_labels(raw: Path, data: Path, save) -> None:
    recipe = COLOUR_SETS['vaihingen']
    for name in (*recipe.names, 'area1'):
        save(f'V/top/top_mosaic_09cm_{name}.tif', (9, 9))
        save(f'V/gts_for_participants/top_mosaic_09cm_{name}.tif', np.full((9, 9, 3), 255))
        save(f'top_mosaic_09cm_{name}_noBoundary.tif', np.zeros((9, 9, 3)))
    prepare(recipe, [raw], data)
    labels = labels_of(recipe, data)
    assert len(labels) == 17 and 'area2_0_0_9_9' in labels
    assert not any(label.any() for label in labels.values())


def test_isaid_from_parts_with_padding_and_palette(raw: Path, data: Path, save, pack) -> None:
    from mmseg.datasets import iSAIDDataset

    recipe = COLOUR_SETS['iSAID']
    colours = np.array(iSAIDDataset.METAINFO['palette'])
    ids = np.arange(300 * 900).reshape(300, 900) % 16
    save('images/P0003.png', (300, 900))
    pack('images', 'iSAID/val/images/part1.zip')
    save('images/P0003_instance_color_RGB.png', ids, palette=colours.ravel().tolist())
    save('images/P0003_instance_id_RGB.png', (300, 900))
    pack('images', 'iSAID/val/Semantic_masks/images.zip')
    save('iSAID/train/images/P0001.png', (9, 9))
    summary = prepare(recipe, [raw / 'iSAID'], data)
    folder = data / 'iSAID'
    dataset = iSAIDDataset(
        data_root=str(folder), data_prefix={'img_path': 'img_dir/val', 'seg_map_path': 'ann_dir/val'}, pipeline=[]
    )
    assert len(dataset) == summary.num_results == 2
    for place in range(2):
        assert Path(dataset.get_data_info(place)['seg_map_path']).is_file()
    label = labels_of(recipe, data)['P0003_0_896_4_900']
    assert np.array_equal(label[:300], ids[:, 4:]) and (label[300:] == 255).all()
    image = np.array(Image.open(folder / 'img_dir/val/P0003_0_896_0_896.png'))
    assert image.shape == (896, 896, 3) and not image[300:].any()


@pytest.mark.parametrize('test_part', ['test_gt', 'uavid_test', 'test'])
def test_uavid(test_part: str, raw: Path, data: Path, save) -> None:
    recipe = COLOUR_SETS['uavid']
    colours = np.zeros((1100, 1300, 3))
    colours[:] = 64, 0, 128
    for part in ('uavid_train', test_part):
        save(f'{part}/seq21/Images/000100.png', (1100, 1300))
        save(f'{part}/seq21/Labels/000100.png', colours)
    prepare(recipe, [raw], data)
    labels = labels_of(recipe, data)
    assert 'seq21_000100_20_1100_0_1280' in labels and len(labels) == 4
    assert all(label.shape == (1080, 1280) and (label == 3).all() for label in labels.values())


def test_uavid_without_test_labels_says_what_else_there_is(raw: Path, data: Path, save) -> None:
    save('uavid_test/seq21/Images/000100.png', (9, 9))
    with pytest.raises(DataError, match='0 labels.*uavid-val'):
        prepare(COLOUR_SETS['uavid'], [raw], data)


@pytest.mark.parametrize('has_palette', [False, True])
def test_openearthmap(has_palette: bool, raw: Path, data: Path, save) -> None:
    ids = np.arange(9).reshape(3, 3)
    for name in ('aachen_1', 'aachen_2', 'viru_7'):
        region = name.split('_')[0]
        save(f'OpenEarthMap_wo_xBD/{region}/images/{name}.tif', (3, 3))
        palette = list(range(27)) if has_palette else None
        save(f'OpenEarthMap_wo_xBD/{region}/labels/{name}.tif', ids, palette=palette)
    with pytest.raises(MissingFileError, match='val.txt'):
        prepare(OPEN_EARTH_MAP, [raw], data)
    (raw / 'OpenEarthMap_wo_xBD' / 'val.txt').write_text('aachen_2.tif\nviru_7.tif\n')
    prepare(OPEN_EARTH_MAP, [raw], data)
    labels = labels_of(OPEN_EARTH_MAP, data)
    assert labels.keys() == {'aachen_2', 'viru_7'}
    assert np.array_equal(labels['viru_7'], ids)


def test_loveda_from_an_archive(data: Path, save, pack) -> None:
    for area, number in (('Rural', 2522), ('Urban', 3514)):
        save(f'Val/{area}/images_png/{number}.png', (4, 4))
        save(f'Val/{area}/masks_png/{number}.png', np.full((4, 4), 7))
    prepare(LOVEDA, [pack('Val', 'Val.zip')], data)
    labels = labels_of(LOVEDA, data)
    assert labels.keys() == {'2522', '3514'}
    assert (labels['2522'] == 7).all()


def test_yeseg_in_place(tmp_path: Path, save) -> None:
    data, folder = tmp_path / 'raw', tmp_path / 'raw' / 'YESeg-OPT-SAR'
    for name in ('1', '2'):
        save(f'YESeg-OPT-SAR/sar/{name}.png', (2, 4))
        save(f'YESeg-OPT-SAR/label/{name}.png', np.arange(8).reshape(2, 4))
    (folder / 'test.txt').write_text('2\n')
    prepare(YESEG, [folder], data)
    assert [path.name for path in (folder / 'cvt_label').iterdir()] == ['2.png']
    assert read(folder / 'cvt_label' / '2.png').tolist() == [[255, 0, 1, 2], [3, 4, 5, 255]]
    assert (folder / 'test.txt').read_text() == '2\n'
