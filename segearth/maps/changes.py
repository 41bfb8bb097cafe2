"""Two maps of one place to what changed between them: a table, a picture, a raster and polygons of the changes.

The later map is brought onto the grid of the earlier one by nearest pixels, over what both cover, and read beside it
block by block. Classes are matched by their names. Of pixels that have a class in both maps those of one name are
unchanged; all others changed, or are unsure where a score of either map is below a limit. What has no data in one map
has none in the result.
"""

import csv
import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from numbers import Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import rasterio.shutil
from PIL import Image
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.vrt import WarpedVRT

import segearth
from segearth.errors import ConfigError, DataError, MissingFileError, ResultsError
from segearth.inference.sliding_window import Box
from segearth.io.gdal_files import local_name, name_of_results, open_dataset
from segearth.io.outputs import check_results, make_folder, writing
from segearth.io.panels import colour_map, default_palette, draw_matrix, draw_panels
from segearth.maps.areas import SQUARE_METRES_A_HECTARE, PixelAreas, pixel_size
from segearth.maps.extent import bounds_of, has_area, pixels_within, transformed
from segearth.maps.labelling import BLOCK_SIDE, NO_DATA
from segearth.maps.polygons import write_polygons
from segearth.maps.results import MapLegend, describe_classes, optimise, write_blocks, write_legend
from segearth.maps.run import place_reduced, reduced, reduction
from segearth.maps.scene import CHANGE_ENDINGS, RESULT_ENDINGS, RasterGrid, as_window, gdal_session
from segearth.maps.styles import polygon_classes_style, raster_classes_style
from segearth.paths import require

logger = logging.getLogger(__name__)

UNCHANGED, UNSURE, OTHERS = 'unchanged', 'unsure', 'other changes'
GREYS = {UNCHANGED: (225, 225, 225), UNSURE: (160, 160, 160), OTHERS: (60, 60, 60)}
UNSURE_ROW = '(unsure)'  # of the table, which no class is called
CHANGE = 'change'  # the attribute by which polygons are coloured
ASSIGN = 'assign it, as in gdal_edit.py -a_srs EPSG:32632 FILE, or map scenes of one grid'
LARGEST_RATIO = 2.0  # of the sides of the pixels of two maps that may be compared
MOST_CLASSES = 1000  # of two maps together
MATRIX_HEIGHT = 480  # pixels of the picture, at least
NO_ROOM = 'make room or give another --out'
SHOWN_KINDS = 40  # in the legend of the picture, the largest changes first


@dataclass(frozen=True)
class ChangeFiles:
    """Where the results of a comparison lie."""

    table: Path  # CSV
    picture: Path  # PNG: matrix of the changes, and their map
    polygons: Path | None  # GeoPackage
    changes: Path  # GeoTIFF: 0 unchanged, then kinds of changes

    @classmethod
    def of(cls, out: Path, name: str, polygons: bool = True) -> 'ChangeFiles':
        """Paths of the results of a pair of maps."""
        paths: dict[str, Any] = {kind: out / f'{name}{ending}' for kind, ending in CHANGE_ENDINGS.items()}
        return cls(**paths | ({} if polygons else {'polygons': None}))

    @property
    def paths(self) -> list[Path]:
        """All files, GDAL's legend and the styles of QGIS too; the GeoTIFF last."""
        styles = [path.with_suffix('.qml') for path in (self.polygons, self.changes) if path]
        return [Path(f'{self.changes}.aux.xml'), *styles, *(path for path in vars(self).values() if path)]


class ClassMap(NamedTuple):
    """An open map of classes."""

    dataset: DatasetReader
    class_names: dict[int, str]  # value of a pixel -> name
    scores: DatasetReader | None


