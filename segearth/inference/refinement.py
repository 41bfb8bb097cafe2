"""Refinement of scores before classes are made of them: over a window, or over a group of images (context.py).

Propagation lets the scores of uncertain pixels follow those of certain ones up to edges of the image: the solution F of
``(rho + L) F = rho Z``, Z the scores, rho the confidence, L the Laplacian of the grid of cells, whose edges are weak
where the image changes. The published method solves one system an image; here it is one a window, before overlapping
windows are averaged. Windows are the same ones for every block of a scene, so maps have no seams from blocks, need no
more memory, and grow to any size; with whole images as windows (``crop_size`` 0) it is one system an image here, too.

Source: written from a description of PEARL (second half). Pooling, confidence, edges and steps as published; chosen:
what agreement is, the size of a cell for other windows, grey as the mean of the channels, the way back to pixels.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segearth.inference.context import refine_in_context

CELL = 5.6  # pixels a side: 80 cells for an image of 448
EDGE = 5.0  # factor of a difference of grey over the mean difference, in the exponent
NUM_STEPS = 25  # of conjugate gradients


class Refinement(NamedTuple):
    """One way of refining: window by window, or all windows of a group of images at once."""

    of_windows: Callable[[Tensor, Tensor, Tensor, float], Tensor] | None = None
    """Scores (B, Q, H, W), windows (B, 3, H, W), texts (Q, C), logit scale -> scores (B, Q, H, W)."""
    of_group: Callable[[Sequence[Tensor], Sequence[Tensor], float], list[Tensor]] | None = None
    """Patch scores (B, Q, h, w) and features (B, C, h, w) of batches of windows, logit scale -> patch scores."""


def propagate(scores: Tensor, guidance: Tensor, text_embeddings: Tensor, logit_scale: float) -> Tensor:
    """Scores (B, Q, H, W) of windows after propagation; their guidance is (B, 3, H, W), the texts (Q, C), unit.

    Scores and grey are pooled to cells. A cell has the confidence ``rho = max(p)^2 (1 + agreement)``, p the softmax
    over the words, agreement the cosine score of its best word; an edge between 4-neighbours the weight
    ``exp(-5 |dg| / mean |dg|) (1 + agreement)``, at most 1, agreement the cosine of the texts of both best words.
    Agreements are clipped to [0, 1]. The interpolated change of the cells is added to the scores of the pixels, which
    keep the detail that upsampling gave them.
    """
    size = scores.shape[-2:]
    grid = max(round(size[0] / CELL), 1), max(round(size[1] / CELL), 1)
    cells = F.adaptive_avg_pool2d(scores.float(), grid)
    grey = F.adaptive_avg_pool2d(guidance.float().mean(1, keepdim=True), grid)
    probability, best = cells.mul(logit_scale).softmax(1).max(1, keepdim=True)  # (B, 1, h, w)
    confidence = probability.square() * (1 + cells.gather(1, best).clamp(0, 1))
    edges = edge_weights(grey, (text_embeddings @ text_embeddings.T).float(), best)
    change = solve_change(cells, confidence, edges)
    return scores + F.interpolate(change, size=size, mode='bilinear', align_corners=False).to(scores.dtype)


def edge_weights(grey: Tensor, alikeness: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (B, 1, h-1, w) and (B, 1, h, w-1), in [0, 1], of the edges down and to the right of cells.

    Grey and the index of the best word of each cell are (B, 1, h, w), the alikeness of words (Q, Q).
    """
    differences = [grey.diff(dim=axis).abs() for axis in (2, 3)]
    count = max(sum(part[0].numel() for part in differences), 1)
    mean = torch.stack([part.sum((1, 2, 3), keepdim=True) for part in differences]).sum(0) / count
    weights = []
    for axis, difference in zip((2, 3), differences, strict=True):
        length = best.shape[axis] - 1
        agreement = alikeness[best.narrow(axis, 0, length), best.narrow(axis, 1, length)].clamp(0, 1)
        steps = difference / mean.clamp_min(torch.finfo(mean.dtype).tiny)  # 0 in an image of one colour
        weights.append(torch.exp(-EDGE * steps).mul(1 + agreement).clamp_max(1))
    return weights[0], weights[1]


def laplacian(maps: Tensor, edges: tuple[Tensor, Tensor]) -> Tensor:
    """The graph Laplacian of maps (B, Q, h, w): at each cell the sum over its edges of weight times difference."""
    down, right = (weights * maps.diff(dim=axis) for axis, weights in zip((2, 3), edges, strict=True))
    return F.pad(down, (0, 0, 1, 0)) - F.pad(down, (0, 0, 0, 1)) + F.pad(right, (1, 0)) - F.pad(right, (0, 1))


def solve_change(
    scores: Tensor, confidence: Tensor, edges: tuple[Tensor, Tensor], num_steps: int = NUM_STEPS
) -> Tensor:
    """F - Z (B, Q, h, w) for scores Z and the solution F of ``(rho + L) F = rho Z``, by conjugate gradients from F = Z.

    The confidence rho, above 0, is (B, 1, h, w). Every query of every window is a system with steps of its own.
    """
    tiny = torch.finfo(scores.dtype).tiny  # a system that is solved has a residual of 0, and stays

    def dot(one: Tensor, other: Tensor) -> Tensor:
        return (one * other).sum((2, 3), keepdim=True)

    change, residual = torch.zeros_like(scores), -laplacian(scores, edges)
    direction, length = residual, dot(residual, residual)
    for _ in range(num_steps):
        image = confidence * direction + laplacian(direction, edges)
        step = length / dot(direction, image).clamp_min(tiny)
        change, residual = change + step * direction, residual - step * image
        previous, length = length, dot(residual, residual)
        direction = residual + length / previous.clamp_min(tiny) * direction
    return change


REFINEMENTS: dict[str | None, Refinement] = {
    None: Refinement(),
    'propagation': Refinement(of_windows=propagate),
    'context': Refinement(of_group=refine_in_context),
}
"""Value of the setting ``refine`` -> what it does."""
