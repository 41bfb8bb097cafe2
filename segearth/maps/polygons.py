"""Polygons of a label map with class, area and mean score, as GeoPackage.

Regions are connected by sides, not corners. Their areas are sums over pixels, with the same pixel areas as the table,
so both agree. The label map is held in memory, a byte a pixel; the score raster is read in strips.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely
from rasterio.features import rasterize, shapes

from segearth.maps.areas import SQUARE_METRES_A_HECTARE, PixelAreas
from segearth.maps.labelling import NO_DATA
from segearth.maps.scene import as_window

STRIP_ROWS = 512
LAYER = 'classes'


def write_polygons(
    target: Path, labels_path: Path, scores_path: Path, class_names: Sequence[str], areas: PixelAreas
) -> None:
    """Writes one polygon a region.

    Args:
        target: New GeoPackage; columns class, class_id, pixels, hectares (left out without a coordinate reference
            system) and mean_score.
        labels_path: GeoTIFF of labels.
        scores_path: GeoTIFF of scores in the same grid.
        class_names: K names.
        areas: Pixel areas.

    Raises:
        OSError: The disk is full or not writable.
    """
    with rasterio.open(labels_path) as dataset:
        labels, crs, transform = dataset.read(1), dataset.crs, dataset.transform
    found = [(shapely.geometry.shape(shape), int(value)) for shape, value in shapes(labels, mask=labels != NO_DATA)]
    polygons = np.array([polygon for polygon, _ in found], dtype=object)
    class_ids = np.array([value for _, value in found], dtype=int)
    pixels, square_metres, scores = _zonal_sums(polygons, scores_path, areas)
    columns = {
        'class': [class_names[index] for index in class_ids],
        'class_id': class_ids,
        'pixels': pixels.astype(int),
        'hectares': square_metres / SQUARE_METRES_A_HECTARE,
        'mean_score': scores / np.maximum(pixels, 1),
    }
    if not areas.is_known:
        del columns['hectares']
    on_ground = shapely.transform(polygons, lambda points: np.column_stack(transform @ (points[:, 0], points[:, 1])))
    frame = geopandas.GeoDataFrame(columns, geometry=on_ground, crs=crs.to_wkt() if crs else None)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', "'crs' was not provided")  # the scene has none
        content = BytesIO()  # pyogrio takes names for addresses, and cuts them at a semicolon
        try:
            frame.to_file(content, layer=LAYER, driver='GPKG', engine='pyogrio', geometry_type='Polygon')
        except RuntimeError as error:  # what pyogrio raises when the disk is full
            raise OSError(str(error)) from error
    target.write_bytes(content.getbuffer())


def _zonal_sums(polygons: np.ndarray, scores_path: Path, areas: PixelAreas) -> np.ndarray:
    """(3, N): pixels, square metres and sum of scores of each polygon, whose corners are in pixels."""
    bounds = shapely.bounds(polygons).reshape(-1, 4)
    sums = np.zeros((3, len(polygons) + 1))
    with rasterio.open(scores_path) as dataset:
        for top in range(0, dataset.height, STRIP_ROWS):
            bottom = min(top + STRIP_ROWS, dataset.height)
            inside = np.flatnonzero((bounds[:, 1] < bottom) & (bounds[:, 3] > top))
            if not len(inside):
                continue
            box = (top, 0, bottom, dataset.width)
            shape = (bottom - top, dataset.width)
            shift = rasterio.Affine.translation(0, top)
            ids = rasterize(
                ((polygons[index], index + 1) for index in inside), out_shape=shape, transform=shift, dtype='int32'
            ).ravel()
            scores = dataset.read(1, window=as_window(box)).ravel()
            weights = np.broadcast_to(areas.of_box(box), shape).ravel() if areas.is_known else np.zeros(ids.size)
            for row, values in enumerate((None, weights, np.nan_to_num(scores))):
                sums[row] += np.bincount(ids, values, minlength=len(polygons) + 1)
    return sums[:, 1:]
