"""Sliding-window inference: overlapping windows, one score map, every pixel the mean of the windows that see it.

Knows neither encoders nor text. Source: mmsegmentation's slide inference, as SegEarth-OV-2 uses it
(the last window of a row or column moved back to the edge, overlaps averaged), with windows whose side is no
multiple of the patch zero-padded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def window_boxes(height: int, width: int, crop_size: tuple[int, int], stride: tuple[int, int]) -> list[Box]:
    """Windows that cover an image, all of one size.

    Args:
        height: Image height in pixels.
        width: Image width in pixels.
        crop_size: (height, width) of a window; an image side that is shorter gives windows of that side.
        stride: (height, width) between windows, at most the crop size.

    Returns:
        Boxes in row-major order.

    Raises:
        ConfigError: A stride that is not positive or leaves gaps between windows.
    """
    for side, step in zip(crop_size, stride, strict=True):
        if not 0 < step <= side:
            raise ConfigError(
                f'slide_stride is {step} with slide_crop {side}; allowed: 1 to slide_crop, else pixels are left out'
            )
    rows = _starts(height, crop_size[0], stride[0])
    columns = _starts(width, crop_size[1], stride[1])
    crop_height, crop_width = min(crop_size[0], height), min(crop_size[1], width)
    return [(y, x, y + crop_height, x + crop_width) for y in rows for x in columns]


def pad_to_multiple(images: Tensor, multiple: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """Zero-pads images symmetrically until both sides are multiples.

    Args:
        images: (B, C, H, W).
        multiple: (height, width), usually the patch size.

    Returns:
        The padded images and (top, left), the padding before the image (the smaller half where it is odd).
    """
    height, width = images.shape[-2:]
    pad_height, pad_width = -height % multiple[0], -width % multiple[1]
    top, left = pad_height // 2, pad_width // 2
    if pad_height or pad_width:
        images = F.pad(images, (left, pad_width - left, top, pad_height - top))
    return images, (top, left)


def score_padded(images: Tensor, score: Callable[[Tensor], Tensor], multiple: tuple[int, int]) -> Tensor:
    """Scores images of any size with a function that needs multiples of the patch: pad, score, cut.

    Args:
        images: (B, 3, H, W).
        score: (B, 3, H', W') -> (B, Q, H', W').
        multiple: (height, width) of a patch.

    Returns:
        (B, Q, H, W).
    """
    height, width = images.shape[-2:]
    padded, (top, left) = pad_to_multiple(images, multiple)
    return score(padded)[..., top : top + height, left : left + width]


def score_whole(
    images: Tensor, score: Callable[[Tensor], Tensor], multiple: tuple[int, int], size: tuple[int, int] | None
) -> Tensor:
    """Scores whole images with a function that gives a number a patch, interpolated bilinearly and once.

    A pixel of the result gets what the scores of the nearest patches are at its place in the image, whatever the size
    of the image between.

    Args:
        images: (B, 3, H, W).
        score: (B, 3, H', W') -> (B, Q, h, w), one a patch; H' and W' are multiples of the patch.
        multiple: (height, width) of a patch.
        size: (H0, W0) of the result; None for that of the images.

    Returns:
        (B, Q, H0, W0).
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
) -> Tensor:
    """Scores images window by window and averages the overlaps.

    Windows of several images share a batch, because all windows of equally large images have one size. They come
    column by column, so that each lies below the one before and may share its kernels
    (:class:`simfeatup.upsamplers.reuse.KernelReuse`).

    Args:
        images: (B, 3, H, W).
        score: (b, 3, h, w) -> (b, Q, h, w), b at most ``window_batch_size``.
        crop_size: (height, width) of a window.
        stride: (height, width) between windows.
        window_batch_size: Windows scored at once.

    Returns:
        (B, Q, H, W), dtype of the scores.

    Raises:
        ConfigError: Strides that leave gaps, or a batch size below 1.
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
        for (index, (y1, x1, y2, x2)), window_scores in zip(batch, scores, strict=True):
            total[index, :, y1:y2, x1:x2] += window_scores
    assert total is not None  # there is an image, and a window of it
    count = total.new_zeros(height, width)
    for y1, x1, y2, x2 in boxes:
        count[y1:y2, x1:x2] += 1
    return total.div_(count)


def window_batch_size(device: torch.device, sides: Sequence[int], num_queries: int, embed_dim: int) -> int:
    """Batch size of windows for a device.

    An estimate from above: scoring takes the queries and one coordinate a channel to full size, three times over,
    besides the upsampler's kernels; the encoder needs less than that.

    Args:
        device: Where the windows are scored.
        sides: (height, width) of a window in pixels.
        num_queries: Q.
        embed_dim: C.

    Returns:
        1 or more.
    """
    floats = sides[0] * sides[1] * (MAPS_AT_ONCE * (num_queries + embed_dim) + KERNEL_TAPS)
    affordable = int(free_memory(device) * FREE_SHARE / (floats * BYTES_PER_FLOAT))
    return max(1, min(affordable, MAX_WINDOWS.get(device.type, MAX_WINDOWS['cpu'])))


def free_memory(device: torch.device) -> int:
    """Free bytes of a device: of the GPU, or of the machine."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _starts(side: int, crop: int, stride: int) -> list[int]:
    last = max(side - crop, 0)
    steps = -(-last // stride)  # ceiling
    return [min(index * stride, last) for index in range(steps + 1)]
