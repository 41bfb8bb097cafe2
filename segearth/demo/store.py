"""Generated scenes for training, kept on disk: each is drawn once, into a file of its own.

A file appears whole or not at all, so a drawing that was cut off goes on with the scenes that are missing, and several
trainings may begin together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock

from segearth.demo.sar import sar_output, simulate_sar
from segearth.demo.scene import SCENE_SIZE, make_scene
from segearth.io.atomic import replacing

logger = logging.getLogger(__name__)


def image_and_labels(seed: int, size: int) -> np.ndarray:
    """Layers (H, W, 4) uint8 of a scene: red, green, blue, class ids."""
    scene = make_scene(seed, size)
    return np.dstack([scene.image, scene.labels])


def image_and_radar(seed: int, size: int) -> np.ndarray:
    """Layers (H, W, 4) uint8 of a scene: red, green, blue, its radar picture without speckle."""
    scene = make_scene(seed, size)
    return np.dstack([scene.image, sar_output(simulate_sar(scene, seed).intensity, 'picture')])


def store_scenes(
    folder: str | Path,
    seeds: Iterable[int],
    layers: Callable[[int, int], np.ndarray],
    size: int = SCENE_SIZE,
    num_workers: int = 2,
) -> list[Path]:
    """Draws the scenes that a folder does not hold yet.

    Args:
        folder: Where they are kept between runs; made if absent.
        seeds: One scene each.
        layers: :func:`image_and_labels` or :func:`image_and_radar`.
        size: Side of a scene in pixels.
        num_workers: Processes that draw.

    Returns:
        One file of NumPy (.npy) a seed, in their order, with ``layers(seed, size)``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {seed: folder / f'{layers.__name__}_{size}_{seed}.npy' for seed in seeds}
    with FileLock(folder / 'drawing.lock'):
        missing = [seed for seed, path in files.items() if not path.is_file()]
        if missing:
            with ProcessPoolExecutor(num_workers) as workers:
                drawn = workers.map(partial(_store, layers, size), missing, (files[seed] for seed in missing))
                for number, _ in enumerate(drawn, 1):
                    if number % 20 == 0 or number == len(missing):
                        logger.info('%s: scene %d of %d is drawn', folder, number, len(missing))
    return list(files.values())


def _store(layers: Callable[[int, int], np.ndarray], size: int, seed: int, path: Path) -> None:
    with replacing(path) as part, open(part, 'wb') as file:
        np.save(file, layers(seed, size))
