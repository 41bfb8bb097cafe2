"""Rasters that GDAL opens: their names, and a reader of bands for whole images and boxes of scenes alike."""

import os
import re
import threading
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import rasterio
import rasterio.shutil
from PIL.PngImagePlugin import PngImageFile
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.windows import Window

from segearth.errors import DataError, MissingFileError

GDAL_NAME = re.compile(r'/vsi|[A-Za-z][A-Za-z0-9_+.-]+:')  # GPKG:file:table, s3://...; one letter is a drive
SCHEME = re.compile(r'[a-z0-9+]+://')
OTHER_DTYPES = {'complex_int16': 'complex64'}  # names of rasterio's that NumPy has not

_warning_filters = threading.Lock()  # of the whole process; warnings.catch_warnings is not safe in threads


class UnreadableFileError(DataError):
    """A file is truncated, damaged or of an unknown format."""


class FileContent(BytesIO):
    """A file in memory, such as one of an archive; ``name`` is what messages call it."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name

    def __repr__(self) -> str:
        return self.name


def local_name(name: str | os.PathLike[str]) -> str:
    """The name as GDAL takes it: ``file://`` and ``~`` are resolved, an existing file loses a trailing slash."""
    name = os.fsdecode(name)
    if name.startswith('file:') and not os.path.exists(name):
        try:
            encoded = urlsplit(name).path
        except ValueError as error:
            raise DataError(f'{name} is no address of a file ({error}); give its path') from error
        name = encoded if os.path.exists(encoded) else unquote(encoded)
    path = os.path.expanduser(Path(name)) if name else ''
    return path if os.path.exists(path) else name


def is_gdal_name(name: str) -> bool:
    """The name is no file of this machine, but GDAL may know it: a part of a file, an archive, an address."""
    return bool(GDAL_NAME.match(name)) and not os.path.exists(name)


def name_of_results(path: str) -> str:
    """What the results of an image are called: the file's name without its ending, and the part of the file.

    ``a.b`` of ``folder/a.b.tif``, ``a_two`` of ``GPKG:folder/a.gpkg:two``.
    """
    if not is_gdal_name(path):
        return Path(path).stem or 'scene'
    if '://' in path and SCHEME.match(path):
        path = urlsplit(path).path
    parts = path.replace('"', '').split(':')
    parts = parts[1:] if len(parts) > 1 else parts  # less the driver
    names = [part.strip('/').replace('/', '_') if part.startswith('//') else Path(part).stem for part in parts]
    return re.sub(r'[^\w.-]+', '_', '_'.join(filter(None, names))) or 'scene'


def open_dataset(name: str | os.PathLike[str]) -> DatasetReader:
    """Opens a raster: a file, or whatever else GDAL opens, as ``GPKG:file.gpkg:table`` or ``/vsizip/a.zip/b.tif``.

    A MissingFileError says that there is no such file, an UnreadableFileError that GDAL cannot read it, a DataError
    that it is a container of several rasters.
    """
    name = local_name(name)
    if not is_gdal_name(name) and not os.path.exists(name):
        raise MissingFileError(f'file not found: {name}')
    try:
        dataset = open_quietly(name)
    except (RasterioError, OSError, ValueError) as error:
        raise UnreadableFileError(
            f'{name} cannot be opened as a raster ({error}). Check the path and that the file is complete; GDAL reads '
            'GeoTIFF, JPEG 2000, VRT, PNG, JPEG and more'
        ) from error
    if dataset.driver == 'PNG' and os.path.isfile(name):
        _check_png(name)
    if dataset.count == 0:
        parts = dataset.subdatasets or ['netcdf:FILE:NAME']
        dataset.close()
        raise DataError(
            f'{name} is a container of several rasters, without bands of its own: give one of them, as in {parts[0]}'
        )
    return dataset


def open_quietly(name: str, **options: Any) -> DatasetReader:
    """Opens as rasterio does, without its warning about files that lie nowhere on the ground."""
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        return rasterio.open(name, **options)


def with_plain_alpha(dataset: DatasetReader) -> DatasetReader:
    """The same raster with its alpha bands as bands like others, for files that call an infrared band alpha."""
    with MemoryFile(ext='.vrt') as memory:
        rasterio.shutil.copy(dataset, memory.name, driver='VRT')
        text = memory.read().decode()
    return open_quietly(text.replace('<ColorInterp>Alpha</ColorInterp>', '<ColorInterp>Undefined</ColorInterp>'))


def check_band_numbers(selection: Sequence[int], count: int, path: str | os.PathLike[str]) -> None:
    """Refuses numbers of bands outside 1 to ``count``."""
    wrong = [number for number in selection if not 1 <= number <= count]
    if wrong:
        raise DataError(f'{path} has {count} bands, so band {wrong[0]} does not exist: choose from 1 to {count}')


def bands_without_alpha(dataset: DatasetReader) -> list[int]:
    """Numbers of the bands, from 1, less alpha."""
    return [number for number, kind in enumerate(dataset.colorinterp, 1) if kind != ColorInterp.alpha]


