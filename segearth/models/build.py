"""From a name to a frozen encoder: record, architecture, weights, dense vision tower, text tower.

open_clip builds the architecture with the activation that the record states (its own default is GELU whatever the
weights were trained with); BLIP comes from transformers (blip.py).
"""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import open_clip
import torch
from huggingface_hub import constants
from open_clip.model import CLIP, CLIPVisionCfg, CustomTextCLIP, convert_to_custom_text_state_dict
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.utils import to_2tuple
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from segearth.device import is_slow_on_cpu, plain_torch
from segearth.errors import CheckpointError, ConfigError, MissingFileError
from segearth.models.checkpoints import load_state_dict, read_state_dict, tensors_digest
from segearth.models.dense_clip import DenseCLIP
from segearth.paths import find_file, weights_folders
from segearth.weights.encoders import ENCODERS, EncoderRecord, get_record
from segearth.weights.model_folders import ModelFolder, check_model_config, read_json
from segearth.weights.sources import fetch_tag
from segearth.weights.transfer import DownloadError
from simfeatup.archives import is_torchscript

if TYPE_CHECKING:
    from segearth.models.blip import BlipTextTower, DenseBLIP

logger = logging.getLogger(__name__)

NORMALISATION = {'mean': open_clip.OPENAI_DATASET_MEAN, 'std': open_clip.OPENAI_DATASET_STD}
PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
AUTO = 'auto'
AUTO_PRECISION = {'cuda': 'fp16'}
"""Device type -> precision of :data:`AUTO`: fp16 on CUDA, as the original ran; fp32 everywhere else."""
DEFAULT_READOUT = {'attention': 'SegEarth', 'ignore_residual': True, 'num_readout_blocks': 1, 'readout_layers': None}

SLOW = 'Precision %s is slower than fp32 here: this processor has no instructions for it.'
_say_slow = cache(partial(logger.warning, SLOW))  # once a process


@dataclass
class Encoder:
    """A frozen image encoder and the text encoder of the same space."""

    visual: DenseCLIP | DenseBLIP  # (B, 3, H, W) -> [CLS] token (B, C) and patch tokens (B, N, C)
    text: ClipTextTower | BlipTextTower  # N phrases -> (N, C), float32, not normalised, on the encoder's device
    description: Mapping[str, Any]  # of an open_clip model, as segearth.weights.model_folders.describe gives it
    fingerprint: str  # hash of the text tower's weights and settings; equal ones give equal text embeddings
    record: EncoderRecord


