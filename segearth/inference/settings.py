"""Settings of inference: how features become labels. The one list of them, for every program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from segearth.errors import ConfigError, did_you_mean
from segearth.inference.refinement import REFINEMENTS

AUTO = 'auto'  # as many windows at once as the free memory holds
ORIGINAL_KEYS = {
    'prob_thd': 'prob_threshold',
    'bg_idx': 'background_index',
    'slide_crop': 'crop_size',
    'slide_stride': 'stride',
    'cls_token_lambda': 'cls_token_weight',
}
"""Key of the original's configuration files -> name of the setting here; the others have one name."""


@dataclass(frozen=True)
class InferenceSettings:
    """How the features of an encoder become labels; ``dataclasses.replace`` varies them.

    A value that cannot be is a ConfigError. Source: defaults of SegEarth-OV-2 (arXiv 2508.18067) and of its code.
    """

    logit_scale: float = 50  # factor before the softmax over all words
    prob_threshold: Any = 0.0  # in [0, 1]; pixels whose best class is less probable get the background's label; one
    # number, or one a class
    background_index: int = 0  # label of those pixels
    crop_size: Any = 224  # (height, width) of a window in pixels, or one number for both; 0 takes whole images at once
    stride: Any = 112  # (height, width) between windows in pixels, or one number for both
    smooth_windows: bool = False  # windows that overlap count less towards their rim, not all the same
    cls_token_weight: float = -0.3  # lambda, weight of Global Bias Alleviation; 0 switches it off
    window_batch_size: int | str = AUTO  # windows encoded and scored at once
    exact_reference: bool = False  # score by the plain path, all channels at full size: slow, for comparison
    score_rank: int | None = None  # coordinates kept for the length of upsampled features; None is exact
    refine: str | None = None  # of the scores: 'propagation' in each window, 'context' over images given together

    def __post_init__(self) -> None:
        for name in ('crop_size', 'stride'):
            object.__setattr__(self, name, as_pair(getattr(self, name), name))
        for name in ('logit_scale', 'cls_token_weight'):
            if not _is_number(getattr(self, name), Real):
                raise ConfigError(f'{_both_names(name)} is {getattr(self, name)!r}; allowed: a finite number')
        given = self.prob_threshold
        each = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
        if not each or not all(_is_number(value, Real) and 0 <= value <= 1 for value in each):
            raise ConfigError(f'{_both_names("prob_threshold")} is {given!r}; allowed: 0 to 1, for all or each class')
        if isinstance(given, Sequence):
            object.__setattr__(self, 'prob_threshold', each)
        for name in ('smooth_windows', 'exact_reference'):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f'{name} is {getattr(self, name)!r}; allowed: true or false')
        if not _is_number(self.background_index, Integral):
            given = self.background_index
            raise ConfigError(f'{_both_names("background_index")} is {given!r}; allowed: a class, from 0')
        for name, other in (('window_batch_size', AUTO), ('score_rank', None)):
            value = getattr(self, name)
            if value != other and not (_is_number(value, Integral) and value >= 1):
                raise ConfigError(f'{name} is {value!r}; allowed: 1 or more, or {other!r}')
        if not isinstance(self.refine, str | None) or self.refine not in REFINEMENTS:
            known = ', '.join(filter(None, REFINEMENTS))
            raise ConfigError(f'refine is {self.refine!r}; allowed: {known}; leave it out for no refinement')

    @classmethod
    def from_keys(cls, keys: Mapping[str, Any], others: Sequence[str] = ()) -> InferenceSettings:
        """Settings from a mapping that uses the names here or the original's keys (:data:`ORIGINAL_KEYS`).

        A ConfigError refuses an unknown key, one setting under both names, or a value that cannot be; it names the
        settings here and ``others``, which the caller has taken.
        """
        settings = by_our_names(keys, ORIGINAL_KEYS)
        known = [field.name for field in fields(cls)]
        for key in settings:
            if key not in known:
                names = [*others, *known]
                hint = did_you_mean(key, [*names, *ORIGINAL_KEYS]) or f' Known: {", ".join(names)}'
                raise ConfigError(f'unknown setting {key!r}.{hint}')
        return cls(**settings)

    @property
    def is_whole(self) -> bool:
        """Whether images are taken at once, without windows."""
        return 0 in self.crop_size


def by_our_names(settings: Mapping[str, Any], originals: Mapping[str, str]) -> dict[str, Any]:
    """Settings with the original's keys replaced by the names here; both at once are refused."""
    for key, name in originals.items():
        if key in settings and name in settings:
            raise ConfigError(f'{key} and {name} are one setting; give it once')
    return {originals.get(key, key): value for key, value in settings.items()}


def as_pair(value: Any, name: str) -> tuple[int, int]:
    """(height, width) in pixels from one number or a pair; what is neither, or negative, is refused."""
    pair = (value, value) if _is_number(value, Integral) else value
    if not isinstance(pair, Sequence) or len(pair) != 2 or not all(_is_number(n, Integral) and n >= 0 for n in pair):
        raise ConfigError(f'{_both_names(name)} is {value!r}; allowed: a number of pixels, or (height, width)')
    return int(pair[0]), int(pair[1])


def _is_number(value: Any, kind: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, kind) and math.isfinite(float(value))


def _both_names(name: str) -> str:
    original = next((key for key, ours in ORIGINAL_KEYS.items() if ours == name), None)
    return f'{original} ({name})' if original else name
