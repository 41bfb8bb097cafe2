"""The device of a run: what the user named, or CUDA where present, else the CPU."""

from __future__ import annotations

import torch
from mmengine.device import get_device

from segearth.errors import ConfigError

MAX_REASON = 60  # characters of torch's own message, which may list every kind of device there is


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """Turns a device's name into a device that can be used.

    Args:
        name: "cpu", "cuda", "cuda:1" ...; None for the best there is.

    Raises:
        ConfigError: There is no such device, or it cannot be used on this machine.
    """
    try:
        device = torch.device(name or get_device())
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].split('. ')[0][:MAX_REASON]
        raise ConfigError(
            f'device {str(name)!r} cannot be used here ({reason}). Leave it out, or give one of: cpu, '
            f'{", ".join(f"cuda:{index}" for index in range(torch.cuda.device_count())) or "(no CUDA device found)"}'
        ) from None
    return device
