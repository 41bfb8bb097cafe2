"""From config files and the command line to settings and data set, checked before the model is built."""

import argparse
import glob
import inspect
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.dataset import BaseDataset
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, METRICS, MODELS, TRANSFORMS

import segearth.evaluation.metric
import segearth.register  # noqa: F401 - configs name what these register
from segearth.datasets import checks
from segearth.datasets.sets import RemoteSensingDataset
from segearth.errors import ConfigError, DataError, MissingFileError, UserError, did_you_mean
from segearth.inference.settings import ORIGINAL_KEYS
from segearth.models.open_vocabulary import READOUT_KEYS
from segearth.models.segmentor import SegEarthSegmentation
from segearth.paths import class_file_folders, config_folders, data_folders, find_config, find_file
from segearth.text.vocabulary import read_vocabulary
from segearth.weights.model_folders import LOCAL

NEEDED_KEYS = ('model', 'test_dataloader', 'test_evaluator', 'test_cfg')
OURS = {'LoadImageFromFile': 'LoadOpticalImage', 'LoadAnnotations': 'LoadSegLabel', 'IoUMetric': 'ClassIoUMetric'}
"""What configs of the original name -> what runs: the same figures, with files checked and counts exact."""

logger = logging.getLogger(__name__)


class ConfigOptions(DictAction):
    """KEY=VALUE pairs as a dictionary; under the option's name with ``_as_given`` the words, for who passes them on."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Parses the pairs; several --cfg-options add up."""
        wrong = [value for value in values if '=' not in value]
        if wrong:
            parser.error(f'{option}: {wrong[0]!r} is not of the form KEY=VALUE')
        before, given = getattr(namespace, self.dest), f'{self.dest}_as_given'
        folders = dict(value.split('=', 1) for value in values if value.partition('=')[2].startswith(LOCAL))
        others = [value for value in values if value.partition('=')[0] not in folders]
        super().__call__(parser, namespace, others, option)  # which takes spaces out, also those of a folder's name
        setattr(namespace, self.dest, {**before, **getattr(namespace, self.dest), **folders})
        setattr(namespace, given, [*getattr(namespace, given), *values])


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--cfg-options``; the namespace gets ``cfg_options``, a mapping, and ``cfg_options_as_given``, a list."""
    parser.set_defaults(cfg_options_as_given=[])
    text = "settings in place of the config's"
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions, default={}, metavar='KEY=VALUE', help=text)


def load_config(name: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """Loads a config file for evaluation.

    Where a config of the original names mmseg's loaders and metric, this project's take their place, and a warning says
    so. A relative ``data_root`` is looked for below the working directory, then below the checkout if there is one; the
    class-name file also beside the config.

    Args:
        name: Path of the file, or its name if it is in configs/.
        overrides: Dotted key -> value, as ``--cfg-options`` gives them.

    Raises:
        UserError: There is no such config or class-name file, it cannot be used, or an override does not fit it.
    """
    path = find_config(name)
    config = read_config(path, overrides)
    missing = [key for key in NEEDED_KEYS if config.get(key) is None]
    if missing or not isinstance(config.test_dataloader.get('dataset'), dict):
        what = ', '.join(missing) or 'test_dataloader.dataset'
        raise ConfigError(f'config {path} has no {what}: give a config of a data set, configs/cfg_NAME.py')
    _check_model_keys(config)
    _find_class_file(config, is_given='model.name_path' in (overrides or {}))
    _find_data(config.test_dataloader.dataset)
    _put_ours_in(config)
    loader, size = config.test_dataloader, config.test_dataloader.get('batch_size', 1)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ConfigError(f'test_dataloader.batch_size is {size!r}; allowed: 1 image or more')
    if not loader.get('num_workers'):
        loader['num_workers'], loader['persistent_workers'] = 0, False  # torch refuses persistence of no workers
    return config


def read_config(path: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Reads any config file of mmengine and puts overrides, dotted key -> value, into it."""
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
    return config


def match_configs(patterns: list[str]) -> list[Path]:
    """Configs by paths or patterns, relative to the working directory, else to the checkout and to its configs/."""
    paths: dict[Path, None] = {}
    for pattern in patterns:
        tried = (_glob(folder, name) for name in (pattern, f'{pattern}.py') for folder in config_folders())
        found = next(filter(None, tried), [])
        if not found:
            raise MissingFileError(
                f"no config matches {pattern!r}, from here or in the checkout. Quote patterns: --configs 'cfg_*_sar.py'"
            )
        paths.update(dict.fromkeys(path.resolve() for path in found))
    names: dict[str, Path] = {}
    for path in paths:
        if names.setdefault(path.stem, path) != path:
            raise ConfigError(f'two configs are called {path.stem}: {names[path.stem]}, {path}. Rename one')
    return list(paths)


def build_dataset(settings: Mapping[str, Any], limit: int | None = None) -> BaseDataset:
    """Builds a data set of this project or of mmseg by ``type`` and arguments; ``limit`` takes the first by name."""
    if limit is not None and limit < 1:
        raise ConfigError(f'--limit {limit}: give a number of images of 1 or more')
    kind = settings['type']
    arguments = {key: value for key, value in settings.items() if key not in ('type', '_scope_')}
    dataset_class = DATASETS.get(kind) if isinstance(kind, str) else kind
    if dataset_class is None:
        known = sorted(name for name, cls in DATASETS.module_dict.items() if issubclass(cls, RemoteSensingDataset))
        raise ConfigError(f"unknown data set type {kind!r}; this project's: {', '.join(known)}; and mmseg's")
    is_ours = issubclass(dataset_class, RemoteSensingDataset)
    if not is_ours:  # mmseg's own end in assertions
        get = arguments.get
        checks.check_folders(get('data_root'), get('data_prefix') or {}, get('ann_file') or '', kind)
    try:
        dataset = dataset_class(**arguments, **({} if is_ours else {'lazy_init': True}))
    except TypeError as error:
        raise ConfigError(f'settings of {kind} that do not fit: {error}') from error
    if not is_ours:
        checks.check_not_empty(dataset, len(dataset.load_data_list()))
        dataset.full_init()
        checks.bind_label_checks(dataset)
    if limit is not None and limit < len(dataset):
        dataset.get_subset_(limit)
    return dataset


