"""From a scene to its map: a path, a rasterio dataset or an xarray.DataArray in, files out, or the kind that went in.

All three take the way of the command line, blocks on disk included, so memory stays what a block needs, but for the
result itself of datasets and arrays.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.io import DatasetReader, MemoryFile

import segearth
from segearth.errors import ConfigError, DataError
from segearth.io.outputs import check_results, writing
from segearth.io.pictures import decide_stretch
from segearth.maps.areas import PixelAreas
from segearth.maps.configuration import words_of
from segearth.maps.extent import read_extent
from segearth.maps.labelling import BLOCK_SIDE, NO_DATA, SegmenterModel, WindowGrid, check_number_of_classes
from segearth.maps.results import TILED, MapFiles, MapLegend, smallest_region, write_results
from segearth.maps.run import MapPlan, MapRun, Progress, Runner, run_blocks
from segearth.maps.scene import AUTO, Scene, SceneSource, choose_resolution, open_scene
from segearth.maps.workspace import open_workspace
from segearth.paths import require

if TYPE_CHECKING:
    import xarray

DEFAULT_OUT = 'outputs'
SAME_PLACE = 0.01  # of a pixel, between coordinates that are the same but for rounding


@dataclass(frozen=True)
class MapOptions:
    """How a scene becomes a map.

    ``stretch`` brings numbers to a picture: 'auto', 'percentile', 'none' or 'black,white' (io/pictures.py). ``scores``
    makes a raster of the probability of each pixel's class, too, and ``polygons`` a GeoPackage. Regions below
    ``min_area``, square metres, or pixels of a scene without a system, join their largest neighbour. A block has
    ``block_side`` pixels a side; memory grows with it.
    """

    stretch: str = 'auto'
    scores: bool = False
    polygons: bool = False
    min_area: float = 0
    block_side: int = BLOCK_SIDE


SCENE_ARGUMENTS = frozenset({'resolution', 'extent', 'extent_crs', 'runner', 'resume', 'overwrite', 'progress'}).union(
    field.name for field in fields(MapOptions)
)  # names of the arguments of `predict_scene` that say how a scene is mapped


def parts_of(segmenter: Any) -> tuple[SegmenterModel, MapLegend]:
    """What maps need of a :class:`segearth.Segmenter`: its model, and names, colours and words of its classes."""
    words = tuple(', '.join(words) for words in words_of(segmenter.vocabulary))
    return SegmenterModel(segmenter.model), MapLegend(segmenter.class_names, segmenter.palette, words)


def predict_scene(
    segmenter: Any,
    scene: str | os.PathLike | DatasetReader | xarray.DataArray,
    out: str | os.PathLike | None = None,
    *,
    resolution: float | str | None = AUTO,
    extent: str | os.PathLike | Sequence[float] | None = None,
    extent_crs: Any = None,
    runner: Runner = run_blocks,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
    **options: Any,
) -> Path | DatasetReader | xarray.DataArray:
    """Maps one scene of any size, at a resolution that the encoder knows or the one asked for.

    Args:
        segmenter: A :class:`segearth.Segmenter`. Its ``sensor``, ``bands`` and ``ignore_alpha`` say how the scene is
            read; ``resize`` plays no part.
        scene: Path of a file (or another path that GDAL opens), open rasterio dataset, or DataArray of rioxarray:
            (band, y, x) or (y, x).
        out: Folder of the results: ``NAME_classes.tif`` and the others of :class:`segearth.maps.results.MapFiles`. For
            a path it is ``outputs`` if not given; for datasets and arrays nothing is kept on disk then.
        resolution: Metres a pixel, to which the scene is resampled, or pixels of the scene as in '2px'; the map has it
            too. 'auto' resamples a georeferenced scene that is finer or coarser than what the encoder was trained on,
            where that is known; 'native', or None, keeps the scene's own.
        extent: The part of the scene to be mapped: west, south, east and north, or the path of a vector file whose
            bounds are meant. The map has the pixels that it touches, each as in the map of the whole scene.
        extent_crs: System of these four numbers, such as 'EPSG:4326'; None for the scene's own.
        runner: Who computes the blocks, see :func:`segearth.maps.cluster.dask_runner`.
        resume: Go on with an unfinished run of the same settings.
        overwrite: Replace results.
        progress: Called with (windows done, windows in all).
        **options: Those of :class:`MapOptions`: stretch, scores, polygons, min_area, block_side.

    Returns:
        The classes as the kind that was given, 255 where the scene has no data. That is the path of the GeoTIFF, an
        open dataset (in memory without ``out``), or a DataArray (y, x) with the coordinates of the scene.

    Raises:
        segearth.errors.UserError: Something cannot be used; the message says why.
    """
    if unknown := options.keys() - SCENE_ARGUMENTS:
        raise ConfigError(f'unknown option {unknown.pop()!r} of a map; known: {", ".join(sorted(SCENE_ARGUMENTS))}')
    with scene_source(segmenter, scene, resolution, extent, extent_crs) as (source, dataset, scratch):
        files = predict_to_files(
            source,
            *parts_of(segmenter),
            out or (DEFAULT_OUT if isinstance(scene, str | os.PathLike) else scratch),
            MapOptions(**options),
            dataset=dataset,
            runner=runner,
            resume=resume,
            overwrite=overwrite,
            progress=progress,
        )
        if isinstance(scene, str | os.PathLike):
            return files.classes
        if isinstance(scene, DatasetReader):
            return rasterio.open(files.classes) if out else _in_memory(files.classes)
        return _to_array(files.classes, scene, segmenter.class_names)


@contextmanager
def scene_source(
    segmenter: Any,
    scene: str | os.PathLike | DatasetReader | xarray.DataArray,
    resolution: float | str | None = AUTO,
    extent: str | os.PathLike | Sequence[float] | None = None,
    extent_crs: Any = None,
) -> Iterator[tuple[SceneSource, DatasetReader | None, str]]:
    """How a scene is read that :func:`predict_scene` takes, the dataset if it is one, and a folder that goes away."""
    known = choose_resolution(resolution, segmenter.known_resolution)
    part = read_extent(extent, extent_crs)
    with tempfile.TemporaryDirectory(prefix='segearth-') as scratch:
        dataset = scene if isinstance(scene, DatasetReader) else None
        if isinstance(scene, str | os.PathLike):
            path = os.fspath(scene)
        elif dataset is not None:
            path = dataset.name
        elif type(scene).__module__.startswith('xarray.'):
            path = _to_file(scene, Path(scratch))
        else:
            raise DataError(
                f'a scene is a path, an open rasterio dataset or an xarray.DataArray, not a {type(scene).__name__}; '
                'arrays and PIL images go to segearth.Segmenter(...)(image)'
            )
        reading = segmenter.bands, segmenter.sensor, known, segmenter.ignore_alpha, part
        yield SceneSource(path, *reading), dataset, scratch


def predict_to_files(
    source: SceneSource,
    model: SegmenterModel,
    legend: MapLegend,
    out: str | os.PathLike[str],
    options: MapOptions | None = None,
    *,
    dataset: DatasetReader | None = None,
    runner: Runner = run_blocks,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> MapFiles:
    """Maps one scene to the files of a folder, as :func:`predict_scene`; an open ``dataset`` is read if given."""
    options, out = options or MapOptions(), Path(out)
    if options.polygons:
        require('maps', 'geopandas', 'pyogrio', 'shapely')
    check_number_of_classes(len(legend.class_names))
    with open_scene(source, dataset) as scene:
        areas = PixelAreas(scene.crs, scene.map_grid.transform)
        smallest = smallest_region(options.min_area, areas, scene.map_grid.shape)
        grid = WindowGrid(scene.shape, model.crop_size, model.stride, model.is_smooth)
        plan = MapPlan(
            source,
            decide_stretch(scene, options.stretch),
            grid,
            tuple(grid.blocks(options.block_side, scene.part)),
            options.scores or options.polygons,
            scene.part,
        )
        files = MapFiles.of(out, scene.name, options.scores, options.polygons)
        possible = MapFiles.of(out, scene.name).paths
        check_results({source.path: possible})
        settings = _settings(plan, scene, model, legend, options)
        with open_workspace(out, scene.name, settings, files.paths, possible, resume, overwrite) as workspace:
            if workspace is None:
                return files
            missing = [index for index in range(len(plan.blocks)) if not workspace.has_block(index)]
            run = MapRun(plan, model, scene, workspace, missing, progress)
            runner(run)
            with writing(files.classes):
                temporary = write_results(run, files, legend, areas, smallest, settings)
            for path in set(possible) - set(files.paths):
                path.unlink(missing_ok=True)  # of the run that is overwritten
            workspace.publish(temporary)
    return files


def _settings(plan: MapPlan, scene: Scene, model: SegmenterModel, legend: MapLegend, options: MapOptions) -> dict:
    """All that the results depend on."""
    source = asdict(plan.source)
    file: dict[str, Any] = {'path': source.pop('path')}
    if os.path.isfile(plan.source.path):
        status = os.stat(plan.source.path)
        file = {'path': os.path.abspath(plan.source.path), 'bytes': status.st_size, 'modified': status.st_mtime_ns}
    return source | {
        'version': segearth.__version__,
        'scene': file,
        'bands': list(scene.bands),
        'stretch': asdict(plan.stretch),
        'classes': list(legend.class_names),
        'words': list(legend.class_words),
        'palette': [list(map(int, colour)) for colour in legend.palette],
        'windows': asdict(plan.grid),
        'options': asdict(options),
        'model': model.describe(),
    }


def _to_file(array: xarray.DataArray, folder: Path) -> str:
    """Writes an array as a GeoTIFF, in windows where it is a lazy one."""
    require('maps', 'rioxarray')
    import rioxarray  # noqa: F401  (gives arrays their .rio)

    if array.ndim not in (2, 3):
        raise DataError(f'the DataArray has dimensions {array.dims}; expected (band, y, x) or (y, x)')
    name = str(array.name or 'scene').replace('/', '_')
    path = folder / f'{name}.tif'
    try:
        array.rio.to_raster(path, windowed=True, **TILED)
    except Exception as error:  # rioxarray passes on what it meets: missing dimensions, types GDAL lacks
        raise DataError(
            f'the DataArray cannot be read as a raster ({error}): it needs dimensions (band, y, x), regular '
            'coordinates and numbers; rioxarray.open_rasterio makes such an array'
        ) from error
    return str(path)


def _of_scene(places: xarray.DataArray, known: xarray.DataArray) -> xarray.DataArray:
    """A part of the scene's own coordinates, for those that the map's transform gives; of a resampled one these."""
    first = int(np.abs(known.values - places.values[0]).argmin())
    same = known[first : first + places.size]
    step = np.abs(np.diff(known.values)).mean()
    is_same = same.size == places.size and np.abs(same.values - places.values).max() < SAME_PLACE * step
    return same if is_same else places


def _in_memory(path: Path) -> DatasetReader:
    memory = MemoryFile(path.read_bytes())
    dataset = memory.open()
    dataset.memory = memory  # whose bytes it reads, and which would be gone with it
    return dataset


def _to_array(path: Path, scene: xarray.DataArray, class_names: Sequence[str]) -> xarray.DataArray:
    import rioxarray

    opened: Any = rioxarray.open_rasterio(path)  # one raster is one DataArray; the types allow more
    with opened:
        classes = opened.load().squeeze('band', drop=True).rename('classes')
    y, x = scene.rio.y_dim, scene.rio.x_dim
    classes = classes.rename({'y': y, 'x': x})
    if classes.shape == (scene.sizes[y], scene.sizes[x]):
        classes = classes.assign_coords({name: scene.coords[name] for name in (y, x) if name in scene.coords})
    elif {y, x} <= {*scene.coords} & {*classes.coords}:
        classes = classes.assign_coords({name: _of_scene(classes.coords[name], scene.coords[name]) for name in (y, x)})
    meanings = ' '.join(name.replace(' ', '_') for name in class_names)  # CF conventions, section 3.5
    classes.attrs = {
        'class_names': list(class_names),
        'flag_values': list(range(len(class_names))),
        'flag_meanings': meanings,
    }
    return classes.rio.write_nodata(NO_DATA)
