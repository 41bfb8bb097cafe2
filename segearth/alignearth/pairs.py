"""Which optical image belongs to which SAR image, and both on one grid of pixels.

Pairs are found by stem in two folders or read from a list file. Where both files are georeferenced, the SAR image is
brought onto the optical image's grid within the footprint that both cover (bilinear; averaged where it is finer);
otherwise both must have the same size. Pixels without data in either are marked, and no loss looks at them.
"""

import csv
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio import windows
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.warp import Resampling, reproject, transform_bounds

from segearth.errors import DataError, MissingFileError
from segearth.io.gdal_files import UnreadableFileError, open_dataset
from segearth.io.pictures import NODATA_AT_MOST, sar_to_rgb, stretch_to_uint8
from segearth.io.raster import GDAL_SUFFIXES, read_raster, select_bands
from segearth.training.data import list_images
from simfeatup.weight_files import shorten

SHOWN = 5  # names listed in a message
ROUNDING = 1e-3  # of a pixel, in coordinates that went through a projection
PairOfPaths = tuple[Path, Path]  # optical, SAR
Bands = tuple[int, ...] | None  # numbers, from 1; None for all
Selections = tuple[Bands, Bands]  # of both
Layers = tuple[np.ndarray, np.ndarray]  # bands (B, H, W) and where they are valid (H, W)


@dataclass(frozen=True)
class Pair:
    """Two images of one place on one grid."""

    optical: np.ndarray  # (H, W, 3) uint8, RGB
    sar: np.ndarray  # (H, W, 3) uint8, as segearth.io.pictures.sar_to_rgb makes it
    valid: np.ndarray  # (H, W) bool, pixels with data in both


def match_folders(
    optical: str | os.PathLike[str], sar: str | os.PathLike[str], optical_ending: str = '', sar_ending: str = ''
) -> list[PairOfPaths]:
    """Pairs files of two folder trees by their path below the folder, without suffix and ending (``_S2Hand``).

    Files of other endings are left out, so both folders may be the same.
    """
    optical_files, sar_files = _stems(optical, optical_ending), _stems(sar, sar_ending)
    lonely = [str(path) for name, path in optical_files.items() if name not in sar_files]
    lonely += [str(path) for name, path in sar_files.items() if name not in optical_files]
    if lonely:
        raise DataError(
            f'{len(lonely)} images have no partner of the same stem: {shorten(lonely, SHOWN)}. Remove them, '
            'set optical_ending and sar_ending to what follows the common stem, or write the pairs into a list file'
        )
    return [(path, sar_files[name]) for name, path in optical_files.items()]


