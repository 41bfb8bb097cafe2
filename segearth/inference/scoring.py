"""Scores of every pixel of a window against every text query, and the classes that follow from them.

The centre of the method's figure, in its order: dense encoder, feature upsampling, cosine similarity with the text
embeddings, Global Bias Alleviation; then softmax over all words at a fixed logit scale, the maximum over the words of a
class, argmax, and pixels below a probability threshold become background.

Upsampling and similarity are one step: only the scores and the length of the features have to reach full size, not
their channels (simfeatup/scoring.py). The plain path, all channels at full size, is what it is tested against.

Source: SegEarth-OV (arXiv 2410.01768) sections 3.2 and 3.3; SegEarth-OV-2 (arXiv 2508.18067).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segearth.errors import DataError
from simfeatup.scoring import Upsample, score, score_reference, upsample_maps
from simfeatup.upsamplers.base import KernelReuse, LinearUpsampler

NOT_NUMBERS = (
    'scores are not numbers (NaN): weights, or what an upsampler of your own gives, hold such; or the precision is too '
    'small for the encoder (precision fp32, --precision fp32)'
)
STRIP_BYTES = 128 * 2**20  # memory of one strip of query probabilities


class EncodedWindows(NamedTuple):
    """What an encoder says about windows: encoded once, they can be scored many times."""

    cls_token: Tensor  # (B, C), the read-out of [CLS]
    features: Tensor  # (B, C, h, w), the patch tokens on their grid
    guidance: Tensor | None  # (B, 3, H, W), the windows, to whose size scores are brought; None leaves one a patch
    reuse: KernelReuse | None = None  # kernels of the windows before these, which follow each other down an image


def encode_windows(
    encoder: Any, windows: Tensor, dtype: torch.dtype, is_per_patch: bool = False, reuse: KernelReuse | None = None
) -> EncodedWindows:
    """Encodes windows (B, 3, H, W), normalised, whose sides are multiples of the patch.

    The encoder is a DenseCLIP or anything with its ``grid_size`` that makes such windows a [CLS] token (B, C) and patch
    tokens (B, h*w, C); the dtype, in which scores are computed, is that of the text embeddings.
    """
    cls_token, patch_tokens = encoder(windows)
    features = patch_tokens.to(dtype).transpose(1, 2).unflatten(-1, encoder.grid_size(*windows.shape[-2:]))
    return EncodedWindows(cls_token.to(dtype), features, None if is_per_patch else windows.to(dtype), reuse)


def score_encoded(
    encoded: EncodedWindows,
    text_embeddings: Tensor,
    cls_token_weight: float,
    upsampler: Upsample | None = None,
    exact_reference: bool = False,
    rank: int | None = None,
) -> Tensor:
    """Cosine similarity of pixels and queries, with the global bias of [CLS] taken off.

    The text embeddings are (Q, C), L2-normalised, and the scores (B, Q, H, W), or (B, Q, h, w) per patch, in their
    dtype; within [-1, 1] where the weight, lambda of Global Bias Alleviation (paper: -0.3), is 0. Without an upsampler,
    (B, C, h, w), guidance (B, 3, H, W) -> (B, C, H, W), the scores of the patches are interpolated bilinearly to the
    window's size; with one the features are, before they are normalised. ``exact_reference`` takes the plain path, slow
    and large; ``rank`` is that of :func:`simfeatup.scoring.score`, None for exact.
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


def upsample_scores(encoded: EncodedWindows, scores: Tensor, upsampler: Upsample | None = None) -> Tensor:
    """Scores (B, Q, h, w) of the patches of windows, brought to the windows' size (B, Q, H, W) where it is known.

    An upsampler whose weights know the image alone weighs scores as it would weigh features; else bilinearly.
    """
    guidance = encoded.guidance
    if guidance is None:
        return scores
    if isinstance(upsampler, LinearUpsampler):
        return upsample_maps(upsampler, scores, guidance, encoded.reuse)
    return F.interpolate(scores, size=guidance.shape[-2:], mode='bilinear', align_corners=False)


