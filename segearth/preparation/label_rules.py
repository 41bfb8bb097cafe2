"""From published masks to class ids: black and white, colours, or other ids. Each rule is a value of a table row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from segearth.errors import DataError
from segearth.preparation.decoding import Picture, as_grey, as_ids, as_rgb
from segearth.preparation.sources import Member

IGNORE_INDEX = 255  # id of pixels that are not evaluated
MAX_SHOWN = 8  # colours or ids listed in a message
UNKNOWN_COLOUR = 254  # marks colours outside the table while they are counted

Colour = tuple[int, int, int]


class LabelRule(Protocol):
    """Turns a decoded mask into ids."""

    def __call__(self, picture: Picture, member: Member, ignore_unknown: bool = False) -> np.ndarray:
        """Converts a mask.

        Args:
            picture: The decoded mask.
            member: Where it comes from, for messages.
            ignore_unknown: Give 255 to what the rule does not know, rather than refuse it.

        Returns:
            (H, W) uint8.

        Raises:
            DataError: The mask holds what the rule does not know.
        """


@dataclass(frozen=True)
class Threshold:
    """Mask of one class: below the threshold 0, else 1.

    Attributes:
        threshold: In [1, 255].
        is_brightness: The threshold is on the brightness as shown (palettes looked up); else on the file's numbers.
    """

    threshold: int = 128
    is_brightness: bool = True

    def __call__(self, picture: Picture, member: Member, ignore_unknown: bool = False) -> np.ndarray:
        """See :class:`LabelRule`."""
        values = (as_grey if self.is_brightness else as_ids)(picture, member)
        highest = int(values.max(initial=0))
        if self.is_brightness and highest == 1 and not picture.is_lossy:
            raise DataError(
                f'{member} holds 0 and 1, not black and white (0 and 255): it seems to be converted already. '
                'Give the masks as downloaded'
            )
        return (values >= self.threshold).astype(np.uint8)


@dataclass(frozen=True)
class Colours:
    """Mask of one colour a class.

    Attributes:
        ids: Colour (red, green, blue) to id; several colours may share one.
    """

    ids: tuple[tuple[Colour, int], ...]

    def __call__(self, picture: Picture, member: Member, ignore_unknown: bool = False) -> np.ndarray:
        """See :class:`LabelRule`."""
        if picture.palette is None and picture.bands.shape[2] < 3:
            raise DataError(f'{member} is grey; expected one colour a class. Give the label files as downloaded')
        colours = as_rgb(picture, member).astype(np.uint32)
        packed = colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]
        labels = _colour_table(self.ids)[packed]
        unknown = labels == UNKNOWN_COLOUR
        if not unknown.any():
            return labels
        if not ignore_unknown:
            raise DataError(_tell_unknown(member, packed[unknown], labels.size))
        labels[unknown] = IGNORE_INDEX
        return labels


@dataclass(frozen=True)
class Ids:
    """Mask that holds ids already.

    Attributes:
        num_ids: Published ids are 0 to ``num_ids - 1``, and 255 for pixels to ignore.
        new_ids: Published id to ours; published ids that are not named become 255. None keeps all.
    """

    num_ids: int
    new_ids: tuple[tuple[int, int], ...] | None = None

    def __call__(self, picture: Picture, member: Member, ignore_unknown: bool = False) -> np.ndarray:
        """See :class:`LabelRule`."""
        ids = as_ids(picture, member)
        present = np.flatnonzero(np.bincount(ids.ravel(), minlength=256))
        wrong = [int(number) for number in present if self.num_ids <= number != IGNORE_INDEX]
        if wrong and not ignore_unknown:
            shown = ', '.join(map(str, wrong[:MAX_SHOWN])) + (', ...' if len(wrong) > MAX_SHOWN else '')
            raise DataError(
                f'{member} holds the ids {shown}; published are 0 to {self.num_ids - 1}. Is it another data set, or a '
                'picture of the labels? If these pixels are to be left out: --ignore-unknown writes 255 there'
            )
        return _id_table(self)[ids]


@lru_cache(maxsize=2)
def _colour_table(ids: tuple[tuple[Colour, int], ...]) -> np.ndarray:
    """Id of each of the 2^24 colours; 16 MiB, and faster than any search."""
    table = np.full(1 << 24, UNKNOWN_COLOUR, dtype=np.uint8)
    for (red, green, blue), number in ids:
        table[red << 16 | green << 8 | blue] = number
    return table


@lru_cache(maxsize=8)
def _id_table(rule: Ids) -> np.ndarray:
    table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
    new_ids: Mapping[int, int] = dict(rule.new_ids or {number: number for number in range(rule.num_ids)})
    table[list(new_ids)] = list(new_ids.values())
    return table


def _tell_unknown(member: Member, packed: np.ndarray, num_pixels: int) -> str:
    values, counts = np.unique(packed, return_counts=True)
    order = np.argsort(-counts)[:MAX_SHOWN]
    shown = ', '.join(
        f'({value >> 16}, {value >> 8 & 255}, {value & 255}) {count} times'
        for value, count in zip(values[order].tolist(), counts[order].tolist(), strict=True)
    )
    more = ', ...' if len(values) > MAX_SHOWN else ''
    return (
        f'{member} has {len(values)} unknown colours in {packed.size} of {num_pixels} pixels: {shown}{more}. It is '
        'not a label of this data set, or was saved with loss (JPEG, resized). If these pixels are to be left out: '
        '--ignore-unknown writes 255 there'
    )
