from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import segearth
from segearth.errors import DataError, MissingFileError, UserError
from segearth.inference.settings import InferenceSettings
from segearth.weights.encoders import get_record


@pytest.fixture(scope='module')
def segmenter(tiny_clip):
    return segearth.Segmenter(
        {'water': ['river', 'lake'], 'road': [], 'tree': ['forest']},
        clip_path=str(tiny_clip),
        resize=(64, 64),
        slide_crop=32,
        slide_stride=16,
        device='cpu',
    )


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)


def test_labels_scores_and_picture(segmenter, array):
    result = segmenter(array)
    assert result.labels.shape == (50, 90) and result.labels.dtype == np.uint8
    assert result.scores.shape == (3, 50, 90)
    assert np.array_equal(result.scores.argmax(axis=0), result.labels)
    assert np.array_equal(result.image, array)
    assert result.class_names == ('water', 'road', 'tree')
    assert result.picture.width > 3 * 90
    assert sum(result.shares.values()) == pytest.approx(1)


def test_path_pil_image_and_array_are_one(segmenter, array, tmp_path):
    Image.fromarray(array).save(tmp_path / 'image.png')
    expected = segmenter(array).scores
    for image in (tmp_path / 'image.png', str(tmp_path / 'image.png'), Image.fromarray(array)):
        np.testing.assert_array_equal(segmenter(image).scores, expected)


@pytest.mark.parametrize(('name', 'path'), [('jbu_one', 'demo/demo_jbu_one.safetensors'), ('bilinear', None)])
def test_images_of_a_pixel_in_height_or_width(name, path):
    upsampler = {'model_name': name} | ({'model_path': path} if path else {})
    for resize in ((448, 448), None):
        segmenter = segearth.Segmenter('a; b', feature_up_cfg=upsampler, resize=resize, device='cpu')
        for shape in ((1, 300), (300, 1), (1, 1), (2, 1000)):
            result = segmenter(np.full((*shape, 3), 90, np.uint8))
            assert result.labels.shape == shape and np.isfinite(result.scores).all()
            assert result.picture.size[0] > 3 * shape[1]


def test_classes_can_be_changed(tiny_clip, array):
    segmenter = segearth.Segmenter('building; road', clip_path=str(tiny_clip), slide_crop=32, slide_stride=32)
    segmenter.set_classes('building; road; water,river')
    fresh = segearth.Segmenter('building; road; water,river', clip_path=str(tiny_clip), slide_crop=32, slide_stride=32)
    np.testing.assert_array_equal(segmenter(array).scores, fresh(array).scores)
    assert segmenter.class_names == ('building', 'road', 'water')


def test_resize_none_keeps_the_size(tiny_clip, array):
    segmenter = segearth.Segmenter('building; road', clip_path=str(tiny_clip), slide_crop=0, resize=None)
    seen = []
    original = segmenter.model.normalise
    segmenter.model.normalise = lambda images: seen.append(images.shape) or original(images)
    segmenter(array)
    assert seen == [torch.Size([1, 3, 50, 90])]


def test_numbers_may_come_as_numpy_has_them_or_as_text(tiny_clip, array):
    same = {'clip_path': str(tiny_clip), 'slide_crop': 32, 'slide_stride': 32}
    colours = [(10, 20, 30), (40, 50, 60)]
    expected = segearth.Segmenter('building; road', resize=(64, 64), bands=(3, 2, 1), palette=colours, **same)
    for bands in ('3,2,1', np.array([3, 2, 1])):
        segmenter = segearth.Segmenter('building; road', resize=64, bands=bands, palette=np.array(colours), **same)
        assert segmenter.bands == (3, 2, 1)
        result = segmenter(array)
        np.testing.assert_array_equal(result.scores, expected(array).scores)
        assert result.picture.tobytes() == expected(array).picture.tobytes()


