"""The student: a copy of the teacher's vision tower, with the parts that are trained.

Source of the adapters: LoRA (Hu et al., arXiv 2106.09685); they are merged into the weights before saving, so that
the file is a plain open_clip model.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn.utils import parametrize

from segearth.errors import ConfigError
from segearth.models.dense_clip import DenseCLIP

ACTIVATIONS = {'gelu': nn.GELU, 'quick_gelu': QuickGELU}
ALL = 'all'


def build_student(
    teacher: DenseCLIP,
    readout: Mapping[str, Any],
    trainable: str | int | Mapping[str, int] = ALL,
    activation: str | None = None,
) -> DenseCLIP:
    """Copies a teacher; the student's read-out is that of inference.

    Args:
        teacher: The frozen optical encoder.
        readout: ``attention``, ``ignore_residual`` and ``num_readout_blocks`` of the student.
        trainable: 'all'; n for the last n blocks with ``ln_post`` and projection; or {'lora': rank} for adapters on
            all blocks.
        activation: 'gelu' or 'quick_gelu'; None for the teacher's. A file is run with the activation of the record
            that it is loaded by: AlignEarth's says GELU, whatever the teacher had.
    """
    if activation is not None and activation not in ACTIVATIONS:
        raise ConfigError(f'unknown activation {activation!r}; known: {", ".join(ACTIVATIONS)}, or None')
    visual = copy.deepcopy(teacher.visual)
    if activation is not None:
        for block in visual.transformer.resblocks:
            block.mlp.gelu = ACTIVATIONS[activation]()
    student = DenseCLIP(visual, **readout).requires_grad_(False)
    blocks = list(visual.transformer.resblocks)
    if trainable == ALL:
        visual.requires_grad_(True)
    elif isinstance(trainable, int) and not isinstance(trainable, bool) and 1 <= trainable <= len(blocks):
        for module in (*blocks[-trainable:], visual.ln_post):
            module.requires_grad_(True)
        if visual.proj is not None:
            visual.proj.requires_grad_(True)
    elif isinstance(trainable, Mapping) and set(trainable) == {'lora'} and trainable['lora'] >= 1:
        for block in blocks:
            weights = ((block.attn, 'in_proj_weight'), (block.mlp.c_fc, 'weight'), (block.mlp.c_proj, 'weight'))
            for module, name in weights:
                parametrize.register_parametrization(module, name, LowRank(getattr(module, name), trainable['lora']))
    else:
        raise ConfigError(
            f"trainable is {trainable!r}; allowed: 'all', a number of last blocks from 1 to {len(blocks)}, or "
            'dict(lora=RANK) with a rank of 1 or more'
        )
    return student


class LowRank(nn.Module):
    """``W + B A``: a weight (out, in) with an adapter of some rank; B begins at 0."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, weight.shape[1]) / weight.shape[1] ** 0.5)
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight."""
        return weight + self.up @ self.down


def merged_state(visual: nn.Module) -> dict[str, Tensor]:
    """A tower's state dict in which adapters are part of the weights, under the names of a plain tower."""
    state = {}
    for name, value in visual.state_dict().items():
        module_name, is_adapted, part = name.partition('.parametrizations.')
        if not is_adapted:
            state[name] = value
        elif part.endswith('.original'):
            weight = part.removesuffix('.original')
            state[f'{module_name}.{weight}'] = getattr(visual.get_submodule(module_name), weight).detach()
    return state
