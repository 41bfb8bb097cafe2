"""SimFeatUp: takes the coarse features of a vision transformer to the resolution of its input image.

Independent of the rest of the project: plain torch, no extension to build.

    upsampler = simfeatup.load_upsampler('jbu_one', dim=512, path='weights/xclip_jbu_one_million_aid.ckpt')
    hr_features = upsampler(features, guidance)  # (B, C, h, w), (B, 3, H, W) -> (B, C, H, W)
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from simfeatup.errors import UpsamplerError

if TYPE_CHECKING:
    from simfeatup.build import UPSAMPLERS, build_upsampler
    from simfeatup.checkpoints import load_upsampler

__all__ = ['UPSAMPLERS', 'UpsamplerError', 'build_upsampler', 'load_upsampler']
_PLACES = {
    'UPSAMPLERS': 'simfeatup.build',
    'build_upsampler': 'simfeatup.build',
    'load_upsampler': 'simfeatup.checkpoints',
}

# OpenMP reads this when torch is loaded: how long its idle threads spin. By default for milliseconds, on the very cores
# on which simfeatup/cpu has begun to run threads of its own; this is some tens of microseconds.
os.environ.setdefault('GOMP_SPINCOUNT', '10000')


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
