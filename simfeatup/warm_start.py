"""A start for training a joint bilateral upsampler: the colour filter instead of random weights.

Fresh weights are far from any filter, and most of a short training goes into undoing that: the corrections of kernels
and features add noise as large as what they correct, and the window is one wide blur. Here the corrections start at
zero, and the keys at weights whose kernels are those of :class:`simfeatup.upsamplers.bilateral.JointBilateral`, fitted
on a few images; no features are needed.

Source: our own; the filter is Kopf et al., Joint bilateral upsampling, SIGGRAPH 2007.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simfeatup.errors import UpsamplerError
from simfeatup.upsamplers.bilateral import SIGMA_RANGE, SIGMA_SPATIAL, ColourLayer
from simfeatup.upsamplers.jbu import JBU, JBULayer

NUM_STEPS = 2000
LEARNING_RATE = 1e-2
CROP = 28  # side of the images the keys are fitted on, in pixels of a stage
SCALES = (1, 2, 4, 8)  # pixels of the image to a pixel of a stage
MIN_WEIGHT = 1e-8


def start_as_filter(
    upsampler: nn.Module, images: Tensor, sigma_spatial: float = SIGMA_SPATIAL, sigma_range: float = SIGMA_RANGE,
    num_steps: int = NUM_STEPS,
) -> float:  # fmt: skip
    """Makes an upsampler compute, nearly, what the colour filter does; in place, in the mode it is in.

    Args:
        upsampler: ``jbu_one`` or ``jbu_stack``.
        images: (B, 3, H, W), normalised; sides of at least 28 pixels.
        sigma_spatial: Width of the filter in place, its window spanning -1 to 1.
        sigma_range: Width of the filter in colour, in the normalised image.
        num_steps: Steps of fitting the keys, each on one image at one of the stages' scales.

    Returns:
        Kullback-Leibler divergence of the fitted kernels from the filter's, in nats a pixel, over the last steps.

    Raises:
        UpsamplerError: Another upsampler, images that are too small, no step.
    """
    if not isinstance(upsampler, JBU):
        raise UpsamplerError(f'{type(upsampler).__name__} cannot start as a filter; only jbu_one and jbu_stack can.')
    if min(images.shape[2:]) < CROP:
        raise UpsamplerError(f'Images of at least {CROP} pixels a side are needed; got {tuple(images.shape[2:])}.')
    if num_steps < 1:
        raise UpsamplerError(f'num_steps of the start is {num_steps}; allowed: 1 or more.')
    for parameter in upsampler.fixup_proj[1].parameters():
        nn.init.zeros_(parameter)
    layers = [module for module in upsampler.modules() if isinstance(module, JBULayer)]
    divergences = [_fit(layer, images, sigma_spatial, sigma_range, num_steps) for layer in layers]
    return sum(divergences) / len(divergences)


@torch.enable_grad()
def _fit(layer: JBULayer, images: Tensor, sigma_spatial: float, sigma_range: float, num_steps: int) -> float:
    for parameter in layer.fixup_proj[3].parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(layer.sigma_spatial, sigma_spatial)
    target = ColourLayer(layer.radius, sigma_spatial, sigma_range)
    was_training = layer.training
    layer.eval()
    optimizer = torch.optim.Adam(layer.range_proj.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    generator = torch.Generator().manual_seed(0)
    history = []
    for _ in range(num_steps):
        guidance = _draw_guidance(images, generator)
        wanted = target.neighbour_weights(guidance)
        ratio = wanted.clamp_min(MIN_WEIGHT) / layer.neighbour_weights(guidance).clamp_min(MIN_WEIGHT)
        divergence = (wanted * ratio.log()).sum((1, 2)).mean()
        optimizer.zero_grad()
        divergence.backward()
        optimizer.step()
        schedule.step()
        history.append(divergence.item())
    layer.zero_grad()
    layer.train(was_training)
    tail = history[-max(num_steps // 10, 1) :]
    return sum(tail) / len(tail)


def _draw_guidance(images: Tensor, generator: torch.Generator) -> Tensor:
    """(1, 3, CROP, CROP), a square of an image as one of the stages sees it."""
    scales = [scale for scale in SCALES if min(images.shape[2:]) >= scale * CROP]

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    index, scale = draw(len(images)), scales[draw(len(scales))]
    side = scale * CROP
    top, left = (draw(length - side + 1) for length in images.shape[2:])
    return F.avg_pool2d(images[index : index + 1, :, top : top + side, left : left + side], scale)
