"""What lies in a pickled weight file, read without running any of it.

Three kinds of files come here: TorchScript archives (as OpenAI published CLIP), which ``torch.load`` with
``weights_only=True`` refuses and ``torch.jit.load`` would compile; and PyTorch files, new (zip) and old, in which a
trainer saved more than tensors beside the weights - numbers of NumPy, settings of Lightning, OmegaConf or a program
of the user's. The pickle is read by an unpickler that resolves no name of the outside world (Python documentation of
:mod:`pickle`, "Restricting Globals"): tensors are rebuilt here from bytes, every class becomes an inert container, and
a call of anything that is not plainly a value is refused.

Source: the file layouts as torch.save and torch.jit.save write them; no code of theirs was followed.
"""

from __future__ import annotations

import collections
import mmap
import pickle
import struct
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

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

DATA_MODULES = frozenset((
    'addict', 'argparse', 'array', 'collections', 'copyreg', 'datetime', 'decimal', 'enum', 'fractions', 'functools',
    'lightning', 'lightning_fabric', 'mmengine', 'numpy', 'omegaconf', 'pathlib', 'pytorch_lightning', 'uuid',
))  # fmt: skip
"""Packages of values: what a file calls of them makes a value, here an inert container."""

DATA_NAMES = frozenset((
    '_codecs.encode', 'builtins.bytearray', 'builtins.complex', 'builtins.frozenset', 'builtins.range',
    'builtins.set', 'builtins.slice', 'torch.Size', 'torch.device', 'torch.serialization._get_layout',
    'types.SimpleNamespace',
))  # fmt: skip
"""Values outside of these packages."""

TENSOR_KINDS = 'torch._utils._rebuild_'  # sparse, quantised and others that no weight of ours can be

LOCAL_HEADER = 30  # bytes of a zip entry before its name
LONGEST_NAME = 1000  # characters of a module and a name in it
LEGACY_PARTS = 3  # magic number, protocol and machine come before the content of an old file


class StandIn(dict):
    """Stands for an object of any class: keeps what was pickled of it and does nothing."""

    state: Any = None

    def __new__(cls, *args: Any, **_: Any) -> StandIn:
        """Makes an empty one, whatever the class would have taken."""
        del args
        return super().__new__(cls)

    def __init__(self, *args: Any, **_: Any) -> None:
        super().__init__(args[0] if args and isinstance(args[0], dict) else {})  # ConfigDict({...})

    def __setstate__(self, state: Any) -> None:
        """Keeps the attributes."""
        self.state = state

    def __hash__(self) -> int:  # type: ignore[override]  # an object of the file may be a key
        return id(self)

    def append(self, *_: Any) -> None:
        """Drops an item: this one stands for a list, of which nothing is needed."""

    extend = add = append


def is_torchscript(path: Path) -> bool:
    """Whether a file is a zip archive that carries TorchScript code."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith('/constants.pkl') for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def read_archive(path: Path) -> Any:
    """The content of a file of torch.save or torch.jit.save; of a scripted module the tensors by their dotted names.

    Raises:
        pickle.UnpicklingError: The file calls something that is no plain value.
        zipfile.BadZipFile, KeyError, ValueError, RuntimeError, EOFError: The file is damaged.
    """
    if not zipfile.is_zipfile(path):
        with path.open('rb') as file:
            return _read_legacy(file)
    with path.open('rb') as file, zipfile.ZipFile(file) as archive:
        content = _read_zip(archive, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    if not is_torchscript(path):
        return content
    tensors: dict[str, Tensor] = {}
    _collect(content, '', tensors, set())
    return tensors


class Unpickler(pickle.Unpickler):
    """Reads a pickle of tensors and values.

    Args:
        file: The pickle.
        load_storage: Dtype, key and number of elements to a flat tensor.
    """

    def __init__(self, file: IO[bytes], load_storage: Callable[[torch.dtype, str, int], Tensor]) -> None:
        super().__init__(file)
        self.load_storage = load_storage
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the file becomes: a way to rebuild tensors, or a stand-in."""
        if len(module) + len(name) > LONGEST_NAME:
            raise pickle.UnpicklingError('the file refers to a name of endless length')
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))  # of Python 2
        full_name = f'{module}.{name}'
        if full_name in REBUILDERS:
            found = REBUILDERS[full_name]
            return found if isinstance(found, type | torch.dtype) else partial(found)  # a file may set attributes of it
        if module == 'torch' and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        if module == 'torch' and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module.split('.')[0] in BLOCKED:
            raise pickle.UnpicklingError(f'the file refers to {full_name}')
        make = type if _is_value(module, name) else _Refusing
        return make(name, (StandIn,), {'full_name': full_name})

    def persistent_load(self, pid: tuple) -> Tensor:
        """The storage that the pickle names."""
        _, dtype, key, _, size = pid[:5]
        if not isinstance(dtype, torch.dtype):  # of quantised numbers and others that become no tensors here
            dtype = torch.uint8
        if key not in self.storages:
            self.storages[key] = self.load_storage(dtype, key, size)
        return self.storages[key]


