"""The adaptive convolution as Triton kernels, in the layouts of :mod:`simfeatup.ops.cpu.conv`.

A program computes a few neighbouring pixels of one row for a block of channels. The gradient of the features is
added up by atomic operations, since several pixels read one feature; its last digits vary from run to run.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS = 16  # of a row, a program
CHANNELS = 64  # at a time, a program


def adaptive_conv(features: Tensor, kernels: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """See :func:`simfeatup.ops.adaptive_conv.adaptive_conv`; (B, H, W, C)."""
    return _convolve(_channels_last(features), _rows_first(kernels), rows, cols)


def adaptive_conv_norm(
    features: Tensor, kernels: list[Tensor], rows: list[Tensor], cols: list[Tensor], num_maps: int
) -> tuple[Tensor, Tensor]:
    """See :func:`simfeatup.ops.adaptive_conv.adaptive_conv_norm`."""
    features = _channels_last(features)
    *before, (last, *starts) = zip(map(_rows_first, kernels), rows, cols, strict=True)
    for stage in before:
        features = _convolve(features, *stage)
    batch, height, _, _, width = last.shape
    maps, squares = features.new_empty(batch, num_maps, height, width), features.new_empty(batch, height, width)
    sizes = _sizes(features, last)
    _forward_norm[_grid(last, 1)](features, last, *starts, maps, squares, num_maps, *sizes, PIXELS, CHANNELS)
    return maps, squares


def adaptive_conv_backward(
    grad: Tensor, features: Tensor, kernels: Tensor, rows: Tensor, cols: Tensor, needs: list[bool]
) -> list[Tensor]:
    """Gradients of the features and of the kernels from that of the result, (B, H, W, C)."""
    grad, features, kernels = grad.contiguous(), _channels_last(features), _rows_first(kernels)
    sizes, grads = (*_sizes(features, kernels), PIXELS, CHANNELS), [grad.new_empty(0), grad.new_empty(0)]
    if needs[0]:
        out = torch.zeros_like(features)
        _backward_features[_grid(kernels, features.shape[3])](grad, kernels, rows, cols, out, *sizes)
        grads[0] = out.permute(0, 3, 1, 2)
    if needs[1]:
        out = torch.empty_like(kernels)
        _backward_kernels[_grid(kernels, 1)](grad, features, rows, cols, out, *sizes)
        grads[1] = out.permute(0, 2, 3, 1, 4)
    return grads


def _convolve(features: Tensor, kernels: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    out = features.new_empty(len(features), kernels.shape[1], kernels.shape[4], features.shape[3])
    sizes = _sizes(features, kernels)
    _forward[_grid(kernels, features.shape[3])](features, kernels, rows, cols, out, *sizes, PIXELS, CHANNELS)
    return out


def _channels_last(features: Tensor) -> Tensor:
    return features.permute(0, 2, 3, 1).contiguous()


def _rows_first(kernels: Tensor) -> Tensor:
    """(B, Ty, Tx, H, W) -> (B, H, Ty, Tx, W), as on CPUs."""
    return kernels.permute(0, 3, 1, 2, 4).contiguous()


def _sizes(features: Tensor, kernels: Tensor) -> tuple[int, ...]:
    return *features.shape[1:], *kernels.shape[1:]  # h, w, C, H, Ty, Tx, W


def _grid(kernels: Tensor, channels: int) -> tuple[int, int, int]:
    batch, height, _, _, width = kernels.shape
    return triton.cdiv(width, PIXELS) * triton.cdiv(channels, CHANNELS), height, batch


@triton.jit
def _pixels(cols, pixel_block, width, PIXELS: tl.constexpr):
    """Pixels of this program, which of them exist, and their first feature columns."""
    x = pixel_block * PIXELS + tl.arange(0, PIXELS)
    return x, x < width, tl.load(cols + x, mask=x < width, other=0)


@triton.jit
def _weighted_sums(
    features, kernels, row, col, x, exists, c, h, w, channels, taps_y, taps_x, width,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sums over all taps (PIXELS, CHANNELS); features and kernels point to the image and to the row of pixels."""
    sums = tl.zeros((PIXELS, CHANNELS), features.dtype.element_ty)
    mask = exists[:, None] & (c < channels)[None, :]
    for i in range(taps_y):
        for j in range(taps_x):
            weight = tl.load(kernels + (i * taps_x + j) * width + x, mask=exists, other=0)
            at = ((row + i) * w + col + j)[:, None] * channels + c[None, :]
            sums += weight[:, None] * tl.load(features + at, mask=mask, other=0)
    return sums


