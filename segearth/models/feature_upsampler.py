"""From ``feature_up_cfg`` to the upsampler of an encoder's features."""

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from segearth.errors import ConfigError
from segearth.paths import find_file, program_command, weights_folders
from segearth.weights.encoders import EncoderRecord
from segearth.weights.model_folders import (
    UPSAMPLER_CONFIG,
    UPSAMPLER_WEIGHTS,
    ModelFolder,
    is_folder_name,
    read_json,
)
from segearth.weights.records import upsampler_record
from simfeatup import UPSAMPLERS, build_upsampler, load_upsampler
from simfeatup.upsamplers.base import LinearUpsampler

logger = logging.getLogger(__name__)

RELEASED_UPSAMPLER = {'model_name': 'jbu_one', 'model_path': 'xclip_jbu_one_million_aid.ckpt'}
UNTRAINED = 'joint_bilateral'
WITHOUT_WEIGHTS = {'bilinear': (), 'joint_bilateral': ('radius', 'sigma_spatial', 'sigma_range')}
"""Upsamplers that have nothing to load -> their options, which may stand in ``feature_up_cfg``."""


def build_feature_upsampler(settings: Mapping[str, Any] | None, record: EncoderRecord | None, dim: int) -> nn.Module:
    """Builds the upsampler of ``feature_up_cfg`` (None: the released jbu_one) for an encoder's ``dim`` channels.

    Released weights are for one encoder's features. For an embedded encoder (``Mini``), and where the number of
    channels differs, the image's colours guide the upsampling in their place (``joint_bilateral``, untrained).
    ``model_path`` may be ``local-dir:PATH`` or ``hf-hub:ORG/NAME`` too: a folder or repository that training wrote,
    which says by itself what kind of upsampler it holds. A UserError says what cannot be used.
    """
    if not isinstance(settings, Mapping | None):
        raise ConfigError(f'feature_up_cfg is {settings!r}; expected model_name and model_path, as a dict')
    settings = dict(RELEASED_UPSAMPLER if settings is None else settings)
    said = _read_folder(settings['model_path']) if is_folder_name(settings.get('model_path')) else {}
    name = settings.get('model_name', said.get('model_name', RELEASED_UPSAMPLER['model_name']))
    if name not in UPSAMPLERS:
        raise ConfigError(f'unknown upsampler {name!r} in feature_up_cfg; known: {", ".join(UPSAMPLERS)}')
    allowed = (*RELEASED_UPSAMPLER, *WITHOUT_WEIGHTS.get(name, ()))
    unknown = sorted(set(settings) - set(allowed))
    if unknown:
        wrong, right = ', '.join(unknown), ', '.join(allowed)
        raise ConfigError(f'unknown keys in feature_up_cfg of {name}: {wrong}; allowed: {right}')
    if name in WITHOUT_WEIGHTS:
        options = {key: value for key, value in settings.items() if key not in RELEASED_UPSAMPLER}
        try:
            return build_upsampler(name, dim, **options).eval()
        except TypeError:  # 'a' < 1
            raise ConfigError(f'feature_up_cfg of {name}: {options} must be numbers') from None
    path = said.get('path', settings.get('model_path'))
    if not path:
        raise ConfigError(f'feature_up_cfg of {name} needs model_path, the file of its weights')
    released = None if said else upsampler_record(path)
    is_embedded = record is not None and record.model_config is not None  # an architecture of our own
    if released and (released.dim != dim or (is_embedded and released.url is not None)):
        encoder = record.name if record else 'this encoder'
        level = logging.INFO if is_embedded else logging.WARNING  # the embedded ones are meant to run without
        logger.log(level, '%s is not for %s: %s (untrained) takes its place', released.name, encoder, UNTRAINED)
        return build_upsampler(UNTRAINED, dim).eval()
    fetch = released.remedy if released else f'Released weights: "{program_command("download_weights")} --list".'
    remedy = f'{fetch} Or run without: feature_up=False (eval.py: --cfg-options model.feature_up=False).'
    path = find_file(path, weights_folders(), f'weights of the upsampler {name}', remedy)
    try:
        upsampler = load_upsampler(name, dim, path, **said.get('options', {}))
    except (TypeError, RuntimeError) as error:  # of options that are no numbers, or none above 0
        raise ConfigError(f'{settings["model_path"]}: options of {UPSAMPLER_CONFIG} that do not fit: {error}') from None
    if not isinstance(upsampler, LinearUpsampler):
        logger.info('%s is no linear map of the features: all channels are upsampled, which is slow', name)
    return upsampler


def _read_folder(name: str) -> dict[str, Any]:
    """``model_name`` and ``options`` of the upsampler in a folder or repository, and the ``path`` of its weights."""
    folder = ModelFolder(name)
    content = read_json(folder.need('upsampler', UPSAMPLER_CONFIG))
    if not isinstance(content.get('model_name'), str) or not isinstance(content.get('options', {}), dict):
        raise ConfigError(f'{name}: {UPSAMPLER_CONFIG} must say model_name, and perhaps options, an object')
    return content | {'path': folder.need('weights of an upsampler', UPSAMPLER_WEIGHTS)}
