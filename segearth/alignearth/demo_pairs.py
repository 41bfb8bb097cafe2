"""Pairs of the generated world: an optical scene and its simulated radar partner."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from mmengine.registry import DATASETS
from torch import Tensor
from torch.utils.data import Dataset

from segearth.alignearth.augmentation import build_augmentation
from segearth.alignearth.pair_dataset import to_sample
from segearth.alignearth.pairs import Pair
from segearth.demo.sar import sar_output, simulate_sar
from segearth.demo.scene import SCENE_SIZE, make_scene
from segearth.training.files import write_whole
from segearth.training.sampler import draw_index

AUGMENTATION = {'looks': (1.0, 4.0), 'speckle_chance': 1.0, 'gain_db': 1.5}  # the stored scenes have no speckle


@DATASETS.register_module()
class DemoPairs(Dataset):
    """Crops of generated pairs; drawn into a folder when first used.

    Args:
        folder: Where the pairs are kept between runs.
        num_scenes: How many.
        first_seed: Seed of the first scene; training starts at 0, validation at
            :data:`segearth.demo.benchmark.VALIDATION_SEED`.
        size: Side of the crops in pixels.
        augmentation: Arguments of :class:`segearth.alignearth.augmentation.Augmentation` in place of the usual.
        scene_size: Side of the scenes in pixels.
        seed: Of crops and augmentation.
    """

    def __init__(
        self,
        folder: str,
        num_scenes: int = 64,
        first_seed: int = 0,
        size: int = 224,
        augmentation: dict[str, Any] | None = None,
        scene_size: int = SCENE_SIZE,
        seed: int = 0,
    ) -> None:
        seeds = range(first_seed, first_seed + num_scenes)
        self.files = draw_pairs(Path(folder), seeds, scene_size)
        self.augment = build_augmentation(AUGMENTATION | (augmentation or {}))
        self.size, self.seed = size, seed

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Sample ``number``, see :func:`segearth.alignearth.pair_dataset.to_sample`."""
        index, rng = draw_index(number, len(self.files), self.seed)
        layers = np.load(self.files[index], mmap_mode='r')  # (H, W, 4): red, green, blue, radar
        y, x = (int(rng.integers(side - self.size + 1)) for side in layers.shape[:2])
        margin = self.augment.max_shift
        rows, columns = (slice(max(0, start - margin), start + self.size + margin) for start in (y, x))
        crop = np.array(layers[rows, columns])
        pair = Pair(crop[..., :3], np.repeat(crop[..., 3:], 3, 2), np.ones(crop.shape[:2], bool))
        return to_sample(self.augment(pair, self.size, rng))


def draw_pairs(folder: Path, seeds: Iterable[int], size: int = SCENE_SIZE, num_workers: int = 2) -> list[Path]:
    """Draws pairs that are not in a folder yet: one file (H, W, 4) uint8 each, radar without speckle last."""
    seeds = list(seeds)
    files = [folder / f'pair_{size}_{seed}.npy' for seed in seeds]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / 'drawing.lock'):
        missing = [(path, seed, size) for path, seed in zip(files, seeds, strict=True) if not path.is_file()]
        if len(missing) > 1:
            with ProcessPoolExecutor(num_workers) as workers:
                list(workers.map(_draw_pair, missing))
        elif missing:
            _draw_pair(missing[0])
    return files


def _draw_pair(task: tuple[Path, int, int]) -> None:
    path, seed, size = task
    scene = make_scene(seed, size)
    radar = sar_output(simulate_sar(scene, seed).intensity, 'picture')
    layers = np.concatenate([scene.image, radar[..., None]], 2)

    def write(part: str) -> None:
        with open(part, 'wb') as file:
            np.save(file, layers)

    write_whole(path, write)
