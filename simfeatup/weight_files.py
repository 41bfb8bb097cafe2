"""State dicts from weight files, in the layouts that training programs write; reading a file never runs code.

Formats are told apart by content, not by file name: safetensors, PyTorch files (``torch.load`` with
``weights_only=True``), and where that refuses, :mod:`simfeatup.archives`. The state dict may lie bare or below the
names that trainers give it, and its names may carry the prefixes that wrappers leave.
"""

import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from simfeatup.archives import StandIn, is_torchscript, read_archive
from simfeatup.errors import WeightFileError

NESTED_KEYS = (
    'state_dict', 'model_state_dict', 'model', 'model_state', 'module', 'net', 'network', 'params', 'weights',
    'state_dict_ema', 'ema_state_dict', 'model_ema', 'ema', 'params_ema',
)  # fmt: skip
"""Where training programs put the state dict beside optimiser and epoch, in order; averaged weights where alone."""

WRAPPERS = re.compile(r'(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.')
"""What torch.compile, FSDP and activation checkpointing put anywhere into a name."""

PREFIXES = ('module.', 'model.', 'clip.', 'clip_model.', 'net.', 'network.', 'ema_model.', 'model_ema.', 'upsampler.')
"""What wrappers and Lightning modules put before every name."""

AVERAGES = re.compile(r'ema|teacher|momentum|average')
OPENAI_EXTRAS = ('input_resolution', 'context_length', 'vocab_size')  # numbers beside the weights of OpenAI

MAX_LISTED = 6  # names of a kind in a message

logger = logging.getLogger(__name__)


def read_state_dict(path: Path, anchors: Sequence[str] = ()) -> dict[str, Tensor]:
    """Reads the tensors of a weight file, on the CPU, in the precision of the file.

    Args:
        path: Weight file.
        anchors: Beginnings of names that every fitting model has. Where they are found behind a prefix
            (``model.clip.visual.``), what has that prefix is taken, without it, and the rest (losses, averages) left.

    Raises:
        WeightFileError: There is no such file; or it is damaged, holds something other than tensors, or would run code.
    """
    state_dict = _find_state_dict(_content(path), path)
    names = {name: WRAPPERS.sub('', name) for name in state_dict}
    if len(set(names.values())) == len(names):  # else two would become one
        state_dict = {names[name]: value.detach() for name, value in state_dict.items()}
    strange = [
        name for name, value in state_dict.items()
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_nested
    ]  # fmt: skip
    if strange:
        raise WeightFileError(
            f'{path} holds sparse, quantised or otherwise special tensors ({shorten(strange)}); save them dense and as '
            'floats'
        )
    return _without_prefix(state_dict, anchors, path)


def shorten(names: Iterable[str], limit: int = MAX_LISTED) -> str:
    """The first names of a long list, and how many more there are."""
    names = list(names)
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


def _content(path: Path) -> Any:
    if path.is_dir():
        files = sorted(file.name for file in path.iterdir() if file.is_file())
        raise WeightFileError(f'{path} is a folder; give the weight file in it ({shorten(files) or "it has none"})')
    if not path.is_file():
        raise WeightFileError(f'no weight file at {path}; put the file there or name another path')
    try:
        with path.open('rb') as file:
            head = file.read(512)
        _refuse_foreign(path, head)
        return _read(path, head)
    except PermissionError as error:
        raise WeightFileError(f'{path} cannot be read: {error.strerror}') from error
    except pickle.UnpicklingError as error:
        raise WeightFileError(_unpickling_message(path, error)) from error
    except WeightFileError:
        raise
    except Exception as error:  # a damaged file may raise anything
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        text = f'{path} is damaged or no weight file ({reason}): give another one, or get it again.'
        raise WeightFileError(text) from error


def _refuse_foreign(path: Path, head: bytes) -> None:
    if not head:
        raise WeightFileError(f'{path} is empty: delete it and get it again.')
    if head.startswith(b'version https://git-lfs'):
        raise WeightFileError(f'{path} is only a pointer of git-lfs, not the weights. Get the file itself.')
    if head.removeprefix(b'\xef\xbb\xbf').lstrip().lower().startswith((b'<!doctype', b'<html', b'<head', b'<?xml')):
        raise WeightFileError(f'{path} is a web page, not a weight file (a failed download?). Get it again.')


def _read(path: Path, head: bytes) -> Any:
    is_other = head.startswith(b'PK') or head[:1] == b'\x80'  # zip or pickle, whatever the name says
    if head[8:9] == b'{' or (path.suffix == '.safetensors' and not is_other):
        return load_file(path, device='cpu')
    if is_torchscript(path):
        return {name: value for name, value in read_archive(path).items() if name not in OPENAI_EXTRAS}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of unusual pickles, which the other reader takes
            # Memory-mapping halves the memory of large files, and is possible for the zip format only.
            if path.suffix == '.safetensors':  # torch goes by the name, but not where there is none
                with path.open('rb') as file:
                    return torch.load(file, map_location='cpu', weights_only=True)
            return torch.load(path, map_location='cpu', weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:
        return read_archive(path)


def _unpickling_message(path: Path, error: pickle.UnpicklingError) -> str:
    found = re.search(r'refers to ([\w.]*\w)', str(error))
    if not found:
        return f'{path} is damaged or no weight file; nothing in it was run. Give another one, or get it again.'
    return (
        f'{path} was refused: it holds more than tensors ({found[1]}), and reading that could run code. If you trust '
        'where it comes from, save its state dict alone with torch.save in a program of your own, then use that file.'
    )


def _find_state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    for _ in NESTED_KEYS:
        below = [key for key in NESTED_KEYS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)]
        if not below:
            break
        content = content[below[0]]
    if isinstance(content, StandIn) and isinstance(content.state, Mapping) and '_modules' in content.state:
        raise WeightFileError(
            f'{path} holds a whole module ({type(content).__name__}), not its weights. Where its program runs, save '
            'torch.save(model.state_dict(), ...) and use that file.'
        )
    if not isinstance(content, Mapping) or not content:
        raise WeightFileError(f'{path} holds no state dict but a {type(content).__name__}')
    state_dict = {
        str(name): value for name, value in content.items() if not (value is None or str(name).endswith('_extra_state'))
    }
    others = [name for name, value in state_dict.items() if not isinstance(value, Tensor)]
    if others or not state_dict:
        raise WeightFileError(
            f'{path} holds no state dict of tensors, neither bare nor under {" or ".join(NESTED_KEYS[:4])}: '
            f'{shorten(others)} are no tensors'
        )
    return state_dict


def _without_prefix(state_dict: dict[str, Tensor], anchors: Sequence[str], path: Path) -> dict[str, Tensor]:
    found: dict[str, None] = {}
    for name in state_dict:
        for anchor in anchors:
            at = 0 if name.startswith(anchor) else name.find(f'.{anchor}') + 1
            if at or name.startswith(anchor):
                found[name[:at]] = None
                break
    prefixes = sorted(found, key=lambda prefix: (bool(AVERAGES.search(prefix)), prefix.count('.')))
    if prefixes:
        prefix = prefixes[0]
        if len(prefixes) > 1 and prefix:
            logger.warning('%s holds several models (%s); the first is taken', path, shorten(prefixes))
        return {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
    while common := [prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in state_dict)]:
        state_dict = {name.removeprefix(common[0]): value for name, value in state_dict.items()}
    return state_dict
