"""Sizes on the ground: of a pixel in metres, of pixels in square metres, of the classes of a map in hectares.

Projected systems: the determinant of the transform, in the system's unit, divided by the projection's areal scale
where that departs from 1 by more than a per cent (Web Mercator at 50 degrees: 2.4). Geographic systems: the area
element of the ellipsoid at the pixel's latitude, exact up to the square of a pixel's side in radians.

Source: areal element M N cos(phi) of an ellipsoid, Snyder, "Map Projections: A Working Manual" (USGS 1395), eq. 4-18 f.
"""

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from pyproj import CRS, Proj, Transformer
from pyproj.enums import WktVersion
from rasterio.crs import CRS as RasterioCRS

from segearth.errors import DataError
from segearth.inference.sliding_window import Box

EQUAL_AREA_TOLERANCE = 0.01  # UTM and national grids stay within 0.2 %
SQUARE_METRES_A_HECTARE = 1e4


class PixelAreas:
    """Area of the pixels of a scene (height, width); a DataError refuses systems that are no place on earth."""

    def __init__(self, crs: RasterioCRS | None, transform: Affine, shape: tuple[int, int]) -> None:
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
        self._scale = None if self._crs.is_geographic else self._areal_scale(shape)

    def of_box(self, box: Box) -> np.ndarray:
        """Square metres of each pixel of a box: (h, w), (h, 1) or (1, 1), to be broadcast."""
        y1, x1, y2, x2 = box
        area = abs(self.transform.determinant) * self._unit**2
        if not self._crs.is_geographic and self._scale is None:
            return np.full((1, 1), area)
        rows, columns = np.arange(y1, y2)[:, None] + 0.5, np.full((y2 - y1, 1), (x1 + x2) / 2)
        if self._crs.is_geographic and self.transform.d:  # latitude varies along a row
            columns = np.arange(x1, x2)[None] + 0.5
        transform: Any = self.transform  # affine's types know numbers only
        x, y = transform @ (columns, rows)
        return area / self._scale(x, y) if self._scale else area * self._element(y * self._unit)

    def _element(self, latitude: np.ndarray) -> np.ndarray:
        ellipsoid = self._crs.ellipsoid
        assert ellipsoid is not None  # geographic systems have one
        eccentricity2 = 1 - (ellipsoid.semi_minor_metre / ellipsoid.semi_major_metre) ** 2
        curvature = 1 - eccentricity2 * np.sin(latitude) ** 2
        return ellipsoid.semi_major_metre**2 * (1 - eccentricity2) * np.cos(latitude) / curvature**2

    def _areal_scale(self, shape: tuple[int, int]) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
        try:
            projection = Proj(self._crs)
            to_degrees = Transformer.from_crs(self._crs, self._crs.geodetic_crs, always_xy=True)
        except Exception:  # pyproj has several; a projection without factors counts as one that keeps areas
            return None

        def scale(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            longitude, latitude = to_degrees.transform(x, y)
            return np.asarray(projection.get_factors(longitude, latitude).areal_scale).reshape(np.shape(y))

        height, width = shape
        corners = [(0, 0), (width, 0), (0, height), (width, height), (width / 2, height / 2)]
        points = np.array([self.transform @ corner for corner in corners])
        factors = scale(points[:, 0], points[:, 1])
        if not np.isfinite(factors).all() or np.abs(factors - 1).max() <= EQUAL_AREA_TOLERANCE:
            return None
        return scale


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
    hectares: float | None  # None for a scene without a coordinate reference system


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
    """Writes the table as CSV; hectares stay empty where they are unknown."""
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
