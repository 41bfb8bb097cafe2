"""Where and how torch computes: the device of a run, what processors compute in, and plain torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from segearth.errors import ConfigError

HALF_INSTRUCTIONS = {
    torch.bfloat16: ('avx512_bf16', 'amx_bf16', 'avx_ne_convert', 'bf16'),
    torch.float16: ('avx512_fp16', 'amx_fp16', 'asimdhp', 'fp16_arith'),
}
"""Dtype -> processor features of which any computes in it, by the names of Linux and of torch; the last are ARM's."""
MAX_REASON = 60  # characters of torch's own message, which may list every kind of device there is


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """Turns a name such as "cuda:1" into a device; None for the best there is.

    A ConfigError says that there is no such device, or that it cannot be used on this machine.
    """
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).splitlines()[0].split('. ')[0][:MAX_REASON]
        raise ConfigError(
            f'device {str(name)!r} cannot be used here ({reason}). Leave it out, or give one of: cpu, '
            f'{", ".join(f"cuda:{index}" for index in range(torch.cuda.device_count())) or "(no CUDA device found)"}'
        ) from None
    return device


@cache
def processor_features() -> frozenset[str]:
    """What the processor has, by the names of Linux, else of torch (releases that know it); empty where unknown."""
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.is_file():
        lines = (line.partition(':') for line in cpuinfo.read_text(errors='replace').splitlines())
        return frozenset(next((value for name, _, value in lines if name.strip() in ('flags', 'Features')), '').split())
    known: dict[str, object] = getattr(torch.cpu, 'get_capabilities', dict)()
    return frozenset(name for name, value in known.items() if value is True)


def is_slow_on_cpu(dtype: torch.dtype) -> bool:
    """Whether a half precision is slower than float32 on this processor, for it has no instructions for it."""
    return dtype in HALF_INSTRUCTIONS and processor_features().isdisjoint(HALF_INSTRUCTIONS[dtype])


@contextmanager
def plain_torch() -> Iterator[None]:
    """Float32 and the CPU where nothing else is said, and no autocast, until the block or the function ends.

    The precision of the encoder is a setting of ours; under the caller's autocast the same image would have other
    scores, and with a default dtype or device of the caller's, parts would not fit each other.
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device('cpu'), torch.autocast('cpu', enabled=False), torch.autocast('cuda', enabled=False):
            yield
    finally:
        torch.set_default_dtype(dtype)
