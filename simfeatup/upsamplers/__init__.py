"""Upsamplers by name, fresh or from files: what the released checkpoints and our own training save."""

import inspect
import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from simfeatup.errors import UpsamplerError
from simfeatup.upsamplers.anything import Anything
from simfeatup.upsamplers.base import Bilinear, Upsampler
from simfeatup.upsamplers.baselines import IFA, Carafe, ResizeConv, Sapa
from simfeatup.upsamplers.bilateral import JointBilateral
from simfeatup.upsamplers.jbu import JBUOne, JBUStack
from simfeatup.upsamplers.naf import NAF
from simfeatup.weight_files import read_state_dict, shorten

logger = logging.getLogger(__name__)

NAMES_DIM = 4  # channels that all upsamplers can have, for the names of their weights

UPSAMPLERS: dict[str, type[Upsampler]] = {
    'jbu_one': JBUOne,
    'jbu_stack': JBUStack,
    'bilinear': Bilinear,
    'joint_bilateral': JointBilateral,
    'naf': NAF,
    'anything': Anything,
    'resize_conv': ResizeConv,
    'carafe': Carafe,
    'sapa': Sapa,
    'ifa': IFA,
}


def build_upsampler(name: str, dim: int, **options: Any) -> Upsampler:
    """Makes an upsampler with fresh weights.

    Args:
        name: A key of :data:`UPSAMPLERS`. All names of the original's table are offered; none needs an extension.
        dim: Channels C of the features.
        **options: What the class's constructor takes besides ``dim``, ``radius`` for instance.

    Returns:
        A module ``(features (B, C, h, w), guidance (B, 3, H, W)) -> (B, C, H, W)``, in training mode.

    Raises:
        UpsamplerError: An unknown name or option, or an impossible ``dim``.
    """
    if name not in UPSAMPLERS:
        raise UpsamplerError(f'There is no upsampler {name!r}. Known: {", ".join(UPSAMPLERS)}.')
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
        raise UpsamplerError(f'An upsampler needs the number of feature channels, a positive integer; got {dim!r}.')
    allowed = [key for key in inspect.signature(UPSAMPLERS[name]).parameters if key != 'dim']
    unknown = [key for key in options if key not in allowed]
    if unknown:
        raise UpsamplerError(
            f'The upsampler {name!r} has no option {", ".join(unknown)}. Its options: {", ".join(allowed) or "none"}.'
        )
    return UPSAMPLERS[name](dim, **options)


def load_upsampler(name: str, dim: int, path: str | Path | None, **options: Any) -> Upsampler:
    """Makes an upsampler with the weights of a file.

    Taken are Lightning checkpoints (``state_dict`` with ``upsampler.*``) and every other layout that
    :func:`simfeatup.weight_files.read_state_dict` knows. Files are opened as data; nothing in them is run.

    Args:
        name: A key of :data:`simfeatup.UPSAMPLERS`.
        dim: Channels C of the features it is for.
        path: The file. ``bilinear`` has no weights and reads none, so None will do there.
        **options: As for :func:`build_upsampler`, where the weights were trained with other ones than the usual.

    Returns:
        The module in eval mode, float32, on the CPU.

    Raises:
        UpsamplerError: A missing or unreadable file, one that would run code, or weights that do not fit.
    """
    upsampler = build_upsampler(name, dim, **options)
    if not upsampler.state_dict():
        return upsampler.eval()
    if path is None:
        raise UpsamplerError(f'The upsampler {name!r} needs a weight file; got none.')
    path = Path(path)
    anchors = [keys[0] for keys in _keys().values() if keys]  # a name that each kind has
    weights = upsampler.own_names(read_state_dict(path, anchors), path)
    _check_weights(name, dim, upsampler, weights, path)
    upsampler.load_state_dict(weights)
    logger.info('%s: %s for %d channels', path, name, dim)
    return upsampler.float().eval()


def _check_weights(name: str, dim: int, upsampler: Upsampler, weights: Mapping[str, Tensor], path: Path) -> None:
    expected = upsampler.state_dict()
    missing, unexpected = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    if missing or unexpected:
        fitting = [known for known, keys in _keys().items() if set(keys) == weights.keys()]
        hint = f' Its keys are those of {fitting[0]!r}.' if fitting else ''
        raise UpsamplerError(
            f'{path} does not fit the upsampler {name!r}. Missing: {shorten(sorted(missing)) or "none"}. Unexpected: '
            f'{shorten(sorted(unexpected)) or "none"}.{hint}'
        )
    key = UPSAMPLERS[name].DIM_KEY
    found = weights[key].shape[0 if weights[key].ndim == 1 else 1] if key else dim
    if found != dim:
        raise UpsamplerError(f'{path} is for features of {found} channels, not {dim}. Use dim={found} or another file.')
    shapes = [
        f'{key} {tuple(weights[key].shape)} instead of {tuple(value.shape)}'
        for key, value in expected.items()
        if weights[key].shape != value.shape
    ]
    if shapes:
        raise UpsamplerError(f'{path} does not fit the upsampler {name!r}. Wrong shapes: {shorten(sorted(shapes))}.')


@cache
def _keys() -> dict[str, list[str]]:
    return {name: list(build_upsampler(name, NAMES_DIM).state_dict()) for name in UPSAMPLERS}
