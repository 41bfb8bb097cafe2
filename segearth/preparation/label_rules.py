"""From published masks to class ids: black and white, colours, other ids, polygons. A recipe names one of the rules."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

import numpy as np
from PIL import Image, ImageDraw

from segearth.errors import DataError, shorten
from segearth.io.gdal_files import FileContent
from segearth.io.labels import IGNORE_INDEX, read_label
from segearth.io.raster import read_raster
from segearth.preparation.sources import Member, Pair

MAX_SHOWN = 8  # colours or ids listed in a message
UNKNOWN_COLOUR = 254  # marks colours outside the table while they are counted
LUMA = np.array([299, 587, 114], dtype=np.uint32)  # thousandths of red, green, blue: ITU-R 601, as Pillow's mode L
LOSSY_SUFFIXES = frozenset({'.jpg', '.jpeg'})

Colour = tuple[int, int, int]
LabelRule = Callable[[Pair, bool], np.ndarray]
"""Makes the label (H, W), uint8, of an image from what is published; a DataError where the file cannot be used.

What the rule does not know becomes 255 if the second argument is true (--ignore-unknown), else it is a DataError too.
"""


@dataclass(frozen=True)
class Threshold:
    """Mask of one class: below the threshold 0, else 1."""

    threshold: int = 128  # in [1, 255]
    is_brightness: bool = True  # of the brightness as shown (palettes looked up); else of the file's numbers

    def __call__(self, pair: Pair, ignore_unknown: bool = False) -> np.ndarray:
        """Makes the label of an image, 0 and 1; --ignore-unknown changes nothing."""
        if not self.is_brightness:
            return (_read_ids(pair) >= self.threshold).astype(np.uint8)
        bands = _read_bands(pair.label.content())
        values = bands[0] if len(bands) < 3 else np.tensordot(LUMA, bands[:3], 1) // 1000
        if values.max(initial=0) == 1 and pair.label.suffix not in LOSSY_SUFFIXES:
            raise DataError(
                f'{pair.label} holds 0 and 1, not black and white (0 and 255): it seems to be converted already. '
                'Give the masks as downloaded'
            )
        return (values >= self.threshold).astype(np.uint8)


@dataclass(frozen=True)
class Colours:
    """Mask of one colour a class."""

    ids: tuple[tuple[Colour, int, str], ...]  # colour, its id, which several may share, and what it shows

    def __call__(self, pair: Pair, ignore_unknown: bool = False) -> np.ndarray:
        """Makes the label of an image."""
        bands = _read_bands(pair.label.content()).astype(np.uint32)
        if len(bands) < 3:
            raise DataError(f'{pair.label} is grey; expected one colour a class. Give the label files as downloaded')
        packed = bands[0] << 16 | bands[1] << 8 | bands[2]
        labels = _colour_table(self.ids)[packed]
        unknown = labels == UNKNOWN_COLOUR
        if unknown.any() and not ignore_unknown:
            raise DataError(_tell_unknown(pair.label, packed[unknown], labels.size))
        labels[unknown] = IGNORE_INDEX
        return labels


@dataclass(frozen=True)
class Ids:
    """Mask that holds ids already."""

    num_ids: int  # published ids are 0 to num_ids - 1, and 255 for pixels to ignore
    new_ids: tuple[tuple[int, int, str], ...] | None = None
    """Published id, ours, and what it shows; others become 255. None keeps all."""

    def __call__(self, pair: Pair, ignore_unknown: bool = False) -> np.ndarray:
        """Makes the label of an image."""
        ids = _read_ids(pair)
        present = np.flatnonzero(np.bincount(ids.ravel(), minlength=256))
        wrong = [int(number) for number in present if self.num_ids <= number != IGNORE_INDEX]
        if wrong and not ignore_unknown:
            raise DataError(
                f'{pair.label} holds the ids {shorten(wrong, MAX_SHOWN)}; published are 0 to {self.num_ids - 1}. Is it '
                'another data set, or a picture of the labels? If these pixels are to be left out: --ignore-unknown '
                'writes 255 there'
            )
        table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
        for published, number, _ in self.new_ids or [(number, number, '') for number in range(self.num_ids)]:
            table[published] = number
        return table[ids]


@dataclass(frozen=True)
class Polygons:
    """Outlines in the format of COCO, one file for all images: 1 within a polygon, else 0.

    Pixels belong to a polygon if their centre lies within it or on its outline.
    """

    def __call__(self, pair: Pair, ignore_unknown: bool = False) -> np.ndarray:
        """Makes the label of an image, 0 and 1; --ignore-unknown changes nothing."""
        height, width = pair.image.image_size()
        mask = Image.new('L', (width, height))
        draw = ImageDraw.Draw(mask)
        for polygon in read_polygons(pair.label)[pair.name]:
            if len(polygon) >= 6:  # two corners have no inside
                draw.polygon(polygon, fill=1)
        return np.array(mask)


@lru_cache(maxsize=1)
def read_polygons(member: Member) -> dict[str, list[list[float]]]:
    """Polygons (x1, y1, x2, y2, ... in pixels) of each image, by its name without suffix, from COCO's format."""
    file = member.content()
    try:
        content = json.load(file)
        names = {image['id']: PurePosixPath(image['file_name']).stem for image in content['images']}
        found: dict[str, list[list[float]]] = {name: [] for name in names.values()}
        for annotation in content['annotations']:
            polygons = [[float(number) for number in part] for part in annotation['segmentation']]
            found[names[annotation['image_id']]] += polygons
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f'{member} is no file of polygons in COCO format: {type(error).__name__} {error}') from error
    return found


def read_picture(file: FileContent) -> np.ndarray:
    """Reads an image as (H, W, 3) uint8, RGB: palettes looked up, grey repeated, bands after the third dropped."""
    bands = _read_bands(file)
    return np.stack(list(bands[:3]) if len(bands) >= 3 else [bands[0]] * 3, axis=-1)


def _read_bands(file: FileContent) -> np.ndarray:
    """(B, H, W) uint8, one band for grey and three for colours."""
    bands = read_raster(file).bands
    if bands.dtype != np.uint8:
        raise DataError(f'{file.name} holds numbers of type {bands.dtype}; expected 8 bits a band')
    return bands


def _read_ids(pair: Pair) -> np.ndarray:
    """(H, W) uint8: the numbers of a label file, also of a palette file."""
    return read_label(pair.label.content(), accept_palette=True, accept_mask_255=True)


@lru_cache(maxsize=2)
def _colour_table(ids: tuple[tuple[Colour, int, str], ...]) -> np.ndarray:
    """Id of each of the 2^24 colours; 16 MiB, and faster than any search."""
    table = np.full(1 << 24, UNKNOWN_COLOUR, dtype=np.uint8)
    for (red, green, blue), number, _ in ids:
        table[red << 16 | green << 8 | blue] = number
    return table


def _tell_unknown(member: Member, packed: np.ndarray, num_pixels: int) -> str:
    values, counts = np.unique(packed, return_counts=True)
    order = np.argsort(-counts)[: MAX_SHOWN + 1]  # one more, for the dots
    shown = [
        f'({value >> 16}, {value >> 8 & 255}, {value & 255}) {count} times'
        for value, count in zip(values[order].tolist(), counts[order].tolist(), strict=True)
    ]
    return (
        f'{member} has {len(values)} unknown colours in {packed.size} of {num_pixels} pixels: '
        f'{shorten(shown, MAX_SHOWN)}. It is not a label of this data set, or was saved with loss (JPEG, resized). If '
        'these pixels are to be left out: --ignore-unknown writes 255 there'
    )
