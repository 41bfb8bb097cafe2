"""Scenes of a few pixels, and a model of windows that is quick and yet depends on all of its window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from segearth.maps.predict import MapOptions, predict_to_files
from segearth.maps.results import MapFiles, MapLegend
from segearth.maps.scene import SceneSource
from tests.maps.stand_in import StandInModel

UTM = {'crs': 'EPSG:25832', 'transform': Affine(0.5, 0, 346000, 0, -0.5, 5648000)}
LEGEND = MapLegend(('red', 'green', 'blue'), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
OPTIONS = MapOptions(block_side=48)
ALL = MapOptions(scores=True, polygons=True, block_side=48)


class Killed(BaseException):
    """Stands for a signal that ends the process."""


@pytest.fixture
def model() -> StandInModel:
    return StandInModel()


@pytest.fixture
def legend() -> MapLegend:
    return LEGEND


def smooth_picture(height: int, width: int, bands: int = 3, seed: int = 0) -> np.ndarray:
    """(bands, height, width) uint8 of blobs, some tens of pixels wide."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, bands, max(height // 16, 2), max(width // 16, 2), generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode='bicubic')[0].clamp(0, 1)
    return (fine * 254 + 1).byte().numpy()


@pytest.fixture
def write_scene(tmp_path: Path):
    """Function that writes an array (bands, h, w) as a GeoTIFF; keyword arguments go to rasterio."""

    def write(array: np.ndarray, name: str = 'scene.tif', mask: np.ndarray | None = None, **profile) -> Path:
        path = tmp_path / name
        bands, height, width = array.shape
        profile = {'driver': 'GTiff', 'dtype': array.dtype, 'count': bands, 'height': height, 'width': width} | profile
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, 'w', **profile) as dataset:
            dataset.write(array)
            if mask is not None:
                dataset.write_mask(mask)
        return path

    return write


@pytest.fixture
def scene(write_scene):
    picture = smooth_picture(130, 150)
    picture[:, :20, :30] = 0
    return write_scene(picture, nodata=0, **UTM)


def make_map(path, out, options: MapOptions = OPTIONS, model: StandInModel | None = None, **arguments) -> MapFiles:
    """Maps a scene with the stand-in model."""
    source = arguments.pop('source', SceneSource(str(path)))
    return predict_to_files(source, model or StandInModel(), LEGEND, out, options, **arguments)


def read(path) -> np.ndarray:
    """The first band of a raster."""
    with rasterio.open(path) as dataset:
        return dataset.read(1)
