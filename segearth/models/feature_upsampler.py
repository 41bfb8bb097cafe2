"""From ``feature_up_cfg`` to the upsampler of an encoder's features."""

import importlib
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
from segearth.weights.records import UPSAMPLER_WEIGHTS as UPSAMPLER_RECORDS
from segearth.weights.records import upsampler_record
from simfeatup import UPSAMPLERS, build_upsampler, load_upsampler
from simfeatup.scoring import Upsample
from simfeatup.upsamplers.base import LinearUpsampler

logger = logging.getLogger(__name__)

RELEASED_UPSAMPLER = {'model_name': 'jbu_one', 'model_path': 'xclip_jbu_one_million_aid.ckpt'}
UNTRAINED = 'joint_bilateral'
WITHOUT_WEIGHTS = {
    'bilinear': (),
    'joint_bilateral': ('radius', 'sigma_spatial', 'sigma_range'),
    'anything': ('num_steps', 'learning_rate'),
}
"""Upsamplers that have nothing to load -> their options, which may stand in ``feature_up_cfg``."""


def build_feature_upsampler(settings: Mapping[str, Any] | None, record: EncoderRecord | None, dim: int) -> Upsample:
    """Builds the upsampler of ``feature_up_cfg`` (None: the released jbu_one) for an encoder's ``dim`` channels.

    Released weights are for one encoder's features, but for naf's. For an embedded encoder (``Mini``), and where the
    number of channels differs, the image's colours guide the upsampling in their place (``joint_bilateral``,
    untrained). ``model_path`` may be ``local-dir:PATH`` or ``hf-hub:ORG/NAME`` too: a folder or repository that
    training wrote, which says by itself what kind of upsampler it holds. ``model_name`` may be ``module:function``
    instead of a known name, see :func:`own_upsampler`; never that of a folder or repository, which would then run code.
    A UserError says what cannot be used.
    """
    if not isinstance(settings, Mapping | None):
        raise ConfigError(f'feature_up_cfg is {settings!r}; expected model_name and model_path, as a dict')
    settings = dict(RELEASED_UPSAMPLER if settings is None else settings)
    given = settings.get('model_name')
    is_own = isinstance(given, str) and ':' in given
    is_folder = is_folder_name(settings.get('model_path')) and not is_own
    said = _read_folder(settings['model_path']) if is_folder else {}
    name = settings.get('model_name', said.get('model_name', RELEASED_UPSAMPLER['model_name']))
    if not is_own and (not isinstance(name, str) or name not in UPSAMPLERS):
        place = settings['model_path'] if 'model_name' not in settings else 'feature_up_cfg'
        own = '' if said else '; or module:function of your own'
        raise ConfigError(f'unknown upsampler {name!r} in {place}; known: {", ".join(UPSAMPLERS)}{own}')
    allowed = (*RELEASED_UPSAMPLER, *WITHOUT_WEIGHTS.get(name, ()))
    unknown = sorted(set(settings) - set(allowed))
    if unknown:
        wrong, right = ', '.join(unknown), ', '.join(allowed)
        raise ConfigError(f'unknown keys in feature_up_cfg of {name}: {wrong}; allowed: {right}')
    if is_own:
        return own_upsampler(name, dim, 'model_name of feature_up_cfg')
    if name in WITHOUT_WEIGHTS:
        options = {key: value for key, value in settings.items() if key not in RELEASED_UPSAMPLER}
        try:
            return build_upsampler(name, dim, **options).eval()
        except TypeError:  # 'a' < 1
            raise ConfigError(f'feature_up_cfg of {name}: {options} must be numbers') from None
    path = said.get('path') or _weights_path(name, settings.get('model_path'))
    if not path:
        remedy = f'for released ones see "{program_command("download_weights")} --list"'
        raise ConfigError(f'feature_up_cfg of {name} needs model_path, the file of its weights; {remedy}')
    released = None if said else upsampler_record(path)
    is_embedded = record is not None and record.model_config is not None  # an architecture of our own
    if released and released.dim and (released.dim != dim or (is_embedded and released.url is not None)):
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
    _say_if_slow(name, upsampler)
    return upsampler


def own_upsampler(name: str, dim: int, place: str) -> Upsample:
    """What ``function(dim)`` of a name ``module:function`` gives: an upsampler of the user's own, for ``dim`` channels.

    It is a callable of features (B, C, h, w), as the encoder gives them, and guidance (B, 3, H, W), the normalised
    windows, that gives (B, C, H, W). A module is put into eval mode. The place in which the name stands is for the
    messages of a ConfigError: there is no such module or function, or what it gives cannot be called.
    """
    module, _, function = name.partition(':')
    try:
        build = getattr(importlib.import_module(module), function, None)
    except Exception as error:  # a module is a program: it can fail in any way
        is_absent = isinstance(error, ModuleNotFoundError) and error.name in (module, module.partition('.')[0])
        remedy = ' Is the folder of the module on PYTHONPATH?' if is_absent else ''
        raise ConfigError(
            f'{place} is {name!r}; expected module:function that can be imported ({type(error).__name__}: {error}).'
            f'{remedy}'
        ) from error
    if build is None:
        raise ConfigError(f'{place} is {name!r}; expected module:function, but {module} has no {function!r}')
    if not callable(build):
        raise ConfigError(f'{place} is {name!r}; expected a function, not a {type(build).__name__}')
    try:
        upsampler = build(dim)
    except Exception as error:
        raise ConfigError(
            f'{place} is {name!r}; {function}({dim}), for {dim} channels, failed ({type(error).__name__}: {error})'
        ) from error
    if not callable(upsampler):
        raise ConfigError(
            f'{place} is {name!r}; expected a function that gives a callable of features and guidance; it gave a '
            f'{type(upsampler).__name__}'
        )
    _say_if_slow(name, upsampler)
    return upsampler.eval() if isinstance(upsampler, nn.Module) else upsampler


def _say_if_slow(name: str, upsampler: Upsample) -> None:
    if not isinstance(upsampler, LinearUpsampler):
        logger.info('%s is no linear map of the features: all channels are upsampled, which is slow', name)


def _weights_path(name: str, path: str | None) -> str | None:
    """The given file; where that is another upsampler's release, the one of this for all encoders, if any."""
    given = upsampler_record(path) if path else None
    if path and (given is None or given.group == name):
        return path
    of_all = [record.file for record in UPSAMPLER_RECORDS if record.group == name and record.dim is None]
    return of_all[0] if of_all else path


def _read_folder(name: str) -> dict[str, Any]:
    """``model_name`` and ``options`` of the upsampler in a folder or repository, and the ``path`` of its weights."""
    folder = ModelFolder(name)
    content = read_json(folder.need('upsampler', UPSAMPLER_CONFIG))
    if not isinstance(content.get('model_name'), str) or not isinstance(content.get('options', {}), dict):
        raise ConfigError(f'{name}: {UPSAMPLER_CONFIG} must say model_name, and perhaps options, an object')
    return content | {'path': folder.need('weights of an upsampler', UPSAMPLER_WEIGHTS)}
