"""The radar benchmark's files: the scenes of the optical benchmark as the radar sees them, with labels of its date.

Held out as those are: training starts at seed 0, choices are made on the validation seeds.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image

from segearth.demo.benchmark import BENCHMARK_SEED, NUM_SCENES, TILE_SIZE, _read, _replace, cut_tiles
from segearth.demo.sar import SarScene, add_speckle, sar_output, simulate_sar
from segearth.demo.scene import SCENE_SIZE, make_scene

LOOKS = (2.0, 4.0)  # drawn for each scene
MARKER = 'complete_sar.txt'

logger = logging.getLogger(__name__)


def ensure_sar_benchmark(
    root: Path,
    num_scenes: int = NUM_SCENES,
    size: int = SCENE_SIZE,
    tile: int = TILE_SIZE,
    first_seed: int = BENCHMARK_SEED,
) -> None:
    """Draws the radar benchmark into a folder unless it is already there.

    Writes root/img_dir/NAME.png (mode L, decibels as grey), root/ann_dir/NAME.png (mode L, ids of
    :data:`segearth.demo.classes.CLASSES`) and root/optical_dir/NAME.png (RGB, the optical partner, of another date:
    some places have changed), a marker last. Two processes may call it together.

    Args:
        root: Folder of the data set, made if absent.
        num_scenes: Scenes to draw.
        size: Side of a scene in pixels.
        tile: Side of an image in pixels.
        first_seed: Of the first scene; :data:`segearth.demo.benchmark.VALIDATION_SEED` for choices.
    """
    root = Path(root)
    content = f'{num_scenes} radar scenes of {size} from seed {first_seed} in tiles of {tile}\n'
    marker = root / MARKER
    if _read(marker) == content:
        return
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(marker.with_suffix('.lock')):
        if _read(marker) == content:
            return
        logger.info('drawing %d radar scenes into %s, some two seconds each', num_scenes, root)
        for number in range(num_scenes):
            _write_tiles(root, number, first_seed + number, size, tile)
        _replace(marker, content.encode())


def draw_radar_picture(radar: SarScene, seed: int) -> np.ndarray:
    """The benchmark's view of a radar scene: decibels as grey with the speckle of `seed`, (H, W) uint8."""
    rng = np.random.default_rng([22, seed])
    return sar_output(add_speckle(radar.intensity, rng, rng.uniform(*LOOKS)), 'picture')


def _write_tiles(root: Path, number: int, seed: int, size: int, tile: int) -> None:
    scene = make_scene(seed, size)
    radar = simulate_sar(scene, seed)
    picture = draw_radar_picture(radar, seed)
    layers = {'img_dir': picture, 'ann_dir': radar.labels, 'optical_dir': scene.image}
    for place, part in cut_tiles(size, tile):
        for folder, pixels in layers.items():
            _replace(root / folder / f'scene_{number:02d}_{place}.png', Image.fromarray(pixels[part]))
