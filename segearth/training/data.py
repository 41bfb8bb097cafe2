"""Training images: any folder tree of pictures or GeoTIFFs, cropped at random.

Samples are numbered without end, and all that is random about one follows from its number, so that a training goes on
from any step as if nothing had happened.
"""

import os
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from segearth.errors import ConfigError, DataError, MissingFileError
from segearth.io.pictures import READERS
from segearth.models.dense_clip import CLIP_MEAN, CLIP_STD

SUFFIXES = frozenset({'.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff', '.jp2', '.vrt', '.img'})


@DATA_SAMPLERS.register_module()
class StepSampler(Sampler):
    """Yields 0, 1, 2, ... without end, each number to one process; data sets turn a number into a sample.

    mmengine hands over a data set, of which only the length is asked, and a seed; data sets have their own.
    """

    def __init__(self, dataset: Sized | None = None, seed: int | None = None) -> None:
        self.first = 0
        self.length = len(dataset) if dataset is not None else 1

    def __len__(self) -> int:
        """Length of the list that the numbers are drawn from; mmengine asks, nothing depends on it."""
        return self.length

    def __iter__(self) -> Iterator[int]:
        rank, world_size = get_dist_info()
        number = self.first * world_size + rank
        while True:
            yield number
            number += world_size

    def skip(self, num_samples: int) -> None:
        """Leaves out the first so many samples of each process; mmengine's loop calls it when it resumes."""
        self.first = num_samples


def draw_index(number: int, length: int, seed: int) -> tuple[int, np.random.Generator]:
    """The place of sample ``number`` in a list, which is gone through in a new order each time, and its randomness."""
    epoch, place = divmod(number, length)
    order = np.random.default_rng([seed, 0, epoch]).permutation(length)
    return int(order[place]), np.random.default_rng([seed, 1, number])


@DATASETS.register_module()
@dataclass(eq=False)
class ImageFolder(Dataset):
    """All images below a folder, in random crops; the layout does not matter (Million-AID: ``test/*.jpg``)."""

    root: str | os.PathLike[str]
    size: int = 224  # side of the crops in pixels; smaller images are extended by reflection
    kind: str = 'optical'  # or 'sar'
    bands: tuple[int, ...] | None = None  # numbers, from 1; None as in read_optical and read_sar
    seed: int = 0  # of the order and of the crops

    def __post_init__(self) -> None:
        check_counts(self, 'size')
        if self.kind not in READERS:
            raise ConfigError(f'unknown kind {self.kind!r} of images; known: {", ".join(READERS)}')
        self.files = list_images(self.root)
        self.bands = tuple(self.bands) if self.bands else None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Sample ``number``, see :func:`draw_index`: ``images`` (3, size, size) uint8, RGB."""
        index, rng = draw_index(number, len(self.files), self.seed)
        image = extend(READERS[self.kind](self.files[index], self.bands), self.size)
        y, x = (int(rng.integers(side - self.size + 1)) for side in image.shape[:2])
        return {'images': to_tensor(image[y : y + self.size, x : x + self.size])}


def check_counts(owner: object, *names: str) -> None:
    """Refuses what a config gives for some attributes of a data set or hook unless it is a whole number from 1."""
    for name in names:
        value = getattr(owner, name)
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f'{name} of {type(owner).__name__} is {value!r}; allowed: 1 or more')


def list_images(root: str | os.PathLike[str]) -> list[Path]:
    """All image files below a folder, by path; there must be some."""
    root = Path(root).expanduser()
    if not root.is_dir():
        raise MissingFileError(f'image folder not found: {root}')
    files = sorted(path for path in root.rglob('*') if path.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f'{root} holds no images ({", ".join(sorted(SUFFIXES))}), nor do its subfolders')
    return files


def extend(image: np.ndarray, size: int) -> np.ndarray:
    """Reflects an image (H, W) or (H, W, C) at its borders until no side is below ``size``."""
    missing = [max(size - side, 0) for side in image.shape[:2]]
    if not any(missing):
        return image
    pads = [(n // 2, n - n // 2) for n in missing] + [(0, 0)] * (image.ndim - 2)
    return np.pad(image, pads, mode='reflect' if min(image.shape[:2]) > 1 else 'edge')


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) -> (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def normalise(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8, RGB -> float32 as CLIP was trained."""
    mean, std = (images.new_tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (images.float() - mean) / std


def first_samples(dataset: Dataset, count: int, device: torch.device, start: int = 0) -> dict[str, Tensor]:
    """Samples ``start`` to ``start + count`` of a data set as one batch on a device."""
    samples: Sequence[dict[str, Tensor]] = [dataset[number] for number in range(start, start + count)]
    return {name: torch.stack([sample[name] for sample in samples]).to(device) for name in samples[0]}
