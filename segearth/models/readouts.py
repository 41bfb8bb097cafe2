"""Read-outs that look at more than the last block: what the newer training-free methods add to CLIP.

Those of attention.py change which tokens the last block lets look at each other; these take attention or tokens of
earlier blocks too, or of the image turned round. Each is one entry of :data:`READOUTS`: a function of a
:class:`Pass` through the tower. Blocks are counted from 1 and named for a tower of 12; other depths scale them.

Source: the formulas of ReAttnCLIP, SC-CLIP, DIH-CLIP and ResCLIP as public notes state them; no code of theirs was
read. Constants that these leave open were chosen here and are marked "chosen"; docs/ablation.md measures. GEM,
"Grounding Everything" (arXiv 2312.00878), section 3: one iteration, temperature from the mean token norm, as
SegEarth-OV-2 runs it, checked against arrays that the original's code computed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import MappingProxyType

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor

from segearth.models.residual_block import OnBlock, project_attended, project_qkv, run_block

DEPTH = 12  # blocks of the towers that the methods name their blocks for
GEM_BLOCKS = 6  # the last blocks that get the self-self stream (GEM's depth of 7 counts the block before them)

LAYERS: Mapping[str, Mapping[str, tuple[int, ...]]] = MappingProxyType({
    'ReAttn': {'affinity': (9, 10, 11), 'middle': (6, 7, 8, 9)},
    'SC': {'semantic': (9,), 'detail': (4,), 'sum': (4, 5, 6, 7, 8, 9, 10)},
    'DIH': {'semantic': (9,), 'detail': (4,), 'sum': (4, 5, 6, 7, 8, 9, 10)},
    'Res': {'middle': (6, 7, 8, 9)},
})  # fmt: skip
"""Read-out -> what its blocks are for -> their numbers in a tower of 12."""

AFFINITY_WEIGHT = 0.9  # of ReAttn's affinities, the middle blocks' attention having the rest; chosen
TURNED_WEIGHT = 0.4  # of ReAttn's affinities of turned images, beside 1 for the image as it is
AFFINITY_TEMPERATURE = 0.1  # affinities are a softmax of cosines over this, so that rows sum to 1; chosen
NEIGHBOURS = 30  # of SC's outlier factor
OUTLIER_SHARE = 0.05  # of the patches
LEAST_COSINE = 0.4  # of patches that smooth each other
CONTRAST = 3.0  # factor of SC's centred cosines
CLS_SHARE = 0.3  # of the read-out of [CLS] that SC adds to each patch
KEPT_HEADS = 4  # of DIH, those of lowest entropy
RESIDUAL_SHARE = 0.3  # of the middle blocks' attention in Res; chosen, 0.2 to 0.6 are named


@dataclass(frozen=True, eq=False)
class Pass:
    """A batch of images on its way through a tower.

    ``inputs`` holds the tokens (B, 1 + h*w, width) that each block gets, [CLS] first, so that ``inputs[n]`` is what
    block n gives. ``turned(k)`` gives the same of the images after k quarter turns, on the grid of the turned image.
    ``layers`` are the numbers of the blocks that the read-out looks at, by what they are for.
    """

    blocks: Sequence[ResidualAttentionBlock]
    inputs: list[Tensor]
    grid: tuple[int, int]
    turned: Callable[[int], list[Tensor]] = field(repr=False)
    layers: Mapping[str, tuple[int, ...]]

    @cached_property
    def last_qkv(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the last block: (B, heads, 1 + h*w, head_dim)."""
        block = self.blocks[-1]
        return project_qkv(block, block.ln_1(self.inputs[-1]))

    def attention(self, number: int) -> Tensor:
        """The query-key attention of a block, (B, heads, 1 + h*w, 1 + h*w); rows sum to 1."""
        block = self.blocks[number - 1]
        query, key, _ = project_qkv(block, block.ln_1(self.inputs[number - 1]))
        return _weights(query, key)

    def mean_attention(self, purpose: str) -> Tensor:
        """The mean of the query-key attentions of blocks."""
        numbers = self.layers[purpose]
        return torch.stack([self.attention(number) for number in numbers]).mean(dim=0)

    def patches(self, number: int) -> Tensor:
        """Patch tokens (B, h*w, width) that a block gives."""
        return self.inputs[number][:, 1:]


def scale_layers(readout: str, depth: int) -> dict[str, tuple[int, ...]]:
    """The blocks that a read-out looks at in a tower of some depth: between 1 and the last but one, each once."""
    return {
        purpose: tuple(dict.fromkeys(min(max(round(number * depth / DEPTH), 1), depth - 1) for number in numbers))
        for purpose, numbers in LAYERS.get(readout, {}).items()
    }


def turn_back(tokens: Tensor, grid: tuple[int, int], quarters: int) -> Tensor:
    """Patches (B, h*w, C) of an image after ``quarters`` quarter turns, in the order of the image as it was.

    ``grid`` is that of the image as it was.
    """
    sides = grid if quarters % 2 == 0 else grid[::-1]
    return torch.rot90(tokens.unflatten(1, sides), -quarters, (1, 2)).flatten(1, 2)


