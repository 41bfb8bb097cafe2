"""The terms of SimFeatUp's objective, one small module or function each.

Source: FeatUp (Fu et al., arXiv 2403.10516, section 3 and its code) for the scale, the projection, total variation,
CRF and entropy; SegEarth-OV (Li et al., arXiv 2410.01768, section 3.3, equation 8) for the image reconstruction. The
CRF term is STEGO's (Hamilton et al., arXiv 2203.08414, appendix; after Kraehenbuehl and Koltun, arXiv 1210.5644).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCALE_OFFSET, MIN_SCALE = 0.1, 1e-4  # FeatUp's code
PROJECTION_DIM = 30  # SimFeatUp's released settings
CRF_SAMPLES = 1000
CRF_ALPHA, CRF_BETA, CRF_GAMMA = 0.5, 0.15, 0.005  # widths of place, colour and place alone, in squared units
CRF_WEIGHTS = (10.0, 3.0)  # of place with colour, of place alone; FeatUp's code


class LearnedScale(nn.Module):
    """How well the features of a place can be predicted: ``s = max(exp(conv1x1(f) + 0.1), 1e-4)``.

    The likelihood of a Gaussian with that deviation is ``mse / (2 s^2) + log s`` (Kendall and Gal, arXiv 1703.04977).

    Args:
        dim: Channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Conv2d(dim, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 1, h, w), positive."""
        return (self.net(features) + SCALE_OFFSET).exp().clamp_min(MIN_SCALE)


def scaled_squared_error(predicted: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    """``mean(mse / (2 s^2) + log s)``, mse the mean over channels.

    Args:
        predicted: (B, D, h, w).
        target: (B, D, h, w).
        scale: (B, 1, h, w) of :class:`LearnedScale`.
    """
    squared = (predicted - target).square().mean(1, keepdim=True)
    return (squared / (2 * scale**2) + scale.log()).mean()


def random_projection(batch: int, dim: int, projected: int, like: Tensor) -> Tensor:
    """A random map to few dimensions, drawn anew in every step: (B, dim, projected), columns of length 1."""
    return F.normalize(torch.randn(batch, dim, projected, device=like.device, dtype=like.dtype), dim=1)


def project(features: Tensor, projection: Tensor | None) -> Tensor:
    """(B, C, h, w) by (B, C, D) -> (B, D, h, w); None leaves the features as they are."""
    return features if projection is None else torch.einsum('bchw,bcd->bdhw', features, projection)


class ImageReconstruction(nn.Module):
    """The image from the upsampled features, so that they keep its structure: conv, norm, GELU, conv to 3, tanh.

    The convolutions are 1x1, the norm is over the channels; computed as linear layers of pixels, which need no copies
    in another order.

    Args:
        dim: Channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(dim, dim, 1), nn.LayerNorm(dim), nn.GELU(), nn.Conv2d(dim, 3, 1), nn.Tanh()
        )  # fmt: skip

    def forward(self, hr_features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 3, H, W) in (-1, 1)."""
        first, norm, gelu, last, tanh = self.net
        assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
        pixels = hr_features.flatten(2).transpose(1, 2)  # NCHW -> NLC, a view
        pixels = gelu(norm(F.linear(pixels, first.weight.flatten(1), first.bias)))
        image = tanh(F.linear(pixels, last.weight.flatten(1), last.bias))
        return image.transpose(1, 2).unflatten(2, hr_features.shape[2:])


def total_variation(features: Tensor) -> Tensor:
    """Squared differences of neighbours, down plus across, divided by the number of pixels: (B, C, H, W) -> scalar."""
    down = (features[:, :, 1:] - features[:, :, :-1]).square().sum()
    across = (features[:, :, :, 1:] - features[:, :, :, :-1]).square().sum()
    return (down + across) / features.numel()


def crf_loss(guidance: Tensor, features: Tensor, samples: int = CRF_SAMPLES) -> Tensor:
    """Pixels near each other and of like colour shall have like features.

    ``-mean(k_ij <f_i, f_j>)`` over random pairs of pixels, ``k = 10 exp(-d^2/2a - c^2/2b) + 3 exp(-d^2/2g)``, d the
    distance with the image's side as unit, c that of the colours.

    Args:
        guidance: (B, 3, H, W), normalised image.
        features: (B, C, H, W), L2-normalised here.
        samples: Pixels drawn in every image.
    """
    height, width = guidance.shape[2:]
    rows = torch.randint(height, (samples,), device=guidance.device)
    cols = torch.randint(width, (samples,), device=guidance.device)
    places = torch.stack([rows / height, cols / width], 1).to(guidance)  # (S, 2)
    colours = guidance[:, :, rows, cols]  # (B, 3, S)
    drawn = F.normalize(features[:, :, rows, cols], dim=1)
    distance = (places[:, None] - places[None]).square().sum(2)
    difference = (colours[:, :, :, None] - colours[:, :, None]).square().sum(1)
    near_and_alike = torch.exp(-distance / (2 * CRF_ALPHA) - difference / (2 * CRF_BETA))
    kernel = CRF_WEIGHTS[0] * near_and_alike + CRF_WEIGHTS[1] * torch.exp(-distance / (2 * CRF_GAMMA))
    return -(kernel * torch.einsum('bci,bcj->bij', drawn, drawn)).mean()


def entropy(weights: Tensor) -> Tensor:
    """Mean entropy in nats of the downsampler's weights (B, k, k, h, w), each cell's summing to 1."""
    return torch.special.entr(weights).sum((1, 2)).mean()
