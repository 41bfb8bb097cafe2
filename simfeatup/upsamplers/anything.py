"""Upsample Anything: a Gaussian of every feature cell, fitted to the one image at hand.

The filter that rebuilds the image best from its own cell means is taken for the features. Nothing is learned before,
and there are no weights to load. The Gaussians come from the image, so scoring is exact and fast once they are fitted.

Source: "Upsample Anything", from a description of it as a formula with a few numbers; its code was not read. What the
description leaves open was chosen here: widths in cells instead of pixels, fitted as logarithms; cell means for the
small image; a fit at 4 x 4 pixels a cell (8 x 8 gave the same mIoU on a validation scene); windows of one size (of 2, 3
and 4 cells on each side 3 was best there), where the description has cells within twice the largest width, at most 8.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from simfeatup.errors import UpsamplerError
from simfeatup.ops.folding import Stage
from simfeatup.upsamplers.base import KernelReuse, LinearUpsampler
from simfeatup.upsamplers.neighbourhood import Neighbourhoods, cell_means

NUM_STEPS, LEARNING_RATE = 50, 0.1
START = 1.0, 1.0, 0.15
"""Widths down and across in cells (16 pixels of a patch of 16), and in the colours of the normalised image, as
joint_bilateral's; the description has 0.12 of colours in [0, 1], 0.44 here: far worse on one of two validation scenes.
"""
RADIUS = 3  # cells on each side
FIT_PIXELS = 4  # of a cell, a side, in the fit


class Anything(LinearUpsampler):
    """Softmax over 7 x 7 cells q of the logarithm of a Gaussian of each, of place and colour.

    ``-x'^2 / 2 sx^2 - y'^2 / 2 sy^2 - |I(p) - I_low(q)|^2 / 2 sr^2``, (x', y') the offset of pixel p from q
    turned by an angle. The four numbers of each cell are fitted to the image by so many steps of Adam, without anything
    random, so that the upsampled I_low differs least from I (L1). Gradients reach the features, not the image.
    """

    def __init__(self, dim: int, num_steps: int = NUM_STEPS, learning_rate: float = LEARNING_RATE) -> None:
        super().__init__(dim)
        if not isinstance(num_steps, int) or num_steps < 1 or not learning_rate > 0:
            raise UpsamplerError(
                'anything needs num_steps, a whole number of 1 or more, and a learning_rate above 0; got '
                f'num_steps={num_steps!r}, learning_rate={learning_rate!r}.'
            )
        self.num_steps, self.learning_rate = num_steps, learning_rate

    def stages(self, guidance: Tensor, grid: Sequence[int], reuse: KernelReuse | None = None) -> list[Stage]:
        """One stage; nothing is taken over from other windows, to each of which the Gaussians are fitted anew."""
        image = guidance.detach().to(torch.promote_types(guidance.dtype, torch.float32))
        gaussians = self.fit(image, grid)
        cells = Neighbourhoods(grid, image.shape[2:], RADIUS, image.device)
        pixels, colours = _colours(cells, image, cell_means(image, grid))
        weights = cells.weigh(_queries(cells, pixels), _keys(cells, colours, gaussians))
        return [cells.stage(weights.to(guidance.dtype))]

    @torch.inference_mode(False)
    @torch.enable_grad()
    def fit(self, image: Tensor, grid: Sequence[int]) -> Tensor:
        """Logarithms of sx, sy and sr, and the angle, (B, 4, h, w), of images (B, 3, H, W), each for itself."""
        image = image.clone()  # what inference mode made takes no part in gradients
        size = [min(FIT_PIXELS * length, total) for length, total in zip(grid, image.shape[2:], strict=True)]
        cells = Neighbourhoods(grid, size, RADIUS, image.device)
        pixels, colours = _colours(cells, cell_means(image, size), cell_means(image, grid))
        queries = _queries(cells, pixels)
        start = torch.cat([image.new_tensor(START).log(), image.new_zeros(1)])
        gaussians = start[:, None, None].repeat(len(image), 1, *cells.grid).requires_grad_()
        optimizer = torch.optim.Adam([gaussians], lr=self.learning_rate)
        for _ in range(self.num_steps):
            optimizer.zero_grad()
            rebuilt = cells.weigh(queries, _keys(cells, colours, gaussians)) @ colours
            (rebuilt - pixels).abs().mean((1, 2, 3)).sum().backward()
            optimizer.step()
        return gaussians.detach()


def _colours(cells: Neighbourhoods, image: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """Colours of the pixels of each cell (B, h w, P, 3) and of the cells around it (B, h w, T, 3), less its own."""
    own = low.flatten(2).transpose(1, 2)[:, :, None]
    return cells.pixels(image) - own, cells.windows(low) - own


def _queries(cells: Neighbourhoods, colours: Tensor) -> Tensor:
    """What the logarithms of Gaussians are linear in, of pixels with colours (B, h w, P, 3): (B, h w, P, 10)."""
    y, x = cells.positions().to(colours.dtype).unbind(2)
    places = torch.stack([y * y, y * x, x * x, y, x, torch.ones_like(x)], 2).expand(len(colours), -1, -1, -1)
    return torch.cat([places, colours.square().sum(3, keepdim=True), colours], 3)


def _keys(cells: Neighbourhoods, colours: Tensor, gaussians: Tensor) -> Tensor:
    """The factors of :func:`_queries` in the logarithms, of cells with colours (B, h w, T, 3): (B, h w, T, 10)."""
    along_y, along_x, of_colour = (torch.exp(-2 * gaussians[:, :3]) / 2).unbind(1)  # 1 / 2 s^2
    cos, sin = gaussians[:, 3].cos(), gaussians[:, 3].sin()
    # x'^2 / 2 sx^2 + y'^2 / 2 sy^2 = yy y^2 + yx y x + xx x^2, where x' = cos x + sin y, y' = cos y - sin x
    yy = cos.square() * along_y + sin.square() * along_x
    xx = cos.square() * along_x + sin.square() * along_y
    yx = 2 * cos * sin * (along_x - along_y)
    yy, yx, xx, of_colour = cells.windows(torch.stack([yy, yx, xx, of_colour], 1)).unbind(3)
    y, x = cells.offsets.to(colours.dtype).unbind(2)  # those of pixels less these are squared
    constant = yy * y * y + yx * y * x + xx * x * x + of_colour * colours.square().sum(3)
    factors = [-yy, -yx, -xx, 2 * yy * y + yx * x, 2 * xx * x + yx * y, -constant, -of_colour]
    return torch.cat([torch.stack(factors, 3), 2 * of_colour[..., None] * colours], 3)
