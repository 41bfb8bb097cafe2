"""Range kernel times spatial kernel of a joint bilateral layer, without an unfolded copy of the keys.

The loop over the taps in torch is the definition; the compiled implementations compute the same, forward and
backward, and compute the similarities again in the backward pass instead of keeping them.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from simfeatup.backends import choose_backend

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
    if name == 'reference':
        return _reference(keys, temperature, spatial)
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


class _JointKernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, keys: Tensor, temperature: Tensor, spatial: Tensor, module: ModuleType) -> Tensor:
        dtype = torch.float64 if keys.dtype == torch.float64 else torch.float32
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
