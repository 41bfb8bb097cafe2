"""Table of encoders: which architecture, which weights, which activation, from where, under which licence.

First thing looked up by :mod:`segearth.models.build`; ``tools/download_weights.py`` reads the same records. A new
encoder is a new row, never a branch. The activation is part of the record because weights do not carry it and
open_clip builds plain GELU for ``ViT-B-16`` whatever the weights were trained with: each row states what the
original effectively ran, which is not always what the weights were trained with (CLIPSelf).

Licences: as published beside the weights; where that was not certain the row says "unknown" and names the page.
Checksums: none of the publishers' sha256 is known to us except where a row states one; none is guessed.

Source: SegEarth-OV-2 (arXiv 2508.18067), its list of encoders, pretrained tags and file names.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any

import open_clip

from segearth.errors import ConfigError
from segearth.paths import program_command, restore_remedy

ANY_SIZE = 'any'
"""vit_type of the encoders that exist in one size and stand in for every size that a config asks for."""

HUGGING_FACE = 'https://huggingface.co'


@dataclass(frozen=True)
class EncoderRecord:
    """One encoder in one size.

    Attributes:
        clip_type: Name as in the config key ``clip_type``.
        vit_type: Size as in the config key ``vit_type`` ("ViT-B/16"; "base" and "large" for BLIP).
        architecture: open_clip architecture name; None for BLIP and where :attr:`model_config` describes it.
        patch_size: Side of a square patch in pixels; 0 where the architecture says it.
        quick_gelu: Whether the original ran QuickGELU (``x * sigmoid(1.702 x)``) rather than GELU.
        tag: Pretrained tag of open_clip, which then finds and caches the weights itself.
        file: Weight file, relative to a weights folder; None with a tag or where ``clip_path`` must be given.
        model_config: JSON file of an architecture of our own, relative to a weights folder, in the format of
            open_clip's model configs.
        hf_repo: Hugging Face repository of the weights.
        hf_file: File in it.
        url: Address of the weights where they are no Hugging Face file; a .zip holds the file as a member.
        home: Page of the project that publishes the weights.
        sha256: Checksum of the file where it is known.
        licence: Licence of the weights.
        paper: Where the encoder is described.
    """

    clip_type: str
    vit_type: str
    architecture: str | None
    patch_size: int
    quick_gelu: bool
    tag: str | None = None
    file: str | None = None
    model_config: str | None = None
    hf_repo: str | None = None
    hf_file: str | None = None
    url: str | None = None
    home: str = ''
    sha256: str | None = None
    licence: str = ''
    paper: str = ''

    @property
    def name(self) -> str:
        """Name for people and command lines, such as RemoteCLIP-ViT-B-32."""
        if self.vit_type == ANY_SIZE or self.clip_type == self.vit_type:
            return self.clip_type
        return f'{self.clip_type}-{self.vit_type.replace("/", "-")}'

    @property
    def is_blip(self) -> bool:
        """Whether the encoder is a BLIP, which transformers builds instead of open_clip."""
        return self.architecture is None and self.model_config is None

    @property
    def address(self) -> str:
        """Where a person finds the weights: the file itself if it can be fetched, else the project's page."""
        if self.hf_repo and self.hf_file:
            return f'{HUGGING_FACE}/{self.hf_repo} ({self.hf_file})'
        return self.url or self.home

    @property
    def remedy(self) -> str:
        """What to do when the weights are missing."""
        if self.model_config:
            return restore_remedy('weights/demo')
        if self.tag or (self.hf_repo and self.hf_file) or self.url:
            return f'Get them with "{program_command("download_weights")} {self.name}" (from {self.address}).'
        if self.file:
            return (
                f'They cannot be fetched by a program: get them from {self.home} and save them as weights/{self.file}.'
            )
        return 'Give the path of your own weight file as clip_path.'


def _unknown(page: str) -> str:
    return f'unknown, see {page}'


