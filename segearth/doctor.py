"""What this machine has and which fast paths are in use, one line each, for bug reports.

Run by ``segearth doctor`` or ``python -m segearth.doctor``. Nothing is downloaded, and nothing that is missing or
broken stops it: its line then says so. :data:`CHECKS` lists what is looked at.
"""

import argparse
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import segearth
from segearth.cli import run_cli
from segearth.paths import cache_folder, weights_folders

if TYPE_CHECKING:
    from simfeatup.proof import FastPath

Rows = Iterator[tuple[str, str]]

VARIABLES = {
    'SEGEARTH_ONEDNN': "0: no private operators of oneDNN in the encoder",
    'SEGEARTH_MALLOC': '0: freed memory goes back to the system',
    'SIMFEATUP_NUMBA': '0: no compiled loops on CPUs',
    'SIMFEATUP_TRITON': '0: no Triton kernels on CUDA devices',
    'SIMFEATUP_SPARSE': '0: no sparse products in training',
    'SIMFEATUP_BACKEND': 'reference, cpu or cuda: forces one back end of the upsampler',
    'SEGEARTH_PROGRESS': 'lines: progress and messages for a program that reads them',
    'SEGEARTH_DATA': 'folder of the data sets',
    'SEGEARTH_WEIGHTS': 'folder of the weights',
    'SEGEARTH_CACHE': 'folder of what can be computed again',
}
"""Environment variables of this project, and what they do."""
OTHERS = ('CUDA_', 'GOMP_', 'HF_', 'KMP_', 'MALLOC_', 'MKL_', 'NUMBA_', 'OMP_', 'ONEDNN_', 'DNNL_', 'ATEN_', 'TORCH_',
          'TRITON_')  # fmt: skip
"""Beginnings of other libraries' variables that change what runs."""
SECRETS = ('TOKEN', 'KEY', 'SECRET', 'PASSWORD')
PACKAGES = (
    'torch', 'torchvision', 'numpy', 'numba', 'llvmlite', 'triton', 'open_clip_torch', 'transformers', 'onedl-mmengine',
    'onedl-mmcv', 'onedl-mmsegmentation', 'safetensors', 'huggingface_hub', 'pillow', 'rasterio', 'gradio',
    'distributed',
)  # fmt: skip
FEATURES = ('sse4_1', 'avx', 'avx2', 'fma', 'avx512f', 'avx512bw', 'avx512_bf16', 'avx512_fp16', 'amx_tile', 'amx_bf16',
            'asimd', 'sve', 'bf16')  # fmt: skip
GIB = 2**30


def _processor() -> Rows:
    name = platform.processor() or 'unknown'
    with suppress(OSError):  # it is Linux that has this file
        lines = Path('/proc/cpuinfo').read_text(errors='replace').splitlines()
        name = next((line.partition(':')[2] for line in lines if line.startswith('model name')), name)
    yield 'name', f'{name} ({platform.machine()})'
    usable = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    yield 'cores', f'{usable} of {os.cpu_count()} usable'
    present = import_module('segearth.device').processor_features()
    yield 'instructions', ' '.join(name for name in FEATURES if name in present) or 'unknown'


def _memory() -> str:
    memory = import_module('psutil').virtual_memory()
    return f'{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free'


def _compiler() -> str:
    name = import_module('numba').config.CPU_NAME or import_module('llvmlite.binding').get_host_cpu_name()
    return f'numba sees {name}'


def _torch() -> Rows:
    import torch

    yield 'torch sees', f'{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads'
    built = [line.strip(' -') for line in torch.__config__.show().splitlines() if 'MKL-DNN' in line]
    yield 'oneDNN', ''.join(built) or 'none'


def _devices() -> Rows:
    import torch

    if not torch.cuda.is_available():
        yield 'CUDA', f'no device (torch built for {torch.version.cuda or "CPUs only"})'
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        yield f'cuda:{index}', f'{device.name}, {device.total_memory / GIB:.0f} GiB, sm_{device.major}{device.minor}'


def _encoder_paths() -> Rows:
    import torch

    from segearth.freed_memory import MALLOC, VARIABLES, keep_freed_memory
    from segearth.models.residual_block import ONEDNN, linear

    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            linear(torch.ones(1, 8, dtype=dtype), torch.ones(8, 8, dtype=dtype), None)
    yield from _verdicts(ONEDNN)
    keep_freed_memory(limited=True)
    own = [name for name in VARIABLES if name in os.environ]
    yield from [(MALLOC.name, f'left to {", ".join(own)}')] if own else _verdicts(MALLOC)


def _upsampler_paths() -> Rows:
    import torch

    from simfeatup import build_upsampler
    from simfeatup.ops.axis_product import axis_product
    from simfeatup.ops.operator import PATHS
    from simfeatup.scoring import score

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    for name in ('jbu_one', 'joint_bilateral'):
        upsampler = build_upsampler(name, 8).to(device)
        features, guidance = torch.zeros(1, 8, 2, 2, device=device), torch.zeros(1, 3, 4, 4, device=device)
        with torch.inference_mode():
            score(upsampler.eval(), features, guidance, torch.eye(8, device=device))
        upsampler.train()(features.requires_grad_(), guidance).sum().backward()
    axis_product(torch.ones(1, 1, 2, 2), torch.eye(2), torch.eye(2))
    for path in PATHS.values():
        yield from _verdicts(path)


