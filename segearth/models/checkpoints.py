"""Weight files to state dicts, and state dicts into models; reading a file never runs code.

The one door through which encoder weights come in (:mod:`segearth.models.build`). Files are read by
:mod:`simfeatup.weight_files`, in every layout that training programs write. What does not fit the model is refused with
the names, never loaded in part.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from segearth.errors import CheckpointError, MissingFileError
from simfeatup import weight_files
from simfeatup.errors import WeightFileError
from simfeatup.weight_files import shorten

ANCHORS = ('visual.', 'visual_encoder.', 'vision_model.')
"""Beginnings of the names of vision towers: open_clip's, BLIP's, transformers'."""


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Reads the tensors of a weight file, on the CPU, in the precision of the file.

    A MissingFileError says that there is no such file, a CheckpointError that it is damaged, holds something other than
    tensors, or would run code.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f'weight file not found: {path}')
    try:
        return weight_files.read_state_dict(path, ANCHORS)
    except WeightFileError as error:
        raise CheckpointError(str(error)) from error


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
