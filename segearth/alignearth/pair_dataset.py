"""Image pairs on disk as training samples."""

from __future__ import annotations

from functools import partial
from typing import Any

from mmengine.registry import DATASETS
from torch import Tensor
from torch.utils.data import Dataset

from segearth.alignearth.augmentation import build_augmentation
from segearth.alignearth.pairs import Pair, match_folders, read_list, read_pair
from segearth.errors import ConfigError
from segearth.training.images import to_tensor
from segearth.training.sampler import draw_index


@DATASETS.register_module()
class PairDataset(Dataset):
    """Optical-SAR pairs, from two folders or from a list.

    A file is read anew for each crop: cut whole scenes into tiles of one or two thousand pixels first.

    Args:
        optical: Folder of the optical images; with ``sar``.
        sar: Folder of the SAR images.
        pairs: List file instead, see :func:`segearth.alignearth.pairs.read_list`.
        optical_ending: See :func:`segearth.alignearth.pairs.match_folders`.
        sar_ending: See :func:`segearth.alignearth.pairs.match_folders`.
        optical_bands: See :func:`segearth.alignearth.pairs.read_pair`.
        sar_bands: See :func:`segearth.alignearth.pairs.read_pair`.
        sar_scale: See :func:`segearth.alignearth.pairs.read_pair`.
        size: Side of the crops in pixels.
        augmentation: Arguments of :class:`segearth.alignearth.augmentation.Augmentation`.
        seed: Of order, crops and augmentation.

    Raises:
        UserError: Pairs that cannot be found, or settings that cannot be used.
    """

    def __init__(
        self,
        optical: str | None = None,
        sar: str | None = None,
        pairs: str | None = None,
        optical_ending: str = '',
        sar_ending: str = '',
        optical_bands: tuple[int, ...] | None = None,
        sar_bands: tuple[int, ...] | None = None,
        sar_scale: str = 'auto',
        size: int = 224,
        augmentation: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        if pairs is not None and optical is None and sar is None:
            self.pairs = read_list(pairs)
        elif pairs is None and optical is not None and sar is not None:
            self.pairs = match_folders(optical, sar, optical_ending, sar_ending)
        else:
            raise ConfigError('give either optical and sar, two folders, or pairs, a list file')
        self.read = partial(
            read_pair,
            optical_bands=tuple(optical_bands) if optical_bands else None,
            sar_bands=tuple(sar_bands) if sar_bands else None,
            sar_scale=sar_scale,
        )
        self.size, self.seed = size, seed
        self.augment = build_augmentation(augmentation)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Sample ``number``, see :func:`segearth.training.sampler.draw_index` and :func:`to_sample`."""
        index, rng = draw_index(number, len(self.pairs), self.seed)
        return to_sample(self.augment(self.read(*self.pairs[index]), self.size, rng))


def to_sample(pair: Pair) -> dict[str, Tensor]:
    """``optical`` and ``sar`` (3, H, W) uint8, ``valid`` (H, W) bool."""
    valid = to_tensor(pair.valid[..., None])[0]
    return {'optical': to_tensor(pair.optical), 'sar': to_tensor(pair.sar), 'valid': valid}
