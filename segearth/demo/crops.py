"""The training scenes on disk, and image-caption pairs cut from them.

Scenes are generated once into two memory-mapped arrays (a run that is cut off goes on where it was). Crops are drawn
anew in every step. Buildings and roads cover little, so most plain crops hardly show them: each crop looks for one
class drawn evenly, and the best of some random places is taken. Labels serve the area fractions and nothing else.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator

from segearth.demo.captions import draw_caption
from segearth.demo.classes import CLASSES
from segearth.demo.scene import SCENE_SIZE, make_scene
from segearth.io.atomic import write_bytes

logger = logging.getLogger(__name__)

NUM_CANDIDATES = 5  # places compared for each crop


@dataclass(frozen=True)
class ScenePool:
    """Scenes and their labels, memory-mapped: (S, H, W, 3) and (S, H, W), both uint8."""

    images: np.ndarray
    labels: np.ndarray

    def draw_crops(self, rng: Generator, num_crops: int, size: int) -> tuple[np.ndarray, list[str]]:
        """Draws crops with captions.

        Args:
            rng: Source of randomness.
            num_crops: How many.
            size: Side in pixels.

        Returns:
            Crops (B, size, size, 3) uint8, flipped and turned at random, and their B captions.
        """
        crops, captions = np.empty((num_crops, size, size, 3), np.uint8), []
        num_scenes, height, width = self.labels.shape
        for i in range(num_crops):
            wanted = int(rng.integers(len(CLASSES)))
            places = zip(
                rng.integers(num_scenes, size=NUM_CANDIDATES),
                rng.integers(height - size + 1, size=NUM_CANDIDATES),
                rng.integers(width - size + 1, size=NUM_CANDIDATES),
                strict=True,
            )
            scene, y, x = max(places, key=partial(self._coarse_fraction, size=size, wanted=wanted))
            labels = self.labels[scene, y : y + size, x : x + size]
            fractions = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
            captions.append(draw_caption(rng, fractions))
            crop = np.rot90(self.images[scene, y : y + size, x : x + size], int(rng.integers(4)))
            crops[i] = crop[:, ::-1] if rng.integers(2) else crop
        return crops, captions

    def _coarse_fraction(self, place: tuple[int, int, int], size: int, wanted: int) -> float:
        scene, y, x = place
        return float((self.labels[scene, y : y + size : 6, x : x + size : 6] == wanted).mean())


def open_pool(folder: Path, seeds: Iterable[int], size: int = SCENE_SIZE, num_workers: int = 2) -> ScenePool:
    """Opens the pool of `seeds` in `folder`, generating what is missing.

    Args:
        folder: Holds images.npy, labels.npy and done.json; made if absent, started anew for other seeds or sizes.
        seeds: One scene each.
        size: Side of a scene in pixels.
        num_workers: Processes that generate.
    """
    seeds = list(seeds)
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / 'done.json'
    wanted = {'seeds': seeds, 'size': size}
    state = json.loads(record.read_text()) if record.is_file() else {}
    done = state.get('done', 0) if {key: state.get(key) for key in wanted} == wanted else 0
    mode = 'r+' if done else 'w+'
    shape = (len(seeds), size, size)
    images = np.lib.format.open_memmap(folder / 'images.npy', mode, np.uint8, (*shape, 3))
    labels = np.lib.format.open_memmap(folder / 'labels.npy', mode, np.uint8, shape)
    if done < len(seeds):
        start, first = time.monotonic(), done
        with ProcessPoolExecutor(num_workers) as workers:
            for scene in workers.map(partial(make_scene, size=size), seeds[done:]):
                images[done], labels[done] = scene.image, scene.labels
                done += 1
                if done % 20 == 0 or done == len(seeds):
                    write_bytes(record, json.dumps({**wanted, 'done': done}).encode())
                    left = (time.monotonic() - start) / (done - first) * (len(seeds) - done)
                    logger.info('scene %d of %d, %.1f min left', done, len(seeds), left / 60)
    return ScenePool(images, labels)