_OPENAI: dict[str, Any] = dict(
    clip_type='CLIP', quick_gelu=True, tag='openai',
    home='https://github.com/openai/CLIP', licence='MIT', paper='CLIP, arXiv 2103.00020',
)  # fmt: skip
_LAION: dict[str, Any] = dict(
    clip_type='OpenCLIP', quick_gelu=False,
    home='https://github.com/mlfoundations/open_clip', licence='MIT', paper='OpenCLIP, arXiv 2212.07143',
)  # fmt: skip
_METACLIP: dict[str, Any] = dict(
    clip_type='MetaCLIP', quick_gelu=True, tag='metaclip_fullcc',
    home='https://github.com/facebookresearch/MetaCLIP', licence='CC-BY-NC-4.0', paper='MetaCLIP, arXiv 2309.16671',
)  # fmt: skip
_REMOTECLIP: dict[str, Any] = dict(
    clip_type='RemoteCLIP', quick_gelu=False, hf_repo='chendelong/RemoteCLIP',
    home='https://github.com/ChenDelong1999/RemoteCLIP', licence='Apache-2.0', paper='RemoteCLIP, arXiv 2306.11029',
)  # fmt: skip
_GEORSCLIP: dict[str, Any] = dict(
    clip_type='GeoRSCLIP', quick_gelu=False, hf_repo='Zilun/GeoRSCLIP',
    home='https://github.com/om-ai-lab/RS5M', licence=_unknown(f'{HUGGING_FACE}/Zilun/GeoRSCLIP'),
    paper='RS5M and GeoRSCLIP, arXiv 2306.11300',
)  # fmt: skip
_SKYCLIP: dict[str, Any] = dict(
    clip_type='SkyCLIP', quick_gelu=False,
    home='https://github.com/wangzhecheng/SkyScript', licence=_unknown('https://github.com/wangzhecheng/SkyScript'),
    paper='SkyScript, arXiv 2312.12856',
)  # fmt: skip
_SKYSCRIPT_FILES = 'https://opendatasharing.s3.us-west-2.amazonaws.com/SkyScript/ckpt'
_BLIP: dict[str, Any] = dict(
    clip_type='BLIP', architecture=None, patch_size=16, quick_gelu=False,
    home='https://github.com/salesforce/BLIP', licence='BSD-3-Clause', paper='BLIP, arXiv 2201.12086',
)  # fmt: skip
_BLIP_FILES = 'https://storage.googleapis.com/sfr-vision-language-research/BLIP/models'
_DEMO: dict[str, Any] = dict(
    vit_type=ANY_SIZE, architecture=None, patch_size=0, quick_gelu=False, model_config='demo/demo_clip.json',
    home='weights/README.md', licence='Apache-2.0', paper='none: a small demonstration model, see weights/README.md',
)  # fmt: skip
_B16: dict[str, Any] = dict(vit_type='ViT-B/16', architecture='ViT-B-16', patch_size=16)
_B32: dict[str, Any] = dict(vit_type='ViT-B/32', architecture='ViT-B-32', patch_size=32)
_L14: dict[str, Any] = dict(vit_type='ViT-L/14', architecture='ViT-L-14', patch_size=14)
_H14: dict[str, Any] = dict(vit_type='ViT-H/14', architecture='ViT-H-14', patch_size=14)

ENCODERS: tuple[EncoderRecord, ...] = (
    EncoderRecord(**_OPENAI, **_B16),
    EncoderRecord(**_OPENAI, **_L14),
    EncoderRecord(**_LAION, **_B16, tag='laion2b_s34b_b88k'),
    EncoderRecord(**_LAION, **_L14, tag='laion2b_s32b_b82k'),
    EncoderRecord(**_METACLIP, **_B16),
    EncoderRecord(**_METACLIP, **_L14),
    EncoderRecord(
        'CLIPSelf', **_B16, quick_gelu=False, file='openai_vitb16_coco_clipself_patches.pt',
        home='https://github.com/wusize/CLIPSelf', licence=_unknown('https://github.com/wusize/CLIPSelf'),
        paper='CLIPSelf, arXiv 2310.01403',
    ),
    EncoderRecord(
        'AlignEarth', **_B16, quick_gelu=False, file='AlignEarth-SAR-ViT-B-16.pt',
        hf_repo='likyoo/AlignEarth-SAR-ViT-B-16', hf_file='AlignEarth-SAR-ViT-B-16.pt',
        home='https://github.com/earth-insights/SegEarth-OV-2',
        licence=_unknown(f'{HUGGING_FACE}/likyoo/AlignEarth-SAR-ViT-B-16'),
        paper='SegEarth-OV-2, arXiv 2508.18067',
    ),
    EncoderRecord(**_REMOTECLIP, **_B32, file='RemoteCLIP-ViT-B-32.pt', hf_file='RemoteCLIP-ViT-B-32.pt'),
    EncoderRecord(**_REMOTECLIP, **_L14, file='RemoteCLIP-ViT-L-14.pt', hf_file='RemoteCLIP-ViT-L-14.pt'),
    EncoderRecord(**_GEORSCLIP, **_B32, file='RS5M_ViT-B-32.pt', hf_file='ckpt/RS5M_ViT-B-32.pt'),
    EncoderRecord(**_GEORSCLIP, **_L14, file='RS5M_ViT-L-14.pt', hf_file='ckpt/RS5M_ViT-L-14.pt'),
    EncoderRecord(**_GEORSCLIP, **_H14, file='RS5M_ViT-H-14.pt', hf_file='ckpt/RS5M_ViT-H-14.pt'),
    EncoderRecord(
        **_SKYCLIP, **_B32, file='SkyCLIP_ViT_B32_top50pct/epoch_20.pt',
        url=f'{_SKYSCRIPT_FILES}/SkyCLIP_ViT_B32_top50pct.zip',
    ),
    EncoderRecord(
        **_SKYCLIP, **_L14, file='SkyCLIP_ViT_L14_top30pct_filtered_by_CLIP_laion_RS/epoch_20.pt',
        url=f'{_SKYSCRIPT_FILES}/SkyCLIP_ViT_L14_top30pct_filtered_by_CLIP_laion_RS.zip',
    ),
    EncoderRecord(
        'ALIP', **_B32, quick_gelu=False, file='ALIP_YFCC15M_B32.pt',
        home='https://github.com/deepglint/ALIP', licence=_unknown('https://github.com/deepglint/ALIP'),
        paper='ALIP, arXiv 2308.08428',
    ),
    EncoderRecord(**_BLIP, vit_type='base', file='model_base_14M.pth', url=f'{_BLIP_FILES}/model_base_14M.pth'),
    EncoderRecord(**_BLIP, vit_type='large', file='model_large.pth', url=f'{_BLIP_FILES}/model_large.pth'),
    EncoderRecord('Demo', **_DEMO, file='demo/demo_clip.safetensors'),
    EncoderRecord('DemoSAR', **_DEMO, file='demo/demo_sar.safetensors'),
)  # fmt: skip


