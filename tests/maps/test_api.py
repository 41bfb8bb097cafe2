import numpy as np
import pytest
import rasterio
import rioxarray
import torch
import xarray

import segearth.segmenter
from segearth.errors import ConfigError, DataError
from segearth.maps.predict import predict_scene
from segearth.segmenter import predict
from segearth.text.vocabulary import Vocabulary
from tests.maps.conftest import LEGEND, UTM, smooth_picture


class TinySegmenter:
    """What maps need of a :class:`segearth.Segmenter`."""

    sensor, bands, ignore_alpha, known_resolution = 'optical', None, False, None
    class_names, palette = LEGEND.class_names, LEGEND.palette
    vocabulary = Vocabulary.from_classes('red; green,lime; blue')
    predict_scene = segearth.segmenter.Segmenter.predict_scene

    def __init__(self, classes=None, **settings):
        from open_clip.model import CLIP

        from segearth.inference.settings import InferenceSettings
        from segearth.models.dense_clip import DenseCLIP
        from segearth.models.open_vocabulary import OpenVocabularySegmenter

        torch.manual_seed(0)
        vision = {'image_size': 32, 'layers': 1, 'width': 16, 'head_width': 16, 'patch_size': 8}
        text = {'context_length': 8, 'vocab_size': 10, 'width': 8, 'heads': 1, 'layers': 1}
        words = torch.nn.functional.normalize(torch.randn(3, 16), dim=-1)
        self.model = OpenVocabularySegmenter(
            DenseCLIP(CLIP(16, vision, text).visual.eval()),
            words,
            torch.arange(3),
            settings=InferenceSettings(crop_size=32, stride=32, **settings),
        )


@pytest.fixture(scope='module')
def segmenter():
    return TinySegmenter()


@pytest.fixture
def scene(write_scene):
    picture = smooth_picture(70, 80)
    picture[:, :20] = 0
    return write_scene(picture, nodata=0, **UTM)


def test_a_scene_is_resampled_to_what_the_encoder_knows_unless_it_is_to_stay(scene, tmp_path):
    segmenter = TinySegmenter()
    segmenter.known_resolution = (1.0, 10.0)
    with rasterio.open(segmenter.predict_scene(scene, tmp_path / 'auto')) as dataset:
        assert dataset.shape == (35, 40) and dataset.res == (1.0, 1.0)
    with rasterio.open(segmenter.predict_scene(scene, tmp_path / 'native', resolution='native')) as dataset:
        assert dataset.shape == (70, 80)
    xarray = pytest.importorskip('rioxarray').open_rasterio(scene)
    result = segmenter.predict_scene(xarray)
    assert result.shape == (35, 40) and result.rio.resolution() == (1.0, -1.0)


def test_an_unknown_option_is_refused_by_name(segmenter, scene):
    with pytest.raises(ConfigError, match="unknown option 'foo' of a map; known: block_side, .*stretch"):
        segmenter.predict_scene(scene, foo=1)


def test_each_kind_returns_its_own(segmenter, scene, tmp_path):
    path = segmenter.predict_scene(scene, tmp_path / 'out', scores=True)
    assert path == tmp_path / 'out' / 'scene_classes.tif' and (tmp_path / 'out' / 'scene_scores.tif').exists()
    with rasterio.open(path) as dataset:
        expected, transform = dataset.read(1), dataset.transform

    with rasterio.open(scene) as dataset:
        with predict_scene(segmenter, dataset) as result:
            assert result.transform == transform and result.crs == dataset.crs and result.nodata == 255
            others = [bytes(size) for size in range(100, 20_000)]  # take the place of memory that nobody holds
            assert (result.read(1) == expected).all()
            del others
        assert not dataset.closed

    array = rioxarray.open_rasterio(scene)
    classes = predict_scene(segmenter, array)
    assert isinstance(classes, xarray.DataArray) and (classes.values == expected).all()
    assert (classes.x == array.x).all() and (classes.y == array.y).all()
    assert classes.rio.crs == array.rio.crs and classes.rio.nodata == 255
    assert classes.attrs['flag_meanings'] == 'red green blue'
    masked = predict_scene(segmenter, rioxarray.open_rasterio(scene, masked=True), stretch='none')
    assert (masked.values == expected).all()


def test_names_of_dimensions_are_kept(segmenter):
    array = xarray.DataArray(
        smooth_picture(40, 40, 1)[0],
        dims=('latitude', 'longitude'),
        coords={'latitude': 50 - 1e-5 * np.arange(40), 'longitude': 7 + 1e-5 * np.arange(40)},
    ).rio.write_crs(4326)
    classes = predict_scene(segmenter, array)
    assert classes.dims == array.dims and (classes.longitude == array.longitude).all()


def test_predict_builds_a_segmenter(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(segearth.segmenter, 'Segmenter', TinySegmenter)
    assert predict(scene, 'red; green; blue', tmp_path / 'out', logit_scale=20).exists()
    with pytest.raises(TypeError, match='nonsense'):
        predict(scene, 'red; green; blue', tmp_path / 'out', nonsense=1)


def test_refuses_other_kinds(segmenter):
    with pytest.raises(DataError, match='not a list'):
        predict_scene(segmenter, [1, 2])
    with pytest.raises(DataError, match='cannot be read as a raster'):
        predict_scene(segmenter, xarray.DataArray(np.zeros((3, 4), np.uint8), dims=('a', 'b')))
    with pytest.raises(DataError, match='expected .band, y, x'):
        predict_scene(segmenter, xarray.DataArray(np.zeros(4, np.uint8), dims=('x',)))
