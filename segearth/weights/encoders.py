"""Encoders: which architecture, which weights, which activation; the rows are in ``catalogue.json``.

A new encoder is a new row, never a branch. The activation is part of the record because weights do not carry it and
open_clip builds plain GELU for ``ViT-B-16`` whatever the weights were trained with: each row states what the original
effectively ran, which is not always what the weights were trained with (CLIPSelf).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segearth.errors import ConfigError, did_you_mean
from segearth.weights.model_folders import describe, is_folder_name
from segearth.weights.records import WeightRecord, read_records

DEFAULT_ENCODERS = {'optical': 'Mini', 'sar': 'MiniSAR'}  # sensor -> of images and scenes of a user's own
ANY_SIZE = 'any'  # vit_type of encoders that exist in one size and stand in for every size that a config asks for


@dataclass(frozen=True, kw_only=True)
class EncoderRecord(WeightRecord):
    """One encoder in one size; its ``group`` is the config key ``clip_type``."""

    vit_type: str  # size, as in the config key: "ViT-B/16"; "base" and "large" for BLIP
    patch_size: int  # side of a square patch in pixels; 0 where the architecture says it
    quick_gelu: bool  # whether the original ran QuickGELU (``x * sigmoid(1.702 x)``) rather than GELU
    model_config: str | None = None  # file of an architecture of our own, in the format of open_clip's model configs
    description: Mapping[str, Any] | None = field(default=None, hash=False)  # of a folder's own model, see describe
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)  # of inference, where a user gives none
    resolution: tuple[float, float] | None = None  # metres a pixel that it knows, from fine to coarse


ENCODERS = read_records('encoders', EncoderRecord)


def clip_types() -> list[str]:
    """Names in the table, in its order."""
    return list(dict.fromkeys(record.group for record in ENCODERS))


def get_record(clip_type: str, vit_type: str | None = None) -> EncoderRecord:
    """Looks an encoder up by a name of the table, or any open_clip architecture name (then the weights are yours).

    ``local-dir:PATH`` and ``hf-hub:ORG/NAME`` name a folder or repository that holds weights and what describes them; a
    UserError says what cannot be read there. Sizes are "ViT-B/16" or "ViT-B-16", for BLIP "base" or "large"; None takes
    the smallest that exists. The embedded encoders, folders and repositories exist in one size and accept every name.
    With an architecture name the size may only repeat what the name says. A ConfigError lists what does exist where the
    name does not, or not in that size.
    """
    if is_folder_name(clip_type):
        return _described_record(clip_type)
    records = [record for record in ENCODERS if record.group == clip_type]
    if not records:
        return _architecture_record(clip_type, vit_type)
    if vit_type is None or records[0].vit_type == ANY_SIZE:
        return records[0]
    for record in records:
        if _normalised(record.vit_type) == _normalised(vit_type):
            return record
    sizes = ', '.join(record.vit_type for record in records)
    raise ConfigError(f'{clip_type} does not exist as {vit_type!r}; vit_type can be: {sizes}')


def _described_record(name: str) -> EncoderRecord:
    description = describe(name)
    config = description['model_cfg']
    return EncoderRecord(
        name=name, group=name, vit_type=name, architecture=name, patch_size=config['vision_cfg'].get('patch_size', 0),
        quick_gelu=bool(config.get('quick_gelu', False)), licence="that of the model's page", description=description,
    )  # fmt: skip


def _architecture_record(architecture: str, vit_type: str | None) -> EncoderRecord:
    import open_clip  # late: takes seconds, and the help of a program does without

    config = open_clip.get_model_config(architecture) if architecture in open_clip.list_models() else None
    if config is None:
        hint = did_you_mean(str(architecture), [*clip_types(), *open_clip.list_models()])
        raise ConfigError(
            f'unknown clip_type {architecture!r}.{hint} Known: {", ".join(clip_types())}; or, with clip_path, any '
            'architecture of open_clip.list_models(), such as ViT-B-16 or ViT-L-14-quickgelu; or hf-hub:ORG/NAME or '
            "local-dir:PATH, with open_clip_config.json or transformers' config.json beside the weights"
        )
    if vit_type is not None and not _normalised(architecture).startswith(_normalised(vit_type)):
        raise ConfigError(
            f'clip_type {architecture!r} is an open_clip architecture and states its size itself, but vit_type is '
            f'{vit_type!r}; set vit_type=None'
        )
    return EncoderRecord(
        name=architecture, group=architecture, vit_type=architecture, architecture=architecture,
        patch_size=config['vision_cfg'].get('patch_size', 0), quick_gelu=bool(config.get('quick_gelu', False)),
        licence='that of your weights',
    )  # fmt: skip


def _normalised(vit_type: str) -> str:
    """Spelling without case and separators; 'B/16' means 'ViT-B/16'."""
    plain = re.sub(r'[-/_ ]', '', str(vit_type)).lower()
    return f'vit{plain}' if re.fullmatch(r'[a-z]+\d+', plain) and not plain.startswith('vit') else plain