def clip_types() -> list[str]:
    """Names in the table, in its order."""
    return list(dict.fromkeys(record.clip_type for record in ENCODERS))


def get_record(clip_type: str, vit_type: str | None = None) -> EncoderRecord:
    """Looks an encoder up.

    Args:
        clip_type: A name of the table, or any open_clip architecture name (then the weights are the caller's).
        vit_type: Size, "ViT-B/16" or "ViT-B-16"; "base" or "large" for BLIP. None takes the smallest that exists.
            The demo encoders exist in one size and accept every name. With an architecture name it may only repeat
            the size that the name says.

    Raises:
        ConfigError: The name is unknown, or does not exist in that size; the message lists what does exist.
    """
    records = [record for record in ENCODERS if record.clip_type == clip_type]
    if not records:
        return _architecture_record(clip_type, vit_type)
    if vit_type is None or records[0].vit_type == ANY_SIZE:
        return records[0]
    for record in records:
        if _normalised(record.vit_type) == _normalised(vit_type):
            return record
    sizes = ', '.join(record.vit_type for record in records)
    raise ConfigError(f'{clip_type} does not exist as {vit_type!r}; vit_type can be: {sizes}')


def _architecture_record(architecture: str, vit_type: str | None) -> EncoderRecord:
    config = open_clip.get_model_config(architecture) if architecture in open_clip.list_models() else None
    if config is None:
        near = difflib.get_close_matches(str(architecture), [*clip_types(), *open_clip.list_models()], n=3, cutoff=0.5)
        hint = f' Did you mean {" or ".join(near)}?' if near else ''
        raise ConfigError(
            f'unknown clip_type {architecture!r}.{hint} Known: {", ".join(clip_types())}; or, with clip_path, any '
            'architecture of open_clip.list_models(), such as ViT-B-16 or ViT-L-14-quickgelu'
        )
    if vit_type is not None and not _normalised(architecture).startswith(_normalised(vit_type)):
        raise ConfigError(
            f'clip_type {architecture!r} is an open_clip architecture and states its size itself, but vit_type is '
            f'{vit_type!r}; set vit_type=None'
        )
    patch_size = config['vision_cfg'].get('patch_size', 0)
    quick_gelu = bool(config.get('quick_gelu', False))
    return EncoderRecord(
        architecture, architecture, architecture, patch_size, quick_gelu, licence='that of your weights'
    )


def _normalised(vit_type: str) -> str:
    """Spelling without case and separators; 'B/16' means 'ViT-B/16'."""
    plain = re.sub(r'[-/_ ]', '', str(vit_type)).lower()
    return f'vit{plain}' if re.fullmatch(r'[a-z]+\d+', plain) and not plain.startswith('vit') else plain
