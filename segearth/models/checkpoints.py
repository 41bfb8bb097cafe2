"""Weight files to state dicts, and state dicts into models; reading a file never runs code.

The one door through which encoder weights come in (:mod:`segearth.models.build`). Formats are told apart by content,
not by file name: safetensors, PyTorch files (``weights_only=True`` always), TorchScript archives (torchscript.py).
A state dict may lie bare or under ``state_dict`` or ``model``, and may carry the prefixes that training wrappers
leave. What does not fit the model is refused with the names, never loaded in part.
"""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from segearth.errors import CheckpointError, MissingFileError
from segearth.models.torchscript import is_torchscript, read_torchscript

NESTED_KEYS = ('state_dict', 'model', 'model_state_dict')
"""Where training programs put the state dict beside optimiser and epoch."""

WRAPPER_PREFIXES = ('module.', '_orig_mod.')
"""What DistributedDataParallel and torch.compile put before every name."""

OPENAI_EXTRAS = ('input_resolution', 'context_length', 'vocab_size')
"""Numbers that OpenAI's archives hold beside the weights."""

SAFE_METADATA = (argparse.Namespace,)
"""Plain containers that training programs save beside the weights; building one runs no code."""

MAX_LISTED = 6
"""So many names of a kind are listed in a message."""

_DAMAGE = (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Reads the tensors of a weight file, on the CPU, in the precision of the file.

    Args:
        path: Weight file in any of the formats above.

    Raises:
        MissingFileError: There is no such file.
        CheckpointError: The file is damaged, holds something other than tensors, or would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f'weight file not found: {path}')
    _refuse_foreign(path)
    try:
        content = _read(path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_unpickling_message(path, error)) from error
    except (*_DAMAGE, SafetensorError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(f'{path} is damaged or no weight file ({reason}). Delete it and get it again.') from error
    return _state_dict(content, path)


def load_state_dict(model: nn.Module, state_dict: Mapping[str, Tensor], source: str | Path, what: str) -> None:
    """Copies a state dict into a model if every name and shape fits.

    Args:
        model: Receives the values, in its own precision.
        state_dict: Names to tensors.
        source: File, for the message.
        what: What the model is, for the message ("ViT-B-16").

    Raises:
        CheckpointError: Missing or unexpected names, or other shapes; the message lists them and nothing is loaded.
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
    lists = {'missing': missing, 'unexpected': unexpected, 'other shapes': shapes}
    problems = [f'{kind} ({len(names)}): {shorten(names)}' for kind, names in lists.items() if names]
    if problems:
        raise CheckpointError(
            f'{source} does not fit {what}; nothing was loaded. {"; ".join(problems)}. '
            'Is it the size and architecture that clip_type and vit_type say?'
        )
    model.load_state_dict(state_dict)


def shorten(names: Iterable[str], limit: int = MAX_LISTED) -> str:
    """The first names of a long list, and how many more there are."""
    names = list(names)
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


def _refuse_foreign(path: Path) -> None:
    with path.open('rb') as file:
        head = file.read(512)
    if not head:
        raise CheckpointError(f'{path} is empty. Delete it and get it again.')
    if head.startswith(b'version https://git-lfs'):
        raise CheckpointError(f'{path} is only a pointer of git-lfs, not the weights. Get the file itself.')
    if head.lstrip().lower().startswith((b'<!doctype', b'<html', b'<?xml')):
        raise CheckpointError(f'{path} is a web page, not a weight file (a failed download?). Get it again.')


def _read(path: Path) -> object:
    if _is_safetensors(path):
        return load_file(path)
    if is_torchscript(path):
        tensors = read_torchscript(path)
        return {name: value for name, value in tensors.items() if name not in OPENAI_EXTRAS}
    # Memory-mapping halves the memory of large files, and is possible for the zip format only.
    with torch.serialization.safe_globals(list(SAFE_METADATA)):
        return torch.load(path, map_location='cpu', weights_only=True, mmap=zipfile.is_zipfile(path))


def _is_safetensors(path: Path) -> bool:
    with path.open('rb') as file:
        head = file.read(9)
    return path.suffix == '.safetensors' or head[8:] == b'{'


def _unpickling_message(path: Path, error: pickle.UnpicklingError) -> str:
    found = re.search(r'(?:GLOBAL|refers to) ([\w.]*\w)', str(error))
    if not found:
        return f'{path} is damaged or no weight file; nothing in it was run. Delete it and get it again.'
    return (
        f'{path} was refused: it holds more than tensors ({found[1]}), and reading that could run code. If you trust '
        'where it comes from, save its state dict alone with torch.save in a program of your own, then use that file.'
    )


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    for key in NESTED_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f'{path} holds no state dict but a {type(content).__name__}')
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(
            f'{path} holds no state dict, neither bare nor under {" or ".join(NESTED_KEYS)}: {shorten(others)} are no '
            'tensors'
        )
    for prefix in WRAPPER_PREFIXES:
        if all(name.startswith(prefix) for name in content):
            content = {name.removeprefix(prefix): value for name, value in content.items()}
    return dict(content)


def _shape(tensor: Tensor) -> str:
    return 'x'.join(str(side) for side in tensor.shape) or 'a number'
