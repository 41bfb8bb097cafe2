"""From a config file to settings that run: overrides, paths found from any folder, checked parts put in."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmseg.registry import MODELS, TRANSFORMS

from segearth.errors import ConfigError, UserError
from segearth.models.segmentor import SegEarthSegmentation
from segearth.paths import class_file_folders, config_folders, data_folders, find_config, find_file

CHECKED_STEPS = {  # mmseg's step -> ours, which does the same and names bad files
    'LoadImageFromFile': 'LoadOpticalImage',  # or what the config names as image_loader
    'LoadAnnotations': 'LoadSegLabel',
}
METRIC = ('IoUMetric', 'ClassIoUMetric')
NEEDED_KEYS = ('model', 'test_dataloader', 'test_evaluator', 'test_cfg')

logger = logging.getLogger(__name__)


def load_config(name: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """Loads a config file for evaluation.

    mmseg's loaders and its metric are replaced by this project's, which compute the same and check more. A relative
    ``data_root`` is looked for below the working directory, then below the checkout if there is one; the class-name
    file also beside the config.

    Args:
        name: Path of the file, or its name if it is in configs/.
        overrides: Dotted key -> value, as ``--cfg-options`` gives them.

    Raises:
        ConfigError: The file cannot be used, or an override does not fit it.
        MissingFileError: There is no such config or class-name file.
    """
    path = find_config(name)
    try:
        config = Config.fromfile(str(path))
    except UserError:
        raise
    except Exception as error:  # a config is a program: it can fail in any way
        raise ConfigError(f'config {path} cannot be loaded: {type(error).__name__}: {error}') from error
    try:
        config.merge_from_dict(dict(overrides or {}))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        given = ' '.join(f'{key}={value}' for key, value in (overrides or {}).items())
        raise ConfigError(f'--cfg-options {given} does not fit {path.name}: {error}') from error
    missing = [key for key in NEEDED_KEYS if config.get(key) is None]
    if missing or not isinstance(config.test_dataloader.get('dataset'), dict):
        raise ConfigError(
            f'config {path} has no {", ".join(missing) or "test_dataloader.dataset"}: give a config of a data set, '
            'configs/cfg_NAME.py'
        )
    _check_model_keys(config)
    _find_class_file(config, is_given='model.name_path' in (overrides or {}))
    _find_data_root(config.test_dataloader.dataset)
    _put_checked_parts_in(config)
    return config


def _check_model_keys(config: Config) -> None:
    """A mistyped key would otherwise end in Python's own message about a constructor."""
    kind = config.model.get('type')
    model = MODELS.get(kind) if isinstance(kind, str) else kind
    if model is None:
        raise ConfigError(f'unknown model type {kind!r}; this project registers SegEarthSegmentation')
    if model is not SegEarthSegmentation:
        return
    known = SegEarthSegmentation.config_defaults()
    for key in config.model:
        if key not in known and key != 'type':
            near = difflib.get_close_matches(key, known, n=1)
            hint = f'Did you mean {near[0]}?' if near else f'Known: {", ".join(known)}.'
            raise ConfigError(f'unknown key model.{key}. {hint}')


def _find_class_file(config: Config, is_given: bool) -> None:
    name = config.model.get('name_path')
    if name:
        folders = config_folders() if is_given else class_file_folders(Path(config.filename))
        remedy = 'Write one class a line, its synonyms behind commas.'
        config.model.name_path = str(find_file(name, folders, 'class-name file', remedy))


def _find_data_root(dataset: dict) -> None:
    """Makes ``data_root`` absolute; without one, the folders that it would precede."""
    if dataset.get('data_root'):
        dataset['data_root'] = str(_find_folder(dataset['data_root']))
        return
    for key, folder in (dataset.get('data_prefix') or {}).items():
        dataset['data_prefix'][key] = str(_find_folder(folder)) if folder else folder
    if dataset.get('ann_file'):
        dataset['ann_file'] = str(_find_folder(dataset['ann_file']))


def _find_folder(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_absolute():
        return path
    roots = data_folders()
    existing = [root / path for root in roots if (root / path).exists()]
    # where it is not there yet: where its first folder (data) is, so that the demo set is drawn into an existing one
    near = [root / path for root in roots if (root / path.parts[0]).exists()]
    return [*existing, *near, roots[-1] / path][0]


def _put_checked_parts_in(config: Config) -> None:
    dataset = config.test_dataloader.dataset
    steps = CHECKED_STEPS | ({'LoadImageFromFile': config.image_loader} if config.get('image_loader') else {})
    dataset['pipeline'] = [_checked_step(step, steps) for step in dataset.get('pipeline') or []]
    evaluators = config.test_evaluator if isinstance(config.test_evaluator, list) else [config.test_evaluator]
    for evaluator in evaluators:
        if evaluator.get('type') == METRIC[0]:
            evaluator['type'] = METRIC[1]
    loader = config.test_dataloader
    if not loader.get('num_workers'):
        loader['num_workers'], loader['persistent_workers'] = 0, False  # torch refuses persistence of no workers


def _checked_step(step: dict, steps: Mapping[str, str]) -> dict:
    replacement = steps.get(step.get('type', ''))
    if replacement is None:
        return step
    kind = TRANSFORMS.get(replacement)
    if kind is None:
        raise ConfigError(
            f'unknown image_loader {replacement!r}; this project registers LoadOpticalImage, LoadSARImage'
        )
    special = sorted(set(step) - set(inspect.signature(kind).parameters) - {'type'})
    if special:
        logger.warning("%s stays mmseg's because of %s: bad files are not named", step['type'], ', '.join(special))
        return step
    return {**step, 'type': replacement}