def build_checked_dataset(settings: Config, limit: int | None, class_files: Sequence[str] = ()) -> BaseDataset:
    """Builds the data set of a config, for programs of one process; checks files, and class words given or its own."""
    init_default_scope(settings.get('default_scope', 'mmseg'))
    dataset = build_dataset(settings.test_dataloader.dataset, limit)
    for path in class_files or [settings.model.get('name_path')]:
        check_classes({**settings.model, 'name_path': path}, dataset)
    check_files(dataset)
    return dataset


def check_files(dataset: BaseDataset, with_broken: bool = False) -> dict[int, str]:
    """Checks all files of a data set: existence, sizes, and with ``with_broken`` whether they can be read.

    Processes of one evaluation share the reading. What cannot be read leaves each one's set: returns place -> message.
    """
    rank, num_processes = get_dist_info()
    if rank == 0:
        checks.check_files_exist(dataset)
    broken: dict[int, str] = {}
    if with_broken:
        shares = all_gather_object(checks.find_broken(dataset, range(rank, len(dataset), num_processes)))
        broken = dict(sorted(pair for share in shares for pair in share.items()))
        if len(broken) == len(dataset):
            raise DataError(f'none of the {len(dataset)} images can be read; the first: {broken[0]}')
        if broken:
            dataset.get_subset_([index for index in range(len(dataset)) if index not in broken])
    if rank == 0:
        checks.check_headers(dataset)
    return broken


def check_classes(model: Mapping[str, Any], dataset: BaseDataset) -> None:
    """Checks that the class words and the background index of a model fit a data set's classes."""
    num_classes = len(dataset.metainfo['classes'])
    if model.get('name_path'):
        read_vocabulary(model['name_path'], num_classes)
    background = model.get('bg_idx', 0)
    if not 0 <= background < num_classes:
        raise ConfigError(f'model.bg_idx is {background}; the data set has classes 0 to {num_classes - 1}')


def _glob(folder: Path, pattern: str) -> list[Path]:
    names = glob.glob(os.path.expanduser(pattern), root_dir=folder, recursive=True)
    return sorted(folder / name for name in names if (folder / name).is_file())


def _check_model_keys(config: Config) -> None:
    """A mistyped key would otherwise end in Python's own message about a constructor."""
    kind = config.model.get('type')
    model = MODELS.get(kind) if isinstance(kind, str) else kind
    if model is None:
        raise ConfigError(f'unknown model type {kind!r}; this project registers SegEarthSegmentation')
    parameters = inspect.signature(model).parameters
    if model is not SegEarthSegmentation and any(entry.kind == entry.VAR_KEYWORD for entry in parameters.values()):
        return
    known = SegEarthSegmentation.config_defaults() if model is SegEarthSegmentation else parameters
    originals = {name: key for key, name in (ORIGINAL_KEYS | READOUT_KEYS).items()}
    for key in config.model:
        if key not in known and key != 'type':
            hint = did_you_mean(key, known) or f' Known: {", ".join(known)}.'
            hint = f' In configs it is called {originals[key]}.' if key in originals else hint
            raise ConfigError(f'unknown key model.{key}.{hint}')


def _find_class_file(config: Config, is_given: bool) -> None:
    name = config.model.get('name_path')
    if name:
        folders = config_folders() if is_given else class_file_folders(Path(config.filename))
        remedy = 'Write one class a line, its synonyms behind commas.'
        config.model.name_path = str(find_file(name, folders, 'class-name file', remedy))


def _find_data(dataset: dict) -> None:
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


def _put_ours_in(config: Config) -> None:
    """Puts this project's loaders and metric in the place of mmseg's, in a config of the original."""
    ours = {**OURS, 'LoadImageFromFile': config.get('image_loader') or OURS['LoadImageFromFile']}
    evaluators = config.test_evaluator if isinstance(config.test_evaluator, list) else [config.test_evaluator]
    replaced = []
    for step in [*(config.test_dataloader.dataset.get('pipeline') or ()), *evaluators]:
        name = step.get('type')
        if name not in OURS:
            continue
        kind = TRANSFORMS.get(ours[name]) or METRICS.get(ours[name])
        if kind is None:
            loaders = 'LoadOpticalImage, LoadSARImage'
            raise ConfigError(f'unknown image_loader {ours[name]!r}; this project registers {loaders}')
        known = inspect.signature(kind).parameters
        special = sorted(set(step) - set(known) - {'type'})
        if special and not any(entry.kind == entry.VAR_KEYWORD for entry in known.values()):
            logger.warning("%s stays mmseg's because of %s: bad files are not named", name, ', '.join(special))
            continue
        step['type'] = ours[name]
        replaced.append(f'{ours[name]} for {name}')
    if replaced:
        logger.warning('%s: this project runs %s: the same figures', config.filename, ', '.join(replaced))
