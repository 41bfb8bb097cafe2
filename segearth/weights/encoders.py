"""Table of encoders: which architecture, which weights, which activation, from where, under which licence.

A new encoder is a new row, never a branch. The activation is part of the record because weights do not carry it and
open_clip builds plain GELU for ``ViT-B-16`` whatever the weights were trained with: each row states what the original
effectively ran, which is not always what the weights were trained with (CLIPSelf). Licences are as published beside the
weights; where that was not certain the row says "unknown" and names the page. No checksum is guessed.

Source: SegEarth-OV-2 (arXiv 2508.18067), its list of encoders, pretrained tags and file names.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segearth.errors import ConfigError, did_you_mean
from segearth.weights.records import HUGGING_FACE, OURS, WeightRecord

ANY_SIZE = 'any'  # vit_type of encoders that exist in one size and stand in for every size that a config asks for
TOKENIZER = WeightRecord(  # what BLIP needs beside its weights
    name='BERT-tokenizer', group='BERT-tokenizer', file='bert-base-uncased/vocab.txt', licence='Apache-2.0',
    hub='google-bert/bert-base-uncased/vocab.txt', home=f'{HUGGING_FACE}/google-bert/bert-base-uncased',
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EncoderRecord(WeightRecord):
    """One encoder in one size; its ``group`` is the config key ``clip_type``."""

    vit_type: str  # size, as in the config key: "ViT-B/16"; "base" and "large" for BLIP
    patch_size: int  # side of a square patch in pixels; 0 where the architecture says it
    quick_gelu: bool  # whether the original ran QuickGELU (``x * sigmoid(1.702 x)``) rather than GELU
    model_config: str | None = None  # file of an architecture of our own, in the format of open_clip's model configs

    @property
    def clip_type(self) -> str:
        """Name as in the config key ``clip_type``."""
        return self.group

    @property
    def is_blip(self) -> bool:
        """Whether the encoder is a BLIP, which transformers builds instead of open_clip."""
        return self.architecture is None and self.model_config is None


def _encoder(clip_type: str, vit_type: str, **facts: Any) -> EncoderRecord:
    name = clip_type if vit_type in (ANY_SIZE, clip_type) else f'{clip_type}-{vit_type.replace("/", "-")}'
    return EncoderRecord(name=name, group=clip_type, vit_type=vit_type, **facts)


def _encoders(clip_type: str, sizes: Mapping[str, Mapping[str, Any]], **shared: Any) -> list[EncoderRecord]:
    """The sizes of an encoder; shared facts hold for all of them."""
    shared = {'licence': f'unknown, see {shared["home"]}', **shared}
    return [
        _encoder(clip_type, size, **OPEN_CLIP_SIZES.get(size, {}), **shared, **facts) for size, facts in sizes.items()
    ]


B16, B32, L14, H14 = 'ViT-B/16', 'ViT-B/32', 'ViT-L/14', 'ViT-H/14'
OPEN_CLIP_SIZES: dict[str, dict[str, Any]] = {
    size: {'architecture': size.replace('/', '-'), 'patch_size': int(size[-2:])} for size in (B16, B32, L14, H14)
}
_SKYSCRIPT_FILES = 'https://opendatasharing.s3.us-west-2.amazonaws.com/SkyScript/ckpt'
_SKYSCRIPT = {B32: 'SkyCLIP_ViT_B32_top50pct', L14: 'SkyCLIP_ViT_L14_top30pct_filtered_by_CLIP_laion_RS'}
_BLIP_FILES = 'https://storage.googleapis.com/sfr-vision-language-research/BLIP/models'
_DEMO: dict[str, Any] = dict(
    patch_size=0, quick_gelu=False, model_config='demo/demo_clip.json', home=OURS, licence='Apache-2.0',
    paper=f'none: a small demonstration model, see {OURS}',
)  # fmt: skip

ENCODERS: tuple[EncoderRecord, ...] = (
    *_encoders('CLIP', {B16: {}, L14: {}}, tag='openai', quick_gelu=True, home='https://github.com/openai/CLIP',
               licence='MIT', paper='CLIP, arXiv 2103.00020'),
    *_encoders('OpenCLIP', {B16: {'tag': 'laion2b_s34b_b88k'}, L14: {'tag': 'laion2b_s32b_b82k'}}, quick_gelu=False,
               home='https://github.com/mlfoundations/open_clip', licence='MIT', paper='OpenCLIP, arXiv 2212.07143'),
    *_encoders('MetaCLIP', {B16: {}, L14: {}}, tag='metaclip_fullcc', quick_gelu=True, licence='CC-BY-NC-4.0',
               home='https://github.com/facebookresearch/MetaCLIP', paper='MetaCLIP, arXiv 2309.16671'),
    *_encoders('CLIPSelf', {B16: {'file': 'openai_vitb16_coco_clipself_patches.pt'}}, quick_gelu=False,
               home='https://github.com/wusize/CLIPSelf', paper='CLIPSelf, arXiv 2310.01403'),
    *_encoders('AlignEarth', {B16: {'file': 'AlignEarth-SAR-ViT-B-16.pt'}}, quick_gelu=False,
               hub='likyoo/AlignEarth-SAR-ViT-B-16/AlignEarth-SAR-ViT-B-16.pt',
               licence=f'unknown, see {HUGGING_FACE}/likyoo/AlignEarth-SAR-ViT-B-16',
               home='https://github.com/earth-insights/SegEarth-OV-2', paper='SegEarth-OV-2, arXiv 2508.18067'),
    *_encoders('RemoteCLIP', {
        B32: {'file': 'RemoteCLIP-ViT-B-32.pt', 'hub': 'chendelong/RemoteCLIP/RemoteCLIP-ViT-B-32.pt'},
        L14: {'file': 'RemoteCLIP-ViT-L-14.pt', 'hub': 'chendelong/RemoteCLIP/RemoteCLIP-ViT-L-14.pt'},
    }, quick_gelu=False, home='https://github.com/ChenDelong1999/RemoteCLIP', licence='Apache-2.0',
               paper='RemoteCLIP, arXiv 2306.11029'),
    *_encoders('GeoRSCLIP', {
        B32: {'file': 'RS5M_ViT-B-32.pt', 'hub': 'Zilun/GeoRSCLIP/ckpt/RS5M_ViT-B-32.pt'},
        L14: {'file': 'RS5M_ViT-L-14.pt', 'hub': 'Zilun/GeoRSCLIP/ckpt/RS5M_ViT-L-14.pt'},
        H14: {'file': 'RS5M_ViT-H-14.pt', 'hub': 'Zilun/GeoRSCLIP/ckpt/RS5M_ViT-H-14.pt'},
    }, quick_gelu=False, home='https://github.com/om-ai-lab/RS5M', paper='RS5M and GeoRSCLIP, arXiv 2306.11300',
               licence=f'unknown, see {HUGGING_FACE}/Zilun/GeoRSCLIP'),
    *_encoders('SkyCLIP', {
        size: {'file': f'{name}/epoch_20.pt', 'url': f'{_SKYSCRIPT_FILES}/{name}.zip'}
        for size, name in _SKYSCRIPT.items()
    }, quick_gelu=False, home='https://github.com/wangzhecheng/SkyScript', paper='SkyScript, arXiv 2312.12856'),
    *_encoders('ALIP', {B32: {'file': 'ALIP_YFCC15M_B32.pt'}}, quick_gelu=False,
               home='https://github.com/deepglint/ALIP', paper='ALIP, arXiv 2308.08428'),
    *_encoders('BLIP', {
        'base': {'file': 'model_base_14M.pth', 'url': f'{_BLIP_FILES}/model_base_14M.pth'},
        'large': {'file': 'model_large.pth', 'url': f'{_BLIP_FILES}/model_large.pth'},
    }, patch_size=16, quick_gelu=False, needs=(TOKENIZER.name,), home='https://github.com/salesforce/BLIP',
               licence='BSD-3-Clause', paper='BLIP, arXiv 2201.12086'),
    *_encoders('Demo', {ANY_SIZE: {'file': 'demo/demo_clip.safetensors'}}, **_DEMO),
    *_encoders('DemoSAR', {ANY_SIZE: {'file': 'demo/demo_sar.safetensors'}}, **_DEMO),
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
    import open_clip  # late: takes seconds, and the help of a program does without

    config = open_clip.get_model_config(architecture) if architecture in open_clip.list_models() else None
    if config is None:
        hint = did_you_mean(str(architecture), [*clip_types(), *open_clip.list_models()])
        raise ConfigError(
            f'unknown clip_type {architecture!r}.{hint} Known: {", ".join(clip_types())}; or, with clip_path, any '
            'architecture of open_clip.list_models(), such as ViT-B-16 or ViT-L-14-quickgelu'
        )
    if vit_type is not None and not _normalised(architecture).startswith(_normalised(vit_type)):
        raise ConfigError(
            f'clip_type {architecture!r} is an open_clip architecture and states its size itself, but vit_type is '
            f'{vit_type!r}; set vit_type=None'
        )
    return _encoder(
        architecture, architecture, architecture=architecture, patch_size=config['vision_cfg'].get('patch_size', 0),
        quick_gelu=bool(config.get('quick_gelu', False)), licence='that of your weights',
    )  # fmt: skip


def _normalised(vit_type: str) -> str:
    """Spelling without case and separators; 'B/16' means 'ViT-B/16'."""
    plain = re.sub(r'[-/_ ]', '', str(vit_type)).lower()
    return f'vit{plain}' if re.fullmatch(r'[a-z]+\d+', plain) and not plain.startswith('vit') else plain