class ClipTextTower(nn.Module):
    """Phrases to text embeddings through an open_clip model whose vision tower was taken out."""

    def __init__(self, model: CLIP | CustomTextCLIP, tokenizer: Any) -> None:
        super().__init__()
        self.model: CLIP | CustomTextCLIP = model
        self.tokenizer = tokenizer

    @torch.no_grad()
    def forward(self, phrases: Sequence[str]) -> Tensor:
        """Embeds N phrases; returns (N, C), not normalised."""
        tokens = self.tokenizer(list(phrases))
        return self.model.encode_text(tokens.to(self.model.logit_scale.device))

    @property
    def max_tokens(self) -> int:
        """Number of tokens that are read of a text."""
        return self.tokenizer.context_length

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, marks of beginning and end included, uncut."""
        tokenizer = self.tokenizer
        if hasattr(tokenizer, 'tokenizer'):  # one of transformers inside of open_clip's
            return tokenizer.tokenizer(tokenizer.clean_fn(text), verbose=False)['input_ids']
        return [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]


@plain_torch()
def build_encoder(
    clip_type: str,
    vit_type: str | None = None,
    clip_path: str | None = None,
    device: str | torch.device | None = None,
    precision: str = AUTO,
    **readout: Any,
) -> Encoder:
    """Builds a frozen encoder with its weights.

    Args:
        clip_type: Name of an encoder record, or any open_clip ViT architecture (then with ``clip_path``), or
            ``local-dir:PATH`` or ``hf-hub:ORG/NAME``, a model of somebody's own (see get_record).
        vit_type: Size, such as ``ViT-B/16``, see :func:`segearth.weights.encoders.get_record`; None for the first.
        clip_path: Weight file that replaces the record's: a path, or a name below a weights folder. Of the demo
            architecture a ``.json`` beside the file, of the same name, replaces the record's model config too.
        device: Where the towers go; None for the CPU.
        precision: Of the vision tower: "fp32", "bf16", "fp16", or "auto" for fp16 on CUDA and fp32 elsewhere. The
            text tower stays in fp32: it runs once.
        **readout: ``attention``, ``ignore_residual``, ``num_readout_blocks`` of
            :class:`segearth.models.dense_clip.DenseCLIP`; BLIP has a read-out of its own and takes no other.

    Raises:
        ConfigError: Unknown name, size, attention or precision, or an architecture that cannot be read out densely.
        MissingFileError: The weights are not there; the message says where they were looked for and how to get them.
        CheckpointError: The weights cannot be read or do not fit.
    """
    dtype = resolve_precision(precision, device)
    record = get_record(clip_type, vit_type)
    if record.architecture is None and record.model_config is None:  # a BLIP, which transformers builds
        if DEFAULT_READOUT | readout != DEFAULT_READOUT:
            logger.warning('BLIP has one dense read-out; %s is ignored', readout)
        parts: tuple[Any, Any, Mapping[str, Any]] = _build_blip(record, clip_path)
    else:
        parts = _build_clip(record, clip_path, readout)
    visual, text, description = parts
    config = description.get('model_cfg', description)
    settings = {key: config[key] for key in ('text_cfg', 'quick_gelu', 'tokens') if key in config}
    visual = visual.to(device=device, dtype=dtype).requires_grad_(False).eval()
    fingerprint = tensors_digest(text.state_dict(), json.dumps(settings, sort_keys=True, default=str).encode())
    text = text.to(device).requires_grad_(False).eval()
    return Encoder(visual, text, description, fingerprint, record)


def weights_file(record: EncoderRecord, clip_path: str | None = None) -> Path:
    """The file with an encoder's weights; pretrained tags are resolved, and fetched if need be, by open_clip.

    A ConfigError refuses a bare architecture without a ``clip_path``; a MissingFileError says that the file is not
    there or could not be fetched.
    """
    what = f'weight file of {record.name}'
    if clip_path is not None:
        return find_file(clip_path, [Path(), *weights_folders()], what, 'Check clip_path.')
    if record.description is not None:
        return ModelFolder(record.name).weights()
    if record.file is not None:
        return find_file(record.file, weights_folders(), what, record.remedy)
    if record.tag is None:
        base = (record.architecture or '').removesuffix('-quickgelu')
        tags = ', '.join(entry.name for entry in ENCODERS if entry.architecture == base)
        raise ConfigError(
            f'clip_type {record.group!r} is an architecture without weights: give your weight file as clip_path'
            + (f', or use one of the encoders of this architecture: {tags}' if tags else '')
        )
    try:
        return fetch_tag(record)
    except DownloadError as error:
        raise MissingFileError(
            f'{what} not found: it is not in the cache ({constants.HF_HUB_CACHE}), and {error}. '
            f'{record.remedy} Or give a file as clip_path.'
        ) from error


def resolve_precision(precision: str, device: str | torch.device | None) -> torch.dtype:
    """The dtype that a precision's name means on a device; :data:`AUTO` depends on the device."""
    if precision == AUTO:
        precision = AUTO_PRECISION.get(torch.device(device or 'cpu').type, 'fp32')
    if precision not in PRECISIONS:
        raise ConfigError(f'unknown precision {precision!r}; known: {", ".join(PRECISIONS)}, {AUTO}')
    dtype = PRECISIONS[precision]
    if torch.device(device or 'cpu').type == 'cpu' and is_slow_on_cpu(dtype):
        _say_slow(precision)
    return dtype


