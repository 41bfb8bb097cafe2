"""The data set of an evaluation, built and checked before the model is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from segearth.datasets.checks import (
    BrokenPair,
    bind_label_checks,
    check_files_exist,
    check_folders,
    check_headers,
    check_not_empty,
    find_broken,
)
from segearth.datasets.sets import RemoteSensingDataset
from segearth.errors import ConfigError, DataError
from segearth.text.vocabulary import read_vocabulary


def build_dataset(settings: Mapping[str, Any], limit: int | None = None) -> BaseDataset:
    """Builds a data set of this project or of mmseg.

    Args:
        settings: ``type`` and the arguments.
        limit: Number of images to take, the first by name; None for all.

    Raises:
        ConfigError: Unknown type or argument, or a limit below 1.
        DataError: No images.
        MissingFileError: A folder does not exist.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f'--limit {limit}: give a number of images of 1 or more')
    arguments = dict(settings)
    arguments.pop('_scope_', None)
    kind = arguments.pop('type')
    dataset_class = DATASETS.get(kind) if isinstance(kind, str) else kind
    if dataset_class is None:
        known = sorted(name for name, cls in DATASETS.module_dict.items() if issubclass(cls, RemoteSensingDataset))
        raise ConfigError(f"unknown data set type {kind!r}; this project's: {', '.join(known)}; and mmseg's")
    is_ours = issubclass(dataset_class, RemoteSensingDataset)
    if not is_ours:  # mmseg's own end in assertions
        folders = arguments.get('data_root'), arguments.get('data_prefix') or {}
        check_folders(*folders, arguments.get('ann_file') or '', kind)
    try:
        dataset = dataset_class(**arguments, **({} if is_ours else {'lazy_init': True}))
    except TypeError as error:
        raise ConfigError(f'settings of {kind} that do not fit: {error}') from error
    if not is_ours:
        check_not_empty(dataset, len(dataset.load_data_list()))
        dataset.full_init()
        bind_label_checks(dataset)
    if limit is not None and limit < len(dataset):
        dataset.get_subset_(limit)
    return dataset


def build_checked_dataset(settings: Config, limit: int | None, class_files: Sequence[str] = ()) -> BaseDataset:
    """Builds the data set of a config and checks files and classes, for programs of one process.

    Args:
        settings: Config from :func:`segearth.evaluation.configuration.load_config`.
        limit: Number of images, the first by name; None for all.
        class_files: Class-name files that have to fit the data set; none for the config's.

    Raises:
        UserError: Something cannot be used.
    """
    init_default_scope(settings.get('default_scope', 'mmseg'))
    dataset = build_dataset(settings.test_dataloader.dataset, limit)
    for path in class_files or [settings.model.get('name_path')]:
        check_classes({**settings.model, 'name_path': path}, dataset)
    check_files(dataset)
    return dataset


def check_files(dataset: BaseDataset, with_broken: bool = False) -> list[BrokenPair]:
    """Checks all files of a data set: existence, sizes, and with ``with_broken`` whether they can be read.

    Processes of one evaluation share the reading; unreadable images are taken out of the data set of each.

    Returns:
        What was taken out.

    Raises:
        DataError: A file cannot be used, or none is left.
        MissingFileError: An image has no label, or does not exist.
    """
    rank, num_processes = get_dist_info()
    if rank == 0:
        check_files_exist(dataset)
    broken: list[BrokenPair] = []
    if with_broken:
        shares = all_gather_object(find_broken(dataset, range(rank, len(dataset), num_processes)))
        broken = sorted((pair for share in shares for pair in share), key=lambda pair: pair.index)
        if len(broken) == len(dataset):
            raise DataError(f'none of the {len(dataset)} images can be read; the first: {broken[0].reason}')
        gone = {pair.index for pair in broken}
        if gone:
            dataset.get_subset_([index for index in range(len(dataset)) if index not in gone])
    if rank == 0:
        check_headers(dataset)
    return broken


def check_classes(model: Mapping[str, Any], dataset: BaseDataset) -> None:
    """Checks that the class words and the background index of a model fit a data set's classes.

    Raises:
        ConfigError: Another number of lines than classes, a faulty line, or an index without a class.
    """
    num_classes = len(dataset.metainfo['classes'])
    if model.get('name_path'):
        read_vocabulary(model['name_path'], num_classes)
    background = model.get('bg_idx', 0)
    if not 0 <= background < num_classes:
        raise ConfigError(f'model.bg_idx is {background}; the data set has classes 0 to {num_classes - 1}')
