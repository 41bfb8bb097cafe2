from __future__ import annotations

import numpy as np
import pytest

from segearth.errors import ConfigError, DataError
from segearth.io.pictures import DB_RANGES, read_sar, sar_to_rgb

DECIBELS = np.random.default_rng(0).uniform(-25, 0, (20, 30)).astype(np.float32)


def test_decibels_use_the_fixed_range():
    grey = sar_to_rgb(DECIBELS)
    assert grey.shape == (20, 30, 3)
    assert np.array_equal(grey[..., 0], np.rint((DECIBELS + 25) / 25 * 255).astype(np.uint8))
    assert np.array_equal(grey[..., 0], grey[..., 2])
    assert np.array_equal(sar_to_rgb(DECIBELS[:5, :5]), grey[:5, :5])  # a tile looks as it does in its image


def test_linear_amplitude_and_power_give_the_same_picture():
    expected = sar_to_rgb(DECIBELS).astype(int)
    for scale, factor in (('auto', 20), ('amplitude', 20), ('power', 10)):
        assert np.abs(sar_to_rgb(10 ** (DECIBELS / factor), scale) - expected).max() <= 1


def test_complex_numbers_count_by_their_magnitude():
    amplitude = 10 ** (DECIBELS / 20)
    assert np.abs(sar_to_rgb(amplitude * np.exp(1j * DECIBELS)).astype(int) - sar_to_rgb(amplitude)).max() <= 1


def test_noise_below_zero_does_not_make_power_decibels():
    power = 10 ** (DECIBELS / 10)
    power[0] = -1e-3
    assert (sar_to_rgb(power, 'power')[0] == 0).all()
    assert np.array_equal(sar_to_rgb(power)[1:], sar_to_rgb(power, 'amplitude')[1:])


def test_two_bands_and_their_mean():
    both = np.stack([DECIBELS, DECIBELS - 7])
    picture = sar_to_rgb(both)
    assert np.abs(picture[..., 0].astype(int) - picture[..., 1]).max() <= 1  # each in its own range
    assert np.abs(picture.mean(axis=2) - picture[..., 2]).max() <= 1


def test_8_bit_pictures_stay_as_they_are():
    grey = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    assert np.array_equal(sar_to_rgb(grey), grey.transpose(1, 2, 0))
    assert np.array_equal(sar_to_rgb(grey[0]), np.repeat(grey[0][..., None], 3, axis=2))


def test_16_bit_numbers_are_stretched():
    numbers = np.random.default_rng(0).integers(50, 4000, (2, 20, 30)).astype(np.uint16)
    picture = sar_to_rgb(numbers)
    assert picture.min() == 0
    assert picture.max() == 255
    assert np.array_equal(picture, sar_to_rgb(numbers * 4)[...])  # the unit does not matter


@pytest.mark.parametrize('hole', [np.nan, np.inf, -9999.0, -3.4e38])
def test_no_data_is_black_and_changes_nothing_else(hole):
    holed = DECIBELS.copy()
    holed[3, 4] = hole
    expected = sar_to_rgb(DECIBELS)
    expected[3, 4] = 0
    assert np.array_equal(sar_to_rgb(holed), expected)


def test_declared_no_data_is_black(write):
    path = write('a.tif', np.where(DECIBELS > -10, 0, DECIBELS), nodata=0)
    assert (read_sar(path)[DECIBELS > -10] == 0).all()


def test_an_image_without_data_is_black():
    assert sar_to_rgb(np.full((2, 4, 5), np.nan)).max() == 0


def test_a_map_takes_one_range_for_all_windows():
    assert np.array_equal(sar_to_rgb(DECIBELS, db_ranges=DB_RANGES), sar_to_rgb(DECIBELS))
    assert sar_to_rgb(DECIBELS, db_ranges=((-50.0, -30.0),)).min() == 255


@pytest.mark.parametrize('bands', [np.zeros((3, 4, 5), np.float32), np.zeros((4, 4, 5), np.uint8)])
def test_more_bands_must_be_chosen(bands):
    with pytest.raises(DataError, match='bands=.1, 2'):
        sar_to_rgb(bands)


def test_unknown_scale():
    with pytest.raises(ConfigError, match='auto, amplitude, power, db'):
        sar_to_rgb(DECIBELS, 'decibel')


def test_files(write):
    path = write('a.tif', np.stack([DECIBELS] * 4), nodata=float('nan'))
    with pytest.raises(DataError, match='a.tif: 4 bands'):
        read_sar(path)
    assert np.array_equal(read_sar(path, bands=(1,)), sar_to_rgb(DECIBELS))


def test_real_image_of_two_bands(shared):
    picture = read_sar(shared / 'samples' / 'sen1floods11' / 'Spain_7370579_S1Hand.tif')
    assert picture.shape == (512, 512, 3)
    is_inside = (picture > 0) & (picture < 255)
    assert is_inside[..., :2].mean() > 0.95  # the fixed ranges fit: little is cut off
    assert 80 < picture[..., 0].mean() < 180