def _build_clip(
    record: EncoderRecord, clip_path: str | None, readout: Mapping[str, Any]
) -> tuple[DenseCLIP, ClipTextTower, dict]:
    description: dict[str, Any] = copy.deepcopy(dict(record.description or {}))
    if not record.model_config:
        if not description:
            description = {'model_cfg': open_clip.get_model_config(record.architecture), 'preprocess_cfg': {}}
        description['model_cfg']['quick_gelu'] = record.quick_gelu
        # Refuses before any file is touched
        DenseCLIP(_instantiate(description['model_cfg'], record, device='meta').visual, **readout)
    path = weights_file(record, clip_path)
    description = description or {'model_cfg': _own_config(record, path), 'preprocess_cfg': {}}
    config = description['model_cfg']
    state_dict = read_state_dict(path)
    if is_torchscript(path) and not config.get('quick_gelu', False):
        logger.warning(
            '%s is a TorchScript archive, as OpenAI published CLIP trained with QuickGELU, but %s runs GELU; '
            'use clip_type CLIP, or the architecture name with -quickgelu',
            path,
            record.name,
        )
    _take_positions(config, state_dict, path)
    model = _instantiate(config, record)
    load_state_dict(model, _aligned(state_dict, model), path, record.architecture or record.name)
    description['preprocess_cfg'] = NORMALISATION | description['preprocess_cfg']
    open_clip.set_model_preprocess_cfg(model, description['preprocess_cfg'])
    visual = DenseCLIP(model.visual, **readout)
    del model.visual
    return visual, ClipTextTower(model, _tokenizer(record, config['text_cfg'], model)), description


def _build_blip(record: EncoderRecord, clip_path: str | None) -> tuple[DenseBLIP, BlipTextTower, dict]:
    # Importing transformers' models takes more than a second, which only BLIP needs.
    from segearth.models.blip import BlipTextTower, DenseBLIP, build_blip_towers, convert_blip_names, load_tokenizer

    path = weights_file(record, clip_path)
    tokenizer = load_tokenizer()
    state_dict = convert_blip_names(read_state_dict(path))
    towers = build_blip_towers(record.vit_type, state_dict, str(path))
    load_state_dict(towers, state_dict, path, record.name)
    visual = DenseBLIP(towers.vision_model, towers.vision_proj)
    return visual, BlipTextTower(towers.text_encoder, towers.text_proj, tokenizer), {'tokens': len(tokenizer)}


def _own_config(record: EncoderRecord, path: Path) -> dict:
    beside = path.with_suffix('.json')
    if not beside.is_file():
        beside = find_file(str(record.model_config), weights_folders(), f'model config of {record.name}', record.remedy)
    config = read_json(beside)
    check_model_config(config, beside)
    return {'quick_gelu': record.quick_gelu} | config


def _instantiate(config: Mapping[str, Any], record: EncoderRecord, device: str = 'cpu') -> CLIP | CustomTextCLIP:
    config = dict(config)
    text = config['text_cfg']
    custom_text = config.pop('custom_text', False) or 'hf_model_name' in text
    if 'hf_model_name' in text:
        config['text_cfg'] = {**text, 'hf_model_pretrained': False}
    if config.get('multimodal_cfg') is not None or config['vision_cfg'].get('timm_model_name') is not None:
        raise ConfigError(
            f"{record.name} cannot be read out densely: its vision tower is none of open_clip's own ViTs; choose an "
            'architecture whose name begins with ViT- and that is no SigLIP'
        )
    if record.description is not None and 'hf_model_name' in text:
        known = [open_clip.get_model_config(name)['text_cfg'].get('hf_model_name') for name in open_clip.list_models()]
        if text['hf_model_name'] not in known:  # transformers would build, and perhaps run, whatever is named there
            named = ', '.join(sorted(set(filter(None, known))))
            raise ConfigError(f'{record.name} has the text tower {text["hf_model_name"]!r}; those known here: {named}')
    try:
        with torch.device(device), _NoInitialisation():
            return (CustomTextCLIP if custom_text else CLIP)(**config)
    except (TypeError, ValueError, AssertionError, ArithmeticError, AttributeError, RuntimeError) as error:
        raise ConfigError(f'the model config of {record.name} is not one of open_clip: {error}') from error
    except OSError as error:
        raise MissingFileError(
            f'the text tower of {record.name} ({text.get("hf_model_name")}) is described on the Hugging Face hub, '
            'which could not be reached; run once with a network, or choose another architecture'
        ) from error