@triton.jit
def _forward(
    features, kernels, rows, cols, out, h, w, channels, height, taps_y, taps_x, width,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(channels, CHANNELS)
    y, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    x, exists, col = _pixels(cols, tl.program_id(0) // blocks, width, PIXELS)
    c = tl.program_id(0) % blocks * CHANNELS + tl.arange(0, CHANNELS)
    kernels += (image * height + y) * taps_y * taps_x * width
    sums = _weighted_sums(
        features + image * h * w * channels, kernels, tl.load(rows + y), col, x, exists, c, h, w, channels,
        taps_y, taps_x, width, PIXELS, CHANNELS,
    )  # fmt: skip
    at = ((image * height + y) * width + x)[:, None] * channels + c[None, :]
    tl.store(out + at, sums, mask=exists[:, None] & (c < channels)[None, :])


@triton.jit
def _forward_norm(
    features, kernels, rows, cols, maps, squares, num_maps, h, w, channels, height, taps_y, taps_x, width,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    y, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    x, exists, col = _pixels(cols, tl.program_id(0), width, PIXELS)
    kernels += (image * height + y) * taps_y * taps_x * width
    total = tl.zeros((PIXELS,), features.dtype.element_ty)
    for first in range(0, channels, CHANNELS):
        c = first + tl.arange(0, CHANNELS)
        sums = _weighted_sums(
            features + image * h * w * channels, kernels, tl.load(rows + y), col, x, exists, c, h, w, channels,
            taps_y, taps_x, width, PIXELS, CHANNELS,
        )  # fmt: skip
        at = ((image * num_maps + c)[None, :] * height + y) * width + x[:, None]
        tl.store(maps + at, sums, mask=exists[:, None] & (c < num_maps)[None, :])
        total += tl.sum(tl.where((c >= num_maps)[None, :], sums * sums, 0), 1)
    tl.store(squares + (image * height + y) * width + x, total, mask=exists)


@triton.jit
def _backward_kernels(
    grad, features, rows, cols, out, h, w, channels, height, taps_y, taps_x, width,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    y, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    x, exists, col = _pixels(cols, tl.program_id(0), width, PIXELS)
    row = tl.load(rows + y)
    features += image * h * w * channels
    grad += (image * height + y) * width * channels
    out += (image * height + y) * taps_y * taps_x * width
    for i in range(taps_y):
        for j in range(taps_x):
            total = tl.zeros((PIXELS,), grad.dtype.element_ty)
            for first in range(0, channels, CHANNELS):
                c = first + tl.arange(0, CHANNELS)
                mask = exists[:, None] & (c < channels)[None, :]
                slope = tl.load(grad + x[:, None] * channels + c[None, :], mask=mask, other=0)
                at = ((row + i) * w + col + j)[:, None] * channels + c[None, :]
                total += tl.sum(slope * tl.load(features + at, mask=mask, other=0), 1)
            tl.store(out + (i * taps_x + j) * width + x, total, mask=exists)


@triton.jit
def _backward_features(
    grad, kernels, rows, cols, out, h, w, channels, height, taps_y, taps_x, width,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(channels, CHANNELS)
    y, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    x, exists, col = _pixels(cols, tl.program_id(0) // blocks, width, PIXELS)
    c = tl.program_id(0) % blocks * CHANNELS + tl.arange(0, CHANNELS)
    mask = exists[:, None] & (c < channels)[None, :]
    row = tl.load(rows + y)
    kernels += (image * height + y) * taps_y * taps_x * width
    at = ((image * height + y) * width + x)[:, None] * channels + c[None, :]
    slope = tl.load(grad + at, mask=mask, other=0)
    out += image * h * w * channels
    for i in range(taps_y):
        for j in range(taps_x):
            weight = tl.load(kernels + (i * taps_x + j) * width + x, mask=exists, other=0)
            at = ((row + i) * w + col + j)[:, None] * channels + c[None, :]
            tl.atomic_add(out + at, weight[:, None] * slope, mask=mask)
