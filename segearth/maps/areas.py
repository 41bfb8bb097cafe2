"""Sizes on the ground: of a pixel in metres, of pixels in square metres, of the classes of a map in hectares.

Areas are those of the ellipsoid of the scene's system, whatever the projection does to them (UTM: up to 0.2 % at the
rim of a zone; Web Mercator at 60 degrees: four times as much). In a geographic system they are the ellipsoid's element
of area at the pixel's latitude, exact up to the square of a pixel's side in radians; in a projected one that element
times the determinant of the inverse projection's derivatives, by differences of a kilometre, every 64 pixels.

Source: areal element M N cos(phi) of an ellipsoid, Snyder, "Map Projections: A Working Manual" (USGS 1395), eq. 4-18 f.
"""

import csv
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from pyproj import CRS, Transformer
from pyproj.enums import WktVersion
from pyproj.exceptions import ProjError
from rasterio.crs import CRS as RasterioCRS

from segearth.errors import DataError
from segearth.inference.sliding_window import Box

logger = logging.getLogger(__name__)

SQUARE_METRES_A_HECTARE = 1e4
NODE_PIXELS = 64  # between points where the projection is asked; in between its scale changes evenly
STEP_METRES = 1000.0  # of differences: long for the 0.6 mm to which some inverse projections are solved, short on earth


