"""Contrastive training of the demo CLIP: what a step computes.

Plain CLIP (Radford et al., arXiv 2103.00020) on an unmodified open_clip model, with three departures, all of them
inputs or read-outs and none of them weights:

- Crops of three sizes. Small crops take a random part of the position table, cost a fifth to a twelfth of a full one
  and are mostly of one class, so that words meet few patches.
- Patch dropout on the full crops (FLIP, arXiv 2212.00794).
- For a share of each batch, the image feature is the last block's attention output for [CLS] alone, through ln_post
  and the projection, without residual and MLP: the branch that dense read-outs use (SegEarth-OV-2, arXiv 2508.18067;
  ClearCLIP, arXiv 2407.12442). This trains the model towards that branch, which public CLIPs were not.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from numpy.random import Generator
from open_clip.model import CLIP
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from segearth.training.data import normalise

MAX_LOGIT_SCALE = math.log(100)  # CLIP, section 2.5


def normalise_images(crops: Tensor, rng: Generator | None = None, jitter: float = 0.15) -> Tensor:
    """Crops (B, H, W, 3) uint8, RGB -> (B, 3, H, W) float32 as the encoder wants them.

    With `rng`, each channel's gain and offset are shaken by up to `jitter` (of 1, and of a standard deviation).
    """
    images = normalise(crops.permute(0, 3, 1, 2))
    if rng is not None:
        batch = len(images)
        gain = 1 + rng.uniform(-jitter, jitter, (batch, 1, 1, 1)) + rng.uniform(-jitter, jitter, (batch, 3, 1, 1)) / 2
        offset = rng.uniform(-jitter, jitter, (batch, 1, 1, 1)) + rng.uniform(-jitter, jitter, (batch, 3, 1, 1)) / 2
        images = images * torch.from_numpy(gain).float() + torch.from_numpy(offset).float()
    return images


def encode_crops(
    visual: VisionTransformer, images: Tensor, rng: Generator, patch_dropout: float, num_readout: int
) -> Tensor:
    """Image features (B, C) for training, not normalised.

    Args:
        visual: The vision tower; its public parts are used.
        images: (B, 3, H, W) normalised; H and W multiples of the patch, at most the trained size.
        rng: Chooses the part of the position table and the patches that are kept.
        patch_dropout: Share of the patches left out, in [0, 1).
        num_readout: The first so many images take the attention-only read-out, the others the ordinary path.
    """
    x = visual.conv1(images)
    rows, columns = x.shape[-2:]
    grid_rows, grid_columns = visual.grid_size
    top, left = rng.integers(grid_rows - rows + 1), rng.integers(grid_columns - columns + 1)
    table = visual.positional_embedding[1:].unflatten(0, (grid_rows, grid_columns))
    x = x.flatten(2).transpose(1, 2)  # (B, N, D)
    x = x + table[top : top + rows, left : left + columns].reshape(1, rows * columns, -1)
    if patch_dropout:
        num_kept = max(1, round(x.shape[1] * (1 - patch_dropout)))
        kept = torch.from_numpy(rng.random(x.shape[:2]).argsort(1)[:, :num_kept].copy())
        x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[-1]))
    cls_token = visual.class_embedding + visual.positional_embedding[0]
    x = visual.ln_pre(torch.cat([cls_token.expand(len(x), 1, -1), x], 1))
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = block(x)
    tokens, cls_token = last.ln_1(x), x[:, :1]
    attended = last.attn(tokens[:, :1], tokens, tokens, need_weights=False)[0]  # only [CLS] asks: the rest is not read
    ordinary = cls_token[num_readout:] + attended[num_readout:]
    ordinary = ordinary + last.mlp(last.ln_2(ordinary))
    features = torch.cat([attended[:num_readout], ordinary])[:, 0]
    return visual.ln_post(features) @ visual.proj


def contrastive_loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric cross-entropy over all pairs of a batch (CLIP, figure 3); features (B, C), not normalised."""
    logits = logit_scale.exp() * F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def build_optimizer(model: CLIP, learning_rate: float, weight_decay: float = 0.1) -> torch.optim.AdamW:
    """AdamW; weights of linear layers and the token table decay; norms, biases, positions and the scale do not."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim >= 2 and 'positional_embedding' not in name
        (decayed if is_matrix else others).append(parameter)
    groups = [{'params': decayed, 'weight_decay': weight_decay}, {'params': others, 'weight_decay': 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)


def learning_rate_at(step: int, num_steps: int, peak: float, num_warmup: int) -> float:
    """Linear warm-up, then a cosine down to 0 at `num_steps`."""
    if step < num_warmup:
        return peak * (step + 1) / num_warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - num_warmup) / max(1, num_steps - num_warmup)))


def take_step(
    model: CLIP,
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    average: Callable[[nn.Module], None] | None = None,
    max_norm: float = 1.0,
) -> None:
    """One clipped update of the weights; `average` combines the gradients of several processes first."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if average is not None:
        average(model)
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
