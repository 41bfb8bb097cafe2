"""From a scene to the files of its map: joins the modules of this package; no rules of its own."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.features import sieve

import segearth
from segearth.errors import ConfigError, DataError
from segearth.inference.sliding_window import Box
from segearth.io.outputs import check_results, writing
from segearth.io.panels import Palette
from segearth.io.pictures import decide_stretch
from segearth.maps.area import AreaCount, ClassArea, write_areas
from segearth.maps.geotiff import as_window, describe_classes, optimise, write_blocks, write_legend
from segearth.maps.grid import BLOCK_SIDE, WindowGrid
from segearth.maps.ground import PixelAreas, pixel_size
from segearth.maps.labelling import NO_DATA, WindowModel
from segearth.maps.optional import require
from segearth.maps.quicklook import draw_quicklook, reduction
from segearth.maps.run import MapPlan, Progress, place_reduced, reduced, run_blocks
from segearth.maps.scene import Scene, SceneSource, open_scene
from segearth.maps.workspace import Workspace, open_workspace

logger = logging.getLogger(__name__)

Runner = Callable[[MapPlan, Sequence[int], WindowModel, Scene, Workspace, Progress], None]
"""Computes missing blocks and keeps them in the workspace: run_blocks, or that of a cluster."""


@dataclass(frozen=True)
class MapOptions:
    """How a scene becomes a map.

    Attributes:
        stretch: 'auto', 'percentile', 'none' or 'black,white' (stretch.py).
        with_scores: Also a raster of the probability of each pixel's class.
        with_polygons: Also polygons.
        min_area: Regions that are smaller are merged into their largest neighbour: square metres, or pixels for a scene
            without a coordinate reference system. 0 keeps all.
        block_side: Pixels of a block.
    """

    stretch: str = 'auto'
    with_scores: bool = False
    with_polygons: bool = False
    min_area: float = 0
    block_side: int = BLOCK_SIDE


@dataclass(frozen=True)
class MapFiles:
    """Where the results of a scene lie.

    Attributes:
        classes: GeoTIFF of class ids.
        overview: PNG with legend.
        areas: CSV.
        scores: GeoTIFF, or None.
        polygons: GeoPackage, or None.
    """

    classes: Path
    overview: Path
    areas: Path
    scores: Path | None
    polygons: Path | None

    @classmethod
    def of(cls, out: Path, name: str, options: MapOptions) -> MapFiles:
        """Paths of the results of a scene."""
        return cls(
            out / f'{name}_classes.tif',
            out / f'{name}_overview.png',
            out / f'{name}_areas.csv',
            out / f'{name}_scores.tif' if options.with_scores else None,
            out / f'{name}_polygons.gpkg' if options.with_polygons else None,
        )

    @property
    def legend(self) -> Path:
        """GDAL's file of class names and colours beside the GeoTIFF of class ids."""
        return self.classes.with_name(f'{self.classes.name}.aux.xml')

    @property
    def paths(self) -> list[Path]:
        """All others, the GeoTIFF of class ids last."""
        return [path for path in (self.overview, self.areas, self.scores, self.polygons, self.classes) if path]

    @classmethod
    def possible(cls, out: Path, name: str) -> list[Path]:
        """Paths of all kinds of results of a scene."""
        return cls.of(out, name, MapOptions(with_scores=True, with_polygons=True)).paths


@dataclass(frozen=True)
class MapLegend:
    """Names and colours of the classes, K of each."""

    class_names: tuple[str, ...]
    palette: Palette


