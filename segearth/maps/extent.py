"""The part of a scene that is to be mapped: four bounds, or those of a vector file, to rows and columns."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affine import Affine
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import CRSError

from segearth.errors import ConfigError, DataError, MissingFileError
from segearth.inference.sliding_window import Box, intersection
from segearth.maps.areas import as_pyproj
from segearth.paths import require

Bounds = tuple[float, float, float, float]
"""West, south, east, north; without a system the smallest and largest x and y."""

EDGE_POINTS = 21  # along each side of bounds that are brought to another system, in which it is a curve
ROUNDING = 1e-4  # of a pixel, by which bounds may miss the edge of one
HALF_TURN = 180.0  # degrees
ORDER = 'check the order, WEST,SOUTH,EAST,NORTH, and the system'
EXAMPLE = 'give WEST,SOUTH,EAST,NORTH, as in 346000,5647000,347000,5648000, or the path of a vector file'


@dataclass(frozen=True)
class Extent:
    """Bounds on the ground; small and picklable, as the scene's source that it is part of."""

    bounds: Bounds
    crs: str | None = None  # in any form that rasterio knows; None for the scene's own


def read_extent(given: str | os.PathLike[str] | Sequence[float] | None, crs: Any = None) -> Extent | None:
    """Reads what a user gives: 'WEST,SOUTH,EAST,NORTH' or four such numbers in the system ``crs``, or a vector file.

    A file that says its own system needs no other. None stays None; a UserError says what cannot be meant.
    """
    if given is None:
        if crs is not None:
            raise ConfigError('--extent-crs is the system of --extent: give that, too')
        return None
    system = None if crs is None else _system(crs)
    bounds = _numbers(given)
    if bounds is None:
        if not isinstance(given, str | os.PathLike):
            raise ConfigError(f'--extent is {given!r}; {EXAMPLE}')
        bounds, own = _bounds_of_file(os.fspath(given))
        if own and system:
            raise ConfigError(f'{given} says its own system, {own}: leave --extent-crs out')
        system = own or system
    west, south, east, north = bounds
    if not all(map(math.isfinite, bounds)):
        raise ConfigError(f'--extent is {_shown(bounds)}; its bounds have to be finite numbers')
    if west > east:
        raise ConfigError(
            f'--extent is {_shown(bounds)}: west, {west:.10g}, lies east of east, {east:.10g}; the order is '
            'WEST,SOUTH,EAST,NORTH. Across the 180th meridian east is more than 180, as in 170,-20,190,-10'
        )
    if south > north:
        raise ConfigError(
            f'--extent is {_shown(bounds)}: south, {south:.10g}, is more than north, {north:.10g}; the order is '
            'WEST,SOUTH,EAST,NORTH (without a system: smallest x and y, largest x and y)'
        )
    if west == east or south == north:
        raise ConfigError(f'--extent is {_shown(bounds)}, which has no area; {EXAMPLE}')
    return Extent(bounds, system)


def pixels_of(extent: Extent, crs: CRS | None, transform: Affine, shape: tuple[int, int], path: str) -> Box:
    """Rows and columns of a scene (height, width) that an extent touches; a DataError says that there are none.

    Of a scene that is turned, the rectangle of pixels is meant around it.
    """
    bounds = extent.bounds
    if extent.crs is not None and crs is None:
        raise DataError(
            f'{path} has no coordinate reference system, so an extent in {extent.crs} cannot be found in it: give its '
            'own coordinates without --extent-crs; where it has none, columns and rows, counted from its upper left '
            'corner, as in 0,0,512,512'
        )
    if crs is not None and extent.crs is not None:
        bounds = transformed(bounds, CRS.from_user_input(extent.crs), crs, path)
    elif crs is not None and crs.is_geographic and bounds[2] > HALF_TURN:
        bounds = _this_side(bounds, transform, shape, path)
    box = pixels_within(bounds, transform, shape)
    if not has_area(box):
        place = bounds_of(transform, shape)
        if crs is not None and extent.crs is not None:
            place = transformed(place, crs, CRS.from_user_input(extent.crs), 'the scene')
        raise DataError(
            f'{path} lies outside of --extent {_shown(extent.bounds)}{_in(extent.crs)}: the scene is '
            f'{_shown(place)}'
        )
    return box


def _this_side(bounds: Bounds, transform: Affine, shape: tuple[int, int], path: str) -> Bounds:
    """Bounds in degrees whose east is more than 180, as the scene counts: as they are, or a turn less."""
    west, south, east, north = bounds
    shifted = west - 2 * HALF_TURN, south, east - 2 * HALF_TURN, north
    seen = [side for side in (bounds, shifted) if has_area(pixels_within(side, transform, shape))]
    if len(seen) == 2:
        raise DataError(
            f'--extent {_shown(bounds)} lies at both edges of {path}: map {_shown((west, south, HALF_TURN, north))} '
            f'and {_shown((-HALF_TURN, south, east - 2 * HALF_TURN, north))} one after the other'
        )
    return seen[0] if seen else bounds


