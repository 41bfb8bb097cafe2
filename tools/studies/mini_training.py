"""What a step of the training of Mini computes: the read-out, the losses, the updates, the measure.

An unmodified open_clip CLIP, trained through the read-out that dense maps are made with (SegEarth-OV-2, arXiv
2508.18067): q-q, k-k and v-v attention of the last block, without residual and MLP. Labels are of whole images only,
so each loss asks for something of a part's mean: a part is an image, or a quarter of a mosaic.

- Captions: the mean answers for the part's caption (CLIP, arXiv 2103.00020), of single images [CLS] too.
- Scenes: the mean, and [CLS], answer for the scene's name.
- Words: each patch is given to the nouns by a softmax, as a map is; the mean of these shares answers for the nouns that
  the captions name (learning from proportions of labels). The patches of an image may differ, and should. Trees and
  buildings are named most: the logarithm of a word's frequency is added to its score here, and not in a map, so that a
  frequent word need not score higher to be right (logit adjustment, Menon et al., arXiv 2007.07314).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import open_clip
import torch
from numpy.random import Generator
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from studies.mini_data import Batch, ImageSet, normalise
from studies.mini_words import FORMS

PROMPTS = ('{}', '{}.', 'a satellite image of {}.', 'an aerial photo of {}.', 'there is {} in the image.')
TEMPLATES = tuple(open_clip.OPENAI_IMAGENET_TEMPLATES)  # those that classes are embedded with
SAME_SCENE = 0.15  # of the target of a caption goes to the captions of images of the same scene
MAX_SCALE = 60.0
NUM_WARM_UP = 60  # steps


@dataclass
class Losses:
    """Weights of the losses."""

    caption: float = 1.0
    scene: float = 1.0
    words: float = 1.0
    cls_token: float = 0.5


def encode(
    visual: VisionTransformer, images: Tensor, kept: Tensor | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """[CLS] as CLIP has it, and patches as SegEarth reads them out.

    Args:
        visual: Its public parts are used.
        images: (B, 3, H, W) normalised, of the size that the tower was made for.
        kept: (B, k), which patches are read; None for all.
        dtype: Of the large matrix products.

    Returns:
        [CLS] (B, C) and patches (B, k, C), float32, not normalised.
    """
    patch = visual.patch_size[0]
    grid = images.shape[-1] // patch
    pixels = images.unflatten(-1, (grid, patch)).unflatten(-3, (grid, patch))  # B 3 rows patch columns patch
    pixels = pixels.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    positions = visual.positional_embedding[1:].expand(len(images), -1, -1)
    if kept is not None:
        pixels = pixels.gather(1, kept[..., None].expand(-1, -1, pixels.shape[-1]))
        positions = positions.gather(1, kept[..., None].expand(-1, -1, positions.shape[-1]))
    x = _linear(pixels, visual.conv1.weight.flatten(1), None, dtype) + positions
    cls_token = (visual.class_embedding + visual.positional_embedding[0]).expand(len(x), 1, -1)
    x = visual.ln_pre(torch.cat([cls_token, x], 1))
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        query, key, value = _project(block, x, dtype)
        x = x + _unproject(block, F.scaled_dot_product_attention(query, key, value), dtype)
        x = x + _mlp(block, x, dtype)
    query, key, value = _project(last, x, dtype)
    dense = sum(F.scaled_dot_product_attention(part, part, value) for part in (query, key, value))
    dense = _unproject(last, dense[:, :, 1:], dtype)
    attended = F.scaled_dot_product_attention(query[:, :, :1], key, value)
    cls_token = x[:, :1] + _unproject(last, attended, dtype)
    cls_token = cls_token + _mlp(last, cls_token, dtype)
    return (visual.ln_post(cls_token) @ visual.proj)[:, 0], visual.ln_post(dense) @ visual.proj


def compute_loss(
    model: CLIP,
    batch: Batch,
    phrases: Sequence[str],
    tokenizer: Callable[[list[str]], Tensor],
    rng: Generator,
    share_kept: float,
    weights: Losses,
    frequencies: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, dict[str, float]]:
    """Loss of a batch and its parts by name.

    Args:
        model: The CLIP.
        batch: What is seen.
        phrases: K scene names in words.
        tokenizer: Phrases to ids.
        rng: Source of all that is random here: prompts, forms of words, the patches that are read.
        share_kept: Of the patches, in (0, 1].
        weights: Of the losses.
        frequencies: (W,) of the words, see :func:`word_frequencies`.
        dtype: Of the large matrix products.
    """
    grid = model.visual.grid_size[0]
    num_single = int((batch.splits.sum(axis=1) == 0).sum())
    images = torch.from_numpy(batch.images)
    kept = np.argsort(rng.random((len(images), grid * grid)), axis=1)[:, : max(1, round(share_kept * grid * grid))]
    cls_token, dense = encode(model.visual, images, torch.from_numpy(kept), dtype)
    membership, present = _membership(batch, kept, grid)

    words = [rng.choice(forms) for forms in FORMS]
    scene_prompts = [_prompt(phrase, rng) for phrase in phrases]
    # One quarter of a mosaic answers for its caption: more would make the text half of the work
    asked = np.concatenate([batch.parts[:num_single, 3], rng.permuted(batch.parts[num_single:], axis=1)[:, 0]])
    asked = asked[present[asked]]
    texts = [*(batch.captions[part] for part in asked), *scene_prompts, *(_prompt(word, rng) for word in words)]
    embedded = F.normalize(encode_texts(model, tokenizer(texts)), dim=-1)
    caption_text, scene_text, word_text = embedded.split([len(asked), len(phrases), len(words)])
    scale = model.logit_scale.exp()

    means = F.normalize(membership @ dense.flatten(0, 1), dim=-1)  # (P, C)
    scenes = torch.from_numpy(batch.scenes)
    cls_token = F.normalize(cls_token[:num_single], dim=-1)
    seen = torch.from_numpy(present)
    same_scene = scenes[asked] @ scenes[asked].T
    target = (1 - SAME_SCENE) * torch.eye(len(asked)) + SAME_SCENE * same_scene / same_scene.sum(1, keepdim=True)
    shares = (scale * F.normalize(dense, dim=-1) @ word_text.T + frequencies.log()).softmax(-1)  # (B, k, W)
    shares = membership @ shares.flatten(0, 1)
    named = torch.from_numpy(batch.words)
    is_named = seen & (named.sum(1) > 0)
    named = named[is_named] / named[is_named].sum(1, keepdim=True)
    parts = {
        'caption': _contrast(scale * means[asked] @ caption_text.T, target),
        'scene': F.cross_entropy(scale * means[seen] @ scene_text.T, scenes[seen]),
        'words': -(named * shares[is_named].clamp_min(1e-6).log()).sum(1).mean(),
    }
    loss = sum(getattr(weights, name) * value for name, value in parts.items())
    if num_single:
        own = asked < num_single
        parts['cls_caption'] = _contrast(
            scale * cls_token[asked[own]] @ caption_text[own].T, _rows_sum_to_one(target[own][:, own])
        )
        parts['cls_scene'] = F.cross_entropy(scale * cls_token @ scene_text.T, scenes[:num_single])
        loss = loss + weights.cls_token * (
            weights.caption * parts['cls_caption'] + weights.scene * parts['cls_scene']
        )
    return loss, {name: value.item() for name, value in parts.items()}


def word_frequencies(source: ImageSet) -> Tensor:
    """(W,) how often captions of the images that are trained on name each word; sums to 1, none is 0."""
    words = source.words[~source.held_out]
    shares = (words / words.sum(axis=1, keepdims=True).clip(1e-6)).mean(axis=0) + 1e-4
    return torch.from_numpy(shares / shares.sum())


def encode_texts(model: CLIP, tokens: Tensor) -> Tensor:
    """The text tower of open_clip on (T, context) ids, less the columns that are padding in all; returns (T, C)."""
    longest = int((tokens != 0).sum(1).max())
    x = model.token_embedding(tokens[:, :longest]) + model.positional_embedding[:longest]
    x = model.transformer(x, attn_mask=model.attn_mask[:longest, :longest])
    x = model.ln_final(x)
    return x[torch.arange(len(x)), tokens.argmax(1)] @ model.text_projection


def build_optimizers(model: CLIP, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for everything else; only matrices and the token table decay."""
    inner = [
        parameter for name, parameter in model.named_parameters() if 'resblocks' in name and parameter.ndim == 2
    ]
    known = {id(parameter) for parameter in inner}
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        if id(parameter) not in known:
            is_matrix = parameter.ndim >= 2 and 'positional_embedding' not in name
            (decayed if is_matrix else others).append(parameter)
    groups = [{'params': decayed, 'weight_decay': weight_decay}, {'params': others, 'weight_decay': 0.0}]
    return [
        torch.optim.Muon(inner, weight_decay=weight_decay, adjust_lr_fn='match_rms_adamw'),
        torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True),
    ]


