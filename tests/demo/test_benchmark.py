from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from segearth.demo import files
from segearth.demo.classes import CLASSES
from segearth.demo.files import BENCHMARK_SEED, MARKER, VALIDATION_SEED, ensure_benchmark
from segearth.demo.scene import make_scene

SMALL = {'num_scenes': 2, 'size': 128, 'tile': 64}


def snapshot(root):
    return {path.relative_to(root): path.stat().st_mtime_ns for path in root.rglob('*.png')}


def test_tiles_are_the_scene(tmp_path):
    ensure_benchmark(tmp_path, **SMALL)
    names = sorted(path.name for path in (tmp_path / 'img_dir').iterdir())
    assert len(names) == 8
    assert names == sorted(path.name for path in (tmp_path / 'ann_dir').iterdir())
    scene = make_scene(BENCHMARK_SEED + 1, 128)
    image, labels = Image.open(tmp_path / 'img_dir' / names[6]), Image.open(tmp_path / 'ann_dir' / names[6])
    assert (image.mode, labels.mode) == ('RGB', 'L')
    np.testing.assert_array_equal(np.array(image), scene.image[64:, :64])
    np.testing.assert_array_equal(np.array(labels), scene.labels[64:, :64])
    assert np.array(labels).max() < len(CLASSES)


def test_a_second_call_changes_nothing(tmp_path):
    ensure_benchmark(tmp_path, **SMALL)
    before = snapshot(tmp_path)
    ensure_benchmark(tmp_path, **SMALL)
    assert snapshot(tmp_path) == before


def test_two_callers_draw_it_once(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(files, 'make_scene', lambda seed, size: drawn.append(seed) or make_scene(seed, size))
    with ThreadPoolExecutor(2) as callers:
        list(callers.map(lambda _: ensure_benchmark(tmp_path, **SMALL), range(2)))
    assert len(drawn) == SMALL['num_scenes']


def test_an_interrupted_drawing_is_completed(tmp_path, monkeypatch):
    def fail(seed, size):
        if seed > BENCHMARK_SEED:
            raise KeyboardInterrupt
        return make_scene(seed, size)

    with monkeypatch.context() as patch:
        patch.setattr(files, 'make_scene', fail)
        with pytest.raises(KeyboardInterrupt):
            ensure_benchmark(tmp_path, **SMALL)
    assert not (tmp_path / MARKER).exists()
    ensure_benchmark(tmp_path, **SMALL)
    assert (tmp_path / MARKER).exists() and len(snapshot(tmp_path)) == 16
    assert not list(tmp_path.rglob('*.part'))


def test_training_validation_and_benchmark_are_apart():
    assert 100_000 < VALIDATION_SEED < VALIDATION_SEED + 100_000 < BENCHMARK_SEED