class _NoInitialisation(TorchFunctionMode):
    """Skips torch.nn.init: the weights are overwritten, and drawing them takes longer than reading the file."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, '__module__', None) == 'torch.nn.init':
            return kwargs['tensor'] if 'tensor' in kwargs else args[0]
        return func(*args, **kwargs)


def _take_positions(config: dict, state_dict: Mapping[str, Tensor], path: Path) -> None:
    """Sets image size and context length to those of the file's position tables, so that none is resized twice."""
    vision, text = config['vision_cfg'], config['text_cfg']
    table = state_dict.get('visual.positional_embedding')
    if table is not None and table.ndim == 2:
        image, patch = (to_2tuple(vision.get(key, getattr(CLIPVisionCfg, key))) for key in ('image_size', 'patch_size'))
        side = math.isqrt(max(len(table) - 1, 0))
        fits = (image[0] // patch[0]) * (image[1] // patch[1]) + 1 == len(table)
        if not fits and side and side * side + 1 == len(table):
            vision['image_size'] = (side * patch[0], side * patch[1])
    for name in ('positional_embedding', 'text.positional_embedding'):
        table = state_dict.get(name)
        if table is None or table.ndim != 2:
            continue
        context = len(table) - bool(text.get('embed_cls'))  # which has a place of its own
        if context != text.get('context_length', context):
            logger.info('%s: context of %d tokens, as in the file', path, context)
            text['context_length'] = context


def _aligned(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The state dict under the model's names, less what older versions saved beside the weights."""
    if isinstance(model, CustomTextCLIP):
        state_dict = convert_to_custom_text_state_dict(dict(state_dict))
    expected = model.state_dict()
    ours = {}
    for name, value in state_dict.items():
        if name not in expected and name.endswith(('attn_mask', 'position_ids')):
            continue
        is_scalar = name in ('logit_scale', 'logit_bias') and name in expected and value.numel() == 1
        ours[name] = value.reshape(expected[name].shape) if is_scalar else value
    return ours


def _tokenizer(record: EncoderRecord, text_config: Mapping[str, Any], model: nn.Module) -> Any:
    name = text_config.get('hf_tokenizer_name')
    try:
        options = {**(text_config.get('tokenizer_kwargs') or {}), 'context_length': model.context_length}
        if record.description is None:
            tokenizer = open_clip.get_tokenizer(record.architecture or 'ViT-B-16', context_length=model.context_length)
        elif name is None:
            tokenizer = SimpleTokenizer(**options)
        else:  # of transformers, which could run code of the repository if it was not told otherwise
            local = ModelFolder(record.name).folder
            place = local if local and (local / 'tokenizer_config.json').is_file() else name
            mode = {'tokenizer_mode': text_config.get('tokenizer_mode'), 'trust_remote_code': False}
            tokenizer = HFTokenizer(place, **options | mode)
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError, OSError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise MissingFileError(f'the tokenizer of {record.name} ({name}) cannot be had: {reason}') from error
    size = getattr(tokenizer, 'vocab_size', None)
    if size is not None and model.vocab_size is not None and model.vocab_size < size:
        raise CheckpointError(f'{record.name} has {model.vocab_size} token embeddings, its tokenizer {size} tokens')
    return tokenizer
