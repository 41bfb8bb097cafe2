"""Joint kernels as Triton kernels, forward and backward: what :mod:`simfeatup.ops.stages` calls.

A program computes a few neighbouring pixels of one row, tap after tap; the similarities wait in the output for the
passes that come after the maximum is known.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from simfeatup.ops.stages import MIN_KERNEL_SUM

PIXELS = 64  # of a row, a program


def joint_kernel(keys: Tensor, temperature: Tensor, spatial: Tensor) -> Tensor:
    """Keys (B, K, H + 2r, W + 2r), scalar, (T, T) -> (B, T, T, H, W)."""
    batch, key_dim, side = len(keys), keys.shape[1], len(spatial)
    height, width = keys.shape[2] - side + 1, keys.shape[3] - side + 1
    out = keys.new_empty(batch, side, side, height, width)
    _joint_kernel[triton.cdiv(width, PIXELS), height, batch](
        keys.contiguous(), temperature, spatial.contiguous(), out, key_dim, height, width, side, MIN_KERNEL_SUM,
        triton.next_power_of_2(key_dim), PIXELS,
    )  # fmt: skip
    return out


def joint_kernel_backward(
    grad: Tensor, keys: Tensor, temperature: Tensor, spatial: Tensor, needs: list[bool]
) -> list[Tensor]:
    """Gradients of the keys, the temperature and the spatial kernel from that of the result."""
    grad, keys, spatial = grad.contiguous(), keys.contiguous(), spatial.contiguous()
    batch, side, _, height, width = grad.shape
    key_dim, blocks, key_block = keys.shape[1], triton.cdiv(width, PIXELS), triton.next_power_of_2(keys.shape[1])
    grad_similarity, grad_keys = torch.empty_like(grad), torch.empty_like(keys)
    totals = grad.new_zeros(batch, height, blocks, side * side + 1)  # spatial kernel, then temperature
    _grad_similarity[blocks, height, batch](
        grad, keys, temperature, spatial, grad_similarity, totals, key_dim, height, width, side, MIN_KERNEL_SUM,
        key_block, PIXELS,
    )  # fmt: skip
    _grad_keys[triton.cdiv(keys.shape[3], PIXELS), keys.shape[2], batch](
        grad_similarity, keys, grad_keys, key_dim, height, width, side, key_block, PIXELS
    )
    totals = totals.sum((0, 1, 2))
    grads = grad_keys, totals[-1].clone(), totals[:-1].view_as(spatial)
    return [value if needed else grad.new_empty(0) for value, needed in zip(grads, needs, strict=True)]


@triton.jit
def _load_keys(keys, y, x, exists, key_dim, height, width, KEYS: tl.constexpr):
    """Keys (KEYS, PIXELS) at padded positions; ``height`` and ``width`` are those of the padded image."""
    k = tl.arange(0, KEYS)
    at = (k[:, None] * height + y) * width + x[None, :]
    return tl.load(keys + at, mask=(k < key_dim)[:, None] & exists[None, :], other=0)


@triton.jit
def _similarities(keys, out, y, x, exists, key_dim, height, width, side, KEYS: tl.constexpr, PIXELS: tl.constexpr):
    """Writes the similarity of every tap to out (T*T, H, W); returns the largest of each pixel."""
    radius = side // 2
    padded_height, padded_width = height + side - 1, width + side - 1
    centre = _load_keys(keys, y + radius, x + radius, exists, key_dim, padded_height, padded_width, KEYS)
    peak = tl.full((PIXELS,), float('-inf'), keys.dtype.element_ty)
    for tap in range(side * side):
        i, j = tap // side, tap % side
        neighbour = _load_keys(keys, y + i, x + j, exists, key_dim, padded_height, padded_width, KEYS)
        similarity = tl.sum(centre * neighbour, 0)
        tl.store(out + (tap * height + y) * width + x, similarity, mask=exists)
        peak = tl.maximum(peak, similarity)
    tl.debug_barrier()
    return peak


@triton.jit
def _sums(logits, spatial, peak, temperature, y, x, exists, height, width, side, PIXELS: tl.constexpr):
    """Sum of the softmax's terms, and the same with the spatial kernel."""
    total = tl.zeros((PIXELS,), logits.dtype.element_ty)
    joint = tl.zeros((PIXELS,), logits.dtype.element_ty)
    for tap in range(side * side):
        logit = tl.load(logits + (tap * height + y) * width + x, mask=exists, other=0)
        term = tl.exp(temperature * (logit - peak))
        total += term
        joint += term * tl.load(spatial + tap)
    return total, joint


