"""SimFeatUp: takes the coarse features of a vision transformer to the resolution of its input image.

Independent of the rest of the project: plain torch, no extension to build.

    upsampler = simfeatup.load_upsampler('jbu_one', dim=512, path='weights/xclip_jbu_one_million_aid.ckpt')
    hr_features = upsampler(features, guidance)  # (B, C, h, w), (B, 3, H, W) -> (B, C, H, W)
"""

from simfeatup.build import UPSAMPLERS, build_upsampler
from simfeatup.checkpoints import load_upsampler
from simfeatup.errors import UpsamplerError

__all__ = ['UPSAMPLERS', 'UpsamplerError', 'build_upsampler', 'load_upsampler']