def has_area(box: Box) -> bool:
    """Whether there is a pixel in a box."""
    return box[0] < box[2] and box[1] < box[3]


def pixels_within(bounds: Bounds, transform: Affine, shape: tuple[int, int]) -> Box:
    """Rows and columns of a raster (height, width) that bounds touch, empty where they lie outside."""
    west, south, east, north = bounds
    corners = [~transform @ (x, y) for x in (west, east) for y in (south, north)]
    (x1, x2), (y1, y2) = (sorted(values)[::3] for values in zip(*corners, strict=True))
    top, left = math.floor(y1 + ROUNDING), math.floor(x1 + ROUNDING)
    touched = top, left, max(math.ceil(y2 - ROUNDING), top + 1), max(math.ceil(x2 - ROUNDING), left + 1)
    return intersection(touched, (0, 0, *shape))


def bounds_of(transform: Affine, shape: tuple[int, int]) -> Bounds:
    """The bounds of a raster (height, width) in its own system."""
    height, width = shape
    corners = [transform @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))]
    (west, east), (south, north) = (sorted(values)[::3] for values in zip(*corners, strict=True))
    return west, south, east, north


def _numbers(given: Any) -> Bounds | None:
    """Four numbers; None where it is no list of numbers, but perhaps a path."""
    if isinstance(given, os.PathLike):
        return None
    try:
        numbers = tuple(map(float, given.split(',') if isinstance(given, str) else given))
    except (TypeError, ValueError):
        return None
    if len(numbers) == 4:
        return numbers
    if isinstance(given, str) and os.path.exists(given):
        return None
    raise ConfigError(f'--extent is {given}: {len(numbers)} numbers; {EXAMPLE}')


def _bounds_of_file(path: str) -> tuple[Bounds, str | None]:
    """Bounds and system of a vector file's only layer with geometries."""
    if not os.path.isfile(path):
        raise MissingFileError(f'--extent is {path!r}, which is neither four numbers nor a file; {EXAMPLE}')
    require('maps', 'pyogrio')
    import pyogrio  # late: few want it
    from pyogrio.errors import DataSourceError

    source = Path(path).read_bytes() if {';', '!'} & {*path} else path  # which pyogrio takes for parts of an address
    try:
        layers = [name for name, geometry in pyogrio.list_layers(source) if geometry is not None]
        if len(layers) > 1:
            raise DataError(f'{path} has {len(layers)} layers ({", ".join(layers)}): save the one that is meant alone')
        info = pyogrio.read_info(source, layer=layers[0], force_total_bounds=True) if layers else {}
    except (DataSourceError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f'{path} cannot be read as a vector file ({error}): {EXAMPLE}') from error
    bounds = info.get('total_bounds')
    if bounds is None or not all(map(math.isfinite, bounds)):
        raise DataError(f'{path} holds no geometry, so it has no bounds: {EXAMPLE}')
    west, south, east, north = map(float, bounds)
    return (west, south, east, north), info['crs']


def _system(crs: Any) -> str:
    try:
        return CRS.from_user_input(crs).to_string()
    except CRSError as error:
        raise ConfigError(f'--extent-crs is {crs!r}, no known system ({error}); give one as in EPSG:4326') from error


def transformed(bounds: Bounds, source: CRS, target: CRS, path: str, remedy: str = ORDER) -> Bounds:
    """Bounds around bounds in the system of the file ``path``; a DataError says that there are none."""
    if source == target:
        return bounds
    name = f'the extent {_shown(bounds)}{_in(source.to_string())}'
    try:
        transformer = Transformer.from_crs(as_pyproj(source), as_pyproj(target), always_xy=True)
        west, south, east, north = transformer.transform_bounds(*bounds, densify_pts=EDGE_POINTS)
    except ProjError as error:
        raise DataError(f'{name} cannot be brought to the system of {path} ({error}): {remedy}') from error
    if not all(map(math.isfinite, (west, south, east, north))):
        raise DataError(f'{name} lies where the system of {path} is not defined: {remedy}')
    if west > east:  # so pyproj says that they lie on both sides of the 180th meridian
        raise DataError(
            f'{name} crosses the 180th meridian, where the system of {path} has its edge: map both sides one after the '
            "other, with --extent in the scene's system"
        )
    return west, south, east, north


def _shown(bounds: Sequence[float]) -> str:
    return ','.join(f'{number:.10g}' for number in bounds)


def _in(crs: str | None) -> str:
    return f' ({crs})' if crs else ''
