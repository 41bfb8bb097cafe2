"""The preset ``fast``: three times the pixels a second of a large scene, at a loss of less than a point of mean IoU.

By default every pixel is the mean of four windows. Here windows overlap by a fifth, and count less towards their rim,
so that seams are not seen: 1.6 windows a pixel. The rest is cheaper arithmetic: few coordinates for the length of
upsampled features, fewer neighbours where colours guide the upsampling, bfloat16 where the processor computes in it.
The constants were chosen on generated validation scenes; the figures are in docs/performance.md.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from segearth.device import choose_device, is_slow_on_cpu
from segearth.errors import ConfigError
from segearth.inference.settings import ORIGINAL_KEYS, InferenceSettings, as_pair
from segearth.models.build import AUTO, PRECISIONS, resolve_precision
from segearth.models.feature_upsampler import WITHOUT_WEIGHTS
from segearth.weights.encoders import EncoderRecord
from simfeatup.scoring import Upsample
from simfeatup.upsamplers.bilateral import RADIUS as DEFAULT_RADIUS
from simfeatup.upsamplers.bilateral import SIGMA_SPATIAL, JointBilateral

logger = logging.getLogger(__name__)

STRIDE = 0.8  # of the window
RADIUS = 3  # neighbours on each side in joint_bilateral, whose weights fall off over the same distance as by default
SCORE_RANK = 16  # coordinates of the tokens; scores are the same up to 1e-5 with the demo encoder


def fast_settings(record: EncoderRecord, patch_size: Sequence[int], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of inference for an encoder with patches of (height, width) pixels; those ``given`` are not among them.

    Windows are the encoder's own, or those given, and the stride is a share of them in whole patches.
    """
    own = InferenceSettings(**record.settings).crop_size
    crop = as_pair(given.get('crop_size', own), 'crop_size')
    counts = [max(round(STRIDE * side / patch), 1) for side, patch in zip(crop, patch_size, strict=True)]
    stride = tuple(min(count * patch, side) for count, patch, side in zip(counts, patch_size, crop, strict=True))
    preset = {'crop_size': crop, 'stride': stride, 'smooth_windows': True, 'score_rank': SCORE_RANK}
    return {name: value for name, value in preset.items() if name not in given}


def fast_upsampler(upsampler: Upsample | None, given: Mapping[str, Any] | None) -> Upsample | None:
    """The upsampler, or a quicker one in place of joint_bilateral; options of its window that are ``given`` win."""
    if not isinstance(upsampler, JointBilateral) or {'radius', 'sigma_spatial'} & set(given or {}):
        return upsampler
    options = {key: value for key, value in (given or {}).items() if key in WITHOUT_WEIGHTS['joint_bilateral']}
    sigma = SIGMA_SPATIAL * DEFAULT_RADIUS / RADIUS
    return JointBilateral(upsampler.dim, RADIUS, sigma, **options).eval()


def fast_precision(precision: str, device: torch.device) -> str:
    """The name of the encoder's precision: "bf16" in place of "auto" on processors that compute in it."""
    is_better = precision == AUTO and device.type == 'cpu' and not is_slow_on_cpu(torch.bfloat16)
    return 'bf16' if is_better else precision


def decided_here(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a segmenter with the precision of ``fast`` spelled out, by this machine's processor.

    For maps that several machines compute: each would decide by its own, and one map would hold both.
    """
    if not settings.get('fast'):
        return dict(settings)
    device = choose_device(settings.get('device'))
    dtype = resolve_precision(fast_precision(settings.get('precision', AUTO), device), device)
    return {**settings, 'precision': next(name for name, each in PRECISIONS.items() if each == dtype)}


def check_fast(fast: Any) -> bool:
    """Whether the preset is asked for; a ConfigError refuses what is neither true nor false."""
    if not isinstance(fast, bool):
        raise ConfigError(f'fast is {fast!r}; allowed: true or false')
    return fast


def say_fast(settings: InferenceSettings, dtype: torch.dtype, upsampler: Upsample | None) -> None:
    """Logs what the preset has become, beside what was given."""
    crop, stride = (' x '.join(map(str, sides)) for sides in (settings.crop_size, settings.stride))
    parts = ['images as a whole' if settings.is_whole else f'windows of {crop} pixels at stride {stride}']
    if settings.smooth_windows and not settings.is_whole:
        parts.append('smooth')
    if isinstance(upsampler, JointBilateral):
        parts.append(f'joint_bilateral of radius {upsampler.layer.radius}')
    if settings.score_rank and not settings.exact_reference and upsampler is not None:
        parts.append(f'score_rank {settings.score_rank}')
    logger.info('fast: %s, encoder in %s', ', '.join(parts), str(dtype).removeprefix('torch.'))


def of_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A config's settings of a segmenter; with ``fast`` those less that say its windows.

    Every config states the paper's windows, so they count as not given; settings that no config states win.
    """
    if not settings.get('fast'):
        return dict(settings)
    windows = ('crop_size', 'stride')
    return {key: value for key, value in settings.items() if ORIGINAL_KEYS.get(key, key) not in windows}
