"""AlignEarth as mmengine trains it: a teacher, its copy with the parts that are trained, weighted losses.

Source of the adapters: LoRA (Hu et al., arXiv 2106.09685); they are merged into the weights before saving, so that
the file is a plain open_clip model.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn.utils import parametrize

from segearth.alignearth.losses import dense_alignment, global_cosine, info_nce, relational, valid_cells
from segearth.errors import ConfigError
from segearth.io.atomic import write_bytes
from segearth.models.build import ClipTextTower, build_encoder
from segearth.models.dense_clip import DenseCLIP
from segearth.training.checkpoints import save_weights
from segearth.training.data import normalise
from segearth.training.model_folder import USAGE, Published
from segearth.training.monitor import PictureRow, principal_components, to_picture
from segearth.training.upsampler import FrozenEncoderModel
from segearth.weights.model_folders import OPEN_CLIP_CONFIG

LOSSES = ('global_cosine', 'info_nce', 'dense', 'relational', 'blocks')
DEFAULT_WEIGHTS = {'global_cosine': 1.0, 'dense': 1.0}
Trainable = str | int | Mapping[str, int]
READOUT = ('attention', 'ignore_residual', 'num_readout_blocks')
ACTIVATIONS = {'gelu': nn.GELU, 'quick_gelu': QuickGELU}


@MODELS.register_module()
class AlignEarthModel(FrozenEncoderModel):
    """Distils an optical encoder into a SAR encoder.

    Args:
        teacher: Arguments of :func:`segearth.models.build.build_encoder`, without device and precision; an open_clip
            ViT. Its ``attention`` and ``num_readout_blocks`` are those of the teacher's dense read-out.
        student: ``attention``, ``ignore_residual``, ``num_readout_blocks`` of the student's read-out; what is left
            out is as in the teacher's.
        loss_weights: Name of :data:`LOSSES` -> weight; those left out are 0. 'dense' aligns the projected patch
            tokens at the read-out, 'blocks' the tokens after :attr:`blocks`.
        blocks: Numbers of blocks, from 1, for the 'blocks' loss; the last one has no output of its own.
        radius: Window of the soft matching, in cells of the grid; 0 for none.
        trainable: 'all'; n for the last n blocks with ``ln_post`` and projection; or {'lora': rank} for adapters on
            all blocks.
        activation: 'gelu' or 'quick_gelu'; None for the teacher's. A file is run with the activation of the record
            that it is loaded by: AlignEarth's says GELU, whatever the teacher had.
        size: See :class:`segearth.training.upsampler.FrozenEncoderModel`, as for ``precision``.
        precision: fp32, bf16 or fp16.

    Raises:
        UserError: Settings that cannot be used.
    """

    frozen, trained = 'teacher', 'student'

    def __init__(
        self,
        teacher: Mapping[str, Any],
        student: Mapping[str, Any] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        blocks: tuple[int, ...] = (),
        radius: int = 0,
        trainable: Trainable = 'all',
        activation: str | None = None,
        size: int = 224,
        precision: str = 'fp32',
    ) -> None:
        encoder = build_encoder(**teacher, precision='fp32')
        super().__init__(encoder.visual, size, precision)
        if not isinstance(encoder.visual, DenseCLIP):
            raise ConfigError(f'the teacher must be an open_clip ViT; {encoder.record.name} is none')
        self.teacher = encoder.visual
        readout = {name: getattr(self.teacher, name) for name in READOUT} | dict(student or {})
        unknown = sorted(set(readout) - set(READOUT))
        if unknown:
            raise ConfigError(f'unknown keys in model.student: {", ".join(unknown)}; known: {", ".join(READOUT)}')
        self.student = build_student(self.teacher, readout, trainable, activation)
        assert isinstance(encoder.text, ClipTextTower)  # as the tower is a DenseCLIP
        self.text_state = encoder.text.model.state_dict()
        self.record = encoder.record
        self.description = copy.deepcopy(dict(encoder.description))
        blocks_of_student = self.student.visual.transformer.resblocks
        self.description['model_cfg']['quick_gelu'] = isinstance(blocks_of_student[0].mlp.gelu, QuickGELU)
        self.loss_weights = _check_weights(loss_weights or DEFAULT_WEIGHTS, blocks, self.teacher)
        self.blocks, self.radius = tuple(blocks), radius

    def forward(self, optical: Tensor, sar: Tensor, valid: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        """The weighted losses of images (B, 3, H, W) uint8 and (B, H, W) bool, pixels with data in both."""
        with self.autocast(sar):
            with torch.no_grad():
                teacher_cls, teacher_tokens, teacher_blocks = self._encode(self.teacher, optical)
            student_cls, student_tokens, student_blocks = self._encode(self.student, sar)
        height, width = student_tokens.shape[2:]
        cells = valid_cells(valid, (height, width))
        window = (cells, self.radius)
        terms = {
            'global_cosine': lambda: global_cosine(student_cls, teacher_cls),
            'info_nce': lambda: info_nce(student_cls, teacher_cls),
            'dense': lambda: dense_alignment(student_tokens, teacher_tokens, *window),
            'relational': lambda: relational(student_tokens, teacher_tokens, cells),
            'blocks': lambda: torch.stack([
                dense_alignment(*pair, *window) for pair in zip(student_blocks, teacher_blocks, strict=True)
            ]).mean(),
        }
        return {f'loss_{name}': weight * terms[name]() for name, weight in self.loss_weights.items()}

    def export(self, folder: Path, name: str) -> list[Path]:
        """Writes NAME.pt and NAME.safetensors, the whole open_clip model with the teacher's text tower.

        For an architecture of our own its model config goes beside them.
        """
        paths = save_weights(folder, (f'{name}.pt', f'{name}.safetensors'), self._whole_state())
        if self.record.model_config:
            config = json.dumps(self.description['model_cfg'], indent=2)
            write_bytes(folder / f'{name}.json', f'{config}\n'.encode())
        return paths

    def published(self) -> Published:
        """The whole model, as open_clip reads it."""
        readout = {name: getattr(self.student, name) for name in READOUT} | dict(self.record.settings)
        how = ', '.join(f'{name}={value!r}' for name, value in readout.items())
        return Published(
            weights=('open_clip_model.safetensors', self._whole_state()),
            config=(OPEN_CLIP_CONFIG, self.description),
            title=f'Radar encoder from {self.record.name}',
            summary='A CLIP for radar images, taught by an optical one on image pairs (AlignEarth).',
            usage=f"{USAGE}segmenter = Segmenter('water; land', 'hf-hub:ORG/NAME', sensor='sar', {how})",
            encoder=self.record,
            card={
                'library_name': 'open_clip', 'pipeline_tag': 'zero-shot-image-classification',
                'tags': ['remote-sensing', 'sar', 'clip', 'open-vocabulary-segmentation', 'alignearth'],
            },
        )  # fmt: skip

    def _whole_state(self) -> dict[str, Tensor]:
        weights = {f'visual.{key}': value for key, value in merged_state(self.student.visual).items()}
        return weights | self.text_state

    @torch.no_grad()
    def draw(self, optical: Tensor, sar: Tensor, valid: Tensor) -> list[PictureRow]:
        """Both images and the features that each encoder sees in them, in the same colours."""
        tokens = [self._encode(tower, images)[1] for tower, images in ((self.teacher, optical), (self.student, sar))]
        rows = []
        for image, radar, *features in zip(normalise(optical), normalise(sar), *tokens, strict=True):
            seen, learned = principal_components(features)
            rows.append({'optical': to_picture(image), 'sar': to_picture(radar), 'teacher': seen, 'student': learned})
        return rows

    def _encode(self, tower: DenseCLIP, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """[CLS] token (B, C), then patch tokens (B, C, h, w) and outputs (B, width, h, w) of blocks, in float32."""
        outputs: list[Tensor] = []
        cls_token, tokens = tower(
            normalise(images), lambda number, output: outputs.append(output) if number in self.blocks else None
        )
        grid = tower.grid_size(*images.shape[2:])
        maps = [
            part.float().transpose(1, 2).unflatten(2, grid) for part in (tokens, *(output[:, 1:] for output in outputs))
        ]
        return cls_token.float(), maps[0], maps[1:]


def _check_weights(weights: Mapping[str, float], blocks: tuple[int, ...], teacher: DenseCLIP) -> dict[str, float]:
    unknown = sorted(set(weights) - set(LOSSES))
    if unknown:
        raise ConfigError(f'unknown losses {", ".join(unknown)}; known: {", ".join(LOSSES)}')
    used = {name: weight for name, weight in weights.items() if weight}
    if not used or min(used.values()) < 0:
        raise ConfigError(f'loss_weights must be 0 or more, and one of them more than 0; got {dict(weights)}')
    last = len(teacher.visual.transformer.resblocks) - 1
    if 'blocks' in used and (not blocks or not all(1 <= number <= last for number in blocks)):
        raise ConfigError(f"the loss 'blocks' needs blocks, numbers from 1 to {last}; got {tuple(blocks)}")
    return used


def build_student(
    teacher: DenseCLIP, readout: Mapping[str, Any], trainable: Trainable = 'all', activation: str | None = None
) -> DenseCLIP:
    """Copies a teacher, by the settings of :class:`AlignEarthModel`."""
    if activation is not None and activation not in ACTIVATIONS:
        raise ConfigError(f'unknown activation {activation!r}; known: {", ".join(ACTIVATIONS)}, or None')
    visual = copy.deepcopy(teacher.visual)
    if activation is not None:
        for block in visual.transformer.resblocks:
            block.mlp.gelu = ACTIVATIONS[activation]()
    student = DenseCLIP(visual, **readout).requires_grad_(False)
    blocks = list(visual.transformer.resblocks)
    if trainable == 'all':
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