@triton.jit
def _joint_kernel(
    keys, temperature, spatial, out, key_dim, height, width, side, least, KEYS: tl.constexpr, PIXELS: tl.constexpr
):
    y, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    x = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    exists = x < width
    temperature = tl.load(temperature)
    keys += image * key_dim * (height + side - 1) * (width + side - 1)
    out += image * side * side * height * width
    peak = _similarities(keys, out, y, x, exists, key_dim, height, width, side, KEYS, PIXELS)
    total, joint = _sums(out, spatial, peak, temperature, y, x, exists, height, width, side, PIXELS)
    factor = 1 / tl.maximum(joint, least * total)
    for tap in range(side * side):
        at = out + (tap * height + y) * width + x
        term = tl.exp(temperature * (tl.load(at, mask=exists, other=0) - peak))
        tl.store(at, term * tl.load(spatial + tap) * factor, mask=exists)


@triton.jit
def _grad_similarity(
    grad, keys, temperature, spatial, out, totals, key_dim, height, width, side, least,
    KEYS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    y, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    x = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    exists = x < width
    taps = side * side
    temperature = tl.load(temperature)
    keys += image * key_dim * (height + side - 1) * (width + side - 1)
    grad += image * taps * height * width
    out += image * taps * height * width
    totals += ((image * height + y) * tl.num_programs(0) + tl.program_id(0)) * (taps + 1)
    peak = _similarities(keys, out, y, x, exists, key_dim, height, width, side, KEYS, PIXELS)
    total, joint = _sums(out, spatial, peak, temperature, y, x, exists, height, width, side, PIXELS)
    is_clamped = joint < least * total
    factor = 1 / tl.maximum(joint, least * total)
    mean = tl.zeros((PIXELS,), keys.dtype.element_ty)
    for tap in range(taps):
        at = (tap * height + y) * width + x
        term = tl.exp(temperature * (tl.load(out + at, mask=exists, other=0) - peak))
        mean += tl.load(grad + at, mask=exists, other=0) * term * tl.load(spatial + tap) * factor
    slopes = tl.zeros((PIXELS,), keys.dtype.element_ty)
    for tap in range(taps):
        at = (tap * height + y) * width + x
        weight = tl.load(spatial + tap)
        logit = tl.load(out + at, mask=exists, other=0)
        term = tl.exp(temperature * (logit - peak))
        share = term * factor  # of the spatial weight in the kernel
        own = share * tl.load(grad + at, mask=exists, other=0)
        slope = own * weight - tl.where(is_clamped, term / total, share * weight) * mean
        tl.store(out + at, temperature * slope, mask=exists)
        spatial_slope = tl.where(is_clamped, own, own - share * mean)
        tl.store(totals + tap, tl.sum(tl.where(exists, spatial_slope, 0), 0))
        slopes += tl.where(exists, slope * logit, 0)
    tl.store(totals + taps, tl.sum(slopes, 0))


@triton.jit
def _grad_keys(grad_similarity, keys, out, key_dim, height, width, side, KEYS: tl.constexpr, PIXELS: tl.constexpr):
    """Gradient of padded keys, each as the neighbour of others and as a centre."""
    row, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    col = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    radius = side // 2
    padded_height, padded_width = height + side - 1, width + side - 1
    keys += image * key_dim * padded_height * padded_width
    out += image * key_dim * padded_height * padded_width
    grad_similarity += image * side * side * height * width
    total = tl.zeros((KEYS, PIXELS), keys.dtype.element_ty)
    y, x = row - radius, col - radius
    is_centre = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    for tap in range(side * side):
        i, j = tap // side, tap % side
        slope = tl.load(grad_similarity + (tap * height + y) * width + x, mask=is_centre, other=0)
        total += slope[None, :] * _load_keys(keys, y + i, x + j, is_centre, key_dim, padded_height, padded_width, KEYS)
        v, u = row - i, col - j  # the pixel whose neighbour at this tap it is
        exists = (v >= 0) & (v < height) & (u >= 0) & (u < width)
        slope = tl.load(grad_similarity + (tap * height + v) * width + u, mask=exists, other=0)
        centre = _load_keys(keys, v + radius, u + radius, exists, key_dim, padded_height, padded_width, KEYS)
        total += slope[None, :] * centre
    k = tl.arange(0, KEYS)
    at = (k[:, None] * padded_height + row) * padded_width + col[None, :]
    tl.store(out + at, total, mask=(k < key_dim)[:, None] & (col < padded_width)[None, :])
