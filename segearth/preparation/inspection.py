"""Looking at a prepared data set, file by file: what is there, what is wrong, how its classes are spread."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset
from PIL import Image

from segearth.datasets.labels import IGNORE_INDEX, check_sizes, read_label
from segearth.datasets.transforms import LoadSegLabel
from segearth.errors import UserError
from segearth.io.raster import read_info
from segearth.published import PublishedCount

NUM_IDS = 256
MAX_SHOWN = 5  # messages of one kind, names in a message


@dataclass
class Inspection:
    """What a data set has.

    Attributes:
        num_pairs: Images of the data set, labelled or not.
        num_sound: Pairs that were looked at and have no fault.
        image_modes: How many images of each mode, in Pillow's words (RGB, L, P, F, ...).
        label_modes: The same of the labels.
        sizes: How many images of each size (height, width).
        pixels: (256,) pixels of each label id.
        images: (256,) images that have it.
        errors: What stands against an evaluation.
        remarks: What one should know.
    """

    num_pairs: int = 0
    num_sound: int = 0
    image_modes: Counter[str] = field(default_factory=Counter)
    label_modes: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(NUM_IDS, dtype=np.int64))
    images: np.ndarray = field(default_factory=lambda: np.zeros(NUM_IDS, dtype=np.int64))
    errors: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass
class _Pair:
    """One image with its label, as far as it could be read."""

    modes: tuple[str, str] | None = None
    size: tuple[int, int] | None = None
    pixels: np.ndarray | None = None
    error: str | None = None


def inspect_dataset(
    dataset: BaseDataset,
    indices: Sequence[int] | None = None,
    num_threads: int = 8,
    advance: Callable[[], None] = lambda: None,
) -> Inspection:
    """Reads the headers of the images and all of the labels.

    Args:
        dataset: Of this project or of mmseg.
        indices: Places to look at; None for all.
        num_threads: Files read at once.
        advance: Called after each pair.

    Returns:
        Findings; files that cannot be used are among its errors.
    """
    found = Inspection(num_pairs=len(dataset))
    pairs = [
        (sample['img_path'], sample.get('seg_map_path')) for sample in map(dataset.get_data_info, range(len(dataset)))
    ]
    for what, paths in (
        ('images do not exist', [image for image, _ in pairs]),
        ('images have no label', [label for _, label in pairs]),
    ):
        _note(found.errors, [str(path) for path in paths if path is None or not os.path.isfile(path)], what, len(pairs))
    complete = [pair for pair in _chosen(pairs, indices) if all(path and os.path.isfile(path) for path in pair)]
    read = _reader(dataset)
    failures: list[str] = []
    with ThreadPoolExecutor(num_threads) as pool:
        for pair in pool.map(read, complete):
            advance()
            _add(found, pair)
            failures += [pair.error] if pair.error else []
    found.errors += failures[:MAX_SHOWN]
    if len(failures) > MAX_SHOWN:
        found.errors.append(f'... and {len(failures) - MAX_SHOWN} more files like these')
    _remark_on_strays(found, dataset, [label for _, label in pairs])
    _remark_on_classes(found, dataset)
    return found


def class_of_id(dataset: BaseDataset) -> np.ndarray:
    """(256,) uint8: class of each label id, as the data set reads it; 255 where ids are not evaluated."""
    table = np.arange(NUM_IDS)
    if getattr(dataset, 'reduce_zero_label', False):
        table = np.concatenate([[IGNORE_INDEX], table[:-1]])
        table[IGNORE_INDEX] = IGNORE_INDEX
    for old, new in (getattr(dataset, 'label_map', None) or {}).items():
        table = np.where(table == old, new, table)
    return np.where(table < len(dataset.metainfo['classes']), table, IGNORE_INDEX).astype(np.uint8)


def compare_count(found: Inspection, published: PublishedCount | None, is_other_place: bool) -> None:
    """Compares the number of images with the published one.

    Args:
        found: Gets an error when they differ, or a remark if the data were looked for at another place on purpose.
        published: None if it is not known.
        is_other_place: The user said where the data are, so that they may be a part or another set.
    """
    if published is None or published.count == found.num_pairs:
        return
    text = f'{found.num_pairs} images; published: {published.count} ({published.source})'
    (found.remarks if is_other_place else found.errors).append(text)


def share_ignored(found: Inspection, dataset: BaseDataset) -> float:
    """Share of the pixels that are not evaluated, in [0, 1]."""
    return float(found.pixels[class_of_id(dataset) == IGNORE_INDEX].sum() / max(found.pixels.sum(), 1))


def num_ids_of(dataset: BaseDataset) -> int:
    """Ids that a label of a data set may hold: 0 to this number less one, and 255."""
    label_map = getattr(dataset, 'label_map', None)
    return len(label_map or dataset.metainfo['classes']) + bool(getattr(dataset, 'reduce_zero_label', False))


def _reader(dataset: BaseDataset) -> Callable[[tuple[str, str]], _Pair]:
    loader = next((step for step in dataset.pipeline.transforms if isinstance(step, LoadSegLabel)), LoadSegLabel())
    num_ids = num_ids_of(dataset)

    def read(paths: tuple[str, str]) -> _Pair:
        image, label = paths
        pair = _Pair()
        try:
            pair.size, label_size = read_info(image).size, read_info(label, is_picture=False).size
            pair.modes = _mode(image), _mode(label)
            ids = read_label(label, accept_palette=True, accept_mask_255=True)  # whatever is there, to tell of it
            pair.pixels = np.bincount(ids.ravel(), minlength=NUM_IDS)
            check_sizes(label_size, pair.size, label, image)
            if _may_be_refused(pair, num_ids):
                read_label(label, num_ids, loader.accept_palette, loader.accept_mask_255)
        except UserError as error:
            pair.error = str(error)
        return pair

    return read


def _may_be_refused(pair: _Pair, num_ids: int) -> bool:
    """Whether the strict reading could say no: rarely, so most labels are decoded once."""
    if pair.modes is None or pair.modes[1] != 'L' or pair.pixels is None:
        return True
    return bool(pair.pixels[num_ids:IGNORE_INDEX].any() or (num_ids == 2 and pair.pixels[IGNORE_INDEX] > 0))


def _mode(path: str) -> str:
    """Pillow's mode from the header; for what Pillow does not know, the bands."""
    try:
        with Image.open(path) as image:
            return image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return f'{read_info(path, is_picture=False).num_bands} bands'


