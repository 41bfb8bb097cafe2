"""GEM: a second stream of generalised self-self attention beside the ordinary one, over the last six blocks.

Unlike the variants of attention.py, which change one block's read-out, GEM carries its own tokens through
several blocks, so it is a read-out of its own.

Source: "Grounding Everything" (arXiv 2312.00878), section 3; one iteration, temperature from the mean token norm,
as SegEarth-OV-2 runs it. Followed: the formulas, checked against arrays that the original's code computed.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor

from segearth.models.residual_block import OnBlock, project_attended, project_qkv, run_block

NUM_BLOCKS = 6  # the last blocks that get the self-self stream (GEM's depth of 7 counts the block before them)
NUM_ITERATIONS = 1


def self_self_attention(query: Tensor, key: Tensor, value: Tensor, inverse_temperature: Tensor) -> Tensor:
    """Averages the self-self attentions of queries, keys and values, each applied to the values.

    Each projection (B, heads, N, D) first attends to itself on the unit sphere (one iteration), then its similarities,
    times the inverse temperature (B, 1, 1, 1), weigh V.
    """
    outputs = []
    for projection in (value, key, query):
        tokens = projection
        for _ in range(NUM_ITERATIONS):
            tokens = F.normalize(tokens, dim=-1)
            tokens = (tokens @ tokens.transpose(-2, -1) * inverse_temperature).softmax(dim=-1) @ tokens
        tokens = F.normalize(tokens, dim=-1)
        outputs.append((tokens @ tokens.transpose(-2, -1) * inverse_temperature).softmax(dim=-1) @ value)
    return torch.stack(outputs).mean(dim=0)


def gem_readout(
    blocks: Sequence[ResidualAttentionBlock], tokens: Tensor, ignore_residual: bool, on_block: OnBlock | None = None
) -> Tensor:
    """Runs all blocks on tokens (B, 1 + N, width) and returns those of the self-self stream, before ``ln_post``.

    With ``ignore_residual`` the stream is the last block's attention output alone; otherwise the outputs of the blocks
    accumulate onto the tokens that it started from.
    """
    first = max(len(blocks) - NUM_BLOCKS, 0)
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
