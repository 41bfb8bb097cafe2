"""Scenes held out for the benchmark and for validation, and the benchmark's files.

Training draws the seeds from 0, choices (such as lambda of Global Bias Alleviation) are made on the validation seeds,
and the benchmark seeds were looked at once, for the figures in weights/README.md.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image

from segearth.demo.scene import SCENE_SIZE, make_scene
from segearth.io.atomic import replacing

logger = logging.getLogger(__name__)

TILE_SIZE = 448  # pixels
NUM_SCENES = 15  # of SCENE_SIZE, each cut in four: 60 images
VALIDATION_SEED, BENCHMARK_SEED = 1_000_000, 5_000_000  # of the first scene; training starts at 0
MARKER = 'complete.txt'


def ensure_benchmark(root: Path, num_scenes: int = NUM_SCENES, size: int = SCENE_SIZE, tile: int = TILE_SIZE) -> None:
    """Draws the benchmark into a folder unless it is already there.

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
    marker = Path(root) / MARKER
    if _read(marker) == content:
        return
    marker.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(marker.with_suffix('.lock')):
        if _read(marker) == content:
            return
        logger.info('drawing %d scenes into %s, about a second each', num_scenes, root)
        for number in range(num_scenes):
            _write_tiles(Path(root), number, size, tile)
        _replace(marker, content.encode())


def _write_tiles(root: Path, number: int, size: int, tile: int) -> None:
    scene = make_scene(BENCHMARK_SEED + number, size)
    for place, part in cut_tiles(size, tile):
        for folder, pixels in (('img_dir', scene.image[part]), ('ann_dir', scene.labels[part])):
            _replace(root / folder / f'scene_{number:02d}_{place}.png', Image.fromarray(pixels))


def cut_tiles(size: int, tile: int) -> Iterator[tuple[str, tuple[slice, slice]]]:
    """Name (row and column) and slices of every whole tile of a scene, row by row."""
    for row in range(size // tile):
        for column in range(size // tile):
            yield f'{row}{column}', np.s_[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]


def _replace(path: Path, content: Image.Image | bytes) -> None:
    """Writes beside `path` first, so that a half-written file never bears its name."""
    with replacing(path) as part:
        if isinstance(content, bytes):
            part.write_bytes(content)
        else:
            content.save(part, format='PNG')


def _read(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None
