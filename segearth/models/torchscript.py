"""Tensors of a TorchScript archive, read without running any of it.

OpenAI published CLIP as TorchScript. ``torch.load(weights_only=True)`` refuses such files and ``torch.jit.load``
compiles the code they carry (and is deprecated), so the archive is read for what it is: a zip whose ``data.pkl``
describes a tree of objects and whose ``data/`` entries are raw tensor storages. The pickle is read by an unpickler
that resolves no name of the outside world (Python documentation of :mod:`pickle`, "Restricting Globals"): script
classes become inert containers, tensors are rebuilt here from bytes, everything else is refused.

Source: the file layout as torch.jit.save writes it; no code of it was followed.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor

STORAGE_DTYPES = {
    'FloatStorage': torch.float32,
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'DoubleStorage': torch.float64,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
}


def is_torchscript(path: Path) -> bool:
    """Whether a file is a zip archive that carries TorchScript code."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith('/constants.pkl') for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of the scripted module, by their dotted names.

    Args:
        path: TorchScript archive.

    Raises:
        pickle.UnpicklingError: The archive names something other than tensors and script classes.
        zipfile.BadZipFile, KeyError, ValueError, RuntimeError, EOFError: The archive is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.count('/') == 1 and name.endswith('/data.pkl')]
        if len(pickles) != 1:
            raise ValueError('no data.pkl in the archive')
        folder = pickles[0].removesuffix('data.pkl') + 'data/'
        root = _Unpickler(io.BytesIO(archive.read(pickles[0])), archive, folder).load()
    tensors: dict[str, Tensor] = {}
    _collect(root, '', tensors, set())
    return tensors


class _ScriptObject:
    """Stands for a script class: keeps the pickled attributes and does nothing."""

    def __init__(self, *_: object) -> None:
        self.attributes: dict[str, object] = {}

    def __setstate__(self, state: object) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self.archive = archive
        self.folder = folder
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> object:
        if module.split('.')[0] == '__torch__':
            return _ScriptObject
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            return _rebuild_tensor
        if (module, name) == ('collections', 'OrderedDict'):
            return collections.OrderedDict
        if module == 'torch' and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        if module == 'torch.jit._pickle' and name in ('build_intlist', 'build_boollist', 'build_doublelist'):
            return list
        raise pickle.UnpicklingError(f'the file refers to {module}.{name}')

    def persistent_load(self, pid: tuple) -> Tensor:
        _, dtype, key, _, size = pid
        if key not in self.storages:
            raw = bytearray(self.archive.read(f'{self.folder}{key}'))
            if len(raw) < size * dtype.itemsize:
                raise ValueError(f'tensor {key} is shorter than stated')
            self.storages[key] = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        return self.storages[key]


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: object) -> Tensor:
    if math.prod(size) == 0:
        return storage.new_empty(size)
    return storage.as_strided(size, stride, offset)  # refuses what lies outside the storage


def _collect(value: object, name: str, tensors: dict[str, Tensor], seen: set[int]) -> None:
    if isinstance(value, Tensor):
        tensors[name] = value
    elif isinstance(value, _ScriptObject) and id(value) not in seen:
        seen.add(id(value))
        for key, part in value.attributes.items():
            _collect(part, f'{name}.{key}' if name else str(key), tensors, seen)
