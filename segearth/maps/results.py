"""From finished blocks to the files of a map: Cloud Optimized GeoTIFFs, areas, a quick look, styles for QGIS.

Colours are the band's colour table; class names are in the metadata of band 1 (``class_0=building``). A GeoTIFF's own
colour table always has 256 entries, and GDAL keeps category names beside a GeoTIFF only, so ``NAME.tif.aux.xml`` holds
the names and a colour table of the classes alone.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from PIL import Image, ImageDraw, ImageFont
from rasterio._err import CPLE_BaseError
from rasterio.features import sieve

from segearth.errors import ConfigError, DataError
from segearth.inference.sliding_window import Box
from segearth.io.panels import Palette, colour_map, draw_panels
from segearth.maps.areas import ClassArea, PixelAreas, count_areas, pixel_size, write_areas
from segearth.maps.labelling import NO_DATA
from segearth.maps.polygons import CLASS, write_polygons
from segearth.maps.run import MapPlan, MapRun, place_reduced, reduced
from segearth.maps.scene import RESULT_ENDINGS, RasterGrid, as_window
from segearth.maps.styles import polygon_classes_style, ramp_style, raster_classes_style
from segearth.maps.workspace import SETTINGS_TAG

logger = logging.getLogger(__name__)

TILE = 512  # pixels, side of a tile of the result
TILED = {'tiled': True, 'blockxsize': TILE, 'blockysize': TILE, 'bigtiff': 'IF_SAFER'}
COG = {'compress': 'DEFLATE', 'blocksize': TILE, 'bigtiff': 'IF_SAFER', 'overview_resampling': 'NEAREST'}
SHORTEST_SIDE = 160  # pixels of the quick look; a smaller scene is enlarged, so that the scale bar has room
BAR_SHARE = 0.4  # longest bar, of the panel's width


@dataclass(frozen=True)
class MapLegend:
    """Names, colours and words of the classes, K of each."""

    class_names: tuple[str, ...]
    palette: Palette
    class_words: tuple[str, ...] = ()  # all words of each class, commas between them; empty where names are all


@dataclass(frozen=True)
class MapFiles:
    """Where the results of a scene lie; None for those that are not made."""

    overview: Path  # PNG with legend
    areas: Path  # CSV
    scores: Path | None  # GeoTIFF
    polygons: Path | None  # GeoPackage
    classes: Path  # GeoTIFF of class ids

    @classmethod
    def of(cls, out: Path, name: str, scores: bool = True, polygons: bool = True) -> MapFiles:
        """Paths of the results of a scene, of all kinds if nothing else is said."""
        paths: dict[str, Any] = {kind: out / f'{name}{ending}' for kind, ending in RESULT_ENDINGS.items()}
        unwanted = {'scores': scores, 'polygons': polygons}
        return cls(**paths | {kind: None for kind, is_wanted in unwanted.items() if not is_wanted})

    @property
    def legend(self) -> Path:
        """GDAL's file of class names and colours beside the GeoTIFF of class ids."""
        return self.classes.with_name(f'{self.classes.name}.aux.xml')

    @property
    def styles(self) -> dict[str, Path]:
        """QGIS's file of a style beside each raster and the polygons."""
        kinds = {'scores': self.scores, 'polygons': self.polygons, 'classes': self.classes}
        return {kind: path.with_suffix('.qml') for kind, path in kinds.items() if path}

    @property
    def paths(self) -> list[Path]:
        """All but :attr:`legend`, the GeoTIFF of class ids last."""
        return [*self.styles.values(), *(path for path in vars(self).values() if path)]