class Comparison:
    """Two open maps on the earlier one's grid: numbers that say what each pixel was and is."""

    def __init__(self, maps: Sequence[ClassMap], grid: RasterGrid, first: Sequence[int], limit: float) -> None:
        self.grid, self._maps, self._first, self._limit = grid, maps, first, limit
        self.class_names = list(dict.fromkeys(name for one in maps for name in one.class_names.values()))
        count = len(self.class_names)
        if count > MOST_CLASSES:
            raise DataError(f'the maps have {count} classes; at most {MOST_CLASSES} can be compared')
        self.unsure, self.no_data = count**2, count**2 + 1

    def blocks(self) -> Iterator[tuple[Box, np.ndarray]]:
        """Boxes of the grid and (h, w) numbers: before x classes + after, :attr:`unsure` or :attr:`no_data`."""
        height, width = self.grid.shape
        top, left = self._first
        for y1, x1 in product(range(0, height, BLOCK_SIDE), range(0, width, BLOCK_SIDE)):
            y2, x2 = min(y1 + BLOCK_SIDE, height), min(x1 + BLOCK_SIDE, width)
            before, sure_before = self._read(self._maps[0], (y1 + top, x1 + left, y2 + top, x2 + left))
            after, sure_after = self._read(self._maps[1], (y1, x1, y2, x2))
            is_settled = (before == after) | (sure_before & sure_after)
            codes = np.where(is_settled, before * len(self.class_names) + after, self.unsure)
            yield (y1, x1, y2, x2), np.where((before < 0) | (after < 0), self.no_data, codes)

    def _read(self, class_map: ClassMap, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Places in the list of names, -1 without data, and which of them are sure."""
        dataset, names, scores = class_map
        try:
            values = dataset.read(1, window=as_window(box)).astype(np.int64)
            valid = dataset.read_masks(1, window=as_window(box)) != 0
            sure = np.array(True) if scores is None else scores.read(1, window=as_window(box)) >= self._limit
        except (RasterioError, OSError) as error:
            raise DataError(f'{dataset.name} or its scores cannot be read ({error.__cause__ or error}): the file is '
                            'damaged; make or copy it again') from error  # fmt: skip
        table = np.full(max(names) + 2, -2, np.int32)
        table[list(names)] = [self.class_names.index(name) for name in names.values()]
        is_known = (values >= 0) & (values < len(table))
        classes = np.where(valid, table[np.where(is_known, values, -1)], -1)
        if (classes == -2).any():
            raise DataError(
                f'{dataset.name} holds the value {values[classes == -2][0]}, which has no class name: name it, or '
                'declare it to be no data, as in gdal_edit.py -a_nodata 0 FILE'
            )
        return classes, sure


def compare_maps(
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    min_score: float | None = None,
    polygons: bool = False,
    overwrite: bool = False,
) -> ChangeFiles:
    """Compares the maps of two dates, and writes what changed to the files of a folder.

    Args:
        before: ``NAME_classes.tif`` of the earlier date, or another raster whose values have names, GDAL's categories.
        after: That of the later date. A grid of its own is brought to that of ``before`` by nearest pixels.
        out: Folder of the results: ``BEFORE_to_AFTER_changes.tif`` and the others of :class:`ChangeFiles`.
        min_score: Probability in (0, 1]. Pixels whose class differs are unsure, no change, where the score of either
            map, in ``NAME_scores.tif`` beside it, is lower.
        polygons: Also polygons of the changes, for which the raster of changes is held in memory, a byte a pixel.
        overwrite: Replace results.

    Raises:
        segearth.errors.UserError: The maps cannot be compared, or results exist; the message says why.
    """
    paths, out = [local_name(path) for path in (before, after)], Path(out)
    if os.path.realpath(paths[0]) == os.path.realpath(paths[1]):
        raise ConfigError(f'{paths[0]} is given twice: a comparison needs the maps of two dates')
    if min_score is not None and not (isinstance(min_score, Real) and 0 < min_score <= 1):
        raise ConfigError(f'--min-score is {min_score!r}; allowed: a probability above 0, up to 1')
    if polygons:
        require('maps', 'geopandas', 'pyogrio', 'shapely')
    name = '_to_'.join(name_of_results(path).removesuffix('_classes') for path in paths)
    files, possible = ChangeFiles.of(out, name, polygons), ChangeFiles.of(out, name).paths
    check_results({paths[0]: possible, paths[1]: []})
    if not overwrite and (existing := [str(path) for path in possible if path.exists()]):
        raise ResultsError(f'results exist already: {", ".join(existing)}; give --overwrite or another --out')
    with _opened(paths, min_score) as comparison:
        make_folder(out)
        with writing(out, NO_ROOM), TemporaryDirectory(prefix='.changes-', dir=out) as scratch:
            settings = {'version': segearth.__version__, 'before': paths[0], 'after': paths[1], 'min_score': min_score}
            _write(comparison, files, Path(scratch), settings)
            for path in set(possible) - set(files.paths):
                path.unlink(missing_ok=True)  # of the results that are replaced
            for path in files.paths:
                os.replace(Path(scratch, path.name), path)
    return files


@contextmanager
def _opened(paths: Sequence[str], min_score: float | None) -> Iterator[Comparison]:
    """Opens two maps, the later one on the grid of the earlier one, over what both cover."""
    with ExitStack() as stack:
        stack.enter_context(gdal_session())
        maps = [_open_map(stack, path, min_score is not None) for path in paths]
        first, second = (one.dataset for one in maps)
        box: Box = (0, 0, *first.shape)
        grid = RasterGrid(first.crs, first.transform, first.shape)
        if not _is_same(grid, second):
            box = _common(first, second)
            grid = grid.part(box)
            logger.info('%s is brought to the grid of %s by nearest pixels', second.name, first.name)
            scores = maps[1].scores and _on_grid(stack, maps[1].scores, grid)
            maps[1] = ClassMap(_on_grid(stack, second, grid), maps[1].class_names, scores)
        names = [one.class_names.values() for one in maps]
        if not {*names[0]} & {*names[1]}:
            logger.warning('the maps share no class name, so every pixel changed: %s and %s', *map(', '.join, names))
        yield Comparison(maps, grid, box[:2], min_score or 0)


def _open_map(stack: ExitStack, path: str, with_scores: bool) -> ClassMap:
    dataset = stack.enter_context(open_dataset(path))
    names = _class_names(dataset) if dataset.count == 1 and np.dtype(dataset.dtypes[0]).kind in 'iu' else {}
    if not names:
        raise DataError(
            f'{path} is no map of classes: it needs one band of whole numbers, whose names are in the metadata '
            '(class_0=building), as NAME_classes.tif of segearth predict has them, or are categories of GDAL (.aux.xml)'
        )
    if not with_scores:
        return ClassMap(dataset, names, None)
    scores = path.removesuffix(RESULT_ENDINGS['classes']) + RESULT_ENDINGS['scores']
    if not path.endswith(RESULT_ENDINGS['classes']) or not os.path.exists(scores):
        raise MissingFileError(
            f'--min-score needs the scores of {path}, {scores}, which is not there: make the map with '
            'segearth predict ... --scores, or leave --min-score out'
        )
    of_scores = stack.enter_context(open_dataset(scores))
    if not _is_same(RasterGrid(dataset.crs, dataset.transform, dataset.shape), of_scores):
        raise DataError(f'{scores} has another grid than {path}: make both anew with segearth predict ... --scores')
    return ClassMap(dataset, names, of_scores)


def _class_names(dataset: DatasetReader) -> dict[int, str]:
    """Value -> name, of the tags of our maps, else of GDAL's categories."""
    tags = dataset.tags(1)
    numbers = sorted(int(key[6:]) for key in tags if key.startswith('class_') and key[6:].isdecimal())
    if numbers:
        return {number: tags[f'class_{number}'] for number in numbers if number < 2**16 - 1}
    with MemoryFile(ext='.vrt') as memory:  # rasterio does not tell categories, a VRT does
        rasterio.shutil.copy(dataset, memory.name, driver='VRT')
        found = ElementTree.fromstring(memory.read()).findall('./VRTRasterBand/CategoryNames/Category')
    return {number: entry.text for number, entry in enumerate(found[: 2**16 - 1]) if entry.text}


def _is_same(grid: RasterGrid, dataset: DatasetReader) -> bool:
    """The grids agree, to a hundredth of a pixel at their ends."""
    if (grid.crs, grid.shape) != (dataset.crs, dataset.shape):
        return False
    ends = [(0, 0), grid.shape[::-1], (grid.shape[1], 0)]
    return bool(np.abs([np.subtract(~grid.transform @ (dataset.transform @ end), end) for end in ends]).max() < 0.01)


def _common(first: DatasetReader, second: DatasetReader) -> Box:
    """Rows and columns of the first map that the second one covers too."""
    missing = [dataset.name for dataset in (first, second) if dataset.crs is None]
    if missing:
        raise DataError(
            f'{first.name} and {second.name} have different grids, {first.shape} and {second.shape} pixels, and '
            f'{missing[0]} has no coordinate reference system by which they could be brought together: {ASSIGN}'
        )
    sizes = (pixel_size(dataset.crs, dataset.transform, dataset.shape) for dataset in (first, second))
    sides = [math.prod(size) ** 0.5 for size in sizes if size]
    if max(sides) > LARGEST_RATIO * min(sides):
        raise DataError(
            f'{first.name} has pixels of {sides[0]:.3g} m, {second.name} of {sides[1]:.3g} m, too different to compare '
            f'pixel by pixel: map both scenes with segearth predict ... --resolution {max(sides):.3g}'
        )
    bounds = transformed(bounds_of(second.transform, second.shape), second.crs, first.crs, first.name, ASSIGN)
    box = pixels_within(bounds, first.transform, first.shape)
    if not has_area(box):
        raise DataError(f'{first.name} and {second.name} do not overlap: give two maps of one place')
    return box


def _on_grid(stack: ExitStack, dataset: DatasetReader, grid: RasterGrid) -> WarpedVRT:
    place = {'crs': grid.crs, 'transform': grid.transform, 'height': grid.shape[0], 'width': grid.shape[1]}
    warped = WarpedVRT(dataset, resampling=Resampling.nearest, add_alpha=dataset.nodata is None, **place)
    return stack.enter_context(warped)


def _write(comparison: Comparison, files: ChangeFiles, folder: Path, settings: dict) -> None:
    """Makes the files, under their names, in a temporary folder."""
    names, grid = comparison.class_names, comparison.grid
    areas = PixelAreas(grid.crs, grid.transform)
    pixels, hectares = _count(comparison, areas)
    if not pixels[:-1].any():
        raise DataError(f'{settings["before"]} and {settings["after"]} have no pixel with a class in both')
    pairs = [(names[code // len(names)], names[code % len(names)]) for code in range(comparison.unsure)]
    shown = [f'{area:.4f}' if areas.is_known else '' for area in hectares]
    _write_table(folder / files.table.name, [*pairs, (UNSURE_ROW, UNSURE_ROW)], pixels, shown)
    changed = [code for code, (old, new) in enumerate(pairs) if old != new and pixels[code]]
    changed.sort(key=lambda code: -pixels[code])
    greys = [UNCHANGED] if settings['min_score'] is None else [UNCHANGED, UNSURE]
    own = changed if len(changed) + len(greys) <= NO_DATA else changed[: NO_DATA - len(greys) - 1]
    others = [] if own == changed else [OTHERS]
    kinds = [*greys, *(' to '.join(pairs[code]) for code in own), *others]
    palette = [*(GREYS[grey] for grey in greys), *default_palette(len(own)), *(GREYS[other] for other in others)]
    values = np.zeros(len(pixels), np.uint8)  # of a code in the raster
    values[changed] = len(kinds) - 1
    values[own] = np.arange(len(own)) + len(greys)
    values[[comparison.unsure, comparison.no_data]] = len(greys) - 1, NO_DATA
    step = reduction(*grid.shape)
    small = np.full([-(-side // step) for side in grid.shape], NO_DATA, np.uint8)

    def blocks() -> Iterator[tuple[Box, np.ndarray]]:
        for box, codes in comparison.blocks():
            place_reduced(small, reduced(values[codes], *box[:2], step), *box[:2], step)
            yield box, values[codes]

    raster, legend = folder / 'changes.tif', MapLegend(tuple(kinds), palette)
    write_blocks(raster, grid, 'uint8', NO_DATA, blocks())
    describe_classes(raster, legend, settings)
    optimise(raster, folder / files.changes.name)
    write_legend(folder / f'{files.changes.name}.aux.xml', legend)
    style = raster_classes_style(kinds, palette)
    (folder / files.changes.with_suffix('.qml').name).write_text(style, encoding='utf-8')
    if files.polygons:
        style = polygon_classes_style(CHANGE, kinds[len(greys) :], palette[len(greys) :])
        ends = [*[('', '')] * len(greys), *(pairs[code] for code in own), ('', '')]
        attributes = {CHANGE: kinds, 'from': [old for old, _ in ends], 'to': [new for _, new in ends]}
        name = files.changes.name.removesuffix(CHANGE_ENDINGS['changes'])
        write_polygons(folder / files.polygons.name, raster, attributes, areas, name, style, ignored=range(len(greys)))
        (folder / files.polygons.with_suffix('.qml').name).write_text(style, encoding='utf-8')
    unit, amounts = ('hectares', hectares) if areas.is_known else ('pixels', pixels)
    matrix = amounts[: comparison.unsure].reshape(len(names), -1)
    _draw(matrix, names, unit, small, legend).save(folder / files.picture.name)


def _count(comparison: Comparison, areas: PixelAreas) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and hectares of each number of a comparison."""
    pixels, square_metres = np.zeros(comparison.no_data + 1, np.int64), np.zeros(comparison.no_data + 1)
    for box, codes in comparison.blocks():
        pixels += np.bincount(codes.ravel(), minlength=len(pixels))
        if areas.is_known:
            weights = np.broadcast_to(areas.of_box(box), codes.shape)
            square_metres += np.bincount(codes.ravel(), weights.ravel(), minlength=len(pixels))
    return pixels, square_metres / SQUARE_METRES_A_HECTARE


def _write_table(path: Path, pairs: Sequence[tuple[str, str]], pixels: np.ndarray, hectares: Sequence[str]) -> None:
    parts = zip(pairs, pixels, hectares, pixels / pixels[:-1].sum(), strict=False)  # the last is no data
    rows = [(*pair, count, area, f'{share:.6f}') for pair, count, area, share in parts if count]
    with open(path, 'w', newline='', encoding='utf-8') as file:
        csv.writer(file).writerows([('from', 'to', 'pixels', 'hectares', 'share'), *rows])


def _draw(amounts: np.ndarray, names: Sequence[str], unit: str, small: np.ndarray, legend: MapLegend) -> Image.Image:
    """The matrix of amounts (K, K), of the classes that occur, beside the reduced map of the changes."""
    used = np.flatnonzero(amounts.any(axis=0) | amounts.any(axis=1)).tolist()
    height = max(MATRIX_HEIGHT, len(small))
    matrix = draw_matrix([names[index] for index in used], amounts[np.ix_(used, used)], height)
    enlargement = max(math.ceil(matrix.height / len(small)), 1)  # by whole pixels, which stay sharp
    colours = colour_map(small, legend.palette)
    colours[small == NO_DATA] = 255
    changes = colours.repeat(enlargement, 0).repeat(enlargement, 1)
    panels = [(f'{unit}, from row to column', np.asarray(matrix)), ('changes', changes)]
    return draw_panels(panels, legend.class_names[:SHOWN_KINDS], legend.palette)
