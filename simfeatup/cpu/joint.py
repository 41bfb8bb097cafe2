"""Joint kernels on CPUs, forward and backward: what :mod:`simfeatup.joint_kernel` calls."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simfeatup.cpu.grad_rows import grad_key_rows, grad_similarity_rows
from simfeatup.cpu.parallel import share_rows
from simfeatup.cpu.rows import PIXEL_MULTIPLE, joint_kernel_rows, softmax_rows


def joint_kernel(keys: Tensor, temperature: Tensor, spatial: Tensor) -> Tensor:
    """Range times spatial kernel, normalised: keys (B, K, H + 2r, W + 2r), spatial (T*T,) -> (B, T*T, H, W)."""
    border = math.isqrt(len(spatial)) - 1
    batch, height, width = len(keys), keys.shape[2] - border, keys.shape[3] - border
    out = keys.new_empty(batch, len(spatial), height, width)
    scale, weights, kernels = temperature.numpy()[()], spatial.numpy(), out.numpy()
    rows = _rows_first(keys).numpy()

    def run(image: int, top: int, bottom: int) -> None:
        joint_kernel_rows(rows[image], scale, weights, kernels[image], top, bottom)

    share_rows(run, batch, height)
    return out


def joint_kernel_backward(
    grad: Tensor, keys: Tensor, temperature: Tensor, spatial: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the keys, the temperature and the spatial kernel from that of :func:`joint_kernel`'s result."""
    batch, taps, height, width = grad.shape
    keys_first = _rows_first(keys)
    grad_similarity, grad_keys = torch.empty_like(grad).numpy(), torch.zeros_like(keys_first)
    grad_rows = torch.zeros(batch, height, taps + 1, dtype=torch.float64)  # spatial kernel, then temperature
    slopes, rows, scale, weights = grad.numpy(), keys_first.numpy(), temperature.numpy()[()], spatial.numpy()
    out_keys, out_rows = grad_keys.numpy(), grad_rows.numpy()

    def run(image: int, top: int, bottom: int) -> None:
        parts = [np.empty((count, bottom - top, width), rows.dtype) for count in (taps, taps, 3)]
        softmax_rows(rows[image], scale, weights, *parts, top, bottom)
        grad_similarity_rows(
            slopes[image], *parts, scale, weights, grad_similarity[image], out_rows[image], top, bottom
        )

    def run_keys(image: int, top: int, bottom: int) -> None:
        grad_key_rows(grad_similarity[image], rows[image], out_keys[image], top, bottom)

    share_rows(run, batch, height)
    share_rows(run_keys, batch, rows.shape[1])
    totals = grad_rows.sum((0, 1))
    return grad_keys[..., :-PIXEL_MULTIPLE].transpose(1, 2), totals[-1], totals[:-1]


def _rows_first(keys: Tensor) -> Tensor:
    """(B, K, H, W) -> (B, H, K, W + PIXEL_MULTIPLE), what the compiled loops read."""
    return F.pad(keys.transpose(1, 2), (0, PIXEL_MULTIPLE)).contiguous()
