from __future__ import annotations

import numpy as np
import pytest

from segearth.errors import DataError
from segearth.io.labels import read_label
from segearth.io.raster import UnreadableFileError

IDS = np.arange(48, dtype=np.uint8).reshape(6, 8) % 4


def test_ids_come_back(write):
    assert np.array_equal(read_label(write('a.png', IDS), 4), IDS)


def test_255_and_negative_ids_are_ignored(write):
    signed = IDS.astype(np.int16)
    signed[0, 0], signed[0, 1] = -1, 255
    label = read_label(write('a.tif', signed), 4)
    assert label.dtype == np.uint8
    assert (label[0, 0], label[0, 1], label[0, 2]) == (255, 255, 2)


@pytest.mark.parametrize(('nodata', 'expected'), [(9, 255), (0, 0)])
def test_declared_no_data_is_ignored_unless_it_is_a_class(write, nodata, expected):
    ids = IDS.copy()
    ids[0, 0] = nodata
    assert read_label(write('a.tif', ids, nodata=nodata), 4)[0, 0] == expected


def test_floats_that_are_whole_numbers(write):
    ids = IDS.astype(np.float32)
    ids[0, 0] = np.nan
    assert read_label(write('a.tif', ids), 4)[0].tolist() == [255, 1, 2, 3, 0, 1, 2, 3]
    with pytest.raises(DataError, match='fractions'):
        read_label(write('b.tif', ids + 0.5), 4)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_ids_outside_the_classes(write, dtype):
    with pytest.raises(DataError, match=r'a.png.*outside the classes: 2, 3\. Allowed: 0 to 1'):
        read_label(write('a.png', IDS.astype(dtype)), 2)


def test_palette_files_are_refused_unless_accepted(write):
    path = write('a.png', IDS, mode='P')
    with pytest.raises(DataError, match=r'a.png is a palette image \(mode P\).*accept_palette=True'):
        read_label(path, 4)
    assert np.array_equal(read_label(path, 4, accept_palette=True), IDS)
    with pytest.raises(DataError, match='outside the classes'):
        read_label(path, 3, accept_palette=True)


def test_colours_are_refused(write):
    with pytest.raises(DataError, match='3 bands.*one band of class ids'):
        read_label(write('a.png', np.zeros((6, 8, 3), np.uint8)), 4)


def test_unconverted_masks_are_refused_unless_accepted(write):
    path = write('a.png', (IDS > 1).astype(np.uint8) * 255)
    with pytest.raises(DataError, match='255 but not 1.*accept_mask_255'):
        read_label(path, 2)
    assert set(np.unique(read_label(path, 2, accept_mask_255=True))) == {0, 255}


def test_truncated_labels_are_named(write, truncate):
    noise = np.random.default_rng(0).integers(0, 4, (60, 80), dtype=np.uint8)
    with pytest.raises(UnreadableFileError, match='a.png'):
        read_label(truncate(write('a.png', noise)), 4)
