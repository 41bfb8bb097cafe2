"""Crops of the generated world as training images, for configs that name them."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.registry import DATASETS
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from segearth.demo.files import image_and_labels, store_scenes
from segearth.demo.scene import SCENE_SIZE
from segearth.training.data import to_tensor


class StoredScenes(Dataset):
    """Generated scenes, drawn into a folder when first used.

    Args:
        folder: Where the scenes are kept between runs.
        num_scenes: How many.
        first_seed: 0 for training, :data:`segearth.demo.files.VALIDATION_SEED` for validation.
        size: Side of the crops in pixels.
        scene_size: Side of the scenes in pixels.
        seed: Of the crops and of all that is random about them.
    """

    layers = staticmethod(image_and_labels)

    def __init__(
        self,
        folder: str,
        num_scenes: int = 64,
        first_seed: int = 0,
        size: int = 224,
        scene_size: int = SCENE_SIZE,
        seed: int = 0,
    ) -> None:
        self.files = store_scenes(folder, range(first_seed, first_seed + num_scenes), self.layers, scene_size)
        self.size, self.scene_size, self.seed = size, scene_size, seed

    def __len__(self) -> int:
        return len(self.files)


@DATASETS.register_module()
class DemoScenes(StoredScenes):
    """Random crops of generated scenes, enlarged by one of some factors; labels are not looked at.

    The benchmark shows the world at 1, windows of it.
    """

    def __init__(self, *args: Any, zooms: tuple[int, ...] = (1, 2), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.zooms = tuple(zooms)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Sample ``number``: ``images`` (3, size, size) uint8, RGB."""
        rng = np.random.default_rng([self.seed, number])
        side = self.size // int(rng.choice(self.zooms))
        ends = (len(self.files), self.scene_size - side + 1, self.scene_size - side + 1)
        scene, y, x = (int(rng.integers(end)) for end in ends)
        crop = np.load(self.files[scene], mmap_mode='r')[y : y + side, x : x + side, :3]
        if side != self.size:
            image = Image.fromarray(np.ascontiguousarray(crop))
            crop = np.asarray(image.resize((self.size, self.size), Image.Resampling.BILINEAR))
        return {'images': to_tensor(crop)}
