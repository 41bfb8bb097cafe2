"""Reading pictures and rasters from disk, with a message that names the file when it cannot be done.

Pillow decodes PNG, JPEG and the like (it refuses truncated files, where OpenCV of some versions returns half an
image), rasterio decodes GeoTIFF. Nothing here knows what the numbers mean: :mod:`segearth.datasets.optical_rgb`,
:mod:`segearth.datasets.sar_rgb` and :mod:`segearth.datasets.labels` do.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image, ImageOps
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from segearth.errors import DataError, MissingFileError

GDAL_SUFFIXES = frozenset({'.tif', '.tiff', '.jp2', '.vrt', '.img'})
PLAIN_MODES = frozenset({'1', 'L', 'RGB', 'P', 'I', 'F'})  # arrays of these hold the file's numbers; also I;16 and kin

# images and labels are read by pixels; once for all, because catch_warnings is not safe in threads
warnings.filterwarnings('ignore', category=NotGeoreferencedWarning)


class UnreadableFileError(DataError):
    """A file is truncated, damaged or of an unknown format."""


@dataclass(frozen=True)
class RasterInfo:
    """What the header of a file says.

    Attributes:
        size: (height, width) in pixels.
        num_bands: Without alpha.
        is_palette: The numbers are places in a colour table (Pillow mode P).
    """

    size: tuple[int, int]
    num_bands: int
    is_palette: bool


@dataclass(frozen=True)
class Raster:
    """The numbers of a file.

    Attributes:
        bands: (B, H, W), in the type of the file; alpha is left out.
        nodata: Number that the file declares as "no data", if any.
        is_palette: The numbers are places in a colour table (Pillow mode P).
    """

    bands: np.ndarray
    nodata: float | None
    is_palette: bool


def read_info(path: str | os.PathLike[str], is_picture: bool = True) -> RasterInfo:
    """Reads the header of a file; takes well under a millisecond.

    Args:
        path: File to look at.
        is_picture: As for :func:`read_raster`.

    Raises:
        MissingFileError: There is no such file.
        UnreadableFileError: The header cannot be read.
    """
    with _reading(path):
        if Path(path).suffix.lower() in GDAL_SUFFIXES:
            with rasterio.open(path) as source:
                is_palette = ColorInterp.palette in source.colorinterp
                num_bands = 3 if is_palette and is_picture else len(_bands_without_alpha(source))
                return RasterInfo(source.shape, num_bands, is_palette)
        with Image.open(path) as image:
            width, height = image.size
            if is_picture and image.getexif().get(0x0112, 1) >= 5:  # EXIF orientation: 5 to 8 turn by a quarter
                width, height = height, width
            mode = _plain_mode(image, is_picture)
            return RasterInfo((height, width), len(Image.new(mode, (1, 1)).getbands()), image.mode == 'P')


def read_raster(path: str | os.PathLike[str], is_picture: bool = True) -> Raster:
    """Reads all bands of a file.

    Args:
        path: File to read.
        is_picture: True for images: colour tables are looked up, the camera's orientation mark is obeyed (both as
            OpenCV does). False for labels: the numbers are kept as they are.

    Raises:
        MissingFileError: There is no such file.
        UnreadableFileError: The file is truncated, damaged or of an unknown format.
    """
    with _reading(path):
        if Path(path).suffix.lower() in GDAL_SUFFIXES:
            with rasterio.open(path) as source:
                bands = source.read(_bands_without_alpha(source))
                is_palette = ColorInterp.palette in source.colorinterp
                if is_palette and is_picture:
                    table = source.colormap(1)
                    colours = np.array([table.get(index, (0, 0, 0))[:3] for index in range(256)], dtype=np.uint8)
                    bands = colours[bands[0]].transpose(2, 0, 1)
                return Raster(bands, source.nodata, is_palette)
        with Image.open(path) as image:
            is_palette = image.mode == 'P'
            image.load()
            if is_picture:
                image = ImageOps.exif_transpose(image)
            mode = _plain_mode(image, is_picture)
            array = np.array(image if image.mode == mode else image.convert(mode))
            array = array.astype(np.uint8) if array.dtype == bool else array
        bands = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        return Raster(bands, None, is_palette)


def select_bands(bands: np.ndarray, selection: tuple[int, ...] | None, path: str | os.PathLike[str]) -> np.ndarray:
    """Picks bands by their numbers, which count from 1 as in GDAL.

    Args:
        bands: (B, H, W).
        selection: Band numbers, or None for all.
        path: Named in the message.

    Raises:
        DataError: A number is outside 1 to B.
    """
    if selection is None:
        return bands
    wrong = [number for number in selection if not 1 <= number <= len(bands)]
    if wrong:
        raise DataError(
            f'{path} has {len(bands)} bands, so band {wrong[0]} does not exist: choose from 1 to {len(bands)}'
        )
    return bands[[number - 1 for number in selection]]


@contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[None]:
    if not Path(path).is_file():
        raise MissingFileError(f'file not found: {path}')
    try:
        yield
    except Image.DecompressionBombError as error:
        raise DataError(f'{path} is too large to be read at once ({error}): cut it into tiles') from error
    except (OSError, SyntaxError, ValueError, RasterioError) as error:  # Pillow raises SyntaxError for broken PNG
        raise UnreadableFileError(
            f'cannot read {path}: {str(error).rstrip(".") or type(error).__name__}. The file is damaged or incomplete: '
            'copy or convert it again (eval.py --skip-broken leaves such files out and counts them)'
        ) from error


def _bands_without_alpha(source: rasterio.DatasetReader) -> list[int]:
    return [number for number, kind in enumerate(source.colorinterp, 1) if kind != ColorInterp.alpha]


def _plain_mode(image: Image.Image, is_picture: bool) -> str:
    """Pillow mode to convert to: without alpha, without a colour table for pictures."""
    if image.mode in ('LA', 'La') or (image.mode == '1' and is_picture):
        return 'L'
    if image.mode == 'P' and is_picture:
        return 'RGB'
    return image.mode if image.mode in PLAIN_MODES or image.mode.startswith('I;16') else 'RGB'
