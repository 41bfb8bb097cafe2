"""Range kernel times spatial kernel of a joint bilateral layer, without an unfolded copy of the keys.

The loop over the taps in torch is the definition; the compiled implementations compute the same, forward and
backward, and compute the similarities again in the backward pass instead of keeping them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from simfeatup.backends import choose_backend, is_proved
from simfeatup.proof import BOTH, both_ways, pattern, sizes_to_prove

LOOP_SIZES = 5, 5, (3, 40)
"""T, K, (H, W) in which compiled loops prove themselves. Triton kernels do so in the sizes at hand."""
MIN_KERNEL_SUM = 1e-7  # FeatUp's code


def joint_kernel(keys: Tensor, temperature: Tensor, spatial: Tensor, backend: str | None = None) -> Tensor:
    """Weights by similarity and distance, normalised.

    ``k_i = softmax_i(temperature <key_i, key_centre>) spatial_i``, divided by its sum over i.

    Args:
        keys: (B, K, H + 2r, W + 2r), padded by the radius r.
        temperature: Scalar.
        spatial: (T, T), T = 2r + 1.
        backend: See :func:`simfeatup.backends.choose_backend`.

    Returns:
        (B, T, T, H, W), differentiable once with respect to all three.
    """
    name = choose_backend(keys, backend)
    if not _is_proved(name, keys, temperature, spatial):
        return _reference(keys, temperature, spatial)
    return _compiled(name, keys, temperature, spatial)


def _compiled(name: str, keys: Tensor, temperature: Tensor, spatial: Tensor) -> Tensor:
    module = importlib.import_module(f'simfeatup.{name}.joint')
    kernel = _JointKernel.apply(keys, temperature, spatial.flatten(), module)
    return kernel.unflatten(1, spatial.shape)


def _reference(keys: Tensor, temperature: Tensor, spatial: Tensor) -> Tensor:
    taps = len(spatial)
    height, width = (side - taps + 1 for side in keys.shape[2:])
    centre = keys[:, :, taps // 2 : taps // 2 + height, taps // 2 : taps // 2 + width]
    # less <key_centre, key_centre>, which a softmax does not notice: rounding stays small where keys are long
    similarity = [
        ((keys[:, :, i : i + height, j : j + width] - centre) * centre).sum(1) for i in range(taps) for j in range(taps)
    ]
    kernel = torch.softmax(temperature * torch.stack(similarity, 1), 1) * spatial.reshape(1, -1, 1, 1)
    kernel = kernel / kernel.sum(1, keepdim=True).clamp_min(MIN_KERNEL_SUM)
    return kernel.unflatten(1, spatial.shape)


def _is_proved(name: str, keys: Tensor, temperature: Tensor, spatial: Tensor) -> bool:
    """Whether a back end has proved itself for the dtype, and Triton for the sizes, at hand."""
    if name == 'reference':
        return False
    with_gradients = torch.is_grad_enabled() and any(part.requires_grad for part in (keys, temperature, spatial))
    dtype, device = _compute_dtype(keys), keys.device
    sizes: tuple = LOOP_SIZES
    operation = BOTH if with_gradients else 'forward'
    if name == 'cuda':
        taps = len(spatial)
        sizes = taps, keys.shape[1], sizes_to_prove(side - taps + 1 for side in keys.shape[2:])
    case = f'joint_kernel {operation}', dtype, *((device, *sizes) if name == 'cuda' else ())
    return is_proved(name, case, partial(_prove, name, operation, dtype, device, *sizes))


def _prove(
    name: str, operation: str, dtype: torch.dtype, device: torch.device, taps: int, key_dim: int, size: tuple[int, int]
) -> Iterator[tuple[Tensor, Tensor]]:
    height, width = (side + taps - 1 for side in size)
    parts = (
        pattern(2, key_dim, height, width, dtype=dtype, device=device),
        torch.tensor(0.7, dtype=dtype, device=device),
        pattern(taps, taps, dtype=dtype, device=device).square(),
    )
    inputs = [part.requires_grad_() for part in parts]
    return both_ways(_compiled(name, *inputs), _reference(*inputs), inputs if operation == BOTH else ())


def _compute_dtype(keys: Tensor) -> torch.dtype:
    return torch.float64 if keys.dtype == torch.float64 else torch.float32


class _JointKernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, keys: Tensor, temperature: Tensor, spatial: Tensor, module: ModuleType) -> Tensor:
        dtype = _compute_dtype(keys)
        used = [tensor.detach().to(dtype).contiguous() for tensor in (keys, temperature, spatial)]
        ctx.save_for_backward(*used)
        ctx.module, ctx.dtypes = module, (keys.dtype, temperature.dtype, spatial.dtype)
        return module.joint_kernel(*used).to(keys.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        keys, temperature, spatial = ctx.saved_tensors
        grads = ctx.module.joint_kernel_backward(grad.to(keys.dtype).contiguous(), keys, temperature, spatial)
        return *(value.to(dtype) for value, dtype in zip(grads, ctx.dtypes, strict=True)), None
