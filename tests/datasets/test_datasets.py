from __future__ import annotations

import pickle

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, TRANSFORMS

from segearth.datasets.checks import check_files_exist, check_headers, find_broken
from segearth.datasets.sets import RemoteSensingDataset, WaterDataset, WHUDataset, WHUSARDataset
from segearth.datasets.transforms import class_table
from segearth.errors import ConfigError, DataError, MissingFileError

IMAGE = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
LABEL = IMAGE[..., 0] // 128
PIPELINE = [{'type': 'LoadOpticalImage'}, {'type': 'LoadSegLabel'}, {'type': 'PackSegInputs'}]
OURS = {name: cls for name, cls in DATASETS.module_dict.items() if cls.__module__.startswith('segearth')}


@pytest.fixture(autouse=True)
def mmseg_scope():
    init_default_scope('mmseg')


@pytest.fixture
def pairs(write, tmp_path):
    for name in 'abc':
        write(f'img/{name}.png', IMAGE)
        write(f'lab/{name}.png', LABEL)
    return tmp_path


def build(root, cls=WHUDataset, **settings) -> RemoteSensingDataset:
    prefix = {'img_path': 'img', 'seg_map_path': 'lab'}
    return cls(**{'data_root': str(root), 'data_prefix': prefix, 'pipeline': PIPELINE, **settings})


def test_every_class_has_a_colour_of_its_own():
    assert len(OURS) == 20
    for cls in OURS.values():
        colours = {tuple(colour) for colour in cls.METAINFO['palette']}
        assert len(colours) == len(cls.METAINFO['classes'])
        assert cls.__doc__


def test_samples(pairs):
    dataset = build(pairs)
    sample = dataset[1]
    assert np.array_equal(sample['inputs'].numpy().transpose(1, 2, 0)[..., ::-1], IMAGE)
    assert np.array_equal(sample['data_samples'].gt_sem_seg.data[0].numpy(), LABEL)
    assert len(pickle.loads(pickle.dumps(dataset))) == 3


def test_the_zero_label_is_reduced(pairs, write):
    write('lab/a.png', np.full((16, 24), 255, np.uint8))
    dataset = build(pairs, WHUSARDataset, img_suffix='.png', seg_map_suffix='.png')
    assert (dataset[0]['data_samples'].gt_sem_seg.data == 255).all()
    expected = np.where(LABEL == 0, 255, LABEL - 1)
    assert np.array_equal(dataset[1]['data_samples'].gt_sem_seg.data[0].numpy(), expected)


def test_a_subset_of_the_classes(pairs):
    dataset = build(pairs, metainfo={'classes': ('building',)})
    assert np.array_equal(dataset[0]['data_samples'].gt_sem_seg.data[0].numpy(), np.where(LABEL == 0, 255, 0))


def test_classes_may_be_chosen_in_another_order(pairs):
    dataset = build(pairs, metainfo={'classes': ('building', 'background')})
    assert np.array_equal(dataset[0]['data_samples'].gt_sem_seg.data[0].numpy(), 1 - LABEL)


def test_table_of_classes():
    assert class_table(False, {0: 1, 1: 0, 2: 255})[[0, 1, 2, 3, 255]].tolist() == [1, 0, 255, 3, 255]
    assert class_table(True, None)[[0, 1, 2, 254, 255]].tolist() == [255, 0, 1, 253, 255]
    assert class_table(True, {0: 1, 1: 0})[[0, 1, 2, 255]].tolist() == [255, 1, 0, 255]


def test_water_labels_may_be_png(write, tmp_path):
    write('img/a.jpg', IMAGE)
    write('lab/a.png', LABEL)
    assert build(tmp_path, WaterDataset)[0]['data_samples'].gt_sem_seg.data.max() == 1


def test_labels_are_checked_against_the_classes(pairs, write):
    write('lab/b.png', LABEL + 1)
    with pytest.raises(DataError, match='b.png.*outside the classes: 2'):
        build(pairs)[1]


