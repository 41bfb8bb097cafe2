"""Images as numbers: from files, from Pillow's images, from arrays, with a message that names what cannot be read.

Pillow decodes PNG, JPEG and the like (it refuses truncated files, where OpenCV of some versions returns half an
image), rasterio decodes all the rest (:mod:`segearth.io.gdal_files`), also colours of 16 bit, of which Pillow
keeps 8. Nothing here knows what the numbers mean: :mod:`segearth.io.pictures` and :mod:`segearth.io.labels` do.
"""

import operator
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile

from segearth.errors import ConfigError, DataError, MissingFileError, UserError
from segearth.io.gdal_files import (
    BandReader,
    FileContent,
    UnreadableFileError,
    bands_without_alpha,
    check_band_numbers,
    is_gdal_name,
    is_palette,
    local_name,
    open_dataset,
    open_quietly,
)

FileInput = str | os.PathLike | FileContent
ImageInput = FileInput | Image.Image | np.ndarray
"""What is taken for an image: a file, an image of Pillow, or an array (H, W) or (H, W, B)."""

GDAL_SUFFIXES = frozenset({'.tif', '.tiff', '.jp2', '.vrt', '.img'})
GDAL_FORMATS = frozenset({'TIFF', 'JPEG2000'})  # of Pillow's, left to GDAL whatever the file's name
PLAIN_MODES = {
    **{mode: mode for mode in ('1', 'L', 'RGB', 'P', 'I', 'F', 'I;16', 'I;16L', 'I;16B', 'I;16N')},  # as in the file
    **dict.fromkeys(('PA', 'RGBA', 'RGBX', 'RGBa', 'CMYK', 'YCbCr', 'HSV'), 'RGB'),
    'LA': 'L',
}
"""Mode of an image of Pillow -> mode whose array holds its numbers, without alpha."""
PICTURE_MODES = {**PLAIN_MODES, '1': 'L', 'P': 'RGB'}
"""The same for pictures, whose colour tables are looked up."""
ORIENTATION, PHOTOMETRIC, NODATA_TAG = 0x0112, 0x0106, 42113  # tags of EXIF, TIFF and GDAL
REDUCED_LAYOUT = re.compile(r'\b(?![IF];)\w+;16')  # of Pillow's decoders, such as RGB;16B
SHOWN_INPUT = 40  # characters of a wrong one


@dataclass(frozen=True)
class RasterInfo:
    """What the header of a file says."""

    size: tuple[int, int]  # (height, width) in pixels
    num_bands: int  # without alpha
    is_palette: bool  # the numbers are places in a colour table (Pillow mode P)


@dataclass(frozen=True)
class Raster:
    """The numbers of an image."""

    bands: np.ndarray  # (B, H, W), in the type of the file; alpha is left out
    nodata: float | None = None  # number that the file declares as "no data"
    is_palette: bool = False  # the numbers are places in a colour table (Pillow mode P)
    valid: np.ndarray | None = None  # (H, W) bool, where there is data; None for everywhere


def read_info(path: str | os.PathLike[str], is_picture: bool = True) -> RasterInfo:
    """Reads the header of a file, in well under a millisecond; ``is_picture`` and errors are as for read_raster."""
    with _reading(path), _decoder(path) as source:
        if isinstance(source, DatasetReader):
            numbers = bands_without_alpha(source)
            has_table = is_palette(source, numbers)
            size, num_bands = source.shape, 3 if has_table and is_picture else len(numbers)
            orientation = _tiff_orientation(source)
        else:
            has_table, size = source.mode == 'P', source.size[::-1]
            num_bands = len(Image.new(_plain_mode(source, is_picture), (1, 1)).getbands())
            orientation = source.getexif().get(ORIENTATION, 1)
        if is_picture and orientation >= 5:  # 5 to 8 turn by a quarter
            size = size[::-1]
        return RasterInfo(size, num_bands, has_table)


