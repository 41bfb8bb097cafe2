"""Kernels of a stage from the image in one go, for inference: weights by colour or by learned keys, folded.

On CPUs the weights before folding never leave the cache: row by row they are computed and folded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from simfeatup.ops.axes import reflect_pad
from simfeatup.ops.folding import fold_plainly
from simfeatup.ops.joint_kernel import joint_kernel
from simfeatup.ops.operator import Operator
from simfeatup.proof import pattern

GRID, SIZE, RADIUS, KEY_DIM = (3, 20), (6, 40), 2, 5  # in which the loops prove themselves


def spatial_kernel(sigma: Tensor, radius: int) -> Tensor:
    """Gaussian of the distance to the centre, (T, T); the window spans -1 to 1 on both axes."""
    offsets = torch.linspace(-1, 1, 2 * radius + 1, device=sigma.device, dtype=sigma.dtype)
    return torch.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * sigma**2))


def colour_weights(guidance: Tensor, spatial: Tensor, sigma_range: float) -> Tensor:
    """Weights of every pixel's neighbours by distance and likeness of colours, of sum 1.

    Args:
        guidance: (B, 3, H, W).
        spatial: (T, T), weights by distance.
        sigma_range: Width of the Gaussian of the difference of colours.

    Returns:
        (B, T, T, H, W).
    """
    taps = len(spatial)
    height, width = guidance.shape[2:]
    padded = reflect_pad(guidance, taps // 2)
    distances = spatial.log().to(guidance)
    logits = torch.stack(
        [
            (padded[:, :, i : i + height, j : j + width] - guidance).square().sum(1) / (-2 * sigma_range**2)
            + distances[i, j]
            for i in range(taps)
            for j in range(taps)
        ],
        1,
    )
    return logits.softmax(1).unflatten(1, spatial.shape)


def learned_weights(
    guidance: Tensor,
    temperature: Tensor,
    spatial: Tensor,
    keys_of: Callable[[Tensor], Tensor],
    correction_of: Callable[[Tensor], Tensor],
) -> Tensor:
    """Weights of every pixel's neighbours by distance and likeness of keys, and a correction by an MLP.

    Args:
        guidance: (B, 3, H, W).
        temperature: Scalar of the range kernel's softmax.
        spatial: (T, T), weights by distance.
        keys_of: (B, 3, H, W) -> (B, K, H, W).
        correction_of: (B, T*T + 3, H, W), weights and guidance, -> (B, T*T, H, W).

    Returns:
        (B, T, T, H, W), those of :func:`simfeatup.ops.joint_kernel.joint_kernel` and the correction.
    """
    keys = reflect_pad(keys_of(guidance), len(spatial) // 2)
    weights = joint_kernel(keys, temperature, spatial)
    return weights + correction_of(torch.cat([weights.flatten(1, 2), guidance], 1)).unflatten(1, spatial.shape)


def _example_colour(sizes: tuple, dtype: torch.dtype, device: torch.device) -> tuple:
    spatial = spatial_kernel(torch.tensor(0.8, dtype=dtype, device=device), RADIUS)
    return pattern(2, 3, *SIZE, dtype=dtype, device=device), list(GRID), spatial, 0.15, None, 0


@partial(
    Operator,
    'colour_kernels(Tensor guidance, int[] grid, Tensor spatial, float sigma_range, Tensor? known, int first) -> '
    'Tensor',
    fast={'cpu': 'simfeatup.ops.cpu.stages:colour_kernels'}, example=_example_colour,
)  # fmt: skip
def colour_kernels(
    guidance: Tensor, grid: list[int], spatial: Tensor, sigma_range: float, known: Tensor | None, first: int
) -> Tensor:
    """Kernels (B, H, Ty, Tx, W) of :func:`colour_weights`, folded, for features on a grid (h, w); no gradients.

    Args:
        guidance: (B, 3, H, W).
        grid: (h, w).
        spatial: (T, T), weights by distance.
        sigma_range: Width of the Gaussian of the difference of colours.
        known: (B, n, Ty, Tx, W), kernels of n rows that need not be computed again; None for none.
        first: The first of these rows.
    """
    return fold_plainly(colour_weights(guidance, spatial, sigma_range), grid)


def _example_learned(sizes: tuple, dtype: torch.dtype, device: torch.device) -> tuple:
    def convolutions(inputs: int, outputs: int) -> list[Tensor]:
        shapes = (outputs, inputs, 1, 1), (outputs,), (outputs, outputs, 1, 1), (outputs,)
        return [pattern(*shape, dtype=dtype, device=device) for shape in shapes]

    one, taps = torch.tensor(1.0, dtype=dtype, device=device), (2 * RADIUS + 1) ** 2
    guidance = pattern(2, 3, *SIZE, dtype=dtype, device=device)
    weights = convolutions(3, KEY_DIM), convolutions(taps + 3, taps)
    return guidance, list(GRID), one, spatial_kernel(one, RADIUS), *weights, None, 0


@partial(
    Operator,
    'learned_kernels(Tensor guidance, int[] grid, Tensor temperature, Tensor spatial, Tensor[] keys, '
    'Tensor[] correction, Tensor? known, int first) -> Tensor',
    fast={'cpu': 'simfeatup.ops.cpu.stages:learned_kernels'}, example=_example_learned,
)  # fmt: skip
def learned_kernels(
    guidance: Tensor, grid: list[int], temperature: Tensor, spatial: Tensor, keys: list[Tensor],
    correction: list[Tensor], known: Tensor | None, first: int,
) -> Tensor:  # fmt: skip
    """Kernels (B, H, Ty, Tx, W) of :func:`learned_weights`, folded, for features on a grid (h, w); no gradients.

    Args:
        guidance: (B, 3, H, W).
        grid: (h, w).
        temperature: Scalar.
        spatial: (T, T), weights by distance.
        keys: Weight and bias of two 1x1 convolutions, with GELU between.
        correction: The same of the MLP.
        known: (B, n, Ty, Tx, W), kernels of n rows that need not be computed again; None for none.
        first: The first of these rows.
    """

    def convolutions(weights: list[Tensor]) -> Callable[[Tensor], Tensor]:
        weight1, bias1, weight2, bias2 = weights
        return lambda maps: F.conv2d(F.gelu(F.conv2d(maps, weight1, bias1)), weight2, bias2)

    weights = learned_weights(guidance, temperature, spatial, convolutions(keys), convolutions(correction))
    return fold_plainly(weights, grid)
