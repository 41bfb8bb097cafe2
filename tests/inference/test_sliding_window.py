from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from segearth.errors import ConfigError
from segearth.inference.sliding_window import (
    pad_to_multiple,
    score_padded,
    score_whole,
    slide,
    window_boxes,
    window_profile,
)
from simfeatup import build_upsampler
from simfeatup.ops.cpu import stages
from simfeatup.scoring import score
from simfeatup.upsamplers.base import KernelReuse


@pytest.mark.parametrize('size', [(448, 448), (100, 300), (225, 224), (5, 9), (640, 333)])
@pytest.mark.parametrize(('crop', 'stride'), [((224, 224), (112, 112)), ((64, 96), (64, 40)), ((10, 10), (3, 7))])
def test_every_pixel_is_covered_by_windows_inside_the_image(size, crop, stride):
    covered = torch.zeros(size)
    for y1, x1, y2, x2 in window_boxes(*size, crop, stride):
        assert (y2 - y1, x2 - x1) == (min(crop[0], size[0]), min(crop[1], size[1]))
        assert y1 >= 0 and x1 >= 0
        covered[y1:y2, x1:x2] += 1
    assert covered.min() >= 1


def test_windows_of_the_papers_setting():
    boxes = window_boxes(448, 448, (224, 224), (112, 112))
    assert len(boxes) == 9
    assert boxes[1] == (0, 112, 224, 336)


def test_last_window_moves_back_to_the_edge():
    assert [box[1] for box in window_boxes(10, 25, (10, 10), (10, 10))] == [0, 10, 15]


@pytest.mark.parametrize('stride', [(0, 5), (11, 5), (5, -1)])
def test_strides_that_leave_gaps_are_refused(stride):
    with pytest.raises(ConfigError, match='slide_stride'):
        window_boxes(20, 20, (10, 10), stride)


def test_constant_scores_survive_averaging():
    scores = slide(
        torch.zeros(2, 3, 37, 53), lambda x: torch.full((len(x), 4, *x.shape[-2:]), 2.5), (16, 16), (7, 9), 5
    )
    assert scores.shape == (2, 4, 37, 53)
    torch.testing.assert_close(scores, torch.full_like(scores, 2.5))


def test_pixelwise_scores_do_not_depend_on_the_windows():
    images = torch.randn(2, 3, 37, 53)
    scores = slide(images, lambda x: 2 * x, (16, 20), (8, 9), 3)
    torch.testing.assert_close(scores, 2 * images)


def test_windows_of_several_images_share_batches():
    sizes = []

    def score(windows):
        sizes.append(len(windows))
        return windows

    slide(torch.zeros(2, 1, 16, 32), score, (16, 16), (16, 16), 3)
    assert sizes == [3, 1]


def test_padding_is_symmetric_and_cut_off_again():
    images = torch.randn(1, 3, 13, 16)
    padded, (top, left) = pad_to_multiple(images, (8, 8))
    assert padded.shape == (1, 3, 16, 16)
    assert (top, left) == (1, 0)
    assert torch.equal(score_padded(images, lambda x: x, (8, 8)), images)


def patch_means(images):
    return F.avg_pool2d(images, 8)


@pytest.mark.parametrize('size', [(48, 64), (70, 33), (240, 320)])
def test_whole_images_are_interpolated_once(size):
    images = torch.randn(2, 3, 48, 64)
    expected = F.interpolate(patch_means(images), size=size, mode='bilinear', align_corners=False)
    torch.testing.assert_close(score_whole(images, patch_means, (8, 8), size), expected)


@pytest.mark.parametrize('image_size', [(45, 64), (48, 61), (43, 51), (5, 3)])
def test_whole_images_that_are_padded(image_size):
    images = torch.randn(1, 3, *image_size)

    def interpolated(padded):
        return F.interpolate(patch_means(padded), size=padded.shape[-2:], mode='bilinear', align_corners=False)

    scores = score_whole(images, patch_means, (8, 8), image_size)
    torch.testing.assert_close(scores, score_padded(images, interpolated, (8, 8)), atol=1e-5, rtol=0)


def test_scores_of_padded_images_lie_where_the_pixels_are():
    """Scores that grow evenly over the image do so over a result of any size."""
    image_size, size = (75, 90), (150, 270)
    places = torch.stack(torch.meshgrid(*(torch.arange(side) + 0.5 for side in image_size), indexing='ij'))
    scores = score_whole(places[None], patch_means, (8, 8), size)[0]
    inner = slice(32, -32), slice(48, -48)  # two patches off the padding
    for axis in (0, 1):
        expected = (torch.arange(size[axis]) + 0.5) * image_size[axis] / size[axis]
        expected = expected[:, None] if axis == 0 else expected[None]
        expected = expected.expand(size)
        torch.testing.assert_close(scores[axis][inner], expected[inner], atol=1e-3, rtol=0)


def test_batch_size_below_one_is_refused():
    with pytest.raises(ConfigError, match='window_batch_size'):
        slide(torch.zeros(1, 3, 16, 16), lambda x: x, (16, 16), (16, 16), 0)


def test_windows_come_column_by_column_and_share_kernels(monkeypatch):
    torch.manual_seed(0)
    upsampler = build_upsampler('joint_bilateral', 4).eval()
    images, texts = torch.randn(2, 3, 192, 256), torch.nn.functional.normalize(torch.randn(3, 4), dim=1)
    computed = []
    run = stages.run_rows

    def counted(*arguments):
        computed.extend(arguments[-1])
        run(*arguments)

    monkeypatch.setattr(stages, 'run_rows', counted)

    def score_window(windows, reuse=None):
        return score(upsampler, windows[:, :1, ::16, ::16].expand(-1, 4, -1, -1), windows, texts, reuse=reuse)

    reuse = KernelReuse(Fraction(64, 128))
    scores = slide(images, lambda windows: score_window(windows, reuse), (128, 128), (64, 64), 4)
    shared = sum(bottom - top for _, top, bottom in computed)
    computed.clear()
    assert torch.equal(slide(images, score_window, (128, 128), (64, 64), 4), scores)
    assert shared < 0.9 * sum(bottom - top for _, top, bottom in computed)


def test_smooth_windows_count_less_towards_their_rim():
    """Two windows with scores 0 and 1: their overlap runs smoothly from one to the other, and sums to one."""
    images = torch.zeros(1, 3, 8, 12)
    images[..., 8:] = 1

    def first_column(windows):
        return (windows[:, :1, :1, -1:] > 0).float().expand(-1, -1, *windows.shape[-2:])

    scores = slide(images, first_column, (8, 8), (8, 4), 1, is_smooth=True)[0, 0]
    assert torch.equal(scores[:, :4], torch.zeros(8, 4)) and torch.equal(scores[:, 8:], torch.ones(8, 4))
    profile = window_profile(8, True)
    torch.testing.assert_close(scores[0, 4:8], profile[:4] / (profile[:4] + profile[4:]))
    assert (scores[0, 1:] >= scores[0, :-1]).all()
    assert slide(images, first_column, (8, 8), (8, 4), 1)[0, 0, 0, 4] == 0.5


def test_smooth_windows_of_a_constant_stay_constant():
    images = torch.randn(2, 3, 20, 31)
    ones = slide(images, lambda windows: torch.ones(len(windows), 2, 8, 8), (8, 8), (5, 7), 3, is_smooth=True)
    torch.testing.assert_close(ones, torch.ones(2, 2, 20, 31))