def _verdicts(path: 'FastPath') -> Rows:
    """What a fast path's proofs have given, those that went well in one row."""
    if not path.is_on():
        yield path.name, f'turned off by {path.variable}'
        return
    verdicts = {
        ' '.join(str(part).removeprefix('torch.') for part in case): reason for case, reason in path.verdicts().items()
    }
    good = [case for case, reason in verdicts.items() if reason is None and case]
    if good or not verdicts or set(verdicts.values()) == {None}:
        yield path.name, f'in use{": " if good else ""}{"; ".join(good)}' if verdicts else 'not asked for here'
    for case, reason in verdicts.items():
        if reason is not None:
            yield path.name, f'not used{f" for {case}" if case else ""}: {reason}. Instead: {path.instead}'


def _precisions() -> Rows:
    import torch

    from segearth.device import is_slow_on_cpu
    from segearth.models.build import AUTO, PRECISIONS, resolve_precision

    for name, dtype in PRECISIONS.items():
        if dtype != torch.float32:
            yield name, f'on this processor {"no " if is_slow_on_cpu(dtype) else ""}instructions for it'
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    yield AUTO, f'{resolve_precision(AUTO, device)} on {device}'.removeprefix('torch.')


def _folders() -> Rows:
    from simfeatup.ops.cpu.cache import cache_folder as loops_folder

    yield 'cache', _writable(cache_folder())
    for folder in weights_folders():
        yield 'weights', _writable(folder)
    yield 'compiled loops', str(loops_folder() or 'no place; compiled anew in every process')
    from huggingface_hub import constants

    yield 'Hugging Face', _writable(Path(constants.HF_HUB_CACHE))


def _encoders() -> Rows:
    from segearth.weights.sources import catalogue, locate

    found = {item.name: locate(item) for item in catalogue()}
    yield 'ready', ', '.join(name for name, path in found.items() if path is not None) or 'none'
    yield 'not here', ', '.join(name for name, path in found.items() if path is None) or 'none'


def _environment() -> Rows:
    for name, value in sorted(os.environ.items()):
        if name in VARIABLES or name.startswith(OTHERS):
            yield name, '(set)' if any(word in name for word in SECRETS) else value


CHECKS: tuple[tuple[str, str, Callable[[], str | Rows]], ...] = (
    ('versions', 'segearth', lambda: f'{segearth.__version__} in {Path(segearth.__file__).parent}'),
    ('versions', 'system', lambda: f'{platform.platform()}, {" ".join(platform.libc_ver())}'),
    ('versions', 'Python', lambda: f'{platform.python_version()} ({sys.executable})'),
    ('versions', 'packages', lambda: ', '.join(map(_version, PACKAGES))),
    ('processor', 'processor', _processor),
    ('processor', 'memory', _memory),
    ('processor', 'torch', _torch),
    ('processor', 'compiler', _compiler),
    ('devices', 'CUDA', _devices),
    ('fast paths', 'encoder paths', _encoder_paths),
    ('fast paths', 'upsampler paths', _upsampler_paths),
    ('precision', 'precisions', _precisions),
    ('folders', 'folders', _folders),
    ('weights', 'encoders', _encoders),
    ('environment', 'variables', _environment),
)
"""Section, name, and what finds a value, or the names and values of several rows."""


def run(arguments: Sequence[str] | None = None, program: str = 'python -m segearth.doctor') -> None:
    """Prints what the checks find, each line as soon as it is known."""
    argparse.ArgumentParser(
        prog=program,
        description='Shows what this machine has and which fast paths are in use, for bug reports. Downloads nothing; '
        'the first time it compiles for up to a minute.',
        epilog='Environment variables:\n' + '\n'.join(f'  {name:18} {what}' for name, what in VARIABLES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(arguments)
    log = logging.getLogger('simfeatup')
    level = log.level
    log.setLevel(logging.ERROR)  # what is not used stands in the report
    try:
        for section, name, check in CHECKS:
            for row, value in _rows(name, check):
                print(f'{section}: {row}: {value}', flush=True)
    finally:
        log.setLevel(level)


def _rows(name: str, check: Callable[[], str | Rows]) -> Rows:
    try:
        found = check()
        for row, value in [(name, found)] if isinstance(found, str) else found:
            yield row, ' '.join(value.split())
    except Exception as error:  # a report of what is broken does not break
        yield name, f'unknown ({" ".join(f"{type(error).__name__}: {error}".split())})'


def _version(package: str) -> str:
    try:
        return f'{package} {version(package)}'
    except PackageNotFoundError:
        return f'{package} missing'


def _writable(folder: Path) -> str:
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    notes = ['not there yet'] * (there != folder) + ['cannot be written'] * (not os.access(there, os.W_OK))
    return f'{folder} ({", ".join(notes)})' if notes else str(folder)


if __name__ == '__main__':
    run_cli(run)