def rotation_attention(seen: Pass) -> Tensor:
    """ReAttn: the last block's attention becomes affinities of patches and attention of middle blocks.

    Patches attend by ``w S_rot + (1 - w) mean_l A_l``. S_rot is the mean over blocks of
    ``sum_r w_r softmax(cos(X_r, X_r) / tau) / sum_r w_r``, where X_r are the patches of the image after r quarter
    turns, turned back; A_l is a middle block's query-key attention without [CLS], its rows scaled to sum to 1. [CLS]
    attends as the mean of the middle blocks. Without residual. The [CLS] that is returned is the rebuilt one, which
    Global Bias Alleviation takes off. Chosen here: the softmax and its temperature, equal weights of the middle
    blocks, and that the weights of a row sum to 1. The published factor of S_rot, 0.2, belongs to sums of unknown
    scale: with rows that sum to 1, w = 0.9 did best on validation scenes and on Sentinel-2 tiles that nothing else is
    measured on.
    """
    count = seen.inputs[-1].shape[1] - 1
    affinity, weight = seen.inputs[-1].new_zeros(len(seen.inputs[-1]), count, count), 0.0
    for quarters in range(4):
        inputs = seen.inputs if quarters == 0 else seen.turned(quarters)
        share = 1.0 if quarters == 0 else TURNED_WEIGHT
        for number in seen.layers['affinity']:
            tokens = F.normalize(turn_back(inputs[number][:, 1:], seen.grid, quarters), dim=-1)
            cosines = tokens @ tokens.transpose(1, 2)
            affinity = affinity + share * (cosines / AFFINITY_TEMPERATURE).softmax(dim=-1)
            weight += share
    middle = seen.mean_attention('middle')
    patches = middle[:, :, 1:, 1:]
    patches = patches / patches.sum(dim=-1, keepdim=True)
    patches = torch.lerp(patches, (affinity / weight)[:, None].expand_as(patches), AFFINITY_WEIGHT)
    weights = torch.cat([middle[:, :, :1], F.pad(patches, (1, 0))], dim=2)  # no patch looks at [CLS]
    return project_attended(seen.blocks[-1], weights @ seen.last_qkv[2])


def residual_attention(seen: Pass) -> Tensor:
    """Res: ``(1 - share)`` times the key-key attention of the last block plus ``share`` times the middle blocks'.

    Without residual. Chosen here: key-key attention as the base.
    """
    _, key, value = seen.last_qkv
    weights = torch.lerp(_weights(key, key), seen.mean_attention('middle'), RESIDUAL_SHARE)
    return project_attended(seen.blocks[-1], weights @ value)


def calibrated(seen: Pass, mend_outliers: bool, kept_heads: int | None) -> Tensor:
    """SC, self-calibrated, and DIH, which mends no outliers and keeps the most decided heads.

    1. Of the patches that enter the last block, those that lie apart (:func:`outliers`) become the mean of the
       neighbours on the grid that do not, in the tokens of the 'semantic' block, too.
    2. Patches alike in the 'semantic' block (cosine of 0.4 or more) are averaged, weighted by it.
    3. The last block sees patches alone. Half of their attention is a softmax of 3 (cosine - mean cosine), negatives
       left out, half of k k^T; DIH keeps the key-key attentions of the 4 heads of lowest entropy, their mean for all
       heads. The output gets 0.3 of the read-out of [CLS].
    4. Patches alike in the 'detail' block are averaged as in 2.
    5. The sum of the blocks 'sum' goes through 3 and 4, too, and is added.

    Chosen here: the mean cosine is that of a row; [CLS] is read out by the last block's own attention.
    """
    block = seen.blocks[-1]
    query, key, value = seen.last_qkv
    cls_token = project_attended(block, _weights(query[:, :, :1], key) @ value)
    patches, semantic = seen.inputs[-1][:, 1:], seen.patches(*seen.layers['semantic'])
    if mend_outliers:
        apart = outliers(patches)
        patches, semantic = (mend(tokens, apart, seen.grid) for tokens in (patches, semantic))
    cosines, details = (_cosines(tokens) for tokens in (semantic, seen.patches(*seen.layers['detail'])))
    summed = torch.stack([seen.patches(number) for number in seen.layers['sum']]).sum(dim=0)
    contrast = CONTRAST * (cosines - cosines.mean(dim=-1, keepdim=True))
    alike = contrast.masked_fill(contrast < 0, -torch.inf).softmax(dim=-1)[:, None]
    total = torch.zeros_like(patches)
    for tokens in (average_alike(patches, cosines), summed):
        _, key, value = project_qkv(block, block.ln_1(tokens))
        own = _weights(key, key)
        if kept_heads is not None:
            own = most_decided(own, kept_heads).mean(dim=1, keepdim=True)
        output = project_attended(block, (alike + own) / 2 @ value) + CLS_SHARE * cls_token
        total = total + average_alike(output, details)
    return torch.cat([cls_token, total], dim=1)


