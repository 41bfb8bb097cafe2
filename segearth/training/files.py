"""Checkpoints and weights on disk: written whole or not at all, read without running code."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from segearth.errors import CheckpointError, MissingFileError
from segearth.io.atomic import replacing


def write_whole(path: Path, write: Callable[[str], object]) -> Path:
    """Lets ``write`` write to a file beside ``path``, which then takes its name."""
    with replacing(path) as part:
        write(str(part))
    return path


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> Path:
    """Writes tensors and plain values in PyTorch's format."""
    return write_whole(path, lambda part: torch.save(dict(content), part))


def save_weights(path: Path, weights: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> Path:
    """Writes a state dict as safetensors, in ``dtype`` where one is given."""
    tensors = {name: value.detach().cpu().to(dtype or value.dtype).contiguous() for name, value in weights.items()}
    return write_whole(path, lambda part: save_file(tensors, part))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what :func:`save_checkpoint` wrote, on the CPU.

    Raises:
        MissingFileError: There is no such file.
        CheckpointError: It is damaged or no checkpoint of a training.
    """
    if not path.is_file():
        raise MissingFileError(f'checkpoint not found: {path}')
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f'{path} cannot be read as a checkpoint: {str(error).splitlines()[0][:200]}') from error
    if not isinstance(content, dict):
        raise CheckpointError(f'{path} is no checkpoint of a training, but a {type(content).__name__}')
    return content