def read_raster(image: ImageInput, is_picture: bool = True, bands: tuple[int, ...] | None = None) -> Raster:
    """Reads bands of a file (or another name that GDAL opens), an image of Pillow or an array: (B, H, W).

    Bands are numbers from 1, None for all but alpha. Of a picture colour tables are looked up, the camera's orientation
    mark is obeyed (both as OpenCV does) and scaled numbers are scaled; the numbers of others, labels, are kept as they
    are. A DataError says that a band does not exist or the object is no image, an UnreadableFileError that the file is
    truncated, damaged or of an unknown format, a MissingFileError that there is none.
    """
    with _reading(image):
        if isinstance(image, FileInput):
            with _decoder(image) as source:
                if isinstance(source, DatasetReader):
                    return _of_dataset(source, is_picture, bands, name_of(image))
                raster = _of_pillow(source, is_picture)
        elif isinstance(image, Image.Image):
            if _is_reduced(image):
                raise DataError(f'{name_of(image)} has 16 bits a colour, of which Pillow keeps 8: give its path')
            raster = _of_pillow(image, is_picture)
        else:
            raster = _of_array(image, bands is None)
        return Raster(select_bands(raster.bands, bands, name_of(image)), raster.nodata, raster.is_palette, raster.valid)


def read_band_numbers(bands: str | Iterable[int] | None, place: str = '--bands is') -> tuple[int, ...] | None:
    """Band numbers that a user has given, as "4,3,2" or (4, 3, 2); None stays None. ``place`` begins the message."""
    if bands is None:
        return None
    try:
        return tuple(map(int, bands.split(',')) if isinstance(bands, str) else map(operator.index, bands))
    except (TypeError, ValueError):
        shown = repr(bands[:SHOWN_INPUT]) if isinstance(bands, str) else repr(bands)[:SHOWN_INPUT]
        raise ConfigError(f'{place} {shown}; expected numbers from 1, as in 4,3,2') from None


def select_bands(bands: np.ndarray, selection: tuple[int, ...] | None, path: str | os.PathLike[str]) -> np.ndarray:
    """Picks bands (B, H, W) by their numbers, which count from 1 as in GDAL; None picks all."""
    if selection is None:
        return bands
    check_band_numbers(selection, len(bands), path)
    return bands[[number - 1 for number in selection]]


@contextmanager
def _reading(image: ImageInput) -> Iterator[None]:
    """Turns what decoders raise into messages about the image."""
    try:
        yield
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f'{name_of(image)} is too large to be read at once ({error}): cut it into tiles') from error
    except (OSError, SyntaxError, ValueError, RasterioError) as error:  # Pillow raises SyntaxError for broken PNG
        reason = str(error.__cause__ or error).rstrip('.') or type(error).__name__
        if not isinstance(image, FileInput):
            raise DataError(f'{name_of(image)} cannot be read: {reason}') from error
        remedy = 'copy or convert it again (eval.py --skip-broken leaves such files out and counts them)'
        raise UnreadableFileError(
            f'cannot read {name_of(image)}: {reason}. The file is damaged or incomplete: '
            f'{"download it again" if isinstance(image, FileContent) else remedy}'
        ) from error


@contextmanager
def _decoder(file: FileInput) -> Iterator[DatasetReader | Image.Image]:
    """Opens a file with Pillow or GDAL."""
    if isinstance(file, FileContent):
        with Image.open(file) as image:
            if image.format not in GDAL_FORMATS and not _is_reduced(image):
                yield image
                return
        with MemoryFile(file.getvalue()) as memory, open_quietly(memory.name) as dataset:
            yield dataset
        return
    name = local_name(file)
    if os.path.isdir(name):
        raise DataError(f'{name} is a folder; give an image file')
    if not is_gdal_name(name) and not name.lower().endswith(tuple(GDAL_SUFFIXES)):
        if not os.path.exists(name):
            raise MissingFileError(f'file not found: {name}')
        try:
            with Image.open(name) as image:
                if image.format not in GDAL_FORMATS and not _is_reduced(image):
                    yield image
                    return
        except UnidentifiedImageError:
            pass
    with open_dataset(name) as dataset:
        yield dataset


def _of_dataset(source: DatasetReader, is_picture: bool, bands: tuple[int, ...] | None, path: str) -> Raster:
    if bands is not None:
        check_band_numbers(bands, source.count, path)
    numbers = list(bands) if bands is not None else bands_without_alpha(source) or [1]
    has_table = is_palette(source, numbers)
    if not is_picture:
        return Raster(source.read(numbers), source.nodata, has_table)
    reader = BandReader(source, numbers)
    values, valid = reader.read(source)
    turn = _TURNS[_tiff_orientation(source)]  # alpha does not count: an image has a label everywhere
    return Raster(turn(values), source.nodata, has_table, None if reader.is_masked_by_alpha else turn(valid))


