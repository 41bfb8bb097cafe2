"""Other learned upsamplers that FeatUp compares with: resize_conv, carafe, sapa, ifa.

All work in doublings, share one set of weights between them, so that any patch size works, and need no extension.
They have no public weights, here or elsewhere: they are for training comparisons. Parameter names are our own.

Source: FeatUp, section 5 (arXiv 2403.10516), and the paper named at each class; written from their equations.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simfeatup.ops.adaptive_conv import adaptive_conv
from simfeatup.upsamplers.base import Upsampler, guidance_at, stage_sizes


class DoublingUpsampler(Upsampler):
    """Base: repeats :meth:`double_size` until the guidance's size is reached."""

    def double_size(self, features: Tensor, guidance: Tensor) -> Tensor:
        """(B, C, h, w) features and guidance (B, 3, H, W) of the next size -> (B, C, H, W)."""
        raise NotImplementedError

    def forward(self, features: Tensor, guidance: Tensor) -> Tensor:
        """(B, C, h, w) features and (B, 3, H, W) guidance -> (B, C, H, W)."""
        self.check(features, guidance)
        for size in stage_sizes(features.shape[2:], guidance.shape[2:]):
            features = self.double_size(features, guidance_at(guidance, size))
        return features


class ResizeConv(DoublingUpsampler):
    """Bilinear doubling and a convolution (Odena et al., Deconvolution and checkerboard artifacts, 2016)."""

    DIM_KEY = 'conv.bias'

    def __init__(self, dim: int, kernel_size: int = 3) -> None:
        super().__init__(dim)
        self.conv = nn.Conv2d(dim, dim, kernel_size, padding='same')

    def double_size(self, features: Tensor, guidance: Tensor) -> Tensor:
        """One doubling: ``x + conv(relu(x))`` of the bilinearly resized x, so that an untrained one is harmless."""
        resized = F.interpolate(features, guidance.shape[2:], mode='bilinear', align_corners=False)
        return resized + self.conv(F.relu(resized))


class Carafe(DoublingUpsampler):
    """Content-aware reassembly: kernels predicted from the features (Wang et al., arXiv 1905.02188).

    The radius counts neighbours on each side at the low resolution; the paper's k_up = 5 is radius 2.
    """

    DIM_KEY = 'compress.weight'

    def __init__(self, dim: int, radius: int = 2, compressed_dim: int = 64) -> None:
        super().__init__(dim)
        self.radius = radius
        self.compress = nn.Conv2d(dim, compressed_dim, 1)
        self.encode = nn.Conv2d(compressed_dim, 4 * (2 * radius + 1) ** 2, 3, padding=1)

    def double_size(self, features: Tensor, guidance: Tensor) -> Tensor:
        """One doubling; for an exact last size the kernels' logits are resized to it."""
        logits = F.pixel_shuffle(self.encode(self.compress(features)), 2)
        if logits.shape[2:] != guidance.shape[2:]:
            logits = F.interpolate(logits, guidance.shape[2:], mode='bilinear', align_corners=False)
        return _reassemble(features, torch.softmax(logits, 1), self.radius)


class Sapa(DoublingUpsampler):
    """Similarity-aware point affiliation: the guidance attends to the features around it (Lu et al., 2209.12866)."""

    DIM_KEY = 'key.weight'

    def __init__(self, dim: int, radius: int = 2, embed_dim: int = 64) -> None:
        super().__init__(dim)
        self.radius = radius
        self.query_norm, self.key_norm = nn.GroupNorm(1, 3), nn.GroupNorm(1, dim)
        self.query, self.key = nn.Conv2d(3, embed_dim, 1), nn.Conv2d(dim, embed_dim, 1)

    def double_size(self, features: Tensor, guidance: Tensor) -> Tensor:
        """One doubling: softmax over the neighbours of <query(guidance), key(features)>."""
        queries = self.query(self.query_norm(guidance))
        keys = F.pad(self.key(self.key_norm(features)), [self.radius] * 4, mode='replicate')
        rows, cols = _nearest(features.shape[2:], queries.shape[2:], features.device)
        taps = 2 * self.radius + 1
        logits = torch.stack(
            [
                (keys.index_select(2, rows + i).index_select(3, cols + j) * queries).sum(1)
                for i in range(taps)
                for j in range(taps)
            ],
            1,
        )
        return _reassemble(features, torch.softmax(logits, 1), self.radius)


class IFA(DoublingUpsampler):
    """Implicit feature alignment: an MLP on the nearest feature and the offset to it (Hu et al., arXiv 2206.08655)."""

    DIM_KEY = 'mlp.2.bias'

    def __init__(self, dim: int, num_frequencies: int = 10) -> None:
        super().__init__(dim)
        self.num_frequencies = num_frequencies  # pairs of sine and cosine a coordinate
        self.mlp = nn.Sequential(nn.Conv2d(dim + 4 * num_frequencies + 2, dim, 1), nn.GELU(), nn.Conv2d(dim, dim, 1))

    def double_size(self, features: Tensor, guidance: Tensor) -> Tensor:
        """One doubling; offsets are in units of a feature cell, -0.5 to 0.5."""
        grid, size = features.shape[2:], guidance.shape[2:]
        rows, cols = _nearest(grid, size, features.device)
        nearest = features.index_select(2, rows).index_select(3, cols)
        offsets = [
            (torch.arange(total, device=features.device, dtype=features.dtype) + 0.5) * n / total - 0.5 - cells
            for n, total, cells in zip(grid, size, (rows, cols), strict=True)
        ]
        coordinates = torch.stack(torch.meshgrid(*offsets, indexing='ij'))  # (2, H, W)
        scales = 2.0 ** torch.arange(self.num_frequencies, device=features.device, dtype=features.dtype)
        angles = (coordinates[None] * scales[:, None, None, None] * torch.pi).flatten(0, 1)
        encoded = torch.cat([coordinates, angles.sin(), angles.cos()]).expand(len(features), -1, -1, -1)
        return nearest + self.mlp(torch.cat([nearest, encoded], 1))


def _nearest(grid: torch.Size, size: torch.Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of the feature cell that holds each output pixel, (H,) and (W,)."""
    rows, cols = (torch.arange(total, device=device) * n // total for n, total in zip(grid, size, strict=True))
    return rows, cols


def _reassemble(features: Tensor, kernels: Tensor, radius: int) -> Tensor:
    """Each output pixel from the features around its own cell."""
    rows, cols = _nearest(features.shape[2:], kernels.shape[2:], features.device)
    taps = 2 * radius + 1
    kernels = kernels.unflatten(1, (taps, taps))
    return adaptive_conv(F.pad(features, [radius] * 4, mode='replicate'), kernels, rows, cols)
