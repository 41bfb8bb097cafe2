"""Checks of a data set before anything runs on it, for this project's data set classes and mmseg's alike."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from segearth.datasets.transforms import LoadSegLabel
from segearth.errors import DataError, MissingFileError, shorten
from segearth.io.gdal_files import UnreadableFileError
from segearth.io.labels import check_kind, check_sizes
from segearth.io.raster import read_info

MAX_SHOWN = 3  # files named in a message
NUM_THREADS = 8  # reading waits for the disk, and decoding runs outside the interpreter's lock
WHERE = (
    'Prepare the data set (docs/datasets.md), or say where it is: the environment variable SEGEARTH_DATA for '
    'the folder of all data sets, --cfg-options test_dataloader.dataset.data_root=FOLDER for this one'
)


def check_folders(
    data_root: str | None, data_prefix: dict[str, str], ann_file: str = '', name: str = 'the data set'
) -> None:
    """Checks that the folders of a data set (``img_path``, ``seg_map_path``) and its list of images, if any, exist."""
    whats = {'img_path': 'image folder', 'seg_map_path': 'label folder'}
    for key, prefix in data_prefix.items():
        folder = os.path.join(data_root or '', prefix or '')
        if not os.path.isdir(folder):
            raise MissingFileError(f'{whats.get(key, key)} of {name} not found: {folder}. {WHERE}')
    path = os.path.join(data_root or '', ann_file)
    if ann_file and not os.path.isfile(path):
        raise MissingFileError(f'list of images of {name} not found: {path}. {WHERE}')


def check_not_empty(dataset: BaseDataset, num_images: int) -> None:
    """Checks that a data set found images; else a DataError says what is there instead."""
    if num_images:
        return
    folder = dataset.data_prefix.get('img_path', '')
    name, suffix = type(dataset).__name__, getattr(dataset, 'img_suffix', '')
    if dataset.ann_file and os.path.isfile(dataset.ann_file):
        raise DataError(f'{name} is empty: the list {dataset.ann_file} names no images')
    found = Counter(Path(file).suffix for _, _, files in os.walk(folder) for file in files)
    there = ', '.join(f'{count} {kind or "without suffix"}' for kind, count in found.most_common(4)) or 'no files'
    raise DataError(
        f'{name} is empty: {folder} has no file ending in {suffix} (it has {there}). If the images end otherwise: '
        '--cfg-options test_dataloader.dataset.img_suffix=SUFFIX'
    )


def bind_label_checks(dataset: BaseDataset) -> None:
    """Tells the label loader of a data set's pipeline which ids there are."""
    if (loader := label_loader(dataset)) is not None:
        loader.num_ids = num_ids_of(dataset)


def label_loader(dataset: BaseDataset) -> LoadSegLabel | None:
    """The step of a data set's pipeline that loads and checks labels, if there is one."""
    return next((step for step in dataset.pipeline.transforms if isinstance(step, LoadSegLabel)), None)


def num_ids_of(dataset: BaseDataset) -> int:
    """Number of ids that a label of a data set may hold: 0 to this less one; and 255 besides."""
    label_map = getattr(dataset, 'label_map', None)
    return len(label_map or dataset.metainfo['classes']) + bool(getattr(dataset, 'reduce_zero_label', False))


def check_files_exist(dataset: BaseDataset) -> None:
    """Checks that every image and its label exist; else a MissingFileError counts the missing and names the first."""
    images, labels = zip(*_pairs(dataset), strict=True)
    for what, paths in (('image', images), ('label', labels)):
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            is_there = pool.map(lambda path: path is None or os.path.isfile(path), paths)
        missing = [path for path, there in zip(paths, is_there, strict=True) if not there]
        if missing:
            some = shorten(missing, MAX_SHOWN)
            raise MissingFileError(f'{what} file missing for {len(missing)} of {len(paths)} images: {some}. {WHERE}')


def check_headers(dataset: BaseDataset) -> None:
    """Checks that every label has its image's size and is no picture, from the headers of the files alone."""
    loader = label_loader(dataset)

    def check(pair: tuple[str, str | None]) -> None:
        image, label = pair
        size = read_info(image).size
        if label is not None:
            info = read_info(label, is_picture=False)
            if loader:
                check_kind(info.is_palette, info.num_bands, label, loader.accept_palette)
            check_sizes(info.size, size, label, image)

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        list(pool.map(check, _pairs(dataset)))  # the list raises what a thread raised


def find_broken(dataset: BaseDataset, indices: Sequence[int] | None = None) -> dict[int, str]:
    """Reads the images and labels at some places, or at all: place -> message of each pair that cannot be read.

    Raises:
        DataError: A file can be read but not used, such as a label with wrong ids: leaving it out would hide a
            fault of the whole data set.
    """
    loaders = [step for step in dataset.pipeline.transforms if type(step).__name__.startswith('Load')]

    def fault(index: int) -> str | None:
        sample: dict[str, Any] = dataset.get_data_info(index)
        try:
            for step in loaders:
                sample = step(sample)
        except UnreadableFileError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        indices = range(len(dataset)) if indices is None else indices
        return {index: text for index, text in zip(indices, pool.map(fault, indices), strict=True) if text is not None}


def _pairs(dataset: BaseDataset) -> Iterator[tuple[str, str | None]]:
    for index in range(len(dataset)):
        sample = dataset.get_data_info(index)
        yield sample['img_path'], sample.get('seg_map_path')