def predict_to_files(
    source: SceneSource,
    model: WindowModel,
    legend: MapLegend,
    out: str | os.PathLike[str],
    options: MapOptions | None = None,
    *,
    dataset: rasterio.DatasetReader | None = None,
    runner: Runner = run_blocks,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> MapFiles:
    """Maps one scene.

    Args:
        source: The scene.
        model: Scores windows.
        legend: Names and colours.
        out: Folder of the results.
        options: See :class:`MapOptions`.
        dataset: Read instead of opening ``source.path``.
        runner: Who computes the blocks.
        resume: Go on with an unfinished run of the same settings.
        overwrite: Replace results.
        progress: Told how far the windows are.

    Raises:
        segearth.errors.UserError: The scene, the options or the folder cannot be used; the message says why.
    """
    options = options or MapOptions()
    _check(options, legend)
    with open_scene(source, dataset) as scene:
        areas = PixelAreas(scene.crs, scene.transform, (scene.height, scene.width))
        grid = WindowGrid((scene.height, scene.width), model.crop_size, model.stride)
        plan = MapPlan(
            source,
            decide_stretch(scene, options.stretch),
            grid,
            tuple(grid.blocks(options.block_side)),
            options.with_scores or options.with_polygons,
            reduction(scene.height, scene.width),
        )
        files = MapFiles.of(Path(out), scene.name, options)
        possible = MapFiles.possible(Path(out), scene.name)
        check_results({source.path: possible})
        settings = _settings(plan, scene, model, legend, options)
        with open_workspace(Path(out), scene.name, settings, files.paths, possible, resume, overwrite) as workspace:
            if workspace is None:
                return files
            missing = [index for index in range(len(plan.blocks)) if not workspace.has_block(index)]
            runner(plan, missing, model, scene, workspace, progress)
            with writing(files.classes):
                temporary = _assemble(plan, scene, workspace, files, areas, legend, options, settings)
            for path in set(possible) - set(files.paths):
                path.unlink(missing_ok=True)  # of the run that is overwritten
            workspace.publish(temporary)
    return files


def _check(options: MapOptions, legend: MapLegend) -> None:
    require('maps', 'pyproj', *(('geopandas', 'pyogrio', 'shapely') if options.with_polygons else ()))
    if len(legend.class_names) > NO_DATA:
        raise ConfigError(f'{len(legend.class_names)} classes; a map of 8 bits has room for {NO_DATA}: split the list')
    if not options.min_area >= 0:
        raise ConfigError(f'--min-area is {options.min_area}; allowed: 0 or more')


def _settings(
    plan: MapPlan, scene: Scene, model: WindowModel, legend: MapLegend, options: MapOptions
) -> dict[str, Any]:
    """All that the results depend on."""
    status = os.stat(plan.source.path) if os.path.isfile(plan.source.path) else None
    return {
        'version': segearth.__version__,
        'scene': {'path': os.path.abspath(plan.source.path) if status else plan.source.path}
        | ({'bytes': status.st_size, 'modified': status.st_mtime_ns} if status else {}),
        'bands': list(scene.bands),
        'sensor': plan.source.sensor,
        'resolution': plan.source.resolution,
        'ignore_alpha': plan.source.ignore_alpha,
        'stretch': asdict(plan.stretch),
        'classes': list(legend.class_names),
        'palette': [list(map(int, colour)) for colour in legend.palette],
        'windows': asdict(plan.grid),
        'options': asdict(options),
        'model': model.describe(),
    }


def _assemble(
    plan: MapPlan,
    scene: Scene,
    workspace: Workspace,
    files: MapFiles,
    areas: PixelAreas,
    legend: MapLegend,
    options: MapOptions,
    settings: dict[str, Any],
) -> dict[Path, Path]:
    """Makes all results in the workspace's folder; returns temporary file -> final path."""
    folder = workspace.result_folder()
    labels, scores = folder / 'labels.tif', folder / 'scores.tif'
    picture = np.zeros((-(-scene.height // plan.step), -(-scene.width // plan.step), 3), np.uint8)

    def blocks(key: str) -> Iterator[tuple[Box, np.ndarray]]:
        for index, box in enumerate(plan.blocks):
            arrays = workspace.load_block(index)
            place_reduced(picture, arrays['picture'], *box[:2], plan.step)
            yield box, arrays[key]

    write_blocks(labels, scene, 'uint8', NO_DATA, blocks('labels'))
    if plan.with_scores:
        write_blocks(scores, scene, 'float32', float('nan'), blocks('scores'))
    if options.min_area:
        _merge_small(labels, _pixels(options.min_area, areas, scene))
    small, table = _measure(plan, labels, areas, legend)
    if not sum(row.pixels for row in table):
        alpha = ', its alpha band says; --ignore-alpha (ignore_alpha=True) reads it all the same'
        hint = alpha if scene.is_masked_by_alpha else ''
        logger.warning('%s holds no valid pixel%s: its map is empty', plan.source.path, hint)
    describe_classes(labels, legend.class_names, legend.palette, settings)

    def temporary(final: Path) -> Path:
        return folder / final.name

    size = pixel_size(scene.crs, scene.transform, (scene.height, scene.width))
    metres = None if size is None else (size[0] * size[1]) ** 0.5
    draw_quicklook(picture, small, legend.class_names, legend.palette, metres, plan.step).save(
        temporary(files.overview)
    )
    write_areas(temporary(files.areas), table)
    if files.scores:
        optimise(scores, temporary(files.scores), predictor='YES')
    if files.polygons:
        from segearth.maps.polygons import write_polygons  # geopandas takes a second to import

        write_polygons(temporary(files.polygons), labels, scores, legend.class_names, areas)
    optimise(labels, temporary(files.classes))
    write_legend(temporary(files.legend), legend.class_names, legend.palette)
    return {temporary(path): path for path in (files.legend, *files.paths)}


def _measure(plan: MapPlan, labels: Path, areas: PixelAreas, legend: MapLegend) -> tuple[np.ndarray, list[ClassArea]]:
    """Every ``step``-th label of the map, and the area of each class."""
    count = AreaCount(len(legend.class_names), areas)
    height, width = plan.grid.shape
    small = np.full((-(-height // plan.step), -(-width // plan.step)), NO_DATA, np.uint8)
    with rasterio.open(labels) as dataset:
        for box in plan.blocks:
            block = dataset.read(1, window=as_window(box))
            count.add(box, block)
            place_reduced(small, reduced(block, *box[:2], plan.step), *box[:2], plan.step)
    return small, count.table(legend.class_names)


def _merge_small(path: Path, pixels: int) -> None:
    """Merges regions of fewer pixels into their largest neighbour; no data stays, and is no neighbour."""
    with rasterio.open(path, 'r+') as dataset:
        labels = dataset.read(1)
        dataset.write(sieve(labels, pixels, mask=labels != NO_DATA), 1)


def _pixels(min_area: float, areas: PixelAreas, scene: Scene) -> int:
    y, x = scene.height // 2, scene.width // 2
    a_pixel = float(areas.of_box((y, x, y + 1, x + 1)).squeeze()) if areas.is_known else 1.0
    pixels = -(-min_area // a_pixel)
    if pixels > scene.height * scene.width:
        raise DataError(f'--min-area {min_area:g} is more than the whole scene; give less')
    return max(int(pixels), 1)
