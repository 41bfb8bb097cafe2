"""Crops of the generated world as training images, for configs that name them."""

from dataclasses import dataclass

import numpy as np
from mmengine.registry import DATASETS
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from segearth.demo.files import image_and_labels, store_scenes
from segearth.demo.scene import SCENE_SIZE
from segearth.errors import ConfigError
from segearth.training.data import check_counts, to_tensor


@dataclass(eq=False)
class StoredScenes(Dataset):
    """Generated scenes, drawn into a folder when first used and kept there between runs."""

    folder: str
    num_scenes: int = 64
    first_seed: int = 0  # for training; segearth.demo.files.VALIDATION_SEED for validation
    size: int = 224  # side of the crops in pixels
    scene_size: int = SCENE_SIZE  # side of the scenes in pixels
    seed: int = 0  # of the crops and of all that is random about them
    layers = staticmethod(image_and_labels)

    def __post_init__(self) -> None:
        check_counts(self, 'num_scenes', 'size', 'scene_size')
        if self.size > self.scene_size:
            raise ConfigError(f'crops of {self.size} pixels do not fit into scenes of {self.scene_size} pixels a side')
        seeds = range(self.first_seed, self.first_seed + self.num_scenes)
        self.files = store_scenes(self.folder, seeds, self.layers, self.scene_size)

    def __len__(self) -> int:
        return len(self.files)


@DATASETS.register_module()
@dataclass(eq=False)
class DemoScenes(StoredScenes):
    """Random crops of generated scenes; labels are not looked at."""

    zooms: tuple[int, ...] = (1, 2)  # factors of enlargement to choose from; the benchmark shows the world at 1

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
