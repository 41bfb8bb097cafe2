from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from segearth.errors import DataError
from segearth.preparation.label_rules import Ids, Threshold
from segearth.preparation.recipe import PROGRAMS
from segearth.preparation.sources import Pair, list_members

ISPRS_COLOURS, ISAID_COLOURS, UAVID_COLOURS = (
    PROGRAMS['colour_tiles'][name].rule for name in ('potsdam', 'iSAID', 'uavid')
)


@pytest.fixture
def pair(tmp_path):
    """Writes a label of one row and gives it as a pair."""

    def write(array: np.ndarray, suffix: str = '.png', palette: list[int] | None = None) -> Pair:
        image = Image.fromarray(array[None])
        if palette:
            image.putpalette(palette)
        image.save(tmp_path / f'mask{suffix}')
        member = list_members([tmp_path / f'mask{suffix}'])[0]
        return Pair('mask', member, member)

    return write


@pytest.fixture
def grey(pair):
    return lambda *values, **settings: pair(np.array(values, dtype=np.uint8), **settings)


@pytest.fixture
def colours(pair):
    return lambda *values: pair(np.array(values, dtype=np.uint8))


def test_threshold(grey) -> None:
    assert Threshold(128)(grey(0, 127, 128, 255)).tolist() == [[0, 0, 1, 1]]
    assert Threshold(1, is_brightness=False)(grey(0, 1, 4)).tolist() == [[0, 1, 1]]


def test_threshold_looks_through_palettes_and_colours(grey, colours) -> None:
    palette = [0, 0, 0, 255, 255, 255, 0, 0, 0]
    assert Threshold(128)(grey(0, 1, palette=palette)).tolist() == [[0, 1]]
    assert Threshold(1, is_brightness=False)(grey(0, 2, palette=palette)).tolist() == [[0, 1]]
    assert Threshold(128)(colours((250, 250, 250), (9, 0, 3))).tolist() == [[1, 0]]


def test_threshold_refuses_masks_that_are_converted_already(grey) -> None:
    with pytest.raises(DataError, match='mask.png holds 0 and 1'):
        Threshold(128)(grey(0, 1))
    noise = grey(*[1] * 8, suffix='.jpg')
    assert Threshold(128)(noise).max() == 0  # noise of a JPEG that is all background


def test_sixteen_bits_are_refused(pair) -> None:
    with pytest.raises(DataError, match='mask.png .*uint16'):
        Threshold(128)(pair(np.zeros(1, dtype=np.uint16)))


def test_isprs_colours(colours) -> None:
    label = colours((0, 0, 0), (255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0))
    assert ISPRS_COLOURS(label).tolist() == [[0, 1, 2, 3, 4, 5, 6]]


def test_uavid_moving_cars_are_cars(colours) -> None:
    assert UAVID_COLOURS(colours((64, 0, 128), (192, 0, 192), (64, 64, 0))).tolist() == [[3, 3, 6]]


def test_isaid_colours_are_those_of_mmseg(colours) -> None:
    from mmseg.datasets import iSAIDDataset

    palette = [tuple(colour) for colour in iSAIDDataset.METAINFO['palette']]
    assert ISAID_COLOURS(colours(*palette)).tolist() == [list(range(16))]


def test_unknown_colours_are_counted_and_named(colours) -> None:
    label = colours((0, 0, 0), (1, 2, 3), (1, 2, 3), (9, 9, 9))
    with pytest.raises(DataError) as caught:
        ISPRS_COLOURS(label)
    for part in ('mask.png', '2 unknown colours in 3 of 4 pixels', '(1, 2, 3) 2 times', '(9, 9, 9) 1 times'):
        assert part in str(caught.value)
    assert ISPRS_COLOURS(label, ignore_unknown=True).tolist() == [[0, 255, 255, 255]]


def test_grey_in_place_of_colours_is_refused(grey) -> None:
    with pytest.raises(DataError, match='is grey'):
        ISPRS_COLOURS(grey(0, 1))


def test_ids(grey, colours) -> None:
    assert Ids(3)(grey(0, 2, 255)).tolist() == [[0, 2, 255]]
    with pytest.raises(DataError, match='mask.png holds the ids 3, 7'):
        Ids(3)(grey(0, 3, 7))
    assert Ids(3)(grey(0, 3), ignore_unknown=True).tolist() == [[0, 255]]
    with pytest.raises(DataError, match='3 bands'):
        Ids(3)(colours((0, 0, 0)))


def test_yeseg_makes_six_classes_of_eight_ids(grey) -> None:
    ids = PROGRAMS['yeseg']['yeseg'].rule(grey(0, 1, 2, 3, 4, 5, 6, 7, 9, 255))
    assert ids.tolist() == [[255, 0, 1, 2, 3, 4, 5, 255, 255, 255]]