class PixelAreas:
    """Area of the pixels of a scene on the ellipsoid; a DataError refuses systems that are no place on earth.

    ``place`` says in words where areas are: in the plane of the few projections that PROJ cannot turn round.
    """

    place = 'on the ellipsoid'

    def __init__(self, crs: RasterioCRS | None, transform: Affine) -> None:
        self.transform = transform
        self.is_known = crs is not None
        if not self.is_known:
            return
        self._crs = as_pyproj(crs)
        if not (self._crs.is_geographic or self._crs.is_projected):
            raise DataError(
                f'areas cannot be computed in the coordinate reference system {self._crs.name!r}, which is neither '
                'projected nor geographic: bring the scene into one that is, as in gdalwarp -t_srs EPSG:32632, or '
                'take its system off'
            )
        self._unit = self._crs.axis_info[0].unit_conversion_factor  # to metres or radians
        self._to_ground: Transformer | None = None
        if self._crs.is_projected:
            try:
                self._to_ground = Transformer.from_crs(self._crs, self._crs.geodetic_crs, always_xy=True)
            except ProjError:  # a few, such as Bonne's with a turned system
                self.place = f'in the plane of {self._crs.name}'
                logger.warning('areas are %s, which PROJ cannot bring to the ellipsoid', self.place)

    def of_box(self, box: Box) -> np.ndarray:
        """Square metres of each pixel of a box: (h, w), (h, 1) or (1, 1), to be broadcast."""
        y1, x1, y2, x2 = box
        area = abs(self.transform.determinant) * self._unit**2
        transform: Any = self.transform  # affine's types know numbers only
        rows, columns = np.arange(y1, y2)[:, None] + 0.5, np.arange(x1, x2)[None] + 0.5
        if self._crs.is_geographic:
            if not self.transform.d:  # latitude is the same along a row
                columns = columns[:, :1]
            return area * self._element(np.asarray((transform @ (columns, rows))[1]) * self._unit)
        if self._to_ground is None:
            return np.full((1, 1), area)
        node_rows, node_columns = _nodes(y1, y2), _nodes(x1, x2)
        nodes = self._true_scale(*np.broadcast_arrays(*(transform @ (node_columns[None], node_rows[:, None]))))
        return area * _between(_between(nodes, node_rows, rows[:, 0]).T, node_columns, columns[0]).T

    def _true_scale(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Area on the ellipsoid of an area of 1 in the plane, at points; 1 where the projection has no point."""
        assert self._to_ground is not None
        ground, step = self._crs.geodetic_crs, STEP_METRES / self._unit
        assert ground is not None
        shifts = np.array([(step, 0), (-step, 0), (0, step), (0, -step)])[..., None, None]
        points = self._to_ground.transform(x + shifts[:, 0], y + shifts[:, 1])
        longitude, latitude = (np.asarray(values) * ground.axis_info[0].unit_conversion_factor for values in points)
        with np.errstate(invalid='ignore'):  # infinite where there is no point
            east = (longitude[::2] - longitude[1::2] + math.pi) % (2 * math.pi) - math.pi  # across 180 degrees too
            north = latitude[::2] - latitude[1::2]
            determinant = np.abs(east[0] * north[1] - east[1] * north[0]) / (2 * STEP_METRES) ** 2
            scale = determinant * self._element(latitude.mean(0))
        return np.where(np.isfinite(scale), scale, 1.0)

    def _element(self, latitude: np.ndarray) -> np.ndarray:
        ellipsoid = self._crs.ellipsoid
        assert ellipsoid is not None  # geographic and projected systems have one
        eccentricity2 = 1 - (ellipsoid.semi_minor_metre / ellipsoid.semi_major_metre) ** 2
        curvature = 1 - eccentricity2 * np.sin(latitude) ** 2
        return ellipsoid.semi_major_metre**2 * (1 - eccentricity2) * np.cos(latitude) / curvature**2


def _nodes(start: int, stop: int) -> np.ndarray:
    """Places from edge to edge of some pixels, at most :data:`NODE_PIXELS` apart."""
    return np.linspace(start, stop, -(-(stop - start) // NODE_PIXELS) + 1)


def _between(values: np.ndarray, nodes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Values (n, ...) at evenly spaced nodes (n,), brought to places (m,) in between by straight lines: (m, ...)."""
    position = (places - nodes[0]) / (nodes[1] - nodes[0])
    index = np.minimum(position.astype(int), len(nodes) - 2)
    share = (position - index)[:, None]
    return values[index] * (1 - share) + values[index + 1] * share


def pixel_size(crs: RasterioCRS | None, transform: Affine, shape: tuple[int, int]) -> tuple[float, float] | None:
    """(height, width) of the pixel in the middle of a scene in metres; None without a coordinate reference system."""
    if crs is None:
        return None
    system = as_pyproj(crs)
    unit = system.axis_info[0].unit_conversion_factor if system.axis_info else 1.0
    down, right = (transform.b, transform.e), (transform.a, transform.d)
    if not system.is_geographic:
        return math.hypot(*down) * unit, math.hypot(*right) * unit
    latitude = (transform @ (shape[1] / 2, shape[0] / 2))[1] * math.degrees(unit)
    geod = system.get_geod()
    assert geod is not None  # geographic systems have an ellipsoid
    longitude = 0.0
    steps = [(dx * math.degrees(unit), dy * math.degrees(unit)) for dx, dy in (down, right)]
    lengths = [geod.inv(longitude, latitude, longitude + dx, latitude + dy)[2] for dx, dy in steps]
    return lengths[0], lengths[1]


def as_pyproj(crs: RasterioCRS) -> CRS:
    """The same system for pyproj."""
    code = crs.to_epsg(confidence_threshold=100)
    return CRS.from_epsg(code) if code else CRS.from_wkt(crs.to_wkt(version=WktVersion.WKT2_2019.value))


@dataclass(frozen=True)
class ClassArea:
    """What a map holds of a class."""

    name: str
    pixels: int
    share: float  # of the pixels with data, in [0, 1]
    hectares: float | None  # on the ellipsoid; None for a scene without a coordinate reference system


def count_areas(
    blocks: Iterable[tuple[Box, np.ndarray]], areas: PixelAreas, class_names: Sequence[str]
) -> list[ClassArea]:
    """Adds up boxes and their labels (h, w) uint8, of which others than classes are left out: one row a class."""
    pixels, square_metres = np.zeros(256, np.int64), np.zeros(256)
    for box, labels in blocks:
        pixels += np.bincount(labels.ravel(), minlength=256)
        if areas.is_known:
            weights = np.broadcast_to(areas.of_box(box), labels.shape)
            square_metres += np.bincount(labels.ravel(), weights.ravel(), minlength=256)
    total = max(int(pixels[: len(class_names)].sum()), 1)
    hectares = square_metres / SQUARE_METRES_A_HECTARE
    return [
        ClassArea(name, int(count), int(count) / total, float(area) if areas.is_known else None)
        for name, count, area in zip(class_names, pixels, hectares, strict=False)
    ]


def write_areas(path: Path, table: Sequence[ClassArea]) -> None:
    """Writes the table as CSV; hectares, which are those on the ellipsoid, stay empty where they are unknown."""
    rows = [
        (row.name, row.pixels, f'{row.share:.6f}', '' if row.hectares is None else f'{row.hectares:.4f}')
        for row in table
    ]
    with open(path, 'w', newline='', encoding='utf-8') as file:
        csv.writer(file).writerows([('class', 'pixels', 'share', 'hectares'), *rows])


def read_areas(path: Path) -> list[ClassArea]:
    """The table that :func:`write_areas` wrote."""
    with open(path, newline='', encoding='utf-8') as file:
        _, *rows = csv.reader(file)
    return [
        ClassArea(name, int(pixels), float(share), float(hectares) if hectares else None)
        for name, pixels, share, hectares in rows
    ]