def write_results(
    run: MapRun, files: MapFiles, legend: MapLegend, areas: PixelAreas, smallest: int, settings: Mapping[str, Any]
) -> dict[Path, Path]:
    """Makes the wanted files of a run whose blocks are done, in the workspace's folder.

    Regions of fewer pixels than ``smallest`` join their largest neighbour. Gives temporary file -> final path, the
    GeoTIFF of class ids last; an OSError says that the disk is full.
    """
    plan, scene = run.plan, run.scene
    folder = run.workspace.result_folder()
    labels, scores = folder / 'labels.tif', folder / 'scores.tif'
    picture = np.zeros((*plan.small_shape, 3), np.uint8)

    def blocks(key: str) -> Iterator[tuple[Box, np.ndarray]]:
        for index in range(len(plan.blocks)):
            arrays, box = run.workspace.load_block(index), plan.place(index)
            place_reduced(picture, arrays['picture'], *box[:2], plan.step)
            yield box, arrays[key]

    def temporary(final: Path) -> Path:
        return folder / final.name

    write_blocks(labels, scene.map_grid, 'uint8', NO_DATA, blocks('labels'))
    if plan.with_scores:
        write_blocks(scores, scene.map_grid, 'float32', float('nan'), blocks('scores'))
    if smallest > 1:
        with rasterio.open(labels, 'r+') as dataset:
            classes = dataset.read(1)
            dataset.write(sieve(classes, smallest, mask=classes != NO_DATA), 1)  # no data stays, and is no neighbour
    small, table = _measure(plan, labels, areas, legend)
    if not any(row.pixels for row in table):
        logger.warning('%s: its map is empty', scene.emptiness)
    describe_classes(labels, legend, settings)

    size = pixel_size(*scene.map_grid)
    metres = None if size is None else (size[0] * size[1]) ** 0.5
    draw_quicklook(picture, small, legend, metres, plan.step).save(temporary(files.overview))
    write_areas(temporary(files.areas), table)
    styles = styles_of(legend)
    for kind, path in files.styles.items():
        temporary(path).write_text(styles[kind], encoding='utf-8')
    if files.scores:
        describe_scores(scores)
        optimise(scores, temporary(files.scores), predictor='YES')
    if files.polygons:
        ids, words = range(len(legend.class_names)), legend.class_words or legend.class_names
        attributes = {CLASS: legend.class_names, 'class_id': ids, 'words': words}
        style = styles['polygons']
        write_polygons(temporary(files.polygons), labels, attributes, areas, scene.name, style, scores)
    optimise(labels, temporary(files.classes))
    write_legend(temporary(files.legend), legend)
    return {temporary(path): path for path in (files.legend, *files.paths)}


def smallest_region(min_area: float, areas: PixelAreas, shape: tuple[int, int]) -> int:
    """The pixels of a region of ``min_area`` square metres (pixels without a system) in the middle of a scene.

    A ConfigError or DataError says that there is no such area, or none in the scene.
    """
    if not (isinstance(min_area, Real) and min_area >= 0):
        raise ConfigError(f'--min-area is {min_area!r}; allowed: 0 or more')
    y, x = shape[0] // 2, shape[1] // 2
    pixels = min_area / (float(areas.of_box((y, x, y + 1, x + 1)).squeeze()) if areas.is_known else 1.0)
    if pixels > shape[0] * shape[1]:
        raise DataError(f'--min-area {min_area:g} is more than the whole scene; give less')
    return math.ceil(pixels)


def draw_quicklook(
    picture: np.ndarray, labels: np.ndarray, legend: MapLegend, metres_a_pixel: float | None, step: int
) -> Image.Image:
    """Draws scene and classes side by side.

    Picture (h, w, 3) uint8 and labels (h, w) uint8 are every ``step``-th pixel of a scene. Without the metres a pixel
    of the scene the bar counts pixels.
    """
    classes = colour_map(labels, legend.palette)
    classes[labels == NO_DATA] = 255
    enlargement = max(math.ceil(SHORTEST_SIDE / min(labels.shape)), 1)
    panels = [np.repeat(np.repeat(array, enlargement, 0), enlargement, 1) for array in (picture, classes)]
    unit_a_pixel = (metres_a_pixel or 1) * step / enlargement
    panels[1] = _with_scale_bar(panels[1], unit_a_pixel, is_metric=metres_a_pixel is not None)
    return draw_panels([('scene', panels[0]), ('classes', panels[1])], legend.class_names, legend.palette)


