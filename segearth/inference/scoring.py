"""Scores of every pixel of a window against every text query.

The centre of the method's figure, in its order: dense encoder, feature upsampling, cosine similarity with the text
embeddings, Global Bias Alleviation.

Upsampling and similarity are one step: only the scores and the length of the features have to reach full size, not
their channels (simfeatup/scoring.py). The plain path, all channels at full size, is what it is tested against.

Source: SegEarth-OV (arXiv 2410.01768) sections 3.2 and 3.3; SegEarth-OV-2 (arXiv 2508.18067).
"""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from simfeatup.scoring import score, score_reference


class DenseEncoder(Protocol):
    """A vision tower read out densely, such as :class:`segearth.models.dense_clip.DenseCLIP`."""

    @property
    def patch_size(self) -> tuple[int, int]:
        """(height, width) of a patch in pixels."""
        ...

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Grid (h, w) of patches of an image of (height, width) pixels."""
        ...

    def __call__(self, images: Tensor, /) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W), normalised -> [CLS] (B, C) and patch tokens (B, h*w, C)."""
        ...


def score_windows(
    encoder: DenseEncoder,
    windows: Tensor,
    text_embeddings: Tensor,
    cls_token_weight: float,
    upsampler: nn.Module | None = None,
    exact_reference: bool = False,
    rank: int | None = None,
    is_per_patch: bool = False,
) -> Tensor:
    """Cosine similarity of pixels and queries, with the global bias of [CLS] taken off.

    Without an upsampler the scores of the patches are interpolated bilinearly to the window's size; with one the
    features are, before they are normalised.

    Args:
        encoder: Dense encoder.
        windows: (B, 3, H, W), normalised; sides multiples of the patch.
        text_embeddings: (Q, C), L2-normalised.
        cls_token_weight: lambda of Global Bias Alleviation (paper: -0.3); 0 switches it off.
        upsampler: (B, C, h, w), guidance (B, 3, H, W) -> (B, C, H, W).
        exact_reference: Take the plain path, slow and large.
        rank: See :func:`simfeatup.scoring.score`; None is exact.
        is_per_patch: Without an upsampler, leave the scores at one a patch.

    Returns:
        (B, Q, H, W), or (B, Q, h, w) per patch, in the text embeddings' dtype; within [-1, 1] for weight 0.
    """
    height, width = windows.shape[-2:]
    cls_token, patch_tokens = encoder(windows)
    cls_token, patch_tokens = cls_token.to(text_embeddings.dtype), patch_tokens.to(text_embeddings.dtype)
    features = patch_tokens.transpose(1, 2).unflatten(-1, encoder.grid_size(height, width))  # NLC -> NCHW
    if upsampler is None:
        scores = similarity(features, text_embeddings)
        if not is_per_patch:
            scores = F.interpolate(scores, size=(height, width), mode='bilinear', align_corners=False)
    else:
        guidance = windows.to(features.dtype)
        if exact_reference:
            scores = score_reference(upsampler, features, guidance, text_embeddings)
        else:
            scores = score(upsampler, features, guidance, text_embeddings, rank)
    return scores + global_bias(cls_token, text_embeddings, cls_token_weight)


def similarity(features: Tensor, text_embeddings: Tensor) -> Tensor:
    """Cosine similarity of feature maps (B, C, H, W) and unit text embeddings (Q, C): (B, Q, H, W)."""
    scores = F.conv2d(features, text_embeddings[:, :, None, None])
    return scores / features.norm(dim=1, keepdim=True).clamp_min(1e-12)  # F.normalize's floor


def global_bias(cls_token: Tensor, text_embeddings: Tensor, weight: float) -> Tensor:
    """Global Bias Alleviation: what to add to the scores of every pixel of an image.

    [CLS] carries what the whole image shows, and the patch tokens inherit it; its own scores, weighted by a
    negative lambda, take that share off again.

    Args:
        cls_token: (B, C), read out like the patch tokens.
        text_embeddings: (Q, C), L2-normalised.
        weight: lambda.

    Returns:
        (B, Q, 1, 1).

    Source: SegEarth-OV (arXiv 2410.01768) section 3.3.
    """
    return weight * (F.normalize(cls_token, dim=-1) @ text_embeddings.T)[:, :, None, None]


class Encoded:
    """An encoder that has encoded its windows already."""

    def __init__(self, encoder: DenseEncoder, windows: Tensor) -> None:
        self.cls_token, self._patch_tokens = encoder(windows)
        self.grid_size = encoder.grid_size
        self.patch_size = encoder.patch_size

    def __call__(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """[CLS] and patch tokens, whatever is asked for: the windows are those of the constructor."""
        return self.cls_token, self._patch_tokens
