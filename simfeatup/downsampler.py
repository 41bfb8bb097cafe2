"""The attention downsampler: how a fine feature map would look through the encoder's coarse grid.

Trained beside the upsampler and thrown away afterwards. Each output cell is an average of the pixels under it with
weights that depend on their features: a pixel says how much it matters, so that a large thing may win its patch.

Source: FeatUp (Fu et al., arXiv 2403.10516, section 3.2, the attention downsampler); followed: the equations, the
dropout rates and the parameter names of the released code, checked against arrays that it computed.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from simfeatup.errors import UpsamplerError
from simfeatup.ops.adaptive_conv import adaptive_conv
from simfeatup.ops.axis_product import axis_product
from simfeatup.ops.folding import reflect_indices

BLUR_SIZE, BLUR_SIGMA = 5, 1.0  # pixels; released settings
FEATURE_DROPOUT = 0.2  # of single numbers, before the logits
CELL_DROPOUT = 0.2  # of whole cells, whose weights then come from the bias alone


class AttentionDownsampler(nn.Module):
    """``out = sum_p a_p f_p`` over the pixels p of a cell, ``a = softmax_p(w_p <v, f_p> + b_p)``, f blurred features.

    Of ``dim`` channels, with cells of ``kernel_size`` pixels a side (the encoder's patch) on a grid (h, w), or a side
    of it, ``final_size``; the blur is 5 x 5 of sigma 1.
    """

    def __init__(self, dim: int, kernel_size: int, final_size: int | tuple[int, int], with_blur: bool = True) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.final_size = (final_size, final_size) if isinstance(final_size, int) else tuple(final_size)
        self.with_blur = with_blur
        self.attention_net = nn.Sequential(nn.Dropout(FEATURE_DROPOUT), nn.Linear(dim, 1))
        self.w = nn.Parameter(1 + 0.01 * torch.randn(kernel_size, kernel_size))
        self.b = nn.Parameter(0.01 * torch.randn(kernel_size, kernel_size))

    def forward(self, hr_features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, h, w), h and w of ``final_size``; cells overlap where H is less than h cells."""
        return self.downsample(hr_features)[0]

    def downsample(self, hr_features: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, with the weights (B, k, k, h, w) of every cell's pixels, which sum to 1."""
        if min(hr_features.shape[2:]) < self.kernel_size:
            raise UpsamplerError(
                f'The downsampler has cells of {self.kernel_size} pixels; got features of {tuple(hr_features.shape)}.'
            )
        inputs = blur(hr_features) if self.with_blur else hr_features
        starts = [
            (side - self.kernel_size) // max(cells - 1, 1) * torch.arange(cells, device=inputs.device)
            for side, cells in zip(inputs.shape[2:], self.final_size, strict=True)
        ]
        logits = self.attention_net(inputs.permute(0, 2, 3, 1)).squeeze(3)  # NCHW -> NHWC, a view
        taps = torch.arange(self.kernel_size, device=logits.device)[:, None]
        rows, cols = (taps + start for start in starts)  # (k, h), (k, w)
        logits = logits[:, rows[:, None, :, None], cols[None, :, None, :]]  # (B, k, k, h, w)
        if self.training:
            logits = logits * (torch.rand_like(logits[:, :1, :1]) > CELL_DROPOUT)
        logits = logits * self.w[..., None, None] + self.b[..., None, None]
        weights = logits.flatten(1, 2).softmax(1).view_as(logits)
        return adaptive_conv(inputs, weights, starts[0], starts[1]), weights


def blur(features: Tensor) -> Tensor:
    """Gaussian blur with reflection at the borders: (B, C, H, W) -> (B, C, H, W)."""
    rows, cols = (  # as matrix products: sums of shifted maps would copy the map once a tap
        torch.tensor(_blur_matrix(side), dtype=features.dtype, device=features.device) for side in features.shape[2:]
    )
    return axis_product(features, rows, cols)


@lru_cache(maxsize=16)
def _blur_matrix(length: int) -> np.ndarray:
    """(length, length): row r holds the shares of the input's entries in output entry r."""
    weights = np.exp(-((np.arange(BLUR_SIZE) - BLUR_SIZE // 2) ** 2) / (2 * BLUR_SIGMA**2))
    outputs = np.arange(length)[:, None]
    sources = reflect_indices(length, BLUR_SIZE // 2)[outputs + np.arange(BLUR_SIZE)]  # (length, size)
    matrix = np.zeros((length, length))
    np.add.at(matrix, (outputs, sources), weights / weights.sum())
    return matrix
