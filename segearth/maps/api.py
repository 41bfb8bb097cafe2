"""Maps for Python users: a path, a rasterio dataset or an xarray.DataArray in, the same kind out.

All three take the way of the command line, blocks on disk included, so memory stays what a block needs, but for the
result itself of datasets and arrays.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rasterio
from rasterio.io import DatasetReader, MemoryFile

from segearth.errors import DataError
from segearth.maps.geotiff import TILE
from segearth.maps.grid import BLOCK_SIDE
from segearth.maps.labelling import NO_DATA, SegmenterModel
from segearth.maps.optional import require
from segearth.maps.predict import MapLegend, MapOptions, Runner, predict_to_files
from segearth.maps.run import Progress, run_blocks
from segearth.maps.scene import SceneSource

if TYPE_CHECKING:
    import xarray

    from segearth.segmenter import Segmenter

DEFAULT_OUT = 'outputs'


def predict(
    scene: str | os.PathLike | DatasetReader | xarray.DataArray,
    classes: Sequence[str] | Mapping[str, Sequence[str]] | str,
    out: str | os.PathLike | None = None,
    *,
    resolution: float | None = None,
    stretch: str = 'auto',
    scores: bool = False,
    polygons: bool = False,
    min_area: float = 0,
    block_side: int = BLOCK_SIDE,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
    **settings: Any,
) -> Path | DatasetReader | xarray.DataArray:
    """Maps one scene; for several scenes build a :class:`segearth.Segmenter` once and call its ``predict_scene``.

    Args:
        scene: As for :func:`predict_scene`, likewise the named arguments.
        classes: As for :class:`segearth.Segmenter`.
        out: Folder of the results.
        resolution: See :func:`predict_scene`, as for the following.
        stretch: Numbers to picture.
        scores: Also scores.
        polygons: Also polygons.
        min_area: Smallest region.
        block_side: Pixels of a block.
        resume: Go on with an unfinished run.
        overwrite: Replace results.
        progress: Told how far it is.
        **settings: Of the Segmenter: clip_type, bands, ignore_alpha, sensor, device, prob_thd, ...

    Raises:
        segearth.errors.UserError: Something cannot be used; the message says why.

    Example:
        >>> segearth.predict('scene.tif', 'building; road; water,river', out='maps')
        PosixPath('maps/scene_classes.tif')
    """
    from segearth.segmenter import Segmenter

    options = MapOptions(stretch, scores, polygons, min_area, block_side)
    return _predict(
        Segmenter(classes, **settings), scene, out, options, resolution, run_blocks, resume, overwrite, progress
    )


def predict_scene(
    segmenter: Segmenter,
    scene: str | os.PathLike | DatasetReader | xarray.DataArray,
    out: str | os.PathLike | None = None,
    *,
    resolution: float | None = None,
    stretch: str = 'auto',
    scores: bool = False,
    polygons: bool = False,
    min_area: float = 0,
    block_side: int = BLOCK_SIDE,
    runner: Runner = run_blocks,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Path | DatasetReader | xarray.DataArray:
    """Maps one scene of any size at its own resolution, or at the one asked for.

    Args:
        segmenter: Its ``sensor``, ``bands`` and ``ignore_alpha`` say how the scene is read; ``resize`` plays no part.
        scene: Path of a file (or another path that GDAL opens), open rasterio dataset, or DataArray of rioxarray:
            (band, y, x) or (y, x).
        out: Folder of the results: ``NAME_classes.tif`` and the others of :class:`MapFiles`. For a path it is
            ``outputs`` if not given; for datasets and arrays nothing is kept on disk then.
        resolution: Metres a pixel, to which the scene is resampled; the map has it too.
        stretch: 'auto', 'percentile', 'none' or 'black,white'.
        scores: Also a raster of the probability of each pixel's class.
        polygons: Also a GeoPackage.
        min_area: Regions below it (square metres; pixels without a coordinate reference system) are merged into
            their largest neighbour.
        block_side: Pixels of a block.
        runner: Who computes the blocks, see :class:`segearth.maps.cluster.DaskRunner`.
        resume: Go on with an unfinished run of the same settings.
        overwrite: Replace results.
        progress: Called with (windows done, windows in all).

    Returns:
        The classes, 255 where the scene has no data, as the kind that was given: path of the GeoTIFF, open dataset (in
        memory without ``out``), or DataArray (y, x) with the coordinates of the scene.

    Raises:
        segearth.errors.UserError: Something cannot be used; the message says why.
    """
    options = MapOptions(stretch, scores, polygons, min_area, block_side)
    return _predict(segmenter, scene, out, options, resolution, runner, resume, overwrite, progress)


def _predict(
    segmenter: Segmenter,
    scene: Any,
    out: str | os.PathLike[str] | None,
    options: MapOptions,
    resolution: float | None,
    runner: Any,
    resume: bool,
    overwrite: bool,
    progress: Any,
) -> Any:
    with tempfile.TemporaryDirectory(prefix='segearth-') as scratch:
        dataset, array = None, None
        if isinstance(scene, str | os.PathLike):
            path = os.fspath(scene)
            out = out or DEFAULT_OUT
        elif isinstance(scene, DatasetReader):
            dataset, path = scene, scene.name
        elif type(scene).__module__.startswith('xarray.'):
            array, path = scene, _to_file(scene, Path(scratch))
        else:
            raise DataError(
                f'a scene is a path, an open rasterio dataset or an xarray.DataArray, not a {type(scene).__name__}; '
                'arrays and PIL images go to segearth.Segmenter(...)(image)'
            )
        files = predict_to_files(
            SceneSource(path, segmenter.bands, segmenter.sensor, resolution, segmenter.ignore_alpha),
            SegmenterModel(segmenter.model),
            MapLegend(segmenter.class_names, segmenter.palette),
            out or scratch,
            options,
            dataset=dataset,
            runner=runner,
            resume=resume,
            overwrite=overwrite,
            progress=progress,
        )
        if array is not None:
            return _to_array(files.classes, array, segmenter.class_names)
        if dataset is not None:
            return rasterio.open(files.classes) if out else MemoryFile(files.classes.read_bytes()).open()
        return files.classes


def _to_file(array: xarray.DataArray, folder: Path) -> str:
    """Writes an array as a GeoTIFF, in windows where it is a lazy one."""
    require('maps', 'rioxarray')
    import rioxarray  # noqa: F401  (gives arrays their .rio)

    if array.ndim not in (2, 3):
        raise DataError(f'the DataArray has dimensions {array.dims}; expected (band, y, x) or (y, x)')
    name = str(array.name or 'scene').replace('/', '_')
    path = folder / f'{name}.tif'
    try:
        array.rio.to_raster(path, windowed=True, tiled=True, blockxsize=TILE, blockysize=TILE)
    except Exception as error:  # rioxarray passes on what it meets: missing dimensions, types GDAL lacks
        raise DataError(
            f'the DataArray cannot be read as a raster ({error}): it needs dimensions (band, y, x), regular '
            'coordinates and numbers; rioxarray.open_rasterio makes such an array'
        ) from error
    return str(path)


def _to_array(path: Path, scene: xarray.DataArray, class_names: Sequence[str]) -> xarray.DataArray:
    import rioxarray

    opened: Any = rioxarray.open_rasterio(path)  # one raster is one DataArray; the types allow more
    with opened:
        classes = opened.load().squeeze('band', drop=True).rename('classes')
    y, x = scene.rio.y_dim, scene.rio.x_dim
    classes = classes.rename({'y': y, 'x': x})
    if classes.shape == (scene.sizes[y], scene.sizes[x]):
        classes = classes.assign_coords({name: scene.coords[name] for name in (y, x) if name in scene.coords})
    meanings = ' '.join(name.replace(' ', '_') for name in class_names)  # CF conventions, section 3.5
    classes.attrs = {
        'class_names': list(class_names),
        'flag_values': list(range(len(class_names))),
        'flag_meanings': meanings,
    }
    return classes.rio.write_nodata(NO_DATA)
