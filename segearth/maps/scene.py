"""A scene on disk, read box by box: bands, what is valid in them, where they lie on the ground.

With ``resolution`` the scene is resampled while it is read, by GDAL's warper onto a finer or coarser grid with the same
origin and axes. What the warper makes of a pixel depends, in its last digits, on the box that it is asked for, so it is
asked for the tiles of one grid: every pixel has the same value whichever box it is read with. Scenes that lie nowhere
on the ground are resampled in pixels: at ``2px`` a pixel is two of the scene's wide and high.
"""

import glob
import logging
import math
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from segearth.errors import ConfigError, DataError, MissingFileError
from segearth.inference.sliding_window import Box
from segearth.io import gdal_files
from segearth.maps.areas import pixel_size
from segearth.maps.extent import Extent, pixels_of

logger = logging.getLogger(__name__)

RASTER_SUFFIXES = frozenset({'.tif', '.tiff', '.jp2', '.vrt', '.img', '.png', '.jpg', '.jpeg'})
RESULT_ENDINGS = {  # what stands behind a scene's name in its results, which a folder of scenes may hold too
    'overview': '_overview.png',
    'areas': '_areas.csv',
    'scores': '_scores.tif',
    'polygons': '_polygons.gpkg',
    'classes': '_classes.tif',
}
WORD_ENDINGS = {'picture': '_words.png', 'table': '_words.xlsx'}  # the same of its words that were examined
CHANGE_ENDINGS = {  # the same of two maps that were compared
    'table': '_changes.csv',
    'picture': '_changes.png',
    'polygons': '_change_polygons.gpkg',
    'changes': '_changes.tif',
}
GDAL_CACHE_MB = 256  # GDAL's default is a share of the machine's memory
CLOSE = 1.2  # factor between resolutions that are not worth resampling
AUTO, NATIVE = 'auto', 'native'  # resolutions: what the encoder knows, the scene's own
PIXELS = 'px'  # unit of a resolution in pixels of the scene
NOWHERE = CRS.from_wkt('LOCAL_CS["pixels", UNIT["pixel", 1]]')  # for GDAL's warper, which wants a system
LONGEST_SIDE = 2**31 - 1  # of a GDAL raster
MOST_ENLARGED = 20  # times a side: more is a slip
ENLARGED_UNASKED = 4  # times a side: a coarser scene shows nothing that the encoder knows, whatever its size
WARPED_TILE = 512  # pixels a side, resampled at once
BANDS_REMEDY = {
    'optical': 'say which are red, green and blue with --bands (bands=), as in 4,3,2 for Sentinel-2; radar: --sar',
    'sar': 'choose one or two with --bands (bands=), co-polarised first',
}


@dataclass(frozen=True)
class SceneSource:
    """How to open a scene; small and picklable, so that every worker of a cluster opens it for itself."""

    path: str  # file, or whatever else GDAL opens
    bands: tuple[int, ...] | None = None  # numbers from 1; None for the rules of `choose_bands`
    sensor: str = 'optical'  # or 'sar'
    # metres a pixel on the ground, or pixels of the scene as in '2px'; (finest, coarsest) to resample only what lies
    # outside; None for the scene's own
    resolution: float | str | tuple[float, float] | None = None
    ignore_alpha: bool = False  # alpha is a band like others and hides nothing
    extent: Extent | None = None  # the part that is mapped; None for all of it


class RasterGrid(NamedTuple):
    """Where the pixels of a raster lie."""

    crs: CRS | None
    transform: Affine  # pixel to map coordinates, the identity where there are none
    shape: tuple[int, int]  # (height, width) in pixels

    def part(self, box: Box) -> 'RasterGrid':
        """The grid of the pixels of a box."""
        y1, x1, y2, x2 = box
        return RasterGrid(self.crs, self.transform @ Affine.translation(x1, y1), (y2 - y1, x2 - x1))


