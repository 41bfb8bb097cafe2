"""The adaptive convolution as Triton kernels, in the layouts of :mod:`simfeatup.cpu.conv`.

A program computes a few neighbouring pixels of one row for a block of channels. The gradient of the features is
added up by atomic operations, since several pixels read one feature; its last digits vary from run to run.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from simfeatup.cuda import on_its_device

PIXELS = 16  # of a row, a program
CHANNELS = 64  # at a time, a program


@on_its_device
def forward(features: Tensor, kernels: Tensor, rows: Tensor, cols: Tensor, out: Tensor) -> None:
    """The operator: features (B, h, w, C), kernels (B, H, Ty, Tx, W), starts (H,) and (W,) -> out (B, H, W, C)."""
    sizes = _sizes(features, kernels)
    _forward[_grid(kernels, features.shape[3])](features, kernels, rows, cols, out, *sizes, PIXELS, CHANNELS)


@on_its_device
def forward_norm(
    features: Tensor, stages: Sequence[tuple[Tensor, Tensor, Tensor]], num_maps: int
) -> tuple[Tensor, Tensor]:
    """See :func:`simfeatup.cpu.conv.forward_norm`."""
    *before, (kernels, rows, cols) = stages
    for stage in before:
        out = features.new_empty(len(features), stage[0].shape[1], stage[0].shape[4], features.shape[3])
        forward(features, *stage, out)
        features = out
    batch, height, _, _, width = kernels.shape
    maps, squares = features.new_empty(batch, num_maps, height, width), features.new_empty(batch, height, width)
    sizes = _sizes(features, kernels)
    _forward_norm[_grid(kernels, 1)](features, kernels, rows, cols, maps, squares, num_maps, *sizes, PIXELS, CHANNELS)
    return maps, squares


@on_its_device
def backward_kernels(grad: Tensor, features: Tensor, shape: torch.Size, rows: Tensor, cols: Tensor) -> Tensor:
    """Gradient of the kernels, ``shape`` (B, H, Ty, Tx, W), from that of the output (B, H, W, C)."""
    out = grad.new_empty(shape)
    _backward_kernels[_grid(out, 1)](grad, features, rows, cols, out, *_sizes(features, out), PIXELS, CHANNELS)
    return out


@on_its_device
def backward_features(grad: Tensor, kernels: Tensor, shape: torch.Size, rows: Tensor, cols: Tensor) -> Tensor:
    """Gradient of the features, ``shape`` (B, h, w, C), from that of the output (B, H, W, C)."""
    out = grad.new_zeros(shape)
    _backward_features[_grid(kernels, shape[3])](
        grad, kernels, rows, cols, out, *_sizes(out, kernels), PIXELS, CHANNELS
    )
    return out


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
