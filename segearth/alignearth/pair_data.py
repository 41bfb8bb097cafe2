"""Image pairs on disk as training samples: one geometry for both images, speckle and gain for the SAR image alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.registry import DATASETS
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import Dataset

from segearth.alignearth.pairs import Pair, match_folders, read_list, read_pair
from segearth.errors import ConfigError
from segearth.training.data import check_counts, draw_index, extend, to_tensor

LEVELS_PER_DECIBEL = 255 / 25  # of the SAR pictures, see segearth.io.pictures
NUM_PLACES = 8  # crops tried for one that shows data
WANTED_SHARE = 0.6  # of valid pixels in a crop; the best of the tried ones otherwise


@dataclass(frozen=True)
class Augmentation:
    """Random crops and variations of pairs."""

    turns: bool = True  # quarter turns and flips; off where the direction of radar look or sun must stay
    # (least, most) number of looks of the speckle, drawn evenly in the logarithm, or None; the image keeps its own too
    looks: tuple[float, float] | None = (4.0, 32.0)
    gain_db: float = 2.0  # largest change of brightness, in decibels either way
    speckle_chance: float = 0.5  # share of the images that get speckle
    max_shift: int = 0  # pixels between the SAR crop and the optical one at most, as simulated misregistration

    def __call__(self, pair: Pair, size: int, rng: Generator) -> Pair:
        """Crops a pair of any size to (size, size) and varies it; smaller ones are reflected at their borders."""
        optical, sar, valid = (extend(part, size) for part in (pair.optical, pair.sar, pair.valid))
        y, x = _find_place(valid, size, rng)
        shift = rng.integers(-self.max_shift, self.max_shift + 1, 2) if self.max_shift else (0, 0)
        sar_y, sar_x = (
            int(np.clip(start + delta, 0, side - size))
            for start, delta, side in zip((y, x), shift, valid.shape, strict=True)
        )
        here, there = np.s_[y : y + size, x : x + size], np.s_[sar_y : sar_y + size, sar_x : sar_x + size]
        parts = [optical[here], sar[there], valid[here] & valid[there]]
        if self.turns:
            quarter, is_flipped = int(rng.integers(4)), bool(rng.integers(2))
            parts = [np.rot90(part, quarter) for part in parts]
            parts = [part[:, ::-1] if is_flipped else part for part in parts]
        return Pair(parts[0], self.vary_sar(parts[1], rng), parts[2])

    def vary_sar(self, sar: np.ndarray, rng: Generator) -> np.ndarray:
        """Gamma speckle and gain, both sums in decibels: (H, W, 3) uint8 -> the same.

        Multi-look intensity speckle is Gamma(L, 1/L) (Oliver and Quegan, Understanding Synthetic Aperture Radar
        Images, chapter 4), alike in all channels of a grey picture, else apart for each polarisation.
        """
        change = np.zeros(sar.shape, np.float32) + np.float32(rng.uniform(-self.gain_db, self.gain_db))
        if self.looks is not None and rng.random() < self.speckle_chance:
            looks = float(np.exp(rng.uniform(*np.log(self.looks))))
            is_grey = np.array_equal(sar[..., 0], sar[..., 1])
            speckle = rng.gamma(looks, 1 / looks, (*sar.shape[:2], 1 if is_grey else 2))
            decibels = 10 * np.log10(np.maximum(speckle, 1e-6)).astype(np.float32)
            change += decibels if is_grey else np.concatenate([decibels, decibels.mean(-1, keepdims=True)], -1)
        varied = np.clip(np.rint(sar + LEVELS_PER_DECIBEL * change), 1, 255).astype(np.uint8)
        return np.where(sar == 0, sar, varied)  # black is no echo or no data


def build_augmentation(settings: dict | None) -> Augmentation:
    """An augmentation from a config's settings."""
    unknown = sorted(set(settings or {}) - set(Augmentation.__dataclass_fields__))
    if unknown:
        known = ', '.join(Augmentation.__dataclass_fields__)
        raise ConfigError(f'unknown keys in augmentation: {", ".join(unknown)}; known: {known}')
    augmentation = Augmentation(**(settings or {}))
    if augmentation.looks is not None and not 0 < min(augmentation.looks) <= max(augmentation.looks):
        raise ConfigError(f'looks must be two numbers above 0, the least first; got {augmentation.looks}')
    for name in ('gain_db', 'max_shift'):
        if getattr(augmentation, name) < 0:
            raise ConfigError(f'{name} of the augmentation is {getattr(augmentation, name)}; allowed: 0 or more')
    return augmentation


@DATASETS.register_module()
@dataclass(eq=False)
class PairDataset(Dataset):
    """Optical-SAR pairs, from two folders or from a list.

    A file is read anew for each crop: cut whole scenes into tiles of one or two thousand pixels first.
    """

    optical: str | None = None  # folder of the optical images; with sar
    sar: str | None = None  # folder of the SAR images
    pairs: str | None = None  # list file instead, see segearth.alignearth.pairs.read_list
    optical_ending: str = ''  # end of the optical stems that is not compared, such as _S2Hand
    sar_ending: str = ''
    optical_bands: tuple[int, ...] | None = None  # numbers of red, green and blue, from 1
    sar_bands: tuple[int, ...] | None = None  # numbers of one or two bands, co-polarised first
    sar_scale: str = 'auto'  # what SAR numbers mean, a scale of segearth.io.pictures.sar_to_rgb
    size: int = 224  # side of the crops in pixels
    augmentation: dict[str, Any] | None = None  # settings of Augmentation
    seed: int = 0  # of order, crops and augmentation

    def __post_init__(self) -> None:
        check_counts(self, 'size')
        self.optical_bands = tuple(self.optical_bands) if self.optical_bands else None
        self.sar_bands = tuple(self.sar_bands) if self.sar_bands else None
        if self.pairs is not None and self.optical is None and self.sar is None:
            self.files = read_list(self.pairs)
        elif self.pairs is None and self.optical is not None and self.sar is not None:
            self.files = match_folders(self.optical, self.sar, self.optical_ending, self.sar_ending)
        else:
            raise ConfigError('give either optical and sar, two folders, or pairs, a list file')
        self.augment = build_augmentation(self.augmentation)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Sample ``number``, see :func:`segearth.training.data.draw_index` and :func:`to_sample`."""
        index, rng = draw_index(number, len(self.files), self.seed)
        pair = read_pair(*self.files[index], self.optical_bands, self.sar_bands, self.sar_scale)
        return to_sample(self.augment(pair, self.size, rng))


def to_sample(pair: Pair) -> dict[str, Tensor]:
    """``optical`` and ``sar`` (3, H, W) uint8, ``valid`` (H, W) bool."""
    valid = to_tensor(pair.valid[..., None])[0]
    return {'optical': to_tensor(pair.optical), 'sar': to_tensor(pair.sar), 'valid': valid}


def _find_place(valid: np.ndarray, size: int, rng: Generator) -> tuple[int, int]:
    best, place = -1.0, (0, 0)
    for _ in range(NUM_PLACES):
        y, x = (int(rng.integers(side - size + 1)) for side in valid.shape)
        share = float(valid[y : y + size, x : x + size].mean())
        if share > best:
            best, place = share, (y, x)
        if share >= WANTED_SHARE:
            break
    return place