def similarity(features: Tensor, text_embeddings: Tensor) -> Tensor:
    """Cosine similarity of feature maps (B, C, H, W) and unit text embeddings (Q, C): (B, Q, H, W)."""
    scores = F.conv2d(features, text_embeddings[:, :, None, None])
    return scores / features.norm(dim=1, keepdim=True).clamp_min(1e-12)  # F.normalize's floor


def global_bias(cls_token: Tensor, text_embeddings: Tensor, weight: float) -> Tensor:
    """Global Bias Alleviation (section 3.3): what to add to the scores of every pixel of an image, (B, Q, 1, 1).

    [CLS] carries what the whole image shows, and the patch tokens inherit it; its own scores, weighted by a
    negative lambda, take that share off again. The token is (B, C), read out like the patch tokens, the text
    embeddings (Q, C) are L2-normalised, the weight is lambda.
    """
    return weight * (F.normalize(cls_token, dim=-1) @ text_embeddings.T)[:, :, None, None]


def classify(
    query_logits: Tensor,
    query_to_class: Tensor,
    num_classes: int,
    logit_scale: float,
    prob_threshold: float | Sequence[float] = 0.0,
    background_index: int = 0,
    size: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Class probabilities (K, H0, W0), in [0, 1], and labels (1, H0, W0), int64, of cosine scores (Q, H, W) of queries.

    Their classes are ``query_to_class`` (Q,); a class has the softmax probability of its best word. The logits are
    resized bilinearly to (H0, W0) where a size is given, in strips of rows. Pixels whose largest class score is lower
    than the threshold, or that of their class where K are given, get the label of the background. A DataError refuses
    scores that are NaN.
    """
    num_queries, height, width = query_logits.shape
    out_height, out_width = size or (height, width)
    seg_logits = query_logits.new_zeros(num_classes, out_height, out_width)
    classes = query_to_class.tolist()
    rows_a_strip = max(STRIP_BYTES // (num_queries * out_width * query_logits.element_size()), 1)
    for top in range(0, out_height, rows_a_strip):
        rows = slice(top, min(top + rows_a_strip, out_height))
        logits = _resized_rows(query_logits, rows, (out_height, out_width))
        probabilities = logits.mul(logit_scale).softmax(dim=0)
        for query, label in enumerate(classes):
            torch.maximum(seg_logits[label, rows], probabilities[query], out=seg_logits[label, rows])
    best, labels = seg_logits.max(dim=0, keepdim=True)
    if best.isnan().any():
        raise DataError(NOT_NUMBERS)
    labels[is_below(prob_threshold, best, labels)] = background_index
    return seg_logits, labels


def is_below(threshold: float | Sequence[float], best: Tensor, labels: Tensor) -> Tensor:
    """Where the probability of the best class is lower than the threshold, one for all or one a class (K)."""
    return best < (best.new_tensor(threshold)[labels] if isinstance(threshold, Sequence) else threshold)


def _resized_rows(maps: Tensor, rows: slice, size: tuple[int, int]) -> Tensor:
    """Rows of ``F.interpolate(maps, size, mode='bilinear', align_corners=False)``, without the other rows."""
    height, width = maps.shape[-2:]
    if (height, width) == tuple(size):
        return maps[:, rows]
    targets = torch.arange(rows.start, rows.stop, device=maps.device, dtype=torch.float64)
    centres = ((targets + 0.5) * (height / size[0]) - 0.5).clamp_min(0)  # align_corners=False, in source rows
    upper = centres.floor().long().clamp_max(height - 1)
    lower = (upper + 1).clamp_max(height - 1)
    weight = (centres - upper).to(maps.dtype)[:, None]
    strip = torch.lerp(maps[:, upper], maps[:, lower], weight)
    return F.interpolate(strip[None], size=(strip.shape[1], size[1]), mode='bilinear', align_corners=False)[0]
