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
from segearth.preparation.recipe import Recipe
from segearth.preparation.sources import Member, Pair
from segearth.preparation.tiling import cut

# How Pillow writes each kind; labels never become JPEG, whose numbers are not exact.
ENCODINGS: dict[str, dict] = {
    '.png': {'format': 'PNG', 'compress_level': 4},
    '.tif': {'format': 'TIFF', 'compression': 'tiff_adobe_deflate'},
    '.jpg': {'format': 'JPEG', 'quality': 95, 'subsampling': 0},
}
SAME_FORMAT = {'.jpeg': '.jpg', '.tiff': '.tif'}
GO_ON = 'run again when that is mended: it goes on'


@dataclass(frozen=True)
class Options:
    """Choices of the user's.

    Attributes:
        ignore_unknown: Give 255 to colours and ids that the data set does not have, rather than refuse the label.
        link_images: Link to images that need no change, rather than copy them.
    """

    ignore_unknown: bool = False
    link_images: bool = False


DEFAULTS = Options()


@dataclass(frozen=True)
class Outcome:
    """What became of one or many pairs.

    Attributes:
        written: Results (images with their labels, or tiles) of which something was written.
        present: Results that were there.
        failures: Messages.
    """

    written: int = 0
    present: int = 0
    failures: tuple[str, ...] = ()

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(self.written + other.written, self.present + other.present, self.failures + other.failures)


def convert_pair(recipe: Recipe, pair: Pair, folder: Path, options: Options = DEFAULTS) -> Outcome:
    """Converts one pair; what cannot be used is told in the outcome.

    Args:
        recipe: The data set.
        pair: Image and label.
        folder: Folder of the data set; the recipe's folders are made below it.
        options: Choices of the user's.

    Raises:
        ResultsError: The disk is full, or the folder cannot be written.
    """
    try:
        convert = _convert_whole if recipe.tiling is None else _convert_tiles
        return convert(recipe, pair, folder, options)
    except DataError as error:
        return Outcome(failures=(str(error),))


def is_written(path: Path) -> bool:
    """Whether a file is there; an empty one, as a power cut may leave, does not count."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _convert_whole(recipe: Recipe, pair: Pair, folder: Path, options: Options) -> Outcome:
    image_path, label_path = _places(recipe, folder, pair.name)
    if is_written(image_path) and is_written(label_path):
        return Outcome(present=1)
    labels = recipe.rule(pair, options.ignore_unknown)
    check_sizes(labels.shape, pair.image.image_size(), pair.label, pair.image)
    if not is_written(image_path):
        _write_image(pair.image, image_path, options.link_images)
    if not is_written(label_path):
        with writing(label_path, GO_ON):
            if _keeps_georeference(pair.label, label_path, labels):
                write_bytes(label_path, pair.label.content().getvalue())
            else:
                _save(labels, label_path)
    return Outcome(written=1)


def _convert_tiles(recipe: Recipe, pair: Pair, folder: Path, options: Options) -> Outcome:
    assert recipe.tiling is not None
    boxes = recipe.tiling.names(pair.name, pair.image.image_size())
    places = {name: _places(recipe, folder, name) for name in boxes}
    missing = [name for name in boxes if not all(map(is_written, places[name]))]
    if not missing:
        return Outcome(present=len(boxes))
    labels, image = recipe.rule(pair, options.ignore_unknown), read_picture(pair.image.content())
    check_sizes(labels.shape, image.shape[:2], pair.label, pair.image)
    for name in missing:
        for array, fill, path in zip((image, labels), (0, IGNORE_INDEX), places[name], strict=True):
            with writing(path, GO_ON):
                _save(cut(array, boxes[name], fill), path)
    return Outcome(len(missing), len(boxes) - len(missing))


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