def read_list(path: str | os.PathLike[str]) -> list[PairOfPaths]:
    """Pairs of a list file: one a line, optical first, a comma or tab between, relative to the list's folder."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise MissingFileError(f'list of pairs not found: {path}')
    pairs = []
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
        if not line.strip() or line.startswith('#'):
            continue
        fields = next(csv.reader([line], delimiter='\t' if '\t' in line else ','))
        if len(fields) != 2 or not all(field.strip() for field in fields):
            raise DataError(f'{path}, line {number}: {line!r} is no pair; write OPTICAL,SAR')
        optical, sar = (path.parent / field.strip() for field in fields)
        for file in (optical, sar):
            if not file.is_file():
                raise MissingFileError(f'{path}, line {number}: file not found: {file}')
        pairs.append((optical, sar))
    if not pairs:
        raise DataError(f'{path} lists no pairs; write one a line: OPTICAL,SAR')
    return pairs


def read_pair(
    optical: Path, sar: Path, optical_bands: Bands = None, sar_bands: Bands = None, sar_scale: str = 'auto'
) -> Pair:
    """Reads two images of one place; bands and scale as for :class:`segearth.alignearth.pair_data.PairDataset`."""
    paths, selections = (optical, sar), (optical_bands, sar_bands)
    for path in paths:
        if not path.is_file():
            raise MissingFileError(f'file not found: {path}')
    bands = (_read_on_common_grid if all(map(_is_georeferenced, paths)) else _read_as_they_are)(paths, selections)
    (optical_values, optical_valid), (sar_values, sar_valid) = bands
    valid = optical_valid & sar_valid
    if not valid.any():
        raise DataError(f'{optical} and {sar} have no pixel with data in both')
    try:
        radar = sar_to_rgb(sar_values, sar_scale)
    except DataError as error:
        raise DataError(f'{sar}: {error}') from error
    colours = optical_values[:3] if len(optical_values) == 4 else optical_values
    if len(colours) not in (1, 3):
        raise DataError(
            f'{optical} has {len(colours)} bands: say which are red, green and blue, as in optical_bands=(4, 3, 2) for '
            'Sentinel-2'
        )
    if colours.dtype != np.uint8:
        colours = stretch_to_uint8(np.where(optical_valid, colours.astype(np.float32), np.nan))
    return Pair(np.broadcast_to(colours, (3, *valid.shape)).transpose(1, 2, 0).copy(), radar, valid)


def _stems(folder: str | os.PathLike[str], ending: str) -> dict[str, Path]:
    root = Path(folder).expanduser()
    stems: dict[str, Path] = {}
    for path in list_images(root):
        name = str(path.relative_to(root).with_suffix(''))
        if not name.endswith(ending):
            continue
        name = name.removesuffix(ending)
        if name in stems:
            raise DataError(f'{stems[name]} and {path} have the same stem: which one is meant? Remove one')
        stems[name] = path
    if not stems:
        raise DataError(f'{root} holds no image whose name ends with {ending!r}')
    return stems


def _is_georeferenced(path: Path) -> bool:
    if path.suffix.lower() not in GDAL_SUFFIXES:
        return False
    with open_dataset(path) as source:
        return source.crs is not None and source.transform != Affine.identity()


def _read_as_they_are(paths: PairOfPaths, selections: Selections) -> list[Layers]:
    parts = []
    for path, selection in zip(paths, selections, strict=True):
        raster = read_raster(path)
        bands = select_bands(raster.bands, selection, path)
        has_data = _has_data(bands, None)
        parts.append((bands, has_data if raster.valid is None else has_data & raster.valid))
    sizes = [' x '.join(map(str, bands.shape[1:])) for bands, _ in parts]
    if sizes[0] != sizes[1]:
        raise DataError(
            f'{paths[0]} is {sizes[0]} pixels and {paths[1]} {sizes[1]}, and they are not both georeferenced: bring '
            'them to one size, or give GeoTIFFs with a coordinate system'
        )
    return parts


def _read_on_common_grid(paths: PairOfPaths, selections: Selections) -> list[Layers]:
    with open_dataset(paths[0]) as optical, open_dataset(paths[1]) as sar:
        transform, size = _common_grid(optical, sar)
        try:
            return [
                _resample(source, selection, optical.crs, transform, size)
                for source, selection in zip((optical, sar), selections, strict=True)
            ]
        except (RasterioError, OSError) as error:  # rasterio 1.3: a file that cannot be read is an OSError alone
            raise UnreadableFileError(f'cannot read {paths[0]} with {paths[1]}: {error}') from error


def _common_grid(optical: DatasetReader, sar: DatasetReader) -> tuple[Affine, tuple[int, int]]:
    """Transform and (H, W) of the optical image's grid, cut to what the SAR image covers too."""
    if optical.transform.b or optical.transform.d:
        raise DataError(f'{optical.name} is rotated against north; warp it first (gdalwarp)')
    box, other = optical.bounds, transform_bounds(sar.crs, optical.crs, *sar.bounds)
    left, bottom = max(box.left, other[0]), max(box.bottom, other[1])
    right, top = min(box.right, other[2]), min(box.top, other[3])
    if left >= right or bottom >= top:
        raise DataError(f'{optical.name} and {sar.name} do not overlap: their footprints are disjoint')
    window = windows.from_bounds(left, bottom, right, top, optical.transform)
    x1, y1 = (math.ceil(start - ROUNDING) for start in (window.col_off, window.row_off))
    x2 = math.floor(window.col_off + window.width + ROUNDING)
    y2 = math.floor(window.row_off + window.height + ROUNDING)
    if x2 <= x1 or y2 <= y1:
        raise DataError(f'{optical.name} and {sar.name} have less than a pixel in common')
    window = windows.Window(x1, y1, x2 - x1, y2 - y1)
    return windows.transform(window, optical.transform), (y2 - y1, x2 - x1)


def _resample(source: DatasetReader, selection: Bands, crs: CRS, transform: Affine, size: tuple[int, int]) -> Layers:
    """Bands (B, H, W) in the file's type and validity (H, W) on a grid."""
    bands = select_bands(source.read(), selection, source.name)
    valid = _has_data(bands, source.nodata) & (source.dataset_mask() > 0)
    values = np.where(valid, bands.astype(np.float32), np.nan)
    west, south, east, north = transform_bounds(source.crs, crs, *source.bounds)
    pixel = math.sqrt(abs((east - west) * (north - south)) / (source.width * source.height))
    is_finer = pixel < 0.67 * math.sqrt(abs(transform.a * transform.e))
    result = np.full((len(bands), *size), np.nan, np.float32)
    reproject(
        values, result, src_transform=source.transform, src_crs=source.crs, dst_transform=transform, dst_crs=crs,
        src_nodata=np.nan, dst_nodata=np.nan, resampling=Resampling.average if is_finer else Resampling.bilinear,
    )  # fmt: skip
    covered = np.asarray(np.isfinite(result).all(0))
    if np.issubdtype(bands.dtype, np.integer):
        limits = np.iinfo(bands.dtype)
        result = np.clip(np.rint(np.nan_to_num(result)), limits.min, limits.max).astype(bands.dtype)
    return result, covered


def _has_data(bands: np.ndarray, nodata: float | None) -> np.ndarray:
    """(B, H, W) -> (H, W): finite, not the declared number, and not -9999 or its kin."""
    values = np.abs(bands) if np.iscomplexobj(bands) else bands
    valid = np.isfinite(values) & (values > NODATA_AT_MOST)
    if nodata is not None and np.isfinite(nodata):
        valid &= values != nodata
    return valid.all(0)
