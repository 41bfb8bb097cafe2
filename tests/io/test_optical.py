from __future__ import annotations

import mmcv
import numpy as np
import pytest

from segearth.errors import DataError
from segearth.io.pictures import read_optical, stretch_to_uint8

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize('name', ['a.png', 'a.jpg'])
def test_8_bit_images_are_those_of_mmcv(write, name):
    path = write(name, NOISE)
    assert np.array_equal(read_optical(path), mmcv.imread(str(path))[..., ::-1])


def test_grey_becomes_three_equal_channels(write):
    image = read_optical(write('a.png', NOISE[..., 0]))
    assert np.array_equal(image, np.repeat(NOISE[..., :1], 3, axis=2))


def test_of_four_bands_the_first_three_are_taken(write):
    bands = np.concatenate([NOISE.transpose(2, 0, 1), NOISE.transpose(2, 0, 1)[:1]])
    assert np.array_equal(read_optical(write('a.tif', bands, photometric='MINISBLACK')), NOISE)


def test_more_bands_must_be_chosen(write):
    path = write('a.tif', np.zeros((13, 8, 8), np.int16))
    with pytest.raises(DataError, match='13 bands.*bands=.4, 3, 2'):
        read_optical(path)
    assert read_optical(path, (4, 3, 2)).shape == (8, 8, 3)


def test_other_numbers_are_stretched_alike_in_all_channels():
    bands = np.linspace(100, 3000, 300, dtype=np.float32).reshape(3, 10, 10)
    bands[0, 0, 0] = np.nan
    bands[2, 9, 9] = np.nan
    stretched = stretch_to_uint8(bands)
    assert stretched.dtype == np.uint8
    assert stretched[0, 0, 0] == stretched[2, 9, 9] == 0
    assert stretched[0].mean() < stretched[1].mean() < stretched[2].mean()
    assert (stretched.min(), stretched.max()) == (0, 255)


@pytest.mark.parametrize('value', [np.nan, 7.0])
def test_images_without_contrast_are_black(value):
    assert stretch_to_uint8(np.full((3, 4, 4), value)).max() == 0


def test_real_geotiff(shared):
    path = shared / 'samples' / 'oem_koeln_50.tif'
    assert np.array_equal(read_optical(path), mmcv.imread(str(path))[..., ::-1])
