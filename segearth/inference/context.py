"""Scores of a group of images from how the patches of all of them lie together: transductive.

The texts alone decide about each patch by itself. Here every word gets a Gaussian of the patches that go by it, over
all images of the group at once, and a patch goes by a word as far as the word's text and the word's Gaussian say so.
Other images in the group give another result: a figure measured so belongs to the size of the group.

Source: written from a description of ConInfer (CVPR 2026 Findings), which takes the features from a second encoder;
here they are those that the texts score. Scale, number of patches and rounds as published. The published temperature is
50 whatever the encoder; that it goes with the number of channels, 50 for 1024, and the floor are chosen on validation
scenes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

TEXT_SCALE = 100  # factor before the softmax over the words, of the posteriors that the texts alone give
NUM_FIRST = 8  # patches of highest posterior that make a word's first mean
NUM_ROUNDS = 10
TEMPERATURE = 50 / 1024  # times the channels: what log-likelihoods, which are sums over the channels, are divided by
MIN_VARIANCE = 1e-6  # of a coordinate of unit features; below it patches are equal
LOG_FLOOR = -20.0  # least logarithm of a posterior


def refine_in_context(scores: Sequence[Tensor], features: Sequence[Tensor], logit_scale: float) -> list[Tensor]:
    """Scores of the patches of a group, whose softmax at the logit scale is the posterior of the words.

    Args:
        scores: Of each batch of windows of all images of the group, (B, Q, h, w), the cosines of patches and words
            with the global bias taken off.
        features: Patch tokens of the same windows, (B, C, h, w).
        logit_scale: Factor before the softmax by which :func:`segearth.inference.scoring.classify` takes scores.

    Returns:
        Like the scores. Words share one variance for each coordinate; patches of overlapping windows count each.
    """
    logits = torch.cat([part.permute(0, 2, 3, 1).flatten(0, 2) for part in scores]).mul(TEXT_SCALE)
    tokens = torch.cat([part.permute(0, 2, 3, 1).flatten(0, 2) for part in features])
    refined = fit_posteriors(F.normalize(tokens, dim=1), logits.log_softmax(1)).clamp_min(LOG_FLOOR) / logit_scale
    counts = [len(part) * part.shape[2] * part.shape[3] for part in scores]
    return [
        rows.unflatten(0, (len(part), *part.shape[2:])).permute(0, 3, 1, 2).contiguous()
        for rows, part in zip(refined.split(counts), scores, strict=True)
    ]


def fit_posteriors(features: Tensor, log_prior: Tensor) -> Tensor:
    """Log-posteriors (N, Q) of words for unit features (N, C) and the log-posteriors (N, Q) of the texts alone.

    ``z_ic ~ y_ic exp(l_ic / T)``, l the log-likelihood under the Gaussian of word c, T 50 for 1024 channels; each round
    puts the mean of a word at ``unit(sum z f)`` and the variance, one for all words, at the mean of ``z (f - mean)^2``.
    """
    # by the odds: posteriors are equal where they round to 1, and the order of the patches would decide
    words = range(log_prior.shape[1])
    others = [log_prior[:, [other for other in words if other != word]].logsumexp(1) for word in words]
    patches = (log_prior - torch.stack(others, 1)).topk(min(NUM_FIRST, len(log_prior)), dim=0).indices  # (8, Q)
    # the posteriors over their sum, also where all of them are tiny
    weights = log_prior.gather(0, patches).softmax(0)
    means = F.normalize(torch.einsum('nq,nqc->qc', weights, features[patches]), dim=1)  # (Q, C)
    variance = features.new_full((features.shape[1],), 1 / features.shape[1])
    squares = features.square().mean(0)
    temperature = TEMPERATURE * features.shape[1]
    posterior = log_prior
    for _ in range(NUM_ROUNDS):
        # of the log-likelihood, what differs between words: neither |f|^2 nor the shared variance's determinant
        likelihood = features @ (means / variance).T - (means.square() / variance).sum(1) / 2
        posterior = (log_prior + likelihood / temperature).log_softmax(1)
        shares = posterior.exp()
        totals = shares.sum(0)  # (Q,)
        sums = shares.T @ features / totals.clamp_min(torch.finfo(totals.dtype).tiny)[:, None]
        means = F.normalize(sums, dim=1)
        of_words = (totals / len(features))[:, None]
        variance = squares + (of_words * (means.square() - 2 * means * sums)).sum(0)
        variance = variance.clamp_min(MIN_VARIANCE)
    return posterior
