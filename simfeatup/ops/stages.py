"""Weights of every pixel's neighbours from the image, by colour or by learned keys, and for inference also folded.

On CPUs the weights before folding never leave the cache: row by row they are computed and folded.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from simfeatup.ops.folding import fold_plainly, reflect_pad
from simfeatup.ops.operator import Operator
from simfeatup.proof import pattern

GRID, SIZE, RADIUS, KEY_DIM = (3, 20), (6, 40), 2, 5  # in which the loops prove themselves
MIN_KERNEL_SUM = 1e-7  # FeatUp's code
MapsToMaps = Callable[[Tensor], Tensor]


def spatial_kernel(sigma: Tensor, radius: int) -> Tensor:
    """Gaussian of the distance to the centre, (T, T); the window spans -1 to 1 on both axes."""
    offsets = torch.linspace(-1, 1, 2 * radius + 1, device=sigma.device, dtype=sigma.dtype)
    return torch.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * sigma**2))


def _neighbours(padded: Tensor, taps: int) -> list[Tensor]:
    """For each of T x T taps the maps (B, C, H, W) of that neighbour of every pixel, of padded ones."""
    height, width = (side - taps + 1 for side in padded.shape[2:])
    return [padded[:, :, i : i + height, j : j + width] for i in range(taps) for j in range(taps)]


def _example_joint(sizes: tuple, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
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
    example=_example_joint, sizes=(5, 5, 3, 40), sizes_of=_sizes_of,
)  # fmt: skip
def joint_kernel(keys: Tensor, temperature: Tensor, spatial: Tensor) -> Tensor:
    """Range kernel times spatial kernel: ``k_i = softmax_i(temperature <key_i, key_centre>) spatial_i`` of sum 1.

    Keys (B, K, H + 2r, W + 2r), padded by the radius r, a scalar and weights (T, T) by distance, T = 2r + 1, ->
    (B, T, T, H, W), differentiable once with respect to all three. The compiled implementations compute the
    similarities again in the backward pass instead of keeping them.
    """
    neighbours = _neighbours(keys, len(spatial))
    centre = neighbours[len(neighbours) // 2]
    # less <key_centre, key_centre>, which a softmax does not notice: rounding stays small where keys are long
    similarity = [((neighbour - centre) * centre).sum(1) for neighbour in neighbours]
    kernel = torch.softmax(temperature * torch.stack(similarity, 1), 1) * spatial.reshape(1, -1, 1, 1)
    kernel = kernel / kernel.sum(1, keepdim=True).clamp_min(MIN_KERNEL_SUM)
    return kernel.to(keys.dtype).unflatten(1, spatial.shape).contiguous()


joint_kernel.differentiate(3, {name: f'simfeatup.ops.{name}.joint:joint_kernel_backward' for name in ('cpu', 'cuda')})


def colour_weights(guidance: Tensor, spatial: Tensor, sigma_range: float) -> Tensor:
    """Weights (B, T, T, H, W) by distance, (T, T), times a Gaussian of the difference of colours, of sum 1."""
    neighbours = _neighbours(reflect_pad(guidance, len(spatial) // 2), len(spatial))
    logits = [
        (neighbour - guidance).square().sum(1) / (-2 * sigma_range**2) + distance
        for neighbour, distance in zip(neighbours, spatial.log().to(guidance).flatten(), strict=True)
    ]
    return torch.stack(logits, 1).softmax(1).unflatten(1, spatial.shape)


def learned_weights(
    guidance: Tensor, temperature: Tensor, spatial: Tensor, keys_of: MapsToMaps, correction_of: MapsToMaps
) -> Tensor:
    """Weights (B, T, T, H, W) of :func:`joint_kernel` and a correction.

    ``keys_of``: (B, 3, H, W) -> (B, K, H, W); ``correction_of``: weights and guidance (B, T*T + 3, H, W) ->
    (B, T*T, H, W).
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

    ``known`` (B, n, Ty, Tx, W) are kernels of n rows, from ``first`` on, that need not be computed again.
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
    """As :func:`colour_kernels`, of :func:`learned_weights`.

    Keys and correction by weight and bias of two 1x1 convolutions each, with GELU between.
    """

    def convolutions(weights: list[Tensor]) -> MapsToMaps:
        weight1, bias1, weight2, bias2 = weights
        return lambda maps: F.conv2d(F.gelu(F.conv2d(maps, weight1, bias1)), weight2, bias2)

    weights = learned_weights(guidance, temperature, spatial, convolutions(keys), convolutions(correction))
    return fold_plainly(weights, grid)
