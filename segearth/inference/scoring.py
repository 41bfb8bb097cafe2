"""Scores of every pixel of a window against every text query.

The centre of the method's figure, in its order: dense encoder, feature upsampling, cosine similarity with the text
embeddings, Global Bias Alleviation.

Upsampling and similarity are one step: only the scores and the length of the features have to reach full size, not
their channels (simfeatup/scoring.py). The plain path, all channels at full size, is what it is tested against.

Source: SegEarth-OV (arXiv 2410.01768) sections 3.2 and 3.3; SegEarth-OV-2 (arXiv 2508.18067).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simfeatup.scoring import score, score_reference
from simfeatup.upsamplers.reuse import KernelReuse


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


class EncodedWindows(NamedTuple):
    """What an encoder says about windows: encoded once, they can be scored many times.

    Attributes:
        cls_token: (B, C), the read-out of [CLS].
        features: (B, C, h, w), the patch tokens on their grid.
        guidance: (B, 3, H, W), the windows, to whose size scores are brought; None leaves them at one a patch.
        reuse: Kernels of the windows before these, for windows that follow each other down an image.
    """

    cls_token: Tensor
    features: Tensor
    guidance: Tensor | None
    reuse: KernelReuse | None = None


def encode_windows(
    encoder: DenseEncoder,
    windows: Tensor,
    dtype: torch.dtype,
    is_per_patch: bool = False,
    reuse: KernelReuse | None = None,
) -> EncodedWindows:
    """Encodes windows (B, 3, H, W), normalised, whose sides are multiples of the patch.

    Args:
        encoder: Dense encoder.
        windows: (B, 3, H, W), normalised.
        dtype: What scores are computed in, that of the text embeddings.
        is_per_patch: Leave scores at one a patch.
        reuse: See :class:`EncodedWindows`.
    """
    cls_token, patch_tokens = encoder(windows)
    features = patch_tokens.to(dtype).transpose(1, 2).unflatten(-1, encoder.grid_size(*windows.shape[-2:]))
    return EncodedWindows(cls_token.to(dtype), features, None if is_per_patch else windows.to(dtype), reuse)


def score_encoded(
    encoded: EncodedWindows,
    text_embeddings: Tensor,
    cls_token_weight: float,
    upsampler: nn.Module | None = None,
    exact_reference: bool = False,
    rank: int | None = None,
) -> Tensor:
    """Cosine similarity of pixels and queries, with the global bias of [CLS] taken off.

    Without an upsampler the scores of the patches are interpolated bilinearly to the window's size; with one the
    features are, before they are normalised.

    Args:
        encoded: Encoded windows.
        text_embeddings: (Q, C), L2-normalised.
        cls_token_weight: lambda of Global Bias Alleviation (paper: -0.3); 0 switches it off.
        upsampler: (B, C, h, w), guidance (B, 3, H, W) -> (B, C, H, W).
        exact_reference: Take the plain path, slow and large.
        rank: See :func:`simfeatup.scoring.score`; None is exact.

    Returns:
        (B, Q, H, W), or (B, Q, h, w) per patch, in the text embeddings' dtype; within [-1, 1] for weight 0.
    """
    cls_token, features, guidance, reuse = encoded
    if upsampler is None or guidance is None:
        scores = similarity(features, text_embeddings)
        if guidance is not None:
            scores = F.interpolate(scores, size=guidance.shape[-2:], mode='bilinear', align_corners=False)
    elif exact_reference:
        scores = score_reference(upsampler, features, guidance, text_embeddings)
    else:
        scores = score(upsampler, features, guidance, text_embeddings, rank, reuse)
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

