"""Range kernel times spatial kernel of a joint bilateral layer, without an unfolded copy of the keys.

The compiled implementations compute the similarities again in the backward pass instead of keeping them.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from simfeatup.ops.operator import Operator
from simfeatup.proof import pattern

MIN_KERNEL_SUM = 1e-7  # FeatUp's code


def _example(sizes: tuple, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    taps, key_dim, *size = sizes
    height, width = (side + taps - 1 for side in size)
    return (
        pattern(2, key_dim, height, width, dtype=dtype, device=device),
        torch.tensor(0.7, dtype=dtype, device=device),
        pattern(taps, taps, dtype=dtype, device=device).square(),
    )


def _sizes_of(keys: Tensor, temperature: Tensor, spatial: Tensor) -> tuple[int, ...]:
    taps = len(spatial)
    return taps, keys.shape[1], *(side - taps + 1 for side in keys.shape[2:])


@partial(
    Operator, 'joint_kernel(Tensor keys, Tensor temperature, Tensor spatial) -> Tensor',
    fast={name: f'simfeatup.ops.{name}.joint:joint_kernel' for name in ('cpu', 'cuda')},
    example=_example, sizes=(5, 5, 3, 40), sizes_of=_sizes_of,
)  # fmt: skip
def joint_kernel(keys: Tensor, temperature: Tensor, spatial: Tensor) -> Tensor:
    """Weights by similarity and distance, normalised.

    ``k_i = softmax_i(temperature <key_i, key_centre>) spatial_i``, divided by its sum over i.

    Args:
        keys: (B, K, H + 2r, W + 2r), padded by the radius r.
        temperature: Scalar.
        spatial: (T, T), T = 2r + 1.

    Returns:
        (B, T, T, H, W), differentiable once with respect to all three.
    """
    taps = len(spatial)
    height, width = (side - taps + 1 for side in keys.shape[2:])
    centre = keys[:, :, taps // 2 : taps // 2 + height, taps // 2 : taps // 2 + width]
    # less <key_centre, key_centre>, which a softmax does not notice: rounding stays small where keys are long
    similarity = [
        ((keys[:, :, i : i + height, j : j + width] - centre) * centre).sum(1) for i in range(taps) for j in range(taps)
    ]
    kernel = torch.softmax(temperature * torch.stack(similarity, 1), 1) * spatial.reshape(1, -1, 1, 1)
    kernel = kernel / kernel.sum(1, keepdim=True).clamp_min(MIN_KERNEL_SUM)
    return kernel.to(keys.dtype).unflatten(1, spatial.shape).contiguous()


joint_kernel.differentiate(3, {name: f'simfeatup.ops.{name}.joint:joint_kernel_backward' for name in ('cpu', 'cuda')})
