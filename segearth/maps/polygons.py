"""Regions of a map as polygons in a GeoPackage, whose layer has the scene's name and opens in the class colours.

The file is of GeoPackage 1.2, which GDAL 3.4 and later, and programs of that age, read without a warning.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.features import rasterize, shapes

from segearth.maps.areas import SQUARE_METRES_A_HECTARE, PixelAreas
from segearth.maps.labelling import NO_DATA
from segearth.maps.scene import as_window
from segearth.maps.styles import add_layer_style

CLASS = 'class'  # the attribute by which polygons are coloured
STRIP_ROWS = 512  # read at once
VERSION = '1.2'  # of GeoPackage
TAKEN = ('gpkg', 'rtree', 'sqlite', 'layer_styles')  # beginnings of names that mean tables of other kinds
DESCRIPTION = 'Regions of one kind, connected by sides'
OF_SCORES = '; mean_score: mean probability of the class'


def write_polygons(
    target: Path,
    labels_path: Path,
    attributes: Mapping[str, Sequence[Any]],
    areas: PixelAreas,
    scene: str,
    style: str,
    scores_path: Path | None = None,
    ignored: Sequence[int] = (),
) -> None:
    """Writes a GeoPackage of one polygon a region, with the areas of the table and the mean score of its pixels.

    Regions are connected by sides, not corners, and have those ``attributes`` that are listed for their label; of
    ``ignored`` labels there are none. The label map is held in memory, a byte a pixel; the score raster, if there is
    one, is read in strips. The layer is called by :func:`layer_name` of the name of the ``scene``; ``style`` becomes
    its default one in QGIS. An OSError says that the disk is full.
    """
    import geopandas  # late: takes a second, and few want polygons
    import shapely

    with rasterio.open(labels_path) as dataset:
        labels, crs, transform = dataset.read(1), dataset.crs, dataset.transform
    is_wanted = ~np.isin(labels, [NO_DATA, *ignored])
    found = [(shapely.geometry.shape(shape), int(value)) for shape, value in shapes(labels, mask=is_wanted)]
    polygons = np.array([polygon for polygon, _ in found], dtype=object)
    class_ids = np.array([value for _, value in found], dtype=int)
    bounds = shapely.bounds(polygons).reshape(-1, 4)
    pixels, square_metres, scores = _zonal_sums(polygons, bounds, scores_path or labels_path, areas)
    columns = {
        **{name: [values[index] for index in class_ids] for name, values in attributes.items()},
        'scene': [scene] * len(class_ids),
        'pixels': pixels.astype(int),
        'hectares': square_metres / SQUARE_METRES_A_HECTARE,
        'mean_score': scores / np.maximum(pixels, 1),
    }
    description = DESCRIPTION
    if scores_path is None:
        del columns['mean_score']
    else:
        description += OF_SCORES
    if areas.is_known:
        description += f'; hectares: {areas.place}'
    else:
        del columns['hectares']
    on_ground = shapely.transform(polygons, lambda points: np.column_stack(transform @ (points[:, 0], points[:, 1])))
    frame = geopandas.GeoDataFrame(columns, geometry=on_ground, crs=crs.to_wkt() if crs else None)
    layer = layer_name(scene)
    options = {'dataset_options': {'VERSION': VERSION}, 'layer_options': {'DESCRIPTION': description}}
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', "'crs' was not provided")  # the scene has none
        content = BytesIO()  # pyogrio takes names for addresses, and cuts them at a semicolon
        try:
            frame.to_file(content, layer=layer, driver='GPKG', engine='pyogrio', geometry_type='Polygon', **options)
        except RuntimeError as error:  # what pyogrio raises when the disk is full
            raise OSError(str(error)) from error
    target.write_bytes(content.getbuffer())
    add_layer_style(target, layer, style)


def layer_name(scene: str) -> str:
    """The name of a scene as that of a layer: letters, digits, ``_``, ``-`` and ``.``, the last two not first, and no
    name that is taken.
    """
    name = re.sub(r'[^\w.-]+', '_', scene)
    return f'map_{name}' if name.lower().startswith((*TAKEN, '-', '.')) else name


def _zonal_sums(polygons: np.ndarray, bounds: np.ndarray, scores_path: Path, areas: PixelAreas) -> np.ndarray:
    """(3, N): pixels, square metres and sum of scores of N polygons, whose corners and bounds (N, 4) are in pixels."""
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
