"""Rows that overlapping windows share are taken over, bit by bit the same, and only where they are the same."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from simfeatup import build_upsampler
from simfeatup.upsamplers.base import KernelReuse, shared_rows

NAMES = ['jbu_one', 'jbu_stack', 'joint_bilateral']


def kernels_of(upsampler, windows, grid, reuse=None):
    with torch.inference_mode():
        return [[stage.kernels.clone() for stage in upsampler.stages(one, grid, reuse)] for one in windows]


def column(images, side, step):
    return [images[:, :, y : y + side] for y in range(0, images.shape[2] - side + 1, step)]


def assert_same(left, right):
    for window, others in zip(left, right, strict=True):
        for stage, other in zip(window, others, strict=True):
            assert torch.equal(stage, other)


@pytest.fixture
def taken(monkeypatch):
    counts = []
    take_over = KernelReuse.take_over

    def count(*arguments):
        known, first = take_over(*arguments)
        counts.append(0 if known is None else known.shape[1])
        return known, first

    monkeypatch.setattr(KernelReuse, 'take_over', count)
    return counts


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(
    ('side', 'step', 'grid', 'some'),
    [
        (128, 64, (8, 6), True),
        (128, 32, (8, 6), True),
        (112, 56, (8, 6), True),  # patches of 14 pixels: the last stage is no doubling
        (128, 72, (8, 6), True),  # half a patch: the fine stages alone
        (128, 63, (8, 6), False),
        (128, 128, (8, 6), False),
        (16, 8, (1, 1), False),  # nothing is far enough from the borders
    ],
)
def test_same_kernels(taken, name, side, step, grid, some):
    torch.manual_seed(0)
    upsampler = build_upsampler(name, 8).eval()
    windows = column(torch.randn(1, 3, 3 * side, side * grid[1] // grid[0]), side, step)
    expected = kernels_of(upsampler, windows, grid)
    assert not any(taken)
    assert_same(kernels_of(upsampler, windows, grid, KernelReuse(Fraction(step, side))), expected)
    assert any(taken) == some
    count = len(taken)
    assert_same(kernels_of(upsampler, windows, grid), expected)  # nothing is left behind
    assert not any(taken[count:])


@pytest.mark.parametrize('name', NAMES)
def test_windows_that_lie_elsewhere(taken, name):
    torch.manual_seed(0)
    upsampler = build_upsampler(name, 8).eval()
    image = torch.randn(1, 3, 256, 128)
    changed = image.clone()
    changed[0, 1, 100, 3] += 1e-3
    windows = [image[:, :, :128], changed[:, :, 64:192], image[:, :, 128:], image[:, :, :128], image[:, :, 16:144]]
    expected = kernels_of(upsampler, windows, (8, 8))
    taken.clear()
    assert_same(kernels_of(upsampler, windows, (8, 8), KernelReuse(Fraction(64, 128))), expected)
    stages = len(expected[0])
    assert not any(taken[stages : 2 * stages]) and not any(taken[3 * stages :])


def test_several_windows_at_once(taken):
    upsampler = build_upsampler('jbu_one', 8).eval()
    image = torch.randn(1, 3, 192, 128)
    both = torch.cat(column(image, 128, 64))
    expected = kernels_of(upsampler, [both], (8, 8))
    assert_same(kernels_of(upsampler, [both], (8, 8), KernelReuse(Fraction(64, 128))), expected)
    assert not any(taken)


def test_two_upsamplers_share_nothing(taken):
    upsamplers = [build_upsampler('jbu_one', 8).eval() for _ in range(2)]
    windows, reuse = column(torch.randn(1, 3, 192, 128), 128, 64), KernelReuse(Fraction(64, 128))
    for upsampler, window in zip(upsamplers, windows, strict=True):
        assert_same(kernels_of(upsampler, [window], (8, 8), reuse), kernels_of(upsampler, [window], (8, 8)))
    assert not any(taken)


def test_most_of_the_overlap_is_shared():
    first, last = shared_rows(112, 224, 5, 112)
    assert 5 <= first <= 12 and 224 - 112 - 12 <= last <= 224 - 112 - 5