def outliers(patches: Tensor) -> Tensor:
    """The patches that lie farthest from their nearest, beside how far these lie from theirs: (B, N) bool.

    The local outlier factor of a patch of (B, N, C) is the mean over its 30 nearest j of d_i / d_j, d the distance to
    the 30th nearest; the 5 % of the patches where it is largest are outliers.
    """
    count = patches.shape[1]
    num_neighbours = min(NEIGHBOURS, count - 1)
    if num_neighbours < 1:
        return torch.zeros(patches.shape[:2], dtype=torch.bool, device=patches.device)
    values = patches.float()
    distances, nearest = torch.cdist(values, values).topk(num_neighbours + 1, largest=False)
    reach = distances[:, :, -1]  # of each patch: (B, N)
    of_neighbours = reach.gather(1, nearest[:, :, 1:].flatten(1)).unflatten(1, (count, num_neighbours))
    factor = (reach[:, :, None] / of_neighbours.clamp_min(1e-12)).mean(dim=-1)
    found = torch.zeros_like(factor, dtype=torch.bool)
    return found.scatter(1, factor.topk(int(OUTLIER_SHARE * count), dim=1).indices, True)


def mend(patches: Tensor, apart: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patches (B, N, C) where those that are ``apart`` (B, N) are the mean of their (up to 8) neighbours that are not.

    One that has no such neighbour stays.
    """
    kept = (~apart).to(patches.dtype)[:, None].unflatten(2, grid)
    maps = patches.transpose(1, 2).unflatten(2, grid)
    window = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, divisor_override=1)
    sums, counts = window(maps * kept), window(kept)
    mended = (apart[:, None].unflatten(2, grid) & (counts > 0))
    return torch.where(mended, sums / counts.clamp_min(1), maps).flatten(2).transpose(1, 2)


def average_alike(tokens: Tensor, cosines: Tensor) -> Tensor:
    """Tokens (B, N, C) averaged over those that are alike, weighted by their cosines (B, N, N) of 0.4 or more."""
    weights = torch.where(cosines >= LEAST_COSINE, cosines, 0)
    return weights / weights.sum(dim=-1, keepdim=True) @ tokens


def most_decided(weights: Tensor, count: int) -> Tensor:
    """The heads of lowest mean entropy: (B, heads, N, N) -> (B, up to ``count``, N, N)."""
    entropy = -(weights * weights.clamp_min(1e-12).log()).sum(dim=-1).mean(dim=-1)
    heads = entropy.topk(min(count, weights.shape[1]), dim=1, largest=False).indices
    return weights.gather(1, heads[:, :, None, None].expand(-1, -1, *weights.shape[2:]))


def _cosines(tokens: Tensor) -> Tensor:
    unit = F.normalize(tokens, dim=-1)
    return unit @ unit.transpose(1, 2)


def _weights(query: Tensor, key: Tensor) -> Tensor:
    return (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(dim=-1)


READOUTS: dict[str, Callable[[Pass], Tensor]] = {
    'ReAttn': rotation_attention,
    'SC': partial(calibrated, mend_outliers=True, kept_heads=None),
    'DIH': partial(calibrated, mend_outliers=False, kept_heads=KEPT_HEADS),
    'Res': residual_attention,
}
"""Tokens (B, 1 + h*w, width) before ``ln_post`` of a pass."""


def self_self_attention(query: Tensor, key: Tensor, value: Tensor, inverse_temperature: Tensor) -> Tensor:
    """Averages the self-self attentions of queries, keys and values, each applied to the values.

    Each projection (B, heads, N, D) first attends to itself on the unit sphere (one iteration), then its similarities,
    times the inverse temperature (B, 1, 1, 1), weigh V.
    """

    def weights(tokens: Tensor) -> Tensor:
        return (tokens @ tokens.transpose(-2, -1) * inverse_temperature).softmax(dim=-1)

    outputs = []
    for projection in (value, key, query):
        tokens = F.normalize(projection, dim=-1)
        tokens = F.normalize(weights(tokens) @ tokens, dim=-1)
        outputs.append(weights(tokens) @ value)
    return torch.stack(outputs).mean(dim=0)


def gem_readout(
    blocks: Sequence[ResidualAttentionBlock], tokens: Tensor, ignore_residual: bool, on_block: OnBlock | None = None
) -> Tensor:
    """Runs all blocks on tokens (B, 1 + N, width) and returns those of the self-self stream, before ``ln_post``.

    With ``ignore_residual`` the stream is the last block's attention output alone; otherwise the outputs of the blocks
    accumulate onto the tokens that it started from.
    """
    first = max(len(blocks) - GEM_BLOCKS, 0)
    stream = tokens
    for index, block in enumerate(blocks):
        if index >= first:
            normed = block.ln_1(tokens)
            query, key, value = project_qkv(block, normed)
            scale = query.shape[-1] ** -0.5
            inverse_temperature = normed.norm(dim=-1).mean(dim=-1)[:, None, None, None] * scale
            attended = self_self_attention(query, key, value, inverse_temperature)
            output = project_attended(block, attended)
            stream = output if ignore_residual else stream + output
        if index + 1 < len(blocks):
            tokens = run_block(block, tokens)
            stream = tokens if index + 1 <= first else stream
            if on_block is not None:
                on_block(index + 1, tokens)
    return stream
