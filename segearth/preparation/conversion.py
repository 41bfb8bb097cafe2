"""Conversion of one image and its label, whole or in tiles. What exists is taken for done: files appear whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segearth.errors import DataError
from segearth.io.atomic import replacing, write_bytes
from segearth.io.labels import IGNORE_INDEX, check_sizes
from segearth.io.outputs import writing
from segearth.io.raster import read_raster
from segearth.preparation.label_rules import read_picture
from segearth.preparation.recipe import Box, Recipe, Tiling
from segearth.preparation.sources import Member, Pair

# How Pillow writes each kind; labels never become JPEG, whose numbers are not exact.
ENCODINGS: dict[str, dict] = {
    '.png': {'format': 'PNG', 'compress_level': 4},
    '.tif': {'format': 'TIFF', 'compression': 'tiff_adobe_deflate'},
    '.jpg': {'format': 'JPEG', 'quality': 95, 'subsampling': 0},
}
SAME_FORMAT = {'.jpeg': '.jpg', '.tiff': '.tif'}
GO_ON = 'run again when that is mended: it goes on'


@dataclass(frozen=True)
class Outcome:
    """What became of one or many pairs. A result is an image with its label, or a tile of it."""

    written: int = 0  # results of which something was written
    present: int = 0  # results that were there
    failures: tuple[str, ...] = ()  # messages

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(self.written + other.written, self.present + other.present, self.failures + other.failures)


def convert_pair(recipe: Recipe, pair: Pair, folder: Path, ignore_unknown: bool, link_images: bool) -> Outcome:
    """Converts one pair, below the folder of its data set; what cannot be used is told in the outcome."""
    try:
        if recipe.tiling is None:
            return _convert_whole(recipe, pair, folder, ignore_unknown, link_images)
        return _convert_tiles(recipe, recipe.tiling, pair, folder, ignore_unknown)
    except DataError as error:
        return Outcome(failures=(str(error),))


def is_written(path: Path) -> bool:
    """Whether a file is there; an empty one, as a power cut may leave, does not count."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _convert_whole(recipe: Recipe, pair: Pair, folder: Path, ignore_unknown: bool, link_images: bool) -> Outcome:
    image_path, label_path = _places(recipe, folder, pair.name)
    if is_written(image_path) and is_written(label_path):
        return Outcome(present=1)
    labels = recipe.rule(pair, ignore_unknown)
    check_sizes(labels.shape, pair.image.image_size(), pair.label, pair.image)
    if not is_written(image_path):
        _write_image(pair.image, image_path, link_images)
    if not is_written(label_path):
        with writing(label_path, GO_ON):
            if _keeps_georeference(pair.label, label_path, labels):
                write_bytes(label_path, pair.label.content().getvalue())
            else:
                _save(labels, label_path)
    return Outcome(written=1)


def _convert_tiles(recipe: Recipe, tiling: Tiling, pair: Pair, folder: Path, ignore_unknown: bool) -> Outcome:
    boxes = tiling.names(pair.name, pair.image.image_size())
    places = {name: _places(recipe, folder, name) for name in boxes}
    missing = [name for name in boxes if not all(map(is_written, places[name]))]
    if not missing:
        return Outcome(present=len(boxes))
    labels, image = recipe.rule(pair, ignore_unknown), read_picture(pair.image.content())
    check_sizes(labels.shape, image.shape[:2], pair.label, pair.image)
    for name in missing:
        for array, fill, path in zip((image, labels), (0, IGNORE_INDEX), places[name], strict=True):
            with writing(path, GO_ON):
                _save(cut(array, boxes[name], fill), path)
    return Outcome(len(missing), len(boxes) - len(missing))


def cut(array: np.ndarray, box: Box, fill: int) -> np.ndarray:
    """Cuts a box out of an array (H, W, ...); what lies outside becomes `fill`."""
    y1, x1, y2, x2 = box
    piece = array[y1:y2, x1:x2]
    missing = ((0, y2 - y1 - piece.shape[0]), (0, x2 - x1 - piece.shape[1]))
    if not any(after for _, after in missing):
        return np.ascontiguousarray(piece)
    return np.pad(piece, [*missing, *[(0, 0)] * (array.ndim - 2)], constant_values=fill)


def _places(recipe: Recipe, folder: Path, name: str) -> tuple[Path, Path]:
    """Image and label of a name."""
    image = folder / recipe.image_folder / f'{name}{recipe.image_suffix}'
    return image, folder / recipe.label_folder / f'{name}{recipe.label_suffix}'


def _write_image(image: Member, path: Path, is_linked: bool) -> None:
    content = image.content()
    is_changed = SAME_FORMAT.get(image.suffix, image.suffix) != path.suffix
    read = read_picture if is_changed else read_raster
    picture = read(content)  # also when copied: a damaged image is found here rather than in an evaluation
    with writing(path, GO_ON):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # empty, or a link to what is gone
        if isinstance(picture, np.ndarray):
            _save(picture, path)
        elif is_linked and image.inner is None:
            path.symlink_to(image.container)
        else:
            write_bytes(path, content.getvalue())


def _save(array: np.ndarray, path: Path) -> None:
    """Writes an image (H, W, 3) or a label (H, W), uint8, by its suffix; labels get Pillow mode L."""
    with replacing(path) as part:
        Image.fromarray(array).save(part, **ENCODINGS[path.suffix])


def _keeps_georeference(label: Member, path: Path, labels: np.ndarray) -> bool:
    """Whether a label is a TIFF that need not be changed; PNG is always written in mode L."""
    if label.suffix != path.suffix or path.suffix != '.tif':
        return False
    raster = read_raster(label.content(), is_picture=False)
    return not raster.is_palette and np.array_equal(raster.bands, labels[None])
