"""Crops of the generated world as training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from filelock import FileLock
from mmengine.registry import DATASETS
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from segearth.demo.crops import open_pool
from segearth.demo.scene import SCENE_SIZE
from segearth.training.images import to_tensor


@DATASETS.register_module()
class DemoScenes(Dataset):
    """Random crops of generated scenes, drawn into a folder when first used; labels are not looked at.

    Args:
        folder: Where the scenes are kept between runs.
        num_scenes: How many; training starts at seed 0, validation at
            :data:`segearth.demo.benchmark.VALIDATION_SEED`.
        first_seed: Seed of the first scene.
        size: Side of the crops in pixels.
        zooms: Factors of enlargement to choose from; the benchmark shows the world at 1, windows of it.
        seed: Of the crops.
        scene_size: Side of the scenes in pixels.
    """

    def __init__(
        self,
        folder: str,
        num_scenes: int = 64,
        first_seed: int = 0,
        size: int = 224,
        zooms: tuple[int, ...] = (1, 2),
        seed: int = 0,
        scene_size: int = SCENE_SIZE,
    ) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with FileLock(Path(folder) / 'drawing.lock'):  # several trainings may begin together
            self.pool = open_pool(Path(folder), range(first_seed, first_seed + num_scenes), scene_size)
        self.size, self.zooms, self.seed = size, tuple(zooms), seed

    def __len__(self) -> int:
        return len(self.pool.images)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Sample ``number``: ``images`` (3, size, size) uint8, RGB."""
        rng = np.random.default_rng([self.seed, number])
        zoom = int(rng.choice(self.zooms))
        side = self.size // zoom
        num_scenes, height, width = self.pool.labels.shape
        scene, y, x = rng.integers(num_scenes), rng.integers(height - side + 1), rng.integers(width - side + 1)
        crop = self.pool.images[scene, y : y + side, x : x + side]
        return {'images': to_tensor(enlarge(crop, self.size))}


def enlarge(image: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resizing of (h, w, 3) uint8 to (size, size, 3); unchanged where it has that size."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
