"""Pairs of the generated world, an optical scene and its simulated radar partner, for configs that name them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.registry import DATASETS
from torch import Tensor

from segearth.alignearth.pair_data import build_augmentation, to_sample
from segearth.alignearth.pairs import Pair
from segearth.demo.files import image_and_radar
from segearth.training.data import draw_index
from segearth.training.generated import StoredScenes

AUGMENTATION = {'looks': (1.0, 4.0), 'speckle_chance': 1.0, 'gain_db': 1.5}  # the stored scenes have no speckle


@DATASETS.register_module()
@dataclass(eq=False)
class DemoPairs(StoredScenes):
    """Crops of generated pairs."""

    augmentation: dict[str, Any] | None = None  # settings of Augmentation in place of the usual
    layers = staticmethod(image_and_radar)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.augment = build_augmentation(AUGMENTATION | (self.augmentation or {}))

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