def _of_pillow(image: Image.Image, is_picture: bool) -> Raster:
    if 0 in image.size:
        raise DataError(f'{name_of(image)} has no pixels ({image.width} x {image.height})')
    image.load()
    has_table = image.mode == 'P'
    mode = _plain_mode(image, is_picture)
    array = np.array(image if image.mode == mode else image.convert(mode))
    array = array.astype(np.uint8) if array.dtype == bool else array
    bands = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    if not is_picture:
        return Raster(bands, None, has_table)
    tags = getattr(image, 'tag_v2', {})  # a TIFF that was opened with Pillow
    nodata = None
    with suppress(ValueError):  # it is no number
        nodata = float(tags[NODATA_TAG]) if NODATA_TAG in tags else None
    valid = None if nodata is None else (bands != nodata).any(axis=0)
    if mode.startswith('I;16') and tags.get(PHOTOMETRIC) == 0:  # 0 is white; Pillow turns 8 bits round, not these
        bands = np.iinfo(np.uint16).max - bands
    turn = _TURNS.get(image.getexif().get(ORIENTATION, 1), _TURNS[1])
    return Raster(turn(bands), nodata, has_table, None if valid is None else turn(valid))


def _of_array(image: np.ndarray, takes_all: bool) -> Raster:
    array = np.asarray(image)
    if array.ndim not in (2, 3) or array.dtype.kind not in 'biufc' or 0 in array.shape:
        raise DataError(
            f'{name_of(image)} is no image; expected a path, an image of Pillow, or an array of numbers (H, W), '
            '(H, W, 3) RGB or (H, W, B) with bands chosen'
        )
    array = array * np.uint8(255) if array.dtype == bool else array
    bands = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    if array.ndim == 3 and takes_all and len(array) <= 4 < array.shape[2]:
        raise DataError(
            f'{name_of(image)} has its bands first; expected (H, W, 3): array.transpose(1, 2, 0), or permute'
        )
    if not np.ma.is_masked(image):
        return Raster(bands)
    has_data: np.ndarray = ~np.ma.getmaskarray(image)
    return Raster(bands, valid=has_data if array.ndim == 2 else np.any(has_data, axis=2))


def _plain_mode(image: Image.Image, is_picture: bool) -> str:
    modes = PICTURE_MODES if is_picture else PLAIN_MODES
    if image.mode not in modes:
        raise DataError(f'{name_of(image)} has mode {image.mode}; convert it to RGB first')
    return modes[image.mode]


def _is_reduced(image: Image.Image) -> bool:
    """Pillow reads, or has read, a file of 16 bits a colour, and keeps the upper 8 of them."""
    tiles, name = (getattr(image, attribute, None) for attribute in ('tile', 'filename'))
    if not tiles and name:  # read already: ask the file
        with suppress(OSError), Image.open(name) as fresh:
            tiles = fresh.tile
    return any(REDUCED_LAYOUT.search(str(tile[3])) for tile in tiles or ())


def _tiff_orientation(source: DatasetReader) -> int:
    """The camera's mark in a TIFF, which GDAL does not tell; a file that lies on the ground is never turned."""
    if source.driver != 'GTiff' or source.count > 4 or source.crs is not None or not source.transform.is_identity:
        return 1
    with suppress(OSError, ValueError, SyntaxError), Image.open(source.name) as image:
        orientation = image.getexif().get(ORIENTATION, 1)
        return orientation if orientation in _TURNS else 1
    return 1  # kinds of TIFF that Pillow does not know are none of a camera


def name_of(image: ImageInput) -> str:
    """What to call an image in a message."""
    if isinstance(image, FileInput):
        return image.name if isinstance(image, FileContent) else os.fspath(image)
    if isinstance(image, Image.Image):
        return f'image {getattr(image, "filename", "") or "of Pillow"}'
    shape = getattr(image, 'shape', None)
    return f'{type(image).__name__}' if shape is None else f'array {tuple(shape)} of {getattr(image, "dtype", "?")}'


_TURNS = {  # EXIF orientation -> what brings (..., H, W) upright
    1: lambda array: array,
    2: lambda array: array[..., ::-1],
    3: lambda array: array[..., ::-1, ::-1],
    4: lambda array: array[..., ::-1, :],
    5: lambda array: array.swapaxes(-1, -2),
    6: lambda array: array.swapaxes(-1, -2)[..., ::-1],
    7: lambda array: array.swapaxes(-1, -2)[..., ::-1, ::-1],
    8: lambda array: array.swapaxes(-1, -2)[..., ::-1, :],
}