@pytest.mark.parametrize(
    ('image', 'error', 'message'),
    [
        (np.zeros((9, 9, 5), np.uint8), DataError, r'array \(9, 9, 5\) of uint8 has 5 bands: say which'),
        (np.zeros((3, 40, 50), np.uint8), DataError, 'bands first.*transpose'),
        (np.zeros((4, 4, 3), object), DataError, 'of object is no image'),
        (np.zeros((4, 4), np.complex64), DataError, 'complex numbers.*sensor="sar"'),
        (None, DataError, 'NoneType is no image'),
        (Image.new('LAB', (4, 4)), DataError, 'mode LAB; convert it to RGB'),
        (np.zeros((0, 4, 3), np.uint8), DataError, 'expected'),
        ('nowhere.png', MissingFileError, 'nowhere.png'),
    ],
)
def test_images_that_cannot_be(segmenter, image, error, message):
    with pytest.raises(error, match=message):
        segmenter(image)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'classes': ''}, 'class'),
        ({'classes': 'road; road'}, 'road'),
        ({'sensor': 'lidar'}, 'optical, sar'),
        ({'slide': 3}, 'slide'),
        ({'sensor': ['sar']}, 'optical, sar'),
        ({'palette': [(0, 0, 0)]}, '1 colours for 2 classes'),
        ({'palette': []}, 'no list of colours'),
        ({'palette': ['red', 'blue']}, 'no list of colours'),
        ({'palette': [(0, 0), (0, 0, 0)]}, 'no list of colours'),
        ({'palette': [(0, 0, 256), (0, 0, 0)]}, r'in \[0, 255\]'),
        ({'palette': [(0.1, 0.2, 0.3), (1.0, 1.0, 1.0)]}, 'whole numbers'),
        ({'resize': '448'}, "resize is '448'"),
        ({'resize': (448, 0)}, r'resize is \(448, 0\); allowed: 1 pixel or more'),
        ({'resize': (4, 4, 4)}, 'number of pixels, or'),
        ({'bands': 4}, 'bands are 4; expected numbers from 1'),
        ({'bands': (1.0, 2.0, 3.0)}, 'expected numbers from 1'),
        ({'clip_path': 5}, '5 is no path'),
        ({'feature_up_cfg': 'jbu_one'}, 'expected model_name and model_path'),
        ({'feature_up_cfg': {'model_path': 5}}, '5 is no path'),
        ({'clip_type': 'Clip'}, 'Known: CLIP'),
        ({'clip_path': 'nowhere.pt'}, 'nowhere.pt'),
        ({'bg_idx': 7}, 'allowed: 0 to 1'),
    ],
)
def test_settings_that_cannot_be(tiny_clip, settings, message):
    with pytest.raises(UserError, match=message):
        segearth.Segmenter(**{'classes': 'road; tree', 'clip_path': str(tiny_clip)} | settings)


def test_each_sensor_has_an_encoder_of_its_own():
    for sensor, name in (('optical', 'Mini'), ('sar', 'MiniSAR')):
        assert segearth.Segmenter(['a', 'b'], sensor=sensor)._encoder.record.name == name


def test_a_mistyped_setting_is_answered_with_all_names_and_results_can_be_compared(segmenter):
    with pytest.raises(UserError, match="unknown setting 'atention'. Did you mean attention"):
        segearth.Segmenter(['a', 'b'], atention='MaskCLIP')
    with pytest.raises(UserError, match="unknown setting 'x'. Known: clip_type, .*device, .*attention, .*stride"):
        segearth.Segmenter(['a', 'b'], x=1)
    image = np.zeros((32, 32, 3), np.uint8)
    assert segmenter(image) != segmenter(image), 'by identity: arrays have no truth value'


def test_an_encoder_brings_its_own_window_unless_one_is_given(tiny_clip):
    record, options = get_record('Mini'), {'clip_type': 'Mini', 'clip_path': str(tiny_clip), 'device': 'cpu'}
    own = segearth.Segmenter(['tree', 'road'], **options).model.settings
    given = segearth.Segmenter(['tree', 'road'], **options, slide_crop=64, cls_token_weight=-0.1).model.settings
    assert own == InferenceSettings(**record.settings) != InferenceSettings()
    assert given == replace(own, crop_size=(64, 64), cls_token_weight=-0.1)
