"""Sliding-window inference: overlapping windows, one score map, every pixel the mean of the windows that see it.

Knows neither encoders nor text. Source: mmsegmentation's slide inference, as SegEarth-OV-2 uses it
(the last window of a row or column moved back to the edge, overlaps averaged), with windows whose side is no
multiple of the patch zero-padded.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from segearth.errors import ConfigError

MAX_WINDOWS = {'cpu': 4, 'cuda': 64}
"""Device type -> batch beyond which nothing gets faster (docs/performance.md), only larger."""
FREE_SHARE = 0.5  # of the free memory; the rest is for the score map and for whoever else runs
BYTES_PER_FLOAT = 4
MAPS_AT_ONCE = 3  # copies of the full-size channels that live at the same time: before, after, under way
KERNEL_TAPS = 2 * 121  # floats a pixel for the upsampler's kernels of radius 5 and their similarities

Box = tuple[int, int, int, int]
"""(y1, x1, y2, x2) in pixels, y2 and x2 exclusive."""


def intersection(box: Box, other: Box) -> Box:
    """The pixels that two boxes share; empty (y2 <= y1 or x2 <= x1) where there are none."""
    return max(box[0], other[0]), max(box[1], other[1]), min(box[2], other[2]), min(box[3], other[3])


def window_boxes(height: int, width: int, crop_size: tuple[int, int], stride: tuple[int, int]) -> list[Box]:
    """Windows, all of one size, that cover an image of so many pixels, in row-major order.

    An image side that is shorter than that of ``crop_size``, (height, width) of a window, gives windows of that side.
    A ConfigError refuses a stride that is not positive or leaves gaps between windows.
    """
    for side, step in zip(crop_size, stride, strict=True):
        if not 0 < step <= side:
            raise ConfigError(
                f'slide_stride is {step} with slide_crop {side}; allowed: 1 to slide_crop, else pixels are left out'
            )
    rows = window_starts(height, crop_size[0], stride[0])
    columns = window_starts(width, crop_size[1], stride[1])
    crop_height, crop_width = min(crop_size[0], height), min(crop_size[1], width)
    return [(y, x, y + crop_height, x + crop_width) for y in rows for x in columns]


def pad_to_multiple(images: Tensor, multiple: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """Zero-pads images (B, C, H, W) symmetrically until both sides are multiples, usually of the patch size.

    Returns them and (top, left), the padding before the image (the smaller half where it is odd).
    """
    height, width = images.shape[-2:]
    pad_height, pad_width = -height % multiple[0], -width % multiple[1]
    top, left = pad_height // 2, pad_width // 2
    if pad_height or pad_width:
        images = F.pad(images, (left, pad_width - left, top, pad_height - top))
    return images, (top, left)


def score_padded(images: Tensor, score: Callable[[Tensor], Tensor], multiple: tuple[int, int]) -> Tensor:
    """Scores images (B, 3, H, W) of any size with a function that needs multiples of the patch: pad, score, cut.

    ``score`` makes (B, Q, H', W') of (B, 3, H', W'), so the result is (B, Q, H, W).
    """
    height, width = images.shape[-2:]
    padded, (top, left) = pad_to_multiple(images, multiple)
    return score(padded)[..., top : top + height, left : left + width]


def score_whole(
    images: Tensor, score: Callable[[Tensor], Tensor], multiple: tuple[int, int], size: tuple[int, int] | None
) -> Tensor:
    """Scores whole images with a function that gives a number a patch, interpolated bilinearly and once.

    A pixel of the result (B, Q, H0, W0), which without a size has that of the images, gets what the scores of the
    nearest patches are at its place in the image, whatever the size of the image between. ``score`` makes (B, Q, h, w),
    one a patch, of (B, 3, H', W') whose sides are multiples of the patch.
    """
    height, width = images.shape[-2:]
    size = size or (height, width)
    padded, before = pad_to_multiple(images, multiple)
    scores = score(padded)
    if padded is images:
        return F.interpolate(scores, size=size, mode='bilinear', align_corners=False)
    sides = zip(size, images.shape[-2:], before, padded.shape[-2:], strict=True)
    rows, columns = (
        2 * ((torch.arange(count, device=scores.device) + 0.5) / count * side + start) / whole - 1
        for count, side, start, whole in sides
    )
    places = torch.stack(torch.meshgrid(columns, rows, indexing='xy'), dim=-1).to(scores.dtype)
    return F.grid_sample(scores, places.expand(len(scores), -1, -1, -1), padding_mode='border', align_corners=False)


def slide(
    images: Tensor,
    score: Callable[[Tensor], Tensor],
    crop_size: tuple[int, int],
    stride: tuple[int, int],
    window_batch_size: int,
    is_smooth: bool = False,
) -> Tensor:
    """Scores images (B, 3, H, W) window by window and averages the overlaps: (B, Q, H, W), in the scores' dtype.

    Where windows overlap each has the same say, or a smooth one (:func:`window_profile`).

    ``score`` makes (b, Q, h, w) of (b, 3, h, w), b at most ``window_batch_size``. Windows of several images share a
    batch, because all windows of equally large images have one size. They come column by column, so that each lies
    below the one before and may share its kernels (:class:`simfeatup.upsamplers.base.KernelReuse`).
    """
    if window_batch_size < 1:
        raise ConfigError(f'window_batch_size is {window_batch_size}; allowed: 1 or more')
    height, width = images.shape[-2:]
    boxes = sorted(window_boxes(height, width, crop_size, stride), key=lambda box: box[1])
    jobs = [(index, box) for index in range(len(images)) for box in boxes]
    total: Tensor | None = None
    for start in range(0, len(jobs), window_batch_size):
        batch = jobs[start : start + window_batch_size]
        windows = torch.stack([images[index, :, y1:y2, x1:x2] for index, (y1, x1, y2, x2) in batch])
        scores = score(windows)
        if total is None:
            total = scores.new_zeros(len(images), scores.shape[1], height, width)
            count = total.new_zeros(height, width)
            weights = torch.outer(*(window_profile(side, is_smooth) for side in scores.shape[-2:])).to(total)
            for y1, x1, y2, x2 in boxes:
                count[y1:y2, x1:x2] += weights
        for (index, (y1, x1, y2, x2)), window_scores in zip(batch, scores, strict=True):
            total[index, :, y1:y2, x1:x2] += window_scores * weights if is_smooth else window_scores
    assert total is not None  # there is an image, and a window of it
    return total.div_(count)


def window_profile(side: int, is_smooth: bool) -> Tensor:
    """What the pixels of a window count along a side of so many pixels, in (0, 1]: (side,); the product of both sides.

    All the same, as in the paper; or less towards the rim, as a raised cosine, since a window knows least about what
    lies at its rim: fewer windows do then, and their seams are not seen.
    """
    if not is_smooth:
        return torch.ones(side)
    return torch.sin(torch.pi * (torch.arange(side) + 0.5) / side).square()


def window_batch_size(device: torch.device, sides: Sequence[int], num_queries: int, embed_dim: int) -> int:
    """Number of windows of (height, width) pixels that a device has the memory for, 1 or more.

    An estimate from above: scoring takes the queries and one coordinate a channel to full size, three times over,
    besides the upsampler's kernels; the encoder needs less than that.
    """
    floats = sides[0] * sides[1] * (MAPS_AT_ONCE * (num_queries + embed_dim) + KERNEL_TAPS)
    affordable = int(free_memory(device) * FREE_SHARE / (floats * BYTES_PER_FLOAT))
    return max(1, min(affordable, MAX_WINDOWS.get(device.type, MAX_WINDOWS['cpu'])))


def free_memory(device: torch.device) -> int:
    """Free bytes of a device: of the GPU, or of the machine."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


@lru_cache
def window_starts(side: int, crop: int, stride: int) -> tuple[int, ...]:
    """First pixels of the windows along an image side of so many pixels; the last window ends with it."""
    last = max(side - crop, 0)
    steps = -(-last // stride)  # ceiling
    return tuple(min(index * stride, last) for index in range(steps + 1))