def is_palette(dataset: DatasetReader, numbers: Sequence[int]) -> bool:
    """The bands are one, whose numbers are places in a colour table."""
    if len(numbers) != 1 or dataset.colorinterp[numbers[0] - 1] != ColorInterp.palette:
        return False
    try:
        dataset.colormap(numbers[0])
    except ValueError:  # the file says so, but has none
        return False
    return _dtype(dataset, numbers[0]).kind in 'iu'


class BandReader:
    """Reads bands of a raster as numbers that mean brightness, backscatter or colour.

    A colour table is looked up; 8-bit numbers that use fewer bits are brought to 0 to 255, and turned round where the
    file says that 0 is white; other numbers get the scale and offset that the file declares.
    """

    def __init__(self, dataset: DatasetReader, numbers: Sequence[int]) -> None:
        self.numbers = list(numbers)  # from 1
        kinds = [dataset.colorinterp[number - 1] for number in self.numbers]
        if len(kinds) > 1 and ColorInterp.palette in kinds:
            raise DataError(
                f'{dataset.name} holds {len(kinds)} pictures with a colour table each, as an animation does: choose '
                'one, as in --bands 1 (bands=(1,))'
            )
        self.is_masked_by_alpha = MaskFlags.alpha in dataset.mask_flag_enums[self.numbers[0] - 1]
        self._stored = np.result_type(*(_dtype(dataset, number) for number in self.numbers))
        self._table = _colour_table(dataset, self.numbers[0]) if is_palette(dataset, numbers) else None
        places = [number - 1 for number in self.numbers]
        scales, offsets = ([values[place] for place in places] for values in (dataset.scales, dataset.offsets))
        is_scaled = (set(scales), set(offsets)) != ({1.0}, {0.0}) and self._stored != np.uint8
        self._linear = tuple(np.array(values)[:, None, None] for values in (scales, offsets)) if is_scaled else None
        self._highest = _highest_number(dataset, self.numbers, self._stored)
        self._is_inverted = dataset.tags(ns='IMAGE_STRUCTURE').get('MINISWHITE') == 'YES' and self._table is None
        number_type = np.result_type(self._stored, np.float32) if is_scaled else self._stored
        self.dtype = number_type if self._table is None else np.dtype(np.uint8)

    def read(
        self, source: DatasetReader, window: Window | None = None, size: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reads a window, or all, of the raster or of a resampled one, brought to a size by nearest pixels.

        Returns:
            bands: (B, h, w) of :attr:`dtype`, (3, h, w) where there is a colour table.
            valid: (h, w) bool. No data is where the file's mask, alpha or no-data number says so, or a float is not
                finite, in all bands that were chosen: a black roof may well be 0 in one of them.
        """
        arguments = {'window': window, 'out_shape': None if size is None else (len(self.numbers), *size)}
        bands = source.read(self.numbers, out_dtype=self._stored, **arguments)
        valid = source.read_masks(self.numbers, **arguments) != 0
        if bands.dtype.kind in 'fc':
            valid &= np.isfinite(bands)
        return self._meaning(bands), valid.any(axis=0)

    def _meaning(self, bands: np.ndarray) -> np.ndarray:
        if self._table is not None:
            return self._table.take(bands[0], axis=0, mode='clip').transpose(2, 0, 1)
        if self._is_inverted and self._highest is not None:
            bands = np.subtract(self._highest, bands, dtype=bands.dtype)
        if bands.dtype == np.uint8 and self._highest is not None and self._highest != 255:
            bands = np.rint(bands * (255 / self._highest)).astype(np.uint8)
        if self._linear is not None:
            scale, offset = self._linear
            bands = (bands * scale + offset).astype(self.dtype)
        return bands


def _dtype(dataset: DatasetReader, number: int) -> np.dtype:
    name = dataset.dtypes[number - 1]
    return np.dtype(OTHER_DTYPES.get(name, name))


def _check_png(name: str) -> None:
    """Refuses an incomplete PNG, whose rest GDAL fills without a word."""
    try:
        with PngImageFile(name) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableFileError(f'{name} is damaged or incomplete ({error}): copy or convert it again') from error


def _highest_number(dataset: DatasetReader, numbers: Sequence[int], dtype: np.dtype) -> int | None:
    """Largest number that the bits of the bands can hold; None for signed numbers and floats."""
    if dtype.kind != 'u':
        return None
    bits = (dataset.tags(number, ns='IMAGE_STRUCTURE').get('NBITS') for number in numbers)
    return 2 ** max(int(value) if value else 8 * dtype.itemsize for value in bits) - 1


def _colour_table(dataset: DatasetReader, number: int) -> np.ndarray:
    """(N, 3) uint8; numbers beyond the table are black."""
    colours = dataset.colormap(number)
    table = np.zeros((max(256, max(colours, default=0) + 2), 3), np.uint8)
    for index, colour in colours.items():
        table[index] = colour[:3]
    return table
