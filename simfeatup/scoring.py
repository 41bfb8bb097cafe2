"""Scores of every pixel against every text, without upsampling the features.

With ``f = A u + c`` and u linear in the tokens X, only three things have to reach full size: the Q maps ``t A X``,
the map ``<c, A u>``, and ``|A u|``. The length is kept by any coordinates in which the tokens have the same dot
products; an orthonormal basis of the N tokens ``A X`` has r = min(C, N) of them. So Q + 1 + r channels are
upsampled instead of C, nothing is mixed at full size, and the result is the same up to float32 rounding. Where groups
of the channels have kernels of their own, each goes this way by itself: maps and squared lengths are sums over groups.

Source: our own derivation; the scores are those of SegEarth-OV (arXiv 2410.01768), section 3.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from simfeatup.errors import UpsamplerError
from simfeatup.ops.adaptive_conv import adaptive_conv_norm
from simfeatup.ops.operator import use_backend
from simfeatup.upsamplers.base import KernelReuse, LinearUpsampler

MIN_LENGTH = 1e-12  # F.normalize's floor
CHANNEL_MULTIPLE = 32  # whole blocks of channels in the innermost loops, so that no stage has to fill them up
Upsample = Callable[[Tensor, Tensor], Tensor]
"""Features (B, C, h, w), guidance (B, 3, H, W) -> (B, C, H, W): a module, or any other callable."""


def score(
    upsampler: Upsample, features: Tensor, guidance: Tensor, text_embeddings: Tensor, rank: int | None = None,
    reuse: KernelReuse | None = None,
) -> Tensor:  # fmt: skip
    """Cosine similarity of upsampled features and texts; by the plain path where the upsampler is not linear.

    Args:
        upsampler: In eval mode, where it has modes.
        features: (B, C, h, w).
        guidance: (B, 3, H, W), normalised.
        text_embeddings: (Q, C), L2-normalised.
        rank: Coordinates of the tokens to keep for the length (of each group), those of largest energy; None is exact.
            All scores of a pixel are off by one factor, of at most the share of energy left out.
        reuse: Kernels of the windows before this one; the scores are the same bit for bit.

    Returns:
        (B, Q, H, W), in the text embeddings' dtype.

    Raises:
        UpsamplerError: Shapes that do not fit, those of the upsampler's result included, or a rank below 1.
    """
    if not isinstance(upsampler, LinearUpsampler):
        return score_reference(upsampler, features, guidance, text_embeddings)
    maps = maps_to_upsample(upsampler, features, guidance, text_embeddings, rank)
    constant = upsampler.channel_map()[1].to(features.device, torch.float32)
    texts, groups = text_embeddings.to(torch.float32), upsampler.num_groups
    # Kernels are large: on CPUs those of one image at a time stay nearer, and their memory is used again.
    step = 1 if guidance.device.type == 'cpu' else len(guidance)
    parts = [
        adaptive_conv_norm(part, upsampler.stages(image.to(torch.float32), features.shape[2:], reuse), len(texts) + 1)
        for image, part in zip(guidance.split(step), maps.split(step * groups), strict=True)
    ]
    maps, squares = (torch.cat(part) for part in zip(*parts, strict=True))
    if groups > 1:
        maps, squares = (part.unflatten(0, (-1, groups)).sum(1) for part in (maps, squares))
    scores, bias = maps[:, :-1], maps[:, -1]
    squares = squares.add_(bias, alpha=2).add_(constant.square().sum())  # |A u + c|^2
    scores = scores.add_((texts @ constant)[:, None, None])
    return scores.div_(squares.clamp_min_(MIN_LENGTH**2).sqrt_()[:, None]).to(text_embeddings.dtype)


def maps_to_upsample(
    upsampler: LinearUpsampler, features: Tensor, guidance: Tensor, text_embeddings: Tensor, rank: int | None = None
) -> Tensor:
    """What :func:`score`, whose arguments these are, upsamples: (B * G, Q + 1 + r, h, w), filled up with zeros.

    First ``t A X`` of the Q texts and ``<c, A X>``, then r coordinates that have the length of ``A X``, of each of G
    groups of channels.
    """
    upsampler.check(features, guidance)
    _check(text_embeddings, features.shape[1], rank)
    matrix, constant = (part.to(features.device, torch.float32) for part in upsampler.channel_map())
    groups = upsampler.num_groups
    tokens = features.to(torch.float32).flatten(2).transpose(1, 2) @ matrix.T  # (B, N, C)
    queries = torch.cat([text_embeddings.to(torch.float32), constant[None]])
    tokens = tokens.unflatten(2, (groups, -1)).transpose(1, 2)  # (B, G, N, C / G)
    products = tokens @ queries.unflatten(1, (groups, -1)).permute(1, 2, 0)  # by (G, C / G, Q + 1)
    maps = torch.cat([products.flatten(0, 1), coordinates(tokens.flatten(0, 1), rank)], 2)
    maps = F.pad(maps, (0, -maps.shape[2] % CHANNEL_MULTIPLE))
    return maps.transpose(1, 2).unflatten(2, features.shape[2:])


def coordinates(tokens: Tensor, rank: int | None = None) -> Tensor:
    """Coordinates (B, N, r) of tokens (B, N, C) that keep their dot products, ``Z Z^T = X X^T``.

    Of largest energy where a rank is given, else r = min(N, C), which is exact.
    """
    count, channels = tokens.shape[1:]
    if rank is not None and rank < min(count, channels):
        gram = (tokens.double() @ tokens.double().mT) if count < channels else (tokens.double().mT @ tokens.double())
        values, vectors = torch.linalg.eigh(gram)  # ascending
        values, vectors = values[:, -rank:].clamp_min(0), vectors[..., -rank:]
        kept = vectors * values.sqrt()[:, None] if count < channels else tokens.double() @ vectors
        return kept.to(tokens.dtype)
    if count >= channels:
        return tokens
    return torch.linalg.qr(tokens.mT, mode='r').R.mT  # X^T = Q R, so X X^T = R^T R


def upsample_maps(
    upsampler: LinearUpsampler, maps: Tensor, guidance: Tensor, reuse: KernelReuse | None = None
) -> Tensor:
    """Maps (B, Q, h, w) of any meaning, weighed by the upsampler's kernels for the guidance (B, 3, H, W): (B, Q, H, W).

    ``reuse`` are kernels of the windows before; ``A`` and ``c``, which are for features, are left out. Kernels of
    several groups of channels for an image, (B * G, ...), give the mean of what each of them gives.
    """
    step = 1 if guidance.device.type == 'cpu' else len(guidance)
    upsampled = []
    for image, part in zip(guidance.split(step), maps.split(step), strict=True):
        for stage in upsampler.stages(image.to(maps.dtype), maps.shape[2:], reuse):
            part = stage.apply(part.repeat_interleave(len(stage.kernels) // len(part), 0))
        upsampled.append(part.unflatten(0, (len(image), -1)).mean(1))
    return torch.cat(upsampled)


def score_reference(upsampler: Upsample, features: Tensor, guidance: Tensor, text_embeddings: Tensor) -> Tensor:
    """The same scores by the plain path: all channels at full size in plain torch, normalised, times the texts.

    The definition that :func:`score` is tested against; slow, and one image at a time for its memory.
    """
    _check(text_embeddings, features.shape[1], None)
    upsample = upsampler.define if isinstance(upsampler, LinearUpsampler) else upsampler
    scores = []
    with use_backend('reference'):
        for image_features, image in zip(features.split(1), guidance.split(1), strict=True):
            try:
                upsampled = upsample(image_features.to(text_embeddings.dtype), image.to(text_embeddings.dtype))
            except TypeError as error:
                raise UpsamplerError(f'The upsampler does not take (features, guidance): {error}') from error
            expected = 1, features.shape[1], *guidance.shape[2:]
            if not isinstance(upsampled, Tensor) or upsampled.shape != expected:
                is_tensor = isinstance(upsampled, Tensor)
                shape = tuple(upsampled.shape) if is_tensor else f'a {type(upsampled).__name__}, which is no tensor'
                raise UpsamplerError(
                    f'The upsampler must make {expected}, (B, C, H, W), of its arguments; it made {shape}.'
                )
            upsampled = upsampled.to(text_embeddings)
            lengths = upsampled.norm(dim=1, keepdim=True).clamp_min(MIN_LENGTH)
            scores.append(F.conv2d(upsampled, text_embeddings[:, :, None, None]) / lengths)
    return torch.cat(scores)


def _check(text_embeddings: Tensor, dim: int, rank: int | None) -> None:
    if text_embeddings.ndim != 2 or text_embeddings.shape[1] != dim:
        raise UpsamplerError(f'Scoring needs text embeddings (Q, {dim}); got {tuple(text_embeddings.shape)}.')
    if rank is not None and rank < 1:
        raise UpsamplerError(f'The rank is {rank}; allowed: 1 or more, or None for exact scores.')
