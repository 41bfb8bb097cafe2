"""From finished blocks to the files of a map: Cloud Optimized GeoTIFFs, areas, polygons, a quick look.

Colours are the band's colour table; class names are in the metadata of band 1 (``class_0=building``). A GeoTIFF's own
colour table always has 256 entries, and GDAL keeps category names beside a GeoTIFF only, so ``NAME.tif.aux.xml`` holds
the names and a colour table of the classes alone, from where QGIS takes its legend.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from numbers import Real
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from PIL import Image, ImageDraw, ImageFont
from rasterio._err import CPLE_BaseError
from rasterio.features import rasterize, shapes, sieve

from segearth.errors import ConfigError, DataError
from segearth.inference.sliding_window import Box
from segearth.io.panels import Palette, colour_map, draw_panels
from segearth.maps.areas import SQUARE_METRES_A_HECTARE, ClassArea, PixelAreas, count_areas, pixel_size, write_areas
from segearth.maps.labelling import NO_DATA
from segearth.maps.run import MapPlan, MapRun, place_reduced, reduced
from segearth.maps.scene import RESULT_ENDINGS, Scene, as_window
from segearth.maps.workspace import SETTINGS_TAG

logger = logging.getLogger(__name__)

TILE = 512  # pixels, side of a tile of the result
TILED = {'tiled': True, 'blockxsize': TILE, 'blockysize': TILE, 'bigtiff': 'IF_SAFER'}
COG = {'compress': 'DEFLATE', 'blocksize': TILE, 'bigtiff': 'IF_SAFER', 'overview_resampling': 'NEAREST'}
STRIP_ROWS = 512  # read at once for polygons
POLYGON_LAYER = 'classes'
SHORTEST_SIDE = 160  # pixels of the quick look; a smaller scene is enlarged, so that the scale bar has room
BAR_SHARE = 0.4  # longest bar, of the panel's width


@dataclass(frozen=True)
class MapLegend:
    """Names and colours of the classes, K of each."""

    class_names: tuple[str, ...]
    palette: Palette


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
    def paths(self) -> list[Path]:
        """All others, the GeoTIFF of class ids last."""
        return [path for path in vars(self).values() if path]


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
        for index, box in enumerate(plan.blocks):
            arrays = run.workspace.load_block(index)
            place_reduced(picture, arrays['picture'], *box[:2], plan.step)
            yield box, arrays[key]

    def temporary(final: Path) -> Path:
        return folder / final.name

    write_blocks(labels, scene, 'uint8', NO_DATA, blocks('labels'))
    if plan.with_scores:
        write_blocks(scores, scene, 'float32', float('nan'), blocks('scores'))
    if smallest > 1:
        with rasterio.open(labels, 'r+') as dataset:
            classes = dataset.read(1)
            dataset.write(sieve(classes, smallest, mask=classes != NO_DATA), 1)  # no data stays, and is no neighbour
    small, table = _measure(plan, labels, areas, legend)
    if not any(row.pixels for row in table):
        alpha = ', its alpha band says; --ignore-alpha (ignore_alpha=True) reads it all the same'
        hint = alpha if scene.is_masked_by_alpha else ''
        logger.warning('%s holds no valid pixel%s: its map is empty', plan.source.path, hint)
    describe_classes(labels, legend, settings)

    size = pixel_size(scene.crs, scene.transform, scene.shape)
    metres = None if size is None else (size[0] * size[1]) ** 0.5
    draw_quicklook(picture, small, legend, metres, plan.step).save(temporary(files.overview))
    write_areas(temporary(files.areas), table)
    if files.scores:
        optimise(scores, temporary(files.scores), predictor='YES')
    if files.polygons:
        write_polygons(temporary(files.polygons), labels, scores, legend.class_names, areas)
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


def write_blocks(path: Path, scene: Scene, dtype: str, nodata: float, blocks: Iterable[tuple[Box, np.ndarray]]) -> None:
    """Writes a temporary GeoTIFF block by block, uncompressed, in the scene's grid."""
    profile = {'height': scene.height, 'width': scene.width, 'count': 1, 'dtype': dtype, 'nodata': nodata, **TILED}
    if scene.crs is not None or not scene.transform.is_identity:
        profile |= {'crs': scene.crs, 'transform': scene.transform}
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


def write_polygons(
    target: Path, labels_path: Path, scores_path: Path, class_names: Sequence[str], areas: PixelAreas
) -> None:
    """Writes a GeoPackage of one polygon a region, with the areas of the table and the mean score of its pixels.

    Regions are connected by sides, not corners. The label map is held in memory, a byte a pixel; the score raster is
    read in strips.
    """
    import geopandas  # late: takes a second, and few want polygons
    import shapely

    with rasterio.open(labels_path) as dataset:
        labels, crs, transform = dataset.read(1), dataset.crs, dataset.transform
    found = [(shapely.geometry.shape(shape), int(value)) for shape, value in shapes(labels, mask=labels != NO_DATA)]
    polygons = np.array([polygon for polygon, _ in found], dtype=object)
    class_ids = np.array([value for _, value in found], dtype=int)
    bounds = shapely.bounds(polygons).reshape(-1, 4)
    pixels, square_metres, scores = _zonal_sums(polygons, bounds, scores_path, areas)
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
            frame.to_file(content, layer=POLYGON_LAYER, driver='GPKG', engine='pyogrio', geometry_type='Polygon')
        except RuntimeError as error:  # what pyogrio raises when the disk is full
            raise OSError(str(error)) from error
    target.write_bytes(content.getbuffer())


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


def _measure(plan: MapPlan, labels: Path, areas: PixelAreas, legend: MapLegend) -> tuple[np.ndarray, list[ClassArea]]:
    """Every ``step``-th label of the map, and the area of each class."""
    small = np.full(plan.small_shape, NO_DATA, np.uint8)

    def blocks() -> Iterator[tuple[Box, np.ndarray]]:
        with rasterio.open(labels) as dataset:
            for box in plan.blocks:
                block = dataset.read(1, window=as_window(box))
                place_reduced(small, reduced(block, *box[:2], plan.step), *box[:2], plan.step)
                yield box, block

    return small, count_areas(blocks(), areas, legend.class_names)