class _Refusing(type):
    """Of classes whose objects may be read as data (their attributes), but which must not be called."""

    def __call__(cls, *_: Any, **__: Any) -> None:
        raise pickle.UnpicklingError(f'the file refers to {vars(cls)["full_name"]}')


BLOCKED = ('os', 'posix', 'nt', 'sys', 'subprocess')
"""Modules of which no name belongs into a weight file in any role."""


def _is_value(module: str, name: str) -> bool:
    """A call of this makes a value: packages of values, TorchScript's classes, and classes (not functions) of users."""
    root, full_name = module.split('.')[0], f'{module}.{name}'
    if root in (*DATA_MODULES, '__torch__') or full_name in DATA_NAMES or full_name.startswith(TENSOR_KINDS):
        return True
    return root not in (*sys.stdlib_module_names, 'torch') and name.rpartition('.')[2][:1].isupper()


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *more: Any) -> Tensor:
    if 0 in size:
        return storage.new_empty(size)
    tensor = storage.as_strided(size, stride, offset)  # refuses what lies outside the storage
    flags = next((part for part in more if isinstance(part, dict) and part.get('neg') is True), None)
    return tensor if flags is None else tensor.neg()  # torch writes the sign of such views apart


def _rebuild_typed(
    storage: Tensor, offset: int, size: tuple, stride: tuple, _: Any, __: Any, dtype: Any, *more: Any
) -> Tensor:
    return _rebuild_tensor(storage.view(dtype), offset, size, stride, *more)


REBUILDERS: dict[str, Any] = {
    'collections.OrderedDict': collections.OrderedDict,
    'torch._utils._rebuild_tensor': _rebuild_tensor,
    'torch._utils._rebuild_tensor_v2': _rebuild_tensor,
    'torch._utils._rebuild_tensor_v3': _rebuild_typed,
    'torch._utils._rebuild_parameter': lambda data, *_: data,
    'torch._utils._rebuild_parameter_with_state': lambda data, *_: data,
    'torch._tensor._rebuild_from_type_v2': lambda rebuild, _, arguments, __: rebuild(*arguments),
    'torch.storage.UntypedStorage': torch.uint8,
    **{f'torch.jit._pickle.build_{kind}list': list for kind in ('int', 'bool', 'double', 'tensor')},
}
"""Names that files of tensors need, and what they become."""


def _read_zip(archive: zipfile.ZipFile, memory: mmap.mmap) -> Any:
    pickles = [name for name in archive.namelist() if name.count('/') == 1 and name.endswith('/data.pkl')]
    if len(pickles) != 1:
        raise ValueError('no data.pkl in the archive')
    folder = pickles[0].removesuffix('data.pkl')
    if f'{folder}byteorder' in archive.namelist() and archive.read(f'{folder}byteorder').decode() != sys.byteorder:
        raise ValueError('written on a machine of the other byte order')

    def load_storage(dtype: torch.dtype, key: str, size: int) -> Tensor:
        entry = archive.getinfo(f'{folder}data/{key}')
        if entry.file_size < size * dtype.itemsize:
            raise ValueError(f'tensor {key} is shorter than stated')
        if not size:
            return torch.empty(0, dtype=dtype, device='cpu')
        name, extra = struct.unpack_from('<HH', memory, entry.header_offset + LOCAL_HEADER - 4)
        start = entry.header_offset + LOCAL_HEADER + name + extra
        if entry.compress_type == zipfile.ZIP_STORED and start % dtype.itemsize == 0:
            return torch.frombuffer(memory, dtype=dtype, count=size, offset=start)  # read only where it is used
        return torch.frombuffer(bytearray(archive.read(entry)), dtype=dtype)

    with archive.open(pickles[0]) as file:
        return Unpickler(file, load_storage).load()


def _read_legacy(file: IO[bytes]) -> Any:
    """An old file: the content, then a list of the storages, then the bytes of each."""
    def make_storage(dtype: torch.dtype, _: str, size: int) -> Tensor:
        return torch.empty(size, dtype=dtype, device='cpu')

    for _ in range(LEGACY_PARTS):
        Unpickler(file, make_storage).load()
    unpickler = Unpickler(file, make_storage)
    content = unpickler.load()
    for key in Unpickler(file, make_storage).load():
        storage = unpickler.storages[key]
        data = file.read(8 + storage.nbytes)
        if len(data) != 8 + storage.nbytes or struct.unpack_from('<q', data)[0] != len(storage):
            raise EOFError(f'tensor {key} is shorter than stated')
        if storage.nbytes:
            storage.copy_(torch.frombuffer(bytearray(data[8:]), dtype=storage.dtype))
    return content


def _collect(value: Any, name: str, tensors: dict[str, Tensor], seen: set[int]) -> None:
    if isinstance(value, Tensor):
        tensors[name] = value
    elif isinstance(value, StandIn) and isinstance(value.state, dict) and id(value) not in seen:
        seen.add(id(value))
        for key, part in value.state.items():
            _collect(part, f'{name}.{key}' if name else str(key), tensors, seen)
