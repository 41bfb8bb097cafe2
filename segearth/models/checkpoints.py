"""Weight files to state dicts, and state dicts into models; reading a file never runs code.

The one door through which encoder weights come in (:mod:`segearth.models.build`). Files are read by
:mod:`simfeatup.weight_files`, in every layout that training programs write. What does not fit the model is refused with
the names, never loaded in part.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from segearth.errors import CheckpointError, MissingFileError
from segearth.weights.model_folders import shard_names
from simfeatup import weight_files
from simfeatup.errors import WeightFileError
from simfeatup.weight_files import shorten

ANCHORS = ('visual.', 'visual_encoder.', 'vision_model.')
"""Beginnings of the names of vision towers: open_clip's, BLIP's, transformers'."""

TRANSFORMERS_ANCHOR = 'vision_model.pre_layrnorm.weight'  # spelt so; no other of transformers' models has it
TRANSFORMERS_NAMES = (
    (r'^visual_projection\.weight$', 'visual.proj'),
    (r'^text_projection\.weight$', 'text_projection'),
    (r'^vision_model\.embeddings\.patch_embedding', 'visual.conv1'),
    (r'^vision_model\.embeddings\.position_embedding\.weight$', 'visual.positional_embedding'),
    (r'^vision_model\.embeddings\.(class_embedding|position_ids)', r'visual.\1'),
    (r'^vision_model\.pre_layrnorm', 'visual.ln_pre'),
    (r'^vision_model\.post_layernorm', 'visual.ln_post'),
    (r'^vision_model\.encoder\.layers', 'visual.transformer.resblocks'),
    (r'^text_model\.embeddings\.token_embedding', 'token_embedding'),
    (r'^text_model\.embeddings\.position_embedding\.weight$', 'positional_embedding'),
    (r'^text_model\.embeddings\.position_ids', 'position_ids'),
    (r'^text_model\.final_layer_norm', 'ln_final'),
    (r'^text_model\.encoder\.layers', 'transformer.resblocks'),
    (r'\.self_attn\.', '.attn.'),
    (r'\.layer_norm([12])\.', r'.ln_\1.'),
    (r'\.mlp\.fc1\.', '.mlp.c_fc.'),
    (r'\.mlp\.fc2\.', '.mlp.c_proj.'),
)
"""Pattern of a name of transformers' CLIP -> open_clip's; those that are looked for in a name that has been changed
already come last."""


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Reads the tensors of a weight file, on the CPU, in the precision of the file.

    Those of transformers' CLIP get open_clip's names; of an index, all files beside it are read. A MissingFileError
    says that there is no such file, a CheckpointError that it is damaged, holds something other than tensors, or would
    run code.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f'weight file not found: {path}')
    paths = [path.parent / name for name in shard_names(path)] if path.name.endswith('.index.json') else [path]
    try:
        tensors: dict[str, Tensor] = {}
        for part in paths:
            tensors |= weight_files.read_state_dict(part, ANCHORS if part == path else ())
        return convert_transformers_names(tensors) if TRANSFORMERS_ANCHOR in tensors else tensors
    except WeightFileError as error:
        raise CheckpointError(str(error)) from error


def convert_transformers_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of transformers' CLIP under open_clip's names and in its shapes."""
    renamed = {}
    for name, value in tensors.items():
        for pattern, replacement in TRANSFORMERS_NAMES:
            name = re.sub(pattern, replacement, name)
        # A projection is a matrix to multiply with in open_clip, a layer in transformers
        renamed[name] = value.T if name in ('visual.proj', 'text_projection') else value
    for name in [name for name in renamed if '.q_proj.' in name]:
        parts = [renamed.pop(name.replace('q_proj', kind), None) for kind in ('q_proj', 'k_proj', 'v_proj')]
        there = [part for part in parts if part is not None]  # where one is missing, the shape is reported
        renamed[name.replace('q_proj.', 'in_proj_')] = torch.cat(there)
    return renamed


def load_state_dict(model: nn.Module, state_dict: Mapping[str, Tensor], source: str | Path, what: str) -> None:
    """Copies a state dict into a model, in the model's precision, if every name and shape fits.

    Else nothing is loaded, and a CheckpointError names the file, what the model is and what differs.
    """
    expected = model.state_dict()
    missing = [name for name in expected if name not in state_dict]
    unexpected = [name for name in state_dict if name not in expected]
    if len(missing) == len(expected):
        raise CheckpointError(
            f'{source} is no checkpoint of {what}: none of its {len(state_dict)} names fits. '
            f'It holds {shorten(state_dict)}; expected {shorten(expected)}'
        )
    shapes = [
        f'{name} is {_shape(state_dict[name])}, expected {_shape(value)}'
        for name, value in expected.items()
        if name in state_dict and state_dict[name].shape != value.shape
    ]
    kinds = [
        f'{name} is {str(state_dict[name].dtype).removeprefix("torch.")}'
        for name, value in expected.items()
        if name in state_dict and value.is_floating_point() and not state_dict[name].is_floating_point()
    ]
    lists = {'missing': missing, 'unexpected': unexpected, 'other shapes': shapes, 'no floats': kinds}
    problems = [f'{kind} ({len(names)}): {shorten(names)}' for kind, names in lists.items() if names]
    if problems:
        raise CheckpointError(
            f'{source} does not fit {what}; nothing was loaded. {"; ".join(problems)}. '
            'Is it the size and architecture that clip_type and vit_type say?'
        )
    model.load_state_dict(state_dict)


def tensors_digest(tensors: Mapping[str, Tensor], beginning: bytes = b'') -> str:
    """SHA-256, in hexadecimal digits, of some bytes and of tensors, name and numbers, in the order of their names."""
    digest = hashlib.sha256(beginning)
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _shape(tensor: Tensor) -> str:
    return 'x'.join(str(side) for side in tensor.shape) or 'a number'