def learning_rate_factor(step: int, progress: float, cool_down: float) -> float:
    """Warm-up, then constant, then a line down to 0: the constant part can be prolonged by a later run.

    Args:
        step: From 0.
        progress: Share of the run that is over.
        cool_down: Share of the run in which the line falls.
    """
    return min(1.0, (step + 1) / NUM_WARM_UP, (1 - progress) / cool_down)


def update(model: CLIP, optimizers: Sequence[torch.optim.Optimizer], loss: Tensor, learning_rate: float) -> None:
    """One clipped update of the weights."""
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group['lr'] = learning_rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        model.logit_scale.clamp_(0, math.log(MAX_SCALE))


@torch.no_grad()
def average_weights(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Exponential average of the weights, in place; younger than `decay` allows at the beginning."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


@torch.no_grad()
def scene_accuracy(
    model: CLIP, source: ImageSet, phrases: Sequence[str], tokenizer: Callable, dtype: torch.dtype
) -> dict[str, float]:
    """Zero-shot accuracy of scene names on held-out images, in [0, 1]: by [CLS], by the patches' mean, by both.

    Args:
        model: The CLIP.
        source: Its held-out images are measured on.
        phrases: K scene names in words; each is embedded as the mean over all prompts.
        tokenizer: Phrases to ids.
        dtype: Of the large matrix products.
    """
    prompts = [template.format(phrase) for phrase in phrases for template in PROMPTS]
    prompts += [template(phrase) for phrase in phrases for template in TEMPLATES]
    embedded = F.normalize(encode_texts(model, tokenizer(prompts)), dim=-1)
    own, stock = embedded.split([len(phrases) * len(PROMPTS), len(phrases) * len(TEMPLATES)])
    scene_text = F.normalize(own.unflatten(0, (len(phrases), -1)).mean(1), dim=-1)
    scene_text = F.normalize(scene_text + F.normalize(stock.unflatten(0, (len(phrases), -1)).mean(1), dim=-1), dim=-1)
    held_out = np.flatnonzero(source.held_out)
    labels = source.scenes[held_out].argmax(axis=1)
    found: dict[str, list[Tensor]] = {'cls': [], 'dense': [], 'both': []}
    for start in range(0, len(held_out), 128):
        images = normalise(source.pixels[held_out[start : start + 128]], model.visual.image_size[0])
        cls_token, dense = encode(model.visual, torch.from_numpy(images), None, dtype)
        cls_token, dense = F.normalize(cls_token, dim=-1), F.normalize(dense.mean(1), dim=-1)
        for name, features in {'cls': cls_token, 'dense': dense, 'both': cls_token + dense}.items():
            found[name].append((features @ scene_text.T).argmax(1))
    return {name: float((torch.cat(parts).numpy() == labels).mean()) for name, parts in found.items()}


def _membership(batch: Batch, kept: np.ndarray, grid: int) -> tuple[Tensor, np.ndarray]:
    """(P, B*k), rows that average the patches of a part; and (P,) whether any patch of it was kept."""
    rows, columns = kept // grid, kept % grid
    quarter = 2 * (rows >= batch.splits[:, :1]) + (columns >= batch.splits[:, 1:])  # 3 everywhere of a single crop
    part = np.take_along_axis(batch.parts, quarter, axis=1).ravel()
    membership = np.zeros((len(batch.captions), part.size), np.float32)
    membership[part, np.arange(part.size)] = 1
    counts = membership.sum(axis=1, keepdims=True)
    return torch.from_numpy(membership / counts.clip(1)), counts[:, 0] > 0


def _prompt(phrase: str, rng: Generator) -> str:
    if rng.random() < 0.5:
        return PROMPTS[rng.integers(len(PROMPTS))].format(phrase)
    return TEMPLATES[rng.integers(len(TEMPLATES))](phrase)


def _contrast(logits: Tensor, target: Tensor) -> Tensor:
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _rows_sum_to_one(target: Tensor) -> Tensor:
    return target / target.sum(1, keepdim=True)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    return F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))


def _project(block: ResidualAttentionBlock, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, width) -> queries, keys, values (B, heads, N, head_dim), float32: attention is slow in bfloat16."""
    attention = block.attn
    projected = _linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias, dtype).float()
    query, key, value = projected.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return query, key, value


def _unproject(block: ResidualAttentionBlock, attended: Tensor, dtype: torch.dtype) -> Tensor:
    projection = block.attn.out_proj
    return _linear(attended.transpose(1, 2).flatten(2), projection.weight, projection.bias, dtype).float()


def _mlp(block: ResidualAttentionBlock, x: Tensor, dtype: torch.dtype) -> Tensor:
    hidden = F.gelu(_linear(block.ln_2(x), block.mlp.c_fc.weight, block.mlp.c_fc.bias, dtype))
    return _linear(hidden, block.mlp.c_proj.weight, block.mlp.c_proj.bias, dtype).float()
