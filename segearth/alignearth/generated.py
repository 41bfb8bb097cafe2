"""Pairs of the generated world, an optical scene and its simulated radar partner, for configs that name them."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.registry import DATASETS
from torch import Tensor
from torch.utils.data import Dataset

from segearth.alignearth.pair_data import build_augmentation, to_sample
from segearth.alignearth.pairs import Pair
from segearth.demo.scene import SCENE_SIZE
from segearth.demo.store import image_and_radar, store_scenes
from segearth.training.data import draw_index

AUGMENTATION = {'looks': (1.0, 4.0), 'speckle_chance': 1.0, 'gain_db': 1.5}  # the stored scenes have no speckle


@DATASETS.register_module()
class DemoPairs(Dataset):
    """Crops of generated pairs; drawn into a folder when first used.

    Args:
        folder: Where the pairs are kept between runs.
        num_scenes: How many.
        first_seed: 0 for training, :data:`segearth.demo.benchmark.VALIDATION_SEED` for validation.
        size: Side of the crops in pixels.
        augmentation: Arguments of :class:`segearth.alignearth.pair_data.Augmentation` in place of the usual.
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
        self.files = store_scenes(folder, range(first_seed, first_seed + num_scenes), image_and_radar, scene_size)
        self.augment = build_augmentation(AUGMENTATION | (augmentation or {}))
        self.size, self.seed = size, seed

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Sample ``number``, see :func:`segearth.alignearth.pair_data.to_sample`."""
        index, rng = draw_index(number, len(self.files), self.seed)
        layers = np.load(self.files[index], mmap_mode='r')
        y, x = (int(rng.integers(side - self.size + 1)) for side in layers.shape[:2])
        margin = self.augment.max_shift
        rows, columns = (slice(max(0, start - margin), start + self.size + margin) for start in (y, x))
        crop = np.array(layers[rows, columns])
        pair = Pair(crop[..., :3], np.repeat(crop[..., 3:], 3, 2), np.ones(crop.shape[:2], bool))
        return to_sample(self.augment(pair, self.size, rng))
