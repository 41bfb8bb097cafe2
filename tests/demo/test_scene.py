from __future__ import annotations

import numpy as np
import pytest

from segearth.demo.classes import BUILDING, CLASSES, CROPLAND, PALETTE, ROAD, TREE, WATER
from segearth.demo.painting import cast_shadow, fractal_noise, smooth_noise, voronoi_cells
from segearth.demo.scene import make_scene

SIZE = 256


@pytest.fixture(scope='module')
def scenes():
    return [make_scene(seed, SIZE) for seed in range(10)]


def test_the_seed_decides(scenes):
    again = make_scene(3, SIZE)
    for layer in ('image', 'labels', 'height', 'row_direction'):
        np.testing.assert_array_equal(getattr(again, layer), getattr(scenes[3], layer))
    assert (scenes[3].image != scenes[4].image).any()


def test_layers(scenes):
    for scene in scenes:
        assert scene.image.shape == (SIZE, SIZE, 3) and scene.image.dtype == np.uint8
        assert scene.labels.shape == (SIZE, SIZE) and scene.labels.dtype == np.uint8
        assert scene.labels.max() < len(CLASSES)
        assert scene.height.shape == (SIZE, SIZE) and scene.height.dtype == np.float32
        assert scene.row_direction.dtype == np.float32


def test_every_class_occurs(scenes):
    assert set(np.unique([scene.labels for scene in scenes])) == set(range(len(CLASSES)))
    assert len(PALETTE) == len(set(PALETTE)) == len(CLASSES)


def test_heights_and_rows_go_with_the_labels(scenes):
    for scene in scenes:
        assert (scene.height[scene.labels == BUILDING] >= 3).all()
        assert (scene.height[np.isin(scene.labels, (ROAD, WATER, CROPLAND))] == 0).all()
        assert scene.height[scene.labels == TREE].min(initial=0) >= 0
        np.testing.assert_array_equal(np.isfinite(scene.row_direction), scene.labels == CROPLAND)


def test_a_shadow_lies_away_from_the_sun():
    height = np.zeros((40, 40), np.float32)
    height[18:22, 18:22] = 6
    shadow = cast_shadow(height, light=(-1.0, 0.0), length=2)  # sun in the north: y falls towards it
    assert shadow[24:28, 19].all() and not shadow[:22].any()
    assert not shadow[35:].any()  # 6 m cast 12 pixels


def test_noise_is_normalised():
    rng = np.random.default_rng(0)
    for field in (smooth_noise(rng, (200, 300), 8), fractal_noise(rng, (200, 300), (16, 8))):
        assert field.shape == (200, 300)
        assert abs(field.mean()) < 0.15 and field.std() == pytest.approx(1, abs=0.2)


def test_voronoi_cells_are_the_nearest_points():
    cells = voronoi_cells(np.random.default_rng(1), (30, 50), 5)
    points = np.random.default_rng(1).uniform(0, 1, (5, 2)).astype(np.float32) * (30, 50)
    y, x = np.mgrid[:30, :50]
    distances = np.hypot(y[..., None] - points[:, 0], x[..., None] - points[:, 1])
    np.testing.assert_array_equal(cells, distances.argmin(-1))
