"""Files of strangers, opened so that nothing but their own bytes is read.

GDAL has formats that name other files and addresses, and opens whatever is named. So the format is decided here, by
the first bytes, and GDAL is given the one driver of that format; it sees no files beside the upload; and metadata that
would send it elsewhere are refused before anything is asked for.
"""

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from segearth.errors import ConfigError, DataError
from segearth.io.gdal_files import open_quietly
from segearth.paths import PROJECT_ROOT, cache_folder, weights_folders
from segearth.text.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

SIGNATURES = {
    b'II*\0': 'GTiff', b'MM\0*': 'GTiff', b'II+\0': 'GTiff', b'MM\0+': 'GTiff',
    b'\x89PNG\r\n\x1a\n': 'PNG', b'\xff\xd8\xff': 'JPEG',
    b'\0\0\0\x0cjP  \r\n\x87\n': 'JP2OpenJPEG', b'\xff\x4f\xff\x51': 'JP2OpenJPEG',
}  # fmt: skip
ALONE = {'GDAL_DISABLE_READDIR_ON_OPEN': 'EMPTY_DIR'}  # as if no file lay beside it: .aux.xml, .ovr, .msk, .tfw ...
OUTSIDE_DOMAIN = 'OVERVIEWS'  # of metadata: a file that GDAL opens with any driver
BYTES_A_PIXEL = 64  # of all bands unpacked at once; Sentinel-2's 13 of 16 bit need 26
LARGEST_REDUCTION = 64  # times the pixels that are mapped may an image have: 8 a side
LARGEST_READ = 16  # times the bytes unpacked at once may be read in all, one after the other
PATH = re.compile(r'(?<![\w:/.~-])(?:~|\.{1,2})?/(?:[^\s/\'",;()]+/)*([^\s/\'",;()]*)')


@dataclass(frozen=True)
class Limits:
    """What the page accepts, and how long it keeps it."""

    upload_bytes: int = 200 * 2**20
    pixels: int = 16_000_000  # that are mapped; larger images are reduced
    characters: int = 4000  # of all class names together
    classes: int = 64
    phrases: int = 256  # class names and synonyms together
    kept_seconds: float = 3600  # of uploads and results
    kept_uploads: int = 20  # room for so many of the largest uploads, and for as much of results


@contextmanager
def open_upload(path: str, limits: Limits) -> Iterator[rasterio.DatasetReader]:
    """Opens an uploaded file, unless it is too large, of another format, damaged, or refers to other files."""
    name = Path(path).name
    size = Path(path).stat().st_size
    if size > limits.upload_bytes:
        raise DataError(f'{name} has {size / 2**20:.0f} MB; this page takes {limits.upload_bytes / 2**20:.0f} MB')
    with open(path, 'rb') as file:
        beginning = file.read(max(map(len, SIGNATURES)))
    driver = next((driver for start, driver in SIGNATURES.items() if beginning.startswith(start)), None)
    if driver is None:
        raise DataError(
            f'{name} cannot be opened as a raster: this page takes GeoTIFF, JPEG 2000, PNG and JPEG, and the file is '
            'none of these, whatever its name says'
        )
    with rasterio.Env(**ALONE):
        try:
            dataset = open_quietly(path, driver=driver)
        except (RasterioError, OSError, ValueError) as error:
            logger.info('refused upload %s: %s', name, error)
            raise DataError(f'{name} cannot be opened as a raster: it is damaged or incomplete') from error
        with dataset:
            _check(dataset, name, limits)
            yield dataset


def check_words(words: str, limits: Limits) -> list[str]:
    """Classes that were typed, one a line with commas between synonyms, if they are neither none nor too many."""
    if len(words) > limits.characters:
        raise ConfigError(
            f'the classes have {len(words)} characters; this page takes {limits.characters} in all: a few words for '
            'each class are enough'
        )
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    vocabulary = Vocabulary.from_classes(lines)
    if vocabulary.num_classes > limits.classes or len(vocabulary.queries) > limits.phrases:
        raise ConfigError(
            f'{vocabulary.num_classes} classes with {len(vocabulary.queries)} names and synonyms; this page takes '
            f'{limits.classes} classes and {limits.phrases} names: leave some out, or use: segearth predict'
        )
    return lines


def without_paths(message: str, *folders: Path) -> str:
    """A message in which files are called by their names alone; known folders may have spaces in theirs."""
    known = [*folders, cache_folder(), *weights_folders(), PROJECT_ROOT, Path.cwd(), Path.home()]
    for folder in sorted({str(folder) for folder in known} - {'/'}, key=len, reverse=True):
        message = message.replace(folder, '/…')
    return PATH.sub(r'\1', message)


def _check(dataset: rasterio.DatasetReader, name: str, limits: Limits) -> None:
    height, width = dataset.shape
    most = LARGEST_REDUCTION * limits.pixels
    if height * width > most:
        raise DataError(
            f'the image has {height} x {width} pixels; this page takes {most / 1e6:g} million, of which it maps '
            f'{limits.pixels / 1e6:g} million. Cut it, start the page with a larger --max-megapixels, or map it with: '
            'segearth predict'
        )
    itemsize = sum(np.dtype(kind).itemsize for kind in dataset.dtypes)
    room = BYTES_A_PIXEL * limits.pixels
    at_once, in_all = itemsize * max(map(math.prod, dataset.block_shapes)), itemsize * height * width
    if at_once > room or in_all > LARGEST_READ * room:
        raise DataError(
            f'{name} has {in_all / 2**20:.0f} MB when it is unpacked ({dataset.count} bands), {at_once / 2**20:.1f} of '
            f'them at once; this page takes {LARGEST_READ * room / 2**20:.0f} and {room / 2**20:.0f}: keep fewer '
            'bands, or smaller tiles'
        )
    if dataset.tags(ns=OUTSIDE_DOMAIN) or any(dataset.tags(band, ns=OUTSIDE_DOMAIN) for band in dataset.indexes):
        raise DataError(f'{name} refers to overviews in another file, which this page does not open: remove them')