def round_length(longest: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... that is not longer."""
    power = 10 ** math.floor(math.log10(longest))
    return next(factor * power for factor in (5, 2, 1) if factor * power <= longest * (1 + 1e-9))


def _with_scale_bar(panel: np.ndarray, unit_a_pixel: float, is_metric: bool) -> np.ndarray:
    image = Image.fromarray(panel)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=13)
    length = round_length(BAR_SHARE * image.width * unit_a_pixel)
    text = f'{length:g} pixels' if not is_metric else f'{length / 1000:g} km' if length >= 1000 else f'{length:g} m'
    bar = round(length / unit_a_pixel)
    box_width = max(bar, round(draw.textlength(text, font=font))) + 12
    top = image.height - 34
    draw.rectangle((4, top, 4 + box_width, image.height - 5), fill='white', outline='black')
    draw.text((10, top + 3), text, fill='black', font=font)
    draw.rectangle((10, top + 21, 10 + bar, top + 24), fill='black')
    return np.asarray(image)


def write_blocks(
    path: Path, grid: RasterGrid, dtype: str, nodata: float, blocks: Iterable[tuple[Box, np.ndarray]]
) -> None:
    """Writes a temporary GeoTIFF of a grid block by block, uncompressed."""
    height, width = grid.shape
    profile = {'height': height, 'width': width, 'count': 1, 'dtype': dtype, 'nodata': nodata, **TILED}
    if grid.crs is not None or not grid.transform.is_identity:
        profile |= {'crs': grid.crs, 'transform': grid.transform}
    with rasterio.open(path, 'w', driver='GTiff', **profile) as dataset:
        for box, values in blocks:
            dataset.write(values, 1, window=as_window(box))


def describe_classes(path: Path, legend: MapLegend, settings: Mapping[str, Any]) -> None:
    """Puts the colour table, class names and settings into a temporary GeoTIFF of labels."""
    colours = {index: (*map(int, colour), 255) for index, colour in enumerate(legend.palette)}
    tags = {'CLASS_NAMES': '; '.join(legend.class_names), SETTINGS_TAG: json.dumps(settings, sort_keys=True)}
    with rasterio.open(path, 'r+') as dataset:
        dataset.write_colormap(1, colours | {NO_DATA: (0, 0, 0, 0)})
        dataset.set_band_description(1, 'class')
        dataset.update_tags(1, **{f'class_{index}': name for index, name in enumerate(legend.class_names)})
        dataset.update_tags(**tags)


def describe_scores(path: Path) -> None:
    """Says in a temporary GeoTIFF of scores what its numbers are."""
    with rasterio.open(path, 'r+') as dataset:
        dataset.set_band_description(1, 'probability of the class')


def styles_of(legend: MapLegend) -> dict[str, str]:
    """QGIS's styles of the rasters and polygons of a map."""
    names = legend.class_names, legend.palette
    return {
        'scores': ramp_style(0, 1),
        'polygons': polygon_classes_style(CLASS, *names),
        'classes': raster_classes_style(*names),
    }


def optimise(source: Path, target: Path, **options: Any) -> None:
    """Copies a GeoTIFF into a Cloud Optimized one: tiled, compressed, with overviews of nearest pixels."""
    try:
        rasterio.shutil.copy(source, target, driver='COG', **COG, **options)
    except CPLE_BaseError as error:  # GDAL's own, which rasterio passes on here
        raise OSError(str(error)) from error


def write_legend(path: Path, legend: MapLegend) -> None:
    """Writes GDAL's file beside a raster, with the names and colours of the values of band 1 and of no others."""
    root = ElementTree.Element('PAMDataset')
    band = ElementTree.SubElement(root, 'PAMRasterBand', band='1')
    ElementTree.SubElement(band, 'ColorInterp').text = 'Palette'
    colours, names = (ElementTree.SubElement(band, tag) for tag in ('ColorTable', 'CategoryNames'))
    for name, (red, green, blue) in zip(legend.class_names, legend.palette, strict=True):
        ElementTree.SubElement(colours, 'Entry', c1=f'{red}', c2=f'{green}', c3=f'{blue}', c4='255')
        ElementTree.SubElement(names, 'Category').text = name
    ElementTree.ElementTree(root).write(path, encoding='utf-8')


def _measure(plan: MapPlan, labels: Path, areas: PixelAreas, legend: MapLegend) -> tuple[np.ndarray, list[ClassArea]]:
    """Every ``step``-th label of the map, and the area of each class."""
    small = np.full(plan.small_shape, NO_DATA, np.uint8)

    def blocks() -> Iterator[tuple[Box, np.ndarray]]:
        with rasterio.open(labels) as dataset:
            for box in map(plan.place, range(len(plan.blocks))):
                block = dataset.read(1, window=as_window(box))
                place_reduced(small, reduced(block, *box[:2], plan.step), *box[:2], plan.step)
                yield box, block

    return small, count_areas(blocks(), areas, legend.class_names)
