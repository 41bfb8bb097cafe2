from __future__ import annotations

import numpy as np
import pytest

from segearth.errors import DataError
from segearth.preparation.colour_sets import ISAID_COLOURS, ISPRS_COLOURS, UAVID_COLOURS
from segearth.preparation.decoding import Picture
from segearth.preparation.id_sets import YESEG
from segearth.preparation.label_rules import Ids, Threshold
from segearth.preparation.sources import Member

MASK = Member('mask.png', None, 'mask.png')


def grey(*values: int, **settings) -> Picture:
    return Picture(np.array(values, dtype=np.uint8).reshape(1, -1, 1), **settings)


def colours(*values: tuple[int, int, int]) -> Picture:
    return Picture(np.array(values, dtype=np.uint8).reshape(1, -1, 3))


def test_threshold() -> None:
    assert Threshold(128)(grey(0, 127, 128, 255), MASK).tolist() == [[0, 0, 1, 1]]
    assert Threshold(1, is_brightness=False)(grey(0, 1, 4), MASK).tolist() == [[0, 1, 1]]


def test_threshold_looks_through_palettes_and_colours() -> None:
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[1] = 255
    assert Threshold(128)(grey(0, 1, palette=palette), MASK).tolist() == [[0, 1]]
    assert Threshold(1, is_brightness=False)(grey(0, 2, palette=palette), MASK).tolist() == [[0, 1]]
    assert Threshold(128)(colours((250, 250, 250), (9, 0, 3)), MASK).tolist() == [[1, 0]]


def test_threshold_refuses_masks_that_are_converted_already() -> None:
    with pytest.raises(DataError, match='mask.png holds 0 and 1'):
        Threshold(128)(grey(0, 1), MASK)
    assert Threshold(128)(grey(0, 1, is_lossy=True), MASK).max() == 0  # noise of a JPEG that is all background


def test_sixteen_bits_are_refused() -> None:
    with pytest.raises(DataError, match='uint16'):
        Threshold(128)(Picture(np.zeros((1, 1, 1), dtype=np.uint16)), MASK)


def test_isprs_colours() -> None:
    picture = colours((0, 0, 0), (255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0))
    assert ISPRS_COLOURS(picture, MASK).tolist() == [[0, 1, 2, 3, 4, 5, 6]]


def test_uavid_moving_cars_are_cars() -> None:
    assert UAVID_COLOURS(colours((64, 0, 128), (192, 0, 192), (64, 64, 0)), MASK).tolist() == [[3, 3, 6]]


def test_isaid_colours_are_those_of_mmseg() -> None:
    from mmseg.datasets import iSAIDDataset

    palette = [tuple(colour) for colour in iSAIDDataset.METAINFO['palette']]
    assert ISAID_COLOURS(colours(*palette), MASK).tolist() == [list(range(16))]


def test_unknown_colours_are_counted_and_named() -> None:
    picture = colours((0, 0, 0), (1, 2, 3), (1, 2, 3), (9, 9, 9))
    with pytest.raises(DataError) as caught:
        ISPRS_COLOURS(picture, MASK)
    for part in ('mask.png', '2 unknown colours in 3 of 4 pixels', '(1, 2, 3) 2 times', '(9, 9, 9) 1 times'):
        assert part in str(caught.value)
    assert ISPRS_COLOURS(picture, MASK, ignore_unknown=True).tolist() == [[0, 255, 255, 255]]


def test_grey_in_place_of_colours_is_refused() -> None:
    with pytest.raises(DataError, match='is grey'):
        ISPRS_COLOURS(grey(0, 1), MASK)


def test_ids() -> None:
    assert Ids(3)(grey(0, 2, 255), MASK).tolist() == [[0, 2, 255]]
    with pytest.raises(DataError, match='mask.png holds the ids 3, 7'):
        Ids(3)(grey(0, 3, 7), MASK)
    assert Ids(3)(grey(0, 3), MASK, ignore_unknown=True).tolist() == [[0, 255]]
    with pytest.raises(DataError, match='3 bands'):
        Ids(3)(colours((0, 0, 0)), MASK)


def test_yeseg_makes_six_classes_of_eight_ids() -> None:
    ids = YESEG.rule(grey(0, 1, 2, 3, 4, 5, 6, 7, 9, 255), MASK)
    assert ids.tolist() == [[255, 0, 1, 2, 3, 4, 5, 255, 255, 255]]
