"""Results as Cloud Optimized GeoTIFFs, with colours and class names.

Colours are the band's colour table; class names are in the metadata of band 1 (``class_0=building``). A GeoTIFF's own
colour table always has 256 entries, and GDAL keeps category names beside a GeoTIFF only, so ``NAME.tif.aux.xml`` holds
the names and a colour table of the classes alone, from where QGIS takes its legend.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from segearth.inference.sliding_window import Box
from segearth.io.panels import Palette
from segearth.maps.labelling import NO_DATA
from segearth.maps.scene import Scene

SETTINGS_TAG = 'SEGEARTH_SETTINGS'
TILE = 512  # pixels, side of a tile of the result
COG_OPTIONS = {
    'driver': 'COG',
    'compress': 'DEFLATE',
    'blocksize': TILE,
    'bigtiff': 'IF_SAFER',
    'overview_resampling': 'NEAREST',
}


def write_blocks(path: Path, scene: Scene, dtype: str, nodata: float, blocks: Iterable[tuple[Box, np.ndarray]]) -> None:
    """Writes a temporary GeoTIFF block by block, uncompressed, in the scene's grid."""
    profile = {
        'driver': 'GTiff',
        'height': scene.height,
        'width': scene.width,
        'count': 1,
        'dtype': dtype,
        'nodata': nodata,
        'tiled': True,
        'blockxsize': TILE,
        'blockysize': TILE,
        'bigtiff': 'IF_SAFER',
    }
    if scene.crs is not None or not scene.transform.is_identity:
        profile |= {'crs': scene.crs, 'transform': scene.transform}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        with rasterio.open(path, 'w', **profile) as dataset:
            for box, values in blocks:
                dataset.write(values, 1, window=as_window(box))


def describe_classes(path: Path, class_names: Sequence[str], palette: Palette, settings: Mapping[str, Any]) -> None:
    """Puts the colour table, class names and settings into a temporary GeoTIFF of labels."""
    colours = {index: (*map(int, colour), 255) for index, colour in enumerate(palette)}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        with rasterio.open(path, 'r+') as dataset:
            dataset.write_colormap(1, colours | {NO_DATA: (0, 0, 0, 0)})
            dataset.set_band_description(1, 'class')
            dataset.update_tags(1, **{f'class_{index}': name for index, name in enumerate(class_names)})
            dataset.update_tags(
                **{'CLASS_NAMES': '; '.join(class_names), SETTINGS_TAG: json.dumps(settings, sort_keys=True)}
            )


def optimise(source: Path, target: Path, **options: Any) -> None:
    """Copies a GeoTIFF into a Cloud Optimized one: tiled, compressed, with overviews of nearest pixels.

    Raises:
        OSError: The disk is full or not writable.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        try:
            rasterio.shutil.copy(source, target, **COG_OPTIONS, **options)
        except CPLE_BaseError as error:  # GDAL's own, which rasterio passes on here
            raise OSError(str(error)) from error


def write_legend(path: Path, class_names: Sequence[str], palette: Palette) -> None:
    """Writes GDAL's file beside a raster, with the names and colours of the values of band 1 and of no others."""
    root = ElementTree.Element('PAMDataset')
    band = ElementTree.SubElement(root, 'PAMRasterBand', band='1')
    ElementTree.SubElement(band, 'ColorInterp').text = 'Palette'
    colours, names = (ElementTree.SubElement(band, tag) for tag in ('ColorTable', 'CategoryNames'))
    for name, (red, green, blue) in zip(class_names, palette, strict=True):
        ElementTree.SubElement(colours, 'Entry', c1=f'{red}', c2=f'{green}', c3=f'{blue}', c4='255')
        ElementTree.SubElement(names, 'Category').text = name
    ElementTree.ElementTree(root).write(path, encoding='utf-8')


def as_window(box: Box) -> Window:
    """The box as rasterio has it."""
    y1, x1, y2, x2 = box
    return Window(x1, y1, x2 - x1, y2 - y1)
