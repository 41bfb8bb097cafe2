"""Upsamplers by name."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from simfeatup.baselines import IFA, Carafe, ResizeConv, Sapa
from simfeatup.errors import UpsamplerError
from simfeatup.jbu import Bilinear, JBUOne, JBUStack
from simfeatup.joint_bilateral import JointBilateral

UPSAMPLERS: dict[str, type[Any]] = {
    'jbu_one': JBUOne,
    'jbu_stack': JBUStack,
    'bilinear': Bilinear,
    'joint_bilateral': JointBilateral,
    'resize_conv': ResizeConv,
    'carafe': Carafe,
    'sapa': Sapa,
    'ifa': IFA,
}


def build_upsampler(name: str, dim: int, **options: Any) -> nn.Module:
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
