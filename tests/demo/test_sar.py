from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from segearth.alignearth.generated import DemoPairs
from segearth.demo.classes import BUILDING, CROPLAND, ROAD, TREE, WATER
from segearth.demo.files import ensure_sar_benchmark
from segearth.demo.sar import add_speckle, misregister, sar_output, simulate_sar
from segearth.demo.scene import Scene, make_scene
from segearth.errors import ConfigError
from segearth.io.pictures import sar_to_rgb


@pytest.fixture(scope='module')
def scene():
    return make_scene(3_000_002, 192)


def test_same_seed_same_scene(scene):
    one, other = simulate_sar(scene, 5), simulate_sar(scene, 5)
    assert np.array_equal(one.intensity, other.intensity)
    assert not np.array_equal(one.intensity, simulate_sar(scene, 6).intensity)
    assert one.intensity.dtype == np.float32
    assert (one.intensity > 0).all()


def test_covers_are_as_bright_as_they_should_be():
    covers = np.array([[WATER, ROAD], [TREE, BUILDING]], np.uint8)
    radar = simulate_sar(flat(covers.repeat(32, 0).repeat(32, 1)), 5, num_changes=0)
    decibels = sar_output(radar.intensity)
    means = {cover: np.median(decibels[radar.labels == cover]) for cover in (WATER, ROAD, TREE, BUILDING)}
    assert means[WATER] < means[ROAD] < min(means[TREE], means[BUILDING])
    assert not radar.changed.any()


def flat(labels, height=None, rows=np.nan):
    shape = labels.shape
    height = np.zeros(shape, np.float32) if height is None else height
    return Scene(np.full((*shape, 3), 128, np.uint8), labels, height, np.full(shape, rows, np.float32))


def test_a_wall_is_bright_towards_the_radar_and_shadowed_behind():
    labels, height = np.full((96, 96), ROAD, np.uint8), np.zeros((96, 96), np.float32)
    labels[40:56, 40:56], height[40:56, 40:56] = BUILDING, 8
    sides = {'up': (slice(37, 40), slice(44, 52)), 'down': (slice(57, 68), slice(44, 52)),
             'left': (slice(44, 52), slice(37, 40)), 'right': (slice(44, 52), slice(57, 68))}  # fmt: skip
    seen = []
    for seed in range(12):
        decibels = sar_output(simulate_sar(flat(labels, height), seed, 0).intensity)
        seen += [(decibels[place].max(), decibels[place].min()) for place in sides.values()]
    assert max(brightest for brightest, _ in seen) > 0  # double bounce
    assert min(darkest for _, darkest in seen) < -23.5  # shadow


def test_rows_across_the_look_are_brighter():
    labels = np.full((64, 64), CROPLAND, np.uint8)
    directions = np.linspace(0, np.pi, 12, endpoint=False)
    levels = np.array([
        [sar_output(simulate_sar(flat(labels, rows=angle), seed, 0).intensity).mean() for angle in directions]
        for seed in range(6)
    ])  # fmt: skip
    assert np.median(np.ptp(levels, axis=1)) > 3


def test_speckle_statistics():
    speckled = add_speckle(np.full((200, 200), 0.1, np.float32), np.random.default_rng(0), 4)
    assert speckled.mean() == pytest.approx(0.1, rel=0.02)
    assert speckled.var() / 0.01 == pytest.approx(1 / 4, rel=0.05)


def test_outputs():
    intensity = np.array([[1.0, 0.01], [1e-4, 0.1]], np.float32)
    np.testing.assert_allclose(sar_output(intensity), [[0, -20], [-40, -10]], atol=1e-4)
    np.testing.assert_allclose(sar_output(intensity, 'amplitude'), [[1, 0.1], [0.01, 0.31623]], atol=1e-4)
    picture = sar_output(intensity, 'picture')
    assert picture.tolist() == [[255, 51], [1, 153]]
    from_decibels = sar_to_rgb(sar_output(np.full((20, 20), 0.01, np.float32)))
    assert from_decibels[0, 0, 0] == 51
    with pytest.raises(ConfigError, match='known: db'):
        sar_output(intensity, 'phase')


def test_misregistration():
    image = np.arange(20).reshape(4, 5)
    moved = misregister(image, (1, -2))
    assert moved[1:, :3].tolist() == image[:-1, 2:].tolist()


def test_changes_are_marked():
    before = flat(np.full((96, 96), CROPLAND, np.uint8))
    radar = [simulate_sar(before, seed, 8) for seed in range(3)]
    assert any(entry.changed.any() for entry in radar)
    for entry in radar:
        assert np.array_equal(entry.changed, entry.labels != before.labels)


def test_benchmark_files(tmp_path):
    ensure_sar_benchmark(tmp_path, num_scenes=1, size=128, tile=64)
    names = [f'scene_00_{row}{column}.png' for row in range(2) for column in range(2)]
    for folder, mode in (('img_dir', 'L'), ('ann_dir', 'L'), ('optical_dir', 'RGB')):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == names
        with Image.open(tmp_path / folder / names[0]) as image:
            assert (image.mode, image.size) == (mode, (64, 64))
    before = (tmp_path / 'img_dir' / names[0]).stat().st_mtime_ns
    ensure_sar_benchmark(tmp_path, num_scenes=1, size=128, tile=64)
    assert (tmp_path / 'img_dir' / names[0]).stat().st_mtime_ns == before


def test_pairs(tmp_path):
    pairs = DemoPairs(str(tmp_path), num_scenes=1, size=64, scene_size=128, augmentation={'max_shift': 3})
    sample = pairs[3]
    assert sample['optical'].shape == sample['sar'].shape == (3, 64, 64)
    assert sample['valid'].all()
    assert (sample['sar'] > 0).all()