def _chosen(pairs: list, indices: Sequence[int] | None) -> list:
    return pairs if indices is None else [pairs[index] for index in indices]


def _add(found: Inspection, pair: _Pair) -> None:
    found.num_sound += pair.error is None
    if pair.modes is not None and pair.size is not None:
        found.image_modes[pair.modes[0]] += 1
        found.label_modes[pair.modes[1]] += 1
        found.sizes[pair.size] += 1
    if pair.pixels is not None:
        found.pixels += pair.pixels
        found.images += pair.pixels > 0


def _remark_on_strays(found: Inspection, dataset: BaseDataset, labels: Sequence[str | None]) -> None:
    """Labels that belong to no image; a list chooses some, so there they mean nothing."""
    folder = dataset.data_prefix.get('seg_map_path')
    if dataset.ann_file or not folder or not os.path.isdir(folder):
        return
    known = {os.path.abspath(label) for label in labels if label}
    there = (os.path.abspath(path) for path in Path(folder).rglob(f'*{dataset.seg_map_suffix}'))
    _note(found.remarks, sorted(path for path in there if path not in known), 'labels belong to no image', None)


def _remark_on_classes(found: Inspection, dataset: BaseDataset) -> None:
    if not found.pixels.any():
        return
    table, names = class_of_id(dataset), dataset.metainfo['classes']
    absent = [name for place, name in enumerate(names) if not found.pixels[table == place].any()]
    if absent:
        found.remarks.append(f'classes without a pixel: {", ".join(absent)}')


def _note(notes: list[str], names: Sequence[str], what: str, total: int | None) -> None:
    if names:
        shown = ', '.join(names[:MAX_SHOWN]) + (', ...' if len(names) > MAX_SHOWN else '')
        notes.append(f'{len(names)}{"" if total is None else f" of {total}"} {what}: {shown}')
