"""Table of upsampler weights: which file, for which encoder's features, from where, under which licence.

Source: SegEarth-OV (arXiv 2410.01768) for jbu_one, FeatUp (arXiv 2403.10516) for jbu_stack.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segearth.weights.records import OURS, Checksum, WeightRecord


@dataclass(frozen=True, kw_only=True)
class UpsamplerRecord(WeightRecord):
    """One weight file of an upsampler; its ``group`` is a key of :data:`simfeatup.UPSAMPLERS`."""

    file: str
    dim: int  # channels of the features it was trained for
    encoder: str  # whose features it was trained on


_FEATUP_FILES = 'https://marhamilresearch4.blob.core.windows.net/feature-upsampling-public/pretrained'
_FEATUP: dict[str, Any] = dict(
    group='jbu_stack', dim=512, home='https://github.com/mhamilton723/FeatUp', licence='MIT',
    paper='FeatUp, arXiv 2403.10516',
)  # fmt: skip

UPSAMPLER_WEIGHTS: tuple[UpsamplerRecord, ...] = (
    UpsamplerRecord(
        name='SimFeatUp-jbu_one', group='jbu_one', file='xclip_jbu_one_million_aid.ckpt', dim=512,
        encoder='CLIP ViT-B/16', paper='SegEarth-OV, arXiv 2410.01768',
        # HEAD is whatever branch the repository shows first
        url='https://raw.githubusercontent.com/likyoo/SegEarth-OV/HEAD/simfeatup_dev/weights/xclip_jbu_one_million_aid.ckpt',
        home='https://github.com/likyoo/SegEarth-OV', licence='unknown, see https://github.com/likyoo/SegEarth-OV',
        checksum=Checksum('git blob', 'd40f00838331331faa04a926ea5991f5203f91a8'),
    ),
    UpsamplerRecord(
        **_FEATUP, name='FeatUp-jbu_stack-CLIP', file='clip_jbu_stack_cocostuff.ckpt', encoder='CLIP ViT-B/16',
        url=f'{_FEATUP_FILES}/clip_jbu_stack_cocostuff.ckpt',  # the checksum is of a copy of the release
        checksum=Checksum('sha256', '38ce7487c648d01cf37beb005f464410c498008fea03e6a68a269d79e4e29622'),
    ),
    UpsamplerRecord(
        **_FEATUP, name='FeatUp-jbu_stack-MaskCLIP', file='maskclip_jbu_stack_cocostuff.ckpt',
        encoder='MaskCLIP ViT-B/16', url=f'{_FEATUP_FILES}/maskclip_jbu_stack_cocostuff.ckpt',
    ),
    UpsamplerRecord(
        name='Demo-jbu_one', group='jbu_one', file='demo/demo_jbu_one.safetensors', dim=128, encoder='Demo',
        home=OURS, licence='Apache-2.0', paper='none: trained by tools/train_simfeatup.py',
    ),
)  # fmt: skip


def upsampler_record(path: str | os.PathLike[str]) -> UpsamplerRecord | None:
    """The record of a released file, by its name alone (the original's configs name another folder), or None."""
    return next((record for record in UPSAMPLER_WEIGHTS if Path(record.file).name == Path(str(path)).name), None)
