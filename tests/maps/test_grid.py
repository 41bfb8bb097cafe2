import pytest

from segearth.errors import ConfigError
from segearth.inference.sliding_window import window_boxes
from segearth.maps.labelling import WindowGrid

SHAPES = [(100, 130), (32, 500), (20, 20), (33, 31), (145, 144)]


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize(('crop', 'stride'), [(32, 16), (32, 32), (30, 7)])
def test_windows_of_blocks_are_those_of_the_whole(shape, crop, stride):
    grid = WindowGrid(shape, (crop, crop), (stride, stride))
    boxes = window_boxes(*shape, (crop, crop), (stride, stride))
    for y1, x1, y2, x2 in [(0, 0, *shape), *grid.blocks(48), (shape[0] // 2, shape[1] // 3, *shape)]:
        expected = {(y, x) for y, x, bottom, right in boxes if y < y2 and bottom > y1 and x < x2 and right > x1}
        found = {(y, x) for y in grid.starts(0, y1, y2) for x in grid.starts(1, x1, x2)}
        assert found == expected
        assert len(found) == grid.num_windows([(y1, x1, y2, x2)])


@pytest.mark.parametrize('shape', SHAPES)
def test_blocks_cover_every_pixel_once(shape):
    blocks = WindowGrid(shape, (32, 32), (16, 16)).blocks(50)
    assert sum((y2 - y1) * (x2 - x1) for y1, x1, y2, x2 in blocks) == shape[0] * shape[1]
    assert len(set(blocks)) == len(blocks)
    assert all(y1 % 16 == 0 and x1 % 16 == 0 for y1, x1, _, _ in blocks)


def test_refuses_gaps_and_empty_blocks():
    with pytest.raises(ConfigError, match='slide_stride is 40'):
        WindowGrid((100, 100), (32, 32), (40, 40))
    with pytest.raises(ConfigError, match='block size is 0'):
        WindowGrid((100, 100), (32, 32), (16, 16)).blocks(0)
