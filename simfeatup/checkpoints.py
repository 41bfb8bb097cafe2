"""Upsamplers from files: what the released checkpoints and our own training save."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from simfeatup.build import UPSAMPLERS, build_upsampler
from simfeatup.errors import UpsamplerError

PREFIX = 'upsampler.'  # of the weights in a Lightning checkpoint of FeatUp's or SimFeatUp's training
SHOWN_KEYS = 5

logger = logging.getLogger(__name__)


def load_upsampler(name: str, dim: int, path: str | Path | None) -> nn.Module:
    """Makes an upsampler with the weights of a file.

    Taken are Lightning checkpoints (``state_dict`` with ``upsampler.*``), plain state dicts with or without that
    prefix, and safetensors files of either. Files are opened as data; nothing in them is run.

    Args:
        name: A key of :data:`simfeatup.UPSAMPLERS`.
        dim: Channels C of the features it is for.
        path: The file. ``bilinear`` has no weights and reads none, so None will do there.

    Returns:
        The module in eval mode, float32, on the CPU.

    Raises:
        UpsamplerError: A missing or unreadable file, one that would run code, or weights that do not fit.
    """
    upsampler = build_upsampler(name, dim)
    if not upsampler.state_dict():
        return upsampler.eval()
    if path is None:
        raise UpsamplerError(f'The upsampler {name!r} needs a weight file; got none.')
    path = Path(path)
    weights = read_weights(path)
    _check_weights(name, dim, upsampler, weights, path)
    upsampler.load_state_dict(weights)
    logger.info('%s: %s for %d channels', path, name, dim)
    return upsampler.float().eval()


def read_weights(path: Path) -> dict[str, Tensor]:
    """The upsampler's state dict in a file, without prefixes.

    Raises:
        UpsamplerError: A missing or unreadable file, or one without tensors.
    """
    if not path.is_file():
        raise UpsamplerError(f'No upsampler weights at {path}. Put the file there or name another path.')
    content = _read(path)
    state = content.get('state_dict', content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UpsamplerError(f'{path} holds no state dict of tensors, so it is no upsampler checkpoint.')
    state = {key.removeprefix('module.'): value for key, value in state.items()}
    named = {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}
    return named or state


def _read(path: Path) -> Any:
    try:
        if path.suffix == '.safetensors':
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise UpsamplerError(
            f'{path} is refused: it is no file of plain tensors (opening it as a pickle could run code), or it is '
            'damaged. Save its state dict alone, best as .safetensors, in the environment that made it.'
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, safetensors.SafetensorError) as error:
        raise UpsamplerError(f'{path} cannot be read as a checkpoint ({error}). Fetch it again.') from error


def _check_weights(name: str, dim: int, upsampler: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    expected = upsampler.state_dict()
    missing, unexpected = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    if missing or unexpected:
        raise UpsamplerError(
            f'{path} does not fit the upsampler {name!r}. Missing: {_listing(missing)}. Unexpected: '
            f'{_listing(unexpected)}.{_hint(weights)}'
        )
    key = UPSAMPLERS[name].DIM_KEY
    found = _channels(weights[key]) if key else dim
    if found != dim:
        raise UpsamplerError(f'{path} is for features of {found} channels, not {dim}. Use dim={found} or another file.')
    shapes = [
        f'{key} {tuple(weights[key].shape)} instead of {tuple(value.shape)}'
        for key, value in expected.items()
        if weights[key].shape != value.shape
    ]
    if shapes:
        raise UpsamplerError(f'{path} does not fit the upsampler {name!r}. Wrong shapes: {_listing(shapes)}.')


def _channels(weight: Tensor) -> int:
    """Feature channels behind a bias (C,) or an input weight (out, C, 1, 1)."""
    return weight.shape[0] if weight.ndim == 1 else weight.shape[1]


def _hint(weights: Mapping[str, Tensor]) -> str:
    fitting = [name for name in UPSAMPLERS if build_upsampler(name, 1).state_dict().keys() == weights.keys()]
    return f' Its keys are those of {fitting[0]!r}.' if fitting else ''


def _listing(keys: Any) -> str:
    keys = sorted(keys)
    more = f' and {len(keys) - SHOWN_KEYS} more' if len(keys) > SHOWN_KEYS else ''
    return ', '.join(keys[:SHOWN_KEYS]) + more if keys else 'none'
