"""SimFeatUp: takes the coarse features of a vision transformer to the resolution of its input image.

Independent of the rest of the project: plain torch, no extension to build.

    upsampler = simfeatup.load_upsampler('jbu_one', dim=512, path='weights/xclip_jbu_one_million_aid.ckpt')
    hr_features = upsampler(features, guidance)  # (B, C, h, w), (B, 3, H, W) -> (B, C, H, W)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from simfeatup.errors import UpsamplerError

if TYPE_CHECKING:
    from simfeatup.upsamplers import UPSAMPLERS, build_upsampler, load_upsampler

__all__ = ['UPSAMPLERS', 'UpsamplerError', 'build_upsampler', 'load_upsampler']


def __getattr__(name: str) -> Any:
    if name in __all__:  # torch is loaded when they are wanted
        return getattr(import_module('simfeatup.upsamplers'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