class Scene:
    """An open scene, whose ``native`` dataset may be resampled in ``dataset``."""

    def __init__(self, dataset: rasterio.DatasetReader, source: SceneSource, native: rasterio.DatasetReader) -> None:
        self._dataset = dataset
        self.source = source
        self.name = gdal_files.name_of_results(source.path)
        self.bands = choose_bands(native, source)
        self.crs = native.crs  # None where the file has none
        is_placed = self.crs is not None or not native.transform.is_identity
        # pixel to map coordinates, the identity where the file has none
        self.transform = dataset.transform if is_placed else native.transform
        self.height, self.width = self.shape = dataset.shape
        self.part: Box = (0, 0, *self.shape)  # the pixels that are mapped
        if source.extent is not None:
            self.part = pixels_of(source.extent, self.crs, self.transform, self.shape, source.path)
        self.is_resampled = dataset is not native
        self._reader = gdal_files.BandReader(native, self.bands)
        self.is_picture = self._reader.dtype == np.uint8  # needs no stretch
        self.is_masked_by_alpha = self._reader.is_masked_by_alpha  # an alpha band says where there is data
        self.has_overviews = bool(native.overviews(self.bands[0]))  # so that a small picture of it is read fast

    @property
    def map_grid(self) -> RasterGrid:
        """The grid of the part that is mapped."""
        return RasterGrid(self.crs, self.transform, self.shape).part(self.part)

    @property
    def emptiness(self) -> str:
        """What to say of a scene without a pixel that has data."""
        alpha = ', its alpha band says; --ignore-alpha (ignore_alpha=True) reads it all the same'
        return f'{self.source.path} holds no valid pixel{alpha if self.is_masked_by_alpha else ""}'

    def read(self, box: Box, size: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Bands and valid pixels of a box as :meth:`segearth.io.gdal_files.BandReader.read` has them.

        With ``size`` (height, width) they are reduced, by nearest pixels from overviews where there are some.
        """
        try:
            if size is None and self.is_resampled:
                return self._read_tiles(box)
            return self._reader.read(self._dataset, as_window(box), size)
        except (RasterioError, OSError) as error:
            y1, x1, y2, x2 = box
            reason = error.__cause__ or error
            raise DataError(
                f'{self.source.path} cannot be read in rows {y1} to {y2}, columns {x1} to {x2} ({reason}). The file is '
                'damaged or its server does not answer: copy it again; what is done is kept for --resume'
            ) from error

    def _read_tiles(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        y1, x1, y2, x2 = box
        tops, lefts = (range(first - first % WARPED_TILE, last, WARPED_TILE) for first, last in ((y1, y2), (x1, x2)))
        rows = []
        for top in tops:
            ends = [(min(top + WARPED_TILE, self.height), min(left + WARPED_TILE, self.width)) for left in lefts]
            windows = [as_window((top, left, *end)) for left, end in zip(lefts, ends, strict=True)]
            tiles = zip(*(self._reader.read(self._dataset, window) for window in windows), strict=True)
            rows.append([np.concatenate(tile, axis=-1)[..., x1 - lefts[0] : x2 - lefts[0]] for tile in tiles])
        bands, valid = (np.concatenate(row, axis=-2) for row in zip(*rows, strict=True))
        inside = slice(y1 - tops[0], y2 - tops[0])
        return bands[:, inside], valid[inside]


@contextmanager
def gdal_session() -> Iterator[None]:
    """GDAL with a small cache, and without its warning about files that lie nowhere on the ground."""
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB, GDAL_ERROR_ON_LIBJPEG_WARNING=True):
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        yield


@contextmanager
def open_scene(source: SceneSource, dataset: rasterio.DatasetReader | None = None) -> Iterator[Scene]:
    """Opens a scene, or takes an open ``dataset``, which it leaves open; a UserError says what cannot be used."""
    with ExitStack() as stack:
        stack.enter_context(gdal_session())
        native = dataset or stack.enter_context(gdal_files.open_dataset(source.path))
        if source.ignore_alpha and ColorInterp.alpha in native.colorinterp:
            native = stack.enter_context(gdal_files.with_plain_alpha(native))
        if native.tags().get('EXIF_Orientation', '1') != '1':
            logger.warning('%s was taken with the camera turned; its map keeps the rows and columns of the file, as '
                           'GIS programs show it', source.path)  # fmt: skip
        if native.crs is None and native.gcps[0]:
            logger.warning('%s has ground control points only; the map is left without georeference. To have one, run '
                           'gdalwarp on the scene first', source.path)  # fmt: skip
        resolution = source.resolution
        if isinstance(resolution, tuple):
            resolution = nearest_known(native, source.path, *resolution)
        reader = native if resolution is None else stack.enter_context(_resampled(native, source, resolution))
        yield Scene(reader, source, native)


def find_scenes(names: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Paths of scenes from files, folders, patterns and GDAL's remote paths, in order.

    Of a folder, the files with the usual endings of rasters are taken, sorted, less this program's own results.
    A MissingFileError or DataError says what is not there.
    """
    found: list[str] = []
    for name in map(gdal_files.local_name, names):
        path = Path(name)
        if not name:
            raise MissingFileError('the name of a scene is empty; give a file, a folder, a pattern or a GDAL path')
        if gdal_files.is_gdal_name(name) or os.path.isfile(name):
            found.append(name)
            continue
        if os.path.isdir(name):
            matches = [entry for entry in path.iterdir() if entry.suffix.lower() in RASTER_SUFFIXES]
        elif glob.has_magic(name):
            matches = [Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file()]
        else:
            raise MissingFileError(f'scene not found: {name}; give a raster file, a folder, a pattern or a GDAL path')
        scenes = sorted(str(entry) for entry in matches if not _is_result(entry))
        if not scenes:
            raise DataError(f'no scenes in {name}; looked for files that end in {" ".join(sorted(RASTER_SUFFIXES))}')
        found += scenes
    return list(dict.fromkeys(found))


def _is_result(path: Path) -> bool:
    """A file of this program's, not a scene of the user's that happens to be called so."""
    tables = {**dict.fromkeys(RESULT_ENDINGS.values(), RESULT_ENDINGS['areas']),
              **dict.fromkeys(CHANGE_ENDINGS.values(), CHANGE_ENDINGS['table']),
              **dict.fromkeys(WORD_ENDINGS.values(), WORD_ENDINGS['table'])}  # fmt: skip
    beside = (path.name.removesuffix(ending) + table for ending, table in tables.items() if path.name.endswith(ending))
    return any(path.with_name(name).exists() for name in beside)


def choose_bands(dataset: rasterio.DatasetReader, source: SceneSource) -> list[int]:
    """Band numbers to read, from 1; a DataError says that bands have to be chosen, or do not exist.

    Without a choice: the only band as grey, three as red, green, blue, the first three of four (the fourth is near
    infrared or alpha, which never counts); for radar one or two.
    """
    path, chosen = source.path, source.bands
    numbers = gdal_files.bands_without_alpha(dataset)
    is_sar = source.sensor == 'sar'
    if chosen is not None:
        gdal_files.check_band_numbers(chosen, dataset.count, path)
        numbers = list(chosen)
    elif not is_sar and len(numbers) == 4:
        numbers = numbers[:3]
    is_byte = all(dataset.dtypes[number - 1] == 'uint8' for number in numbers)
    allowed = (1, 2, 3) if is_sar and is_byte else (1, 2) if is_sar else (1, 3)
    if len(numbers) not in allowed:
        what = f'of its {dataset.count} bands {len(numbers)} are chosen' if chosen else f'it has {len(numbers)} bands'
        raise DataError(f'{path}: {what}, {" or ".join(map(str, allowed))} are needed: {BANDS_REMEDY[source.sensor]}')
    if not is_sar and any(dataset.dtypes[number - 1].startswith('complex') for number in numbers):
        raise DataError(f'{path} holds complex numbers: a radar image; give --sar (sensor="sar")')
    return numbers


def choose_resolution(given: float | str | None, known: tuple[float, float] | None) -> Any:
    """The ``resolution`` of a SceneSource: metres a pixel or pixels as in '2px', as they are given; None for
    :data:`NATIVE`, what is ``known`` to the encoder for :data:`AUTO`.
    """
    if given in (None, NATIVE):
        return None
    if given == AUTO:
        return known
    if not isinstance(given, str):
        return given
    try:
        number = float(given.removesuffix(PIXELS))
    except ValueError:
        raise ConfigError(
            f'resolution is {given!r}; give metres a pixel as in 0.5, pixels of the scene as in 2{PIXELS}, {AUTO} or '
            f'{NATIVE}'
        ) from None
    return given if given.endswith(PIXELS) else number


@cache  # a scene is opened several times
def _tell_resampled(path: str, side: str, wanted: float) -> None:
    logger.info('%s has pixels of %s m; it is resampled to %g m, which the encoder knows (--resolution %s keeps it as '
                'it is)', path, side, wanted, NATIVE)  # fmt: skip


@cache
def _tell_coarse(path: str, side: str, coarsest: float) -> None:
    logger.warning('%s has pixels of %s m, far coarser than the %g m that the encoder knows: it stays as it is, and '
                   'its map may mean little', path, side, coarsest)  # fmt: skip


def nearest_known(native: rasterio.DatasetReader, path: str, finest: float, coarsest: float) -> float | None:
    """Metres a pixel that a scene is to be resampled to; None where it may stay, or nobody knows what it has."""
    size = pixel_size(native.crs, native.transform, native.shape)
    side = max(size) if size else None
    if side is None or finest / CLOSE <= side <= coarsest * CLOSE:
        return None
    if side > ENLARGED_UNASKED * coarsest:
        _tell_coarse(path, f'{side:.3g}', coarsest)
        return None
    wanted = finest if side < finest else coarsest
    _tell_resampled(path, f'{side:.3g}', wanted)
    return wanted


def _resampled(native: rasterio.DatasetReader, source: SceneSource, resolution: float | str) -> WarpedVRT:
    step: Any = resolution
    size, unit = pixel_size(native.crs, native.transform, native.shape), ' m'
    if isinstance(resolution, str) and resolution.endswith(PIXELS):
        size, unit = (1.0, 1.0), ''
        with suppress(ValueError):
            step = float(resolution.removesuffix(PIXELS))
    number = float(step) if isinstance(step, Real) else math.nan
    if not (math.isfinite(number) and number > 0):
        raise ConfigError(f'resolution is {resolution!r}; give metres a pixel, above 0, as in 0.5, or pixels as in 2px')
    if size is None:
        raise ConfigError(
            f'{source.path} has no coordinate reference system, so the size of its pixels on the ground is unknown: '
            f'leave --resolution out, give it in pixels as in 2{PIXELS}, or assign a system first, as in '
            'gdal_edit.py -a_srs EPSG:32632 FILE'
        )
    factors = [number / side for side in size]  # of rows, of columns
    height, width = (max(round(side / factor), 0) for side, factor in zip(native.shape, factors, strict=True))
    is_slip = min(factors) * MOST_ENLARGED < 1
    if min(height, width) < 1 or max(height, width) > LONGEST_SIDE or is_slip:
        raise ConfigError(
            f'{source.path} has pixels of {size[0]:.3g} x {size[1]:.3g}{unit}; at --resolution {resolution} it '
            f'would be {height} x {width} pixels. Choose a value nearer to its own, or {NATIVE}'
        )
    has_mask_band = MaskFlags.per_dataset in native.mask_flag_enums[0]
    resampling = Resampling.bilinear if factors[0] < 1 else Resampling.average
    if gdal_files.is_palette(native, gdal_files.bands_without_alpha(native)):
        resampling = Resampling.nearest
    return WarpedVRT(
        native,
        transform=native.transform @ Affine.scale(factors[1], factors[0]),
        height=height,
        width=width,
        resampling=resampling,
        add_alpha=has_mask_band and ColorInterp.alpha not in native.colorinterp,
        **({} if native.crs else {'crs': NOWHERE, 'src_crs': NOWHERE, 'src_transform': native.transform}),
    )


def as_window(box: Box) -> Window:
    """The box as rasterio has it."""
    y1, x1, y2, x2 = box
    return Window(x1, y1, x2 - x1, y2 - y1)