def test_label_of_another_size(pairs, write):
    write('lab/b.png', LABEL[:8])
    dataset = build(pairs)
    for use in (lambda: dataset[1], lambda: check_headers(dataset)):
        with pytest.raises(DataError, match='b.png is 8 x 24.*b.png is 16 x 24'):
            use()


@pytest.mark.parametrize(('kind', 'message'), [('P', 'palette'), ('RGB', '3 bands')])
def test_headers_show_labels_that_are_pictures(pairs, write, kind, message):
    write('lab/b.png', IMAGE if kind == 'RGB' else LABEL, mode=kind)
    with pytest.raises(DataError, match=message):
        check_headers(build(pairs))


def test_missing_labels_are_counted(pairs):
    (pairs / 'lab' / 'b.png').unlink()
    (pairs / 'lab' / 'c.png').unlink()
    with pytest.raises(MissingFileError, match='label file missing for 2 of 3 images: .*b.png, .*c.png'):
        check_files_exist(build(pairs))


def test_listed_images_must_exist(pairs):
    (pairs / 'list.txt').write_text('a\nz\n')
    with pytest.raises(MissingFileError, match='image file missing for 1 of 2 images: .*z.png'):
        check_files_exist(build(pairs, ann_file='list.txt'))


def test_missing_folders_and_lists(pairs):
    for settings, message in (
        ({'data_prefix': {'img_path': 'no', 'seg_map_path': 'lab'}}, 'image folder of WHUDataset not found: .*no'),
        ({'data_prefix': {'img_path': 'img', 'seg_map_path': 'no'}}, 'label folder .*no.*SEGEARTH_DATA'),
        ({'ann_file': 'no.txt'}, 'list of images .*no.txt'),
    ):
        with pytest.raises(MissingFileError, match=message):
            build(pairs, **settings)


def test_empty_data_sets(pairs):
    with pytest.raises(DataError, match=r'WHUDataset is empty.*ending in .tif \(it has 3 .png\).*img_suffix'):
        build(pairs, img_suffix='.tif')
    (pairs / 'list.txt').write_text('')
    with pytest.raises(DataError, match='list.txt names no images'):
        build(pairs, ann_file='list.txt')


def test_broken_files_are_found_and_faulty_labels_are_not_among_them(pairs, write, truncate):
    truncate(pairs / 'img' / 'a.png')
    truncate(pairs / 'lab' / 'c.png')
    assert list(find_broken(build(pairs))) == [0, 2]
    write('lab/b.png', LABEL + 5)
    with pytest.raises(DataError, match='outside the classes'):
        find_broken(build(pairs))


def test_demo_data_set_needs_a_folder():
    with pytest.raises(ConfigError, match='data_root'):
        DATASETS.get('DemoDataset')()


def test_demo_data_set_is_drawn_when_first_used(write, tmp_path, monkeypatch):
    def draw(root):
        write(f'{root.relative_to(tmp_path)}/img_dir/a.png', IMAGE)
        write(f'{root.relative_to(tmp_path)}/ann_dir/a.png', LABEL + 5)

    monkeypatch.setattr('segearth.demo.files.ensure_benchmark', draw)
    dataset = DATASETS.get('DemoDataset')(data_root=str(tmp_path / 'demo'), pipeline=PIPELINE)
    assert len(dataset) == 1
    assert np.array_equal(dataset[0]['data_samples'].gt_sem_seg.data[0].numpy(), LABEL + 5)


def test_radar_loader_turns_channels_round_for_mmseg(write):
    both = np.stack([np.full((4, 5), -20.0), np.full((4, 5), -10.0)]).astype(np.float32)
    path = write('a.tif', both)
    sample = TRANSFORMS.build({'type': 'LoadSARImage'})({'img_path': str(path)})
    assert sample['img'].shape == (4, 5, 3)
    assert sample['ori_shape'] == (4, 5)
    blue, green, red = sample['img'][0, 0]
    assert (red, green) == (51, 224)  # -20 dB in -25..0, -10 dB in -32..-7
    assert (
        TRANSFORMS.build({'type': 'LoadSARImage', 'to_float32': True})({'img_path': str(path)})['img'].dtype
        == np.float32
    )
