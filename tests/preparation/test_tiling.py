from __future__ import annotations

import numpy as np
import pytest

from segearth.errors import ConfigError
from segearth.preparation.prepare import cut
from segearth.preparation.recipe import PROGRAMS, Tiling
from segearth.published import published_images

BINARY_SETS, COLOUR_SETS = PROGRAMS['binary_masks'], PROGRAMS['colour_tiles']
# Published sizes (height, width) of the Vaihingen areas that are evaluated.
VAIHINGEN_SIZES = {
    2: (2767, 2428), 4: (2557, 1887), 6: (2557, 1887), 8: (2557, 1887), 10: (2557, 1887), 12: (2575, 1922),
    14: (2565, 1919), 16: (2565, 1919), 20: (2315, 1866), 22: (2546, 1903), 24: (2546, 1903), 27: (3313, 1917),
    29: (2563, 1917), 31: (2555, 1980), 33: (2555, 1581), 35: (1884, 2805), 38: (2550, 3816),
}  # fmt: skip


def count(name: str, sizes) -> int:
    tiling = (COLOUR_SETS | BINARY_SETS)[name].tiling
    return sum(len(tiling.names('x', size)) for size in sizes)


def test_potsdam_gives_2016_crops() -> None:
    assert len(COLOUR_SETS['potsdam'].names) == 14
    assert count('potsdam', [(6000, 6000)] * 14) == 2016 == published_images('cfg_potsdam').count


def test_vaihingen_gives_398_crops() -> None:
    assert {f'area{number}' for number in VAIHINGEN_SIZES} == set(COLOUR_SETS['vaihingen'].names)
    assert count('vaihingen', VAIHINGEN_SIZES.values()) == 398 == published_images('cfg_vaihingen').count


def test_inria_gives_675_tiles() -> None:
    assert count('inria', [(5000, 5000)] * len(BINARY_SETS['inria'].names)) == 675


def test_uavid_gives_1020_tiles() -> None:
    sizes = [(2160, 3840)] * 90 + [(2160, 4096)] * 60
    assert count('uavid', sizes) == 1020 == published_images('cfg_uavid').count


def test_uavid_tiles_are_wider_than_high_and_named_by_rows() -> None:
    names = COLOUR_SETS['uavid'].tiling.names('seq21_000100', (2160, 4096))
    assert list(names)[2:5] == [
        'seq21_000100_0_1080_2560_3840', 'seq21_000100_0_1080_2816_4096', 'seq21_000100_1080_2160_0_1280',
    ]  # fmt: skip
    assert len(names) == 8 and len(COLOUR_SETS['uavid'].tiling.boxes((2160, 3840))) == 6


def test_isaid_windows_overlap_and_end_at_the_edge() -> None:
    names = list(COLOUR_SETS['iSAID'].tiling.names('P0003', (1500, 900)))
    assert names == [
        'P0003_0_896_0_896', 'P0003_0_896_4_900', 'P0003_512_1408_0_896', 'P0003_512_1408_4_900',
        'P0003_604_1500_0_896', 'P0003_604_1500_4_900',
    ]  # fmt: skip
    assert list(COLOUR_SETS['iSAID'].tiling.names('P1', (300, 896))) == ['P1_0_896_0_896']


@pytest.mark.parametrize('size', [(10, 10), (11, 25), (5, 31), (29, 9), (1, 1)])
@pytest.mark.parametrize('stride', [3, 7, 10])
def test_windows_cover_every_pixel_once_at_least_and_differ(size: tuple[int, int], stride: int) -> None:
    boxes = Tiling((10, 10), (stride, stride)).boxes(size)
    seen = np.zeros(size, dtype=int)
    for y1, x1, y2, x2 in boxes:
        assert (y2 - y1, x2 - x1) == (min(10, size[0]), min(10, size[1]))
        seen[y1:y2, x1:x2] += 1
    assert seen.min() > 0
    assert len(set(boxes)) == len(boxes)


def test_cut_fills_what_is_outside() -> None:
    array = np.arange(6).reshape(2, 3)
    assert np.array_equal(cut(array, (1, 1, 3, 4), 255), [[4, 5, 255], [255, 255, 255]])
    assert cut(np.ones((2, 3, 3)), (0, 0, 4, 4), 0).shape == (4, 4, 3)


@pytest.mark.parametrize('stride', [0, 11])
def test_stride_that_leaves_gaps_is_refused(stride: int) -> None:
    with pytest.raises(ConfigError, match='1 to 10'):
        Tiling((10, 10), (stride, stride))
