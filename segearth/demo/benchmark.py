"""The benchmarks of the generated world as files: its optical scenes, and the same as a radar sees them.

Training draws the seeds from 0, choices (such as lambda of Global Bias Alleviation) are made on the validation seeds,
and the benchmark seeds were looked at once, for the figures in weights/README.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image

from segearth.demo.sar import SarScene, add_speckle, sar_output, simulate_sar
from segearth.demo.scene import SCENE_SIZE, make_scene
from segearth.io.atomic import replacing, write_bytes

logger = logging.getLogger(__name__)

TILE_SIZE = 448  # pixels
NUM_SCENES = 15  # of SCENE_SIZE, each cut in four: 60 images
VALIDATION_SEED, BENCHMARK_SEED = 1_000_000, 5_000_000  # of the first scene; training starts at 0
MARKER, SAR_MARKER = 'complete.txt', 'complete_sar.txt'
LOOKS = (2.0, 4.0)  # of the radar's speckle, drawn for each scene

Layers = Callable[[int, int], Mapping[str, np.ndarray]]
"""Seed and size of a scene -> folder of the benchmark and what goes there, (H, W) or (H, W, 3)."""


def ensure_benchmark(root: Path, num_scenes: int = NUM_SCENES, size: int = SCENE_SIZE, tile: int = TILE_SIZE) -> None:
    """Draws the optical benchmark into a folder unless it is already there.

    Writes root/img_dir/NAME.png (RGB) and root/ann_dir/NAME.png (mode L, ids of
    :data:`segearth.demo.classes.CLASSES`), every file at once, and a marker last; a run that was cut off is completed
    by the next. Two processes may call it together: the second waits.

    Args:
        root: Folder of the data set, made if absent.
        num_scenes: Scenes to draw.
        size: Side of a scene in pixels.
        tile: Side of an image in pixels; the rest of a scene at the right and at the bottom is not used.
    """
    content = f'{num_scenes} scenes of {size} from seed {BENCHMARK_SEED} in tiles of {tile}\n'
    seeds = range(BENCHMARK_SEED, BENCHMARK_SEED + num_scenes)
    _ensure(Path(root) / MARKER, content, _optical_layers, seeds, size, tile)


def ensure_sar_benchmark(
    root: Path,
    num_scenes: int = NUM_SCENES,
    size: int = SCENE_SIZE,
    tile: int = TILE_SIZE,
    first_seed: int = BENCHMARK_SEED,
) -> None:
    """Draws the radar benchmark into a folder, as :func:`ensure_benchmark` does.

    Writes root/img_dir/NAME.png (mode L, decibels as grey), root/ann_dir/NAME.png (mode L, class ids at the radar's
    date) and root/optical_dir/NAME.png (RGB, the optical partner, of another date: some places have changed). The
    first scene is that of ``first_seed``: :data:`VALIDATION_SEED` for choices.
    """
    content = f'{num_scenes} radar scenes of {size} from seed {first_seed} in tiles of {tile}\n'
    seeds = range(first_seed, first_seed + num_scenes)
    _ensure(Path(root) / SAR_MARKER, content, _radar_layers, seeds, size, tile)


def draw_radar_picture(radar: SarScene, seed: int) -> np.ndarray:
    """The benchmark's view of a radar scene: decibels as grey with the speckle of ``seed``, (H, W) uint8."""
    rng = np.random.default_rng([22, seed])
    return sar_output(add_speckle(radar.intensity, rng, rng.uniform(*LOOKS)), 'picture')


def cut_tiles(size: int, tile: int) -> Iterator[tuple[str, tuple[slice, slice]]]:
    """Name (row and column) and slices of every whole tile of a scene, row by row."""
    for row in range(size // tile):
        for column in range(size // tile):
            yield f'{row}{column}', np.s_[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]


def _optical_layers(seed: int, size: int) -> Mapping[str, np.ndarray]:
    scene = make_scene(seed, size)
    return {'img_dir': scene.image, 'ann_dir': scene.labels}


def _radar_layers(seed: int, size: int) -> Mapping[str, np.ndarray]:
    scene = make_scene(seed, size)
    radar = simulate_sar(scene, seed)
    return {'img_dir': draw_radar_picture(radar, seed), 'ann_dir': radar.labels, 'optical_dir': scene.image}


def _ensure(marker: Path, content: str, layers: Layers, seeds: range, size: int, tile: int) -> None:
    if _holds(marker, content):
        return
    marker.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(marker.with_suffix('.lock')):
        if _holds(marker, content):  # another process was faster
            return
        logger.info('drawing %d scenes into %s, one to two seconds each', len(seeds), marker.parent)
        for number, seed in enumerate(seeds):
            _write_tiles(marker.parent, number, seed, layers, size, tile)
        write_bytes(marker, content.encode())


def _write_tiles(root: Path, number: int, seed: int, layers: Layers, size: int, tile: int) -> None:
    views = layers(seed, size)
    for place, part in cut_tiles(size, tile):
        for folder, pixels in views.items():
            with replacing(root / folder / f'scene_{number:02d}_{place}.png') as file:
                Image.fromarray(pixels[part]).save(file, format='PNG')


def _holds(marker: Path, content: str) -> bool:
    return marker.is_file() and marker.read_text() == content
