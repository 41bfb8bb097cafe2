"""AlignEarth as mmengine trains it: teacher, student, weighted losses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor

from segearth.alignearth.losses import (
    CONTRAST_TEMPERATURE,
    MATCH_TEMPERATURE,
    dense_alignment,
    global_cosine,
    info_nce,
    relational,
    valid_cells,
)
from segearth.alignearth.student import build_student, merged_state
from segearth.errors import ConfigError
from segearth.io.atomic import write_bytes
from segearth.models.build import ClipTextTower, build_encoder, weights_file
from segearth.models.dense_clip import DenseCLIP
from segearth.training.checkpoints import save_weights
from segearth.training.data import normalise
from segearth.training.monitor import PictureRow, principal_components, to_picture
from segearth.training.upsampler import FrozenEncoderModel

LOSSES = ('global_cosine', 'info_nce', 'dense', 'relational', 'blocks')
DEFAULT_WEIGHTS = {'global_cosine': 1.0, 'dense': 1.0}


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
        match_temperature: See :func:`segearth.alignearth.losses.dense_alignment`.
        contrast_temperature: See :func:`segearth.alignearth.losses.info_nce`.
        trainable: See :func:`segearth.alignearth.student.build_student`.
        activation: See :func:`segearth.alignearth.student.build_student`.
        size: As for :class:`segearth.training.upsampler.FrozenEncoderModel`.
        precision: As for :class:`segearth.training.upsampler.FrozenEncoderModel`.

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
        match_temperature: float = MATCH_TEMPERATURE,
        contrast_temperature: float = CONTRAST_TEMPERATURE,
        trainable: str | int | Mapping[str, int] = 'all',
        activation: str | None = None,
        size: int = 224,
        precision: str = 'fp32',
    ) -> None:
        encoder = build_encoder(**teacher, precision='fp32')
        super().__init__(encoder.visual, size, precision)
        if not isinstance(encoder.visual, DenseCLIP):
            raise ConfigError(f'the teacher must be an open_clip ViT; {encoder.record.name} is none')
        self.teacher = encoder.visual
        names = ('attention', 'ignore_residual', 'num_readout_blocks')
        readout = {name: getattr(self.teacher, name) for name in names} | dict(student or {})
        unknown = sorted(set(readout) - set(names))
        if unknown:
            raise ConfigError(f'unknown keys in model.student: {", ".join(unknown)}; known: {", ".join(names)}')
        self.student = build_student(self.teacher, readout, trainable, activation)
        assert isinstance(encoder.encode_text, ClipTextTower)  # as the tower is a DenseCLIP
        self.text_state = encoder.encode_text.model.state_dict()
        config = weights_file(encoder.record, teacher.get('clip_path')).with_suffix('.json')
        self.model_config = config if encoder.record.model_config and config.is_file() else None
        self.loss_weights = _check_weights(loss_weights or DEFAULT_WEIGHTS, blocks, self.teacher)
        self.blocks, self.radius = tuple(blocks), radius
        self.match_temperature, self.contrast_temperature = match_temperature, contrast_temperature

    def forward(self, optical: Tensor, sar: Tensor, valid: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        """The weighted losses.

        Args:
            optical: (B, 3, H, W) uint8, RGB.
            sar: (B, 3, H, W) uint8, as :mod:`segearth.io.pictures` makes it.
            valid: (B, H, W) bool, pixels with data in both.
            mode: 'loss'; mmengine asks for nothing else.
        """
        with self.autocast(sar):
            with torch.no_grad():
                teacher_cls, teacher_tokens, teacher_blocks = self._encode(self.teacher, optical)
            student_cls, student_tokens, student_blocks = self._encode(self.student, sar)
        height, width = student_tokens.shape[2:]
        cells = valid_cells(valid, (height, width))
        window = (cells, self.radius, self.match_temperature)
        terms = {
            'global_cosine': lambda: global_cosine(student_cls, teacher_cls),
            'info_nce': lambda: info_nce(student_cls, teacher_cls, self.contrast_temperature),
            'dense': lambda: dense_alignment(student_tokens, teacher_tokens, *window),
            'relational': lambda: relational(student_tokens, teacher_tokens, cells),
            'blocks': lambda: self._align_blocks(student_blocks, teacher_blocks, window),
        }
        return {f'loss_{name}': weight * terms[name]() for name, weight in self.loss_weights.items()}

    def export(self, folder: Path, name: str) -> list[Path]:
        """Writes the whole open_clip model, the teacher's text tower included: NAME.pt and NAME.safetensors.

        For an architecture of our own its model config goes beside them.
        """
        weights = {f'visual.{key}': value for key, value in merged_state(self.student.visual).items()}
        weights |= self.text_state
        paths = save_weights(folder, (f'{name}.pt', f'{name}.safetensors'), weights)
        if self.model_config is not None:
            write_bytes(folder / f'{name}.json', self.model_config.read_bytes())
        return paths

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
        """[CLS] token (B, C) and patch tokens as maps (B, C, h, w), in float32; outputs (B, 1 + N, width) of blocks."""
        outputs = []
        cls_token, tokens = tower(
            normalise(images), lambda number, output: outputs.append(output) if number in self.blocks else None
        )
        grid = tower.grid_size(*images.shape[2:])
        return cls_token.float(), tokens.float().transpose(1, 2).unflatten(2, grid), outputs

    def _align_blocks(self, student: list[Tensor], teacher: list[Tensor], window: tuple) -> Tensor:
        grid = window[0].shape[1:]
        losses = [
            dense_alignment(*(part[:, 1:].float().transpose(1, 2).unflatten(2, grid) for part in pair), *window)
            for pair in zip(student, teacher, strict=True)
        ]
        return torch.stack(losses).mean()


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
