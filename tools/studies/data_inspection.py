"""Looking at a prepared data set, file by file: what is there, what is wrong, how its classes are spread."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset
from PIL import Image

from segearth.datasets.checks import label_loader, num_ids_of
from segearth.datasets.transforms import NUM_IDS, LoadSegLabel, class_table
from segearth.errors import UserError
from segearth.io.labels import IGNORE_INDEX, check_sizes, read_label
from segearth.io.raster import read_info
from segearth.progress import Report

MAX_SHOWN = 5  # messages of one kind, names in a message


@dataclass
class Inspection:
    """What a data set has.

    Attributes:
        num_pairs: Images of the data set, labelled or not.
        num_sound: Pairs that were looked at and have no fault.
        image_modes: How many images of each mode, in Pillow's words (RGB, L, P, F, ...).
        label_modes: How many labels of each mode.
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

    def add(self, pair: Inspection) -> None:
        """Adds what was found of one pair, but for its errors."""
        self.num_sound += pair.num_sound
        self.image_modes += pair.image_modes
        self.label_modes += pair.label_modes
        self.sizes += pair.sizes
        self.pixels += pair.pixels
        self.images += pair.images


def inspect_dataset(
    dataset: BaseDataset,
    indices: Sequence[int] | None = None,
    num_threads: int = 8,
    report: Report = lambda done, total: None,
) -> Inspection:
    """Reads the headers of the images and all of the labels.

    Args:
        dataset: A data set of this project or of mmseg.
        indices: Places to look at; None for all.
        num_threads: Files read at once.
        report: Told how many pairs are read, and how many there are.

    Returns:
        Findings; files that cannot be used are among its errors.
    """
    found = Inspection(num_pairs=len(dataset))
    samples = [dataset.get_data_info(index) for index in range(len(dataset))]
    pairs = [(sample['img_path'], sample.get('seg_map_path')) for sample in samples]
    for what, paths in (
        ('images do not exist', [image for image, _ in pairs]),
        ('images have no label', [label for _, label in pairs]),
    ):
        missing = [str(path) for path in paths if path is None or not os.path.isfile(path)]
        _note(found.errors, missing, f'of {len(pairs)} {what}')
    chosen = pairs if indices is None else [pairs[index] for index in indices]
    complete = [pair for pair in chosen if all(path and os.path.isfile(path) for path in pair)]
    read = partial(_read, label_loader(dataset) or LoadSegLabel(), num_ids_of(dataset))
    failures: list[str] = []
    with ThreadPoolExecutor(num_threads) as pool:
        for done, pair in enumerate(pool.map(read, complete), 1):
            report(done, len(complete))
            found.add(pair)
            failures += pair.errors
    found.errors += failures[:MAX_SHOWN]
    if len(failures) > MAX_SHOWN:
        found.errors.append(f'... and {len(failures) - MAX_SHOWN} more files like these')
    _remark_on_strays(found, dataset, [label for _, label in pairs])
    _remark_on_classes(found, dataset)
    return found


def class_of_id(dataset: BaseDataset) -> np.ndarray:
    """(256,) uint8: class of each label id, as the data set reads it; 255 where ids are not evaluated."""
    table = class_table(getattr(dataset, 'reduce_zero_label', False), getattr(dataset, 'label_map', None))
    return np.where(table < len(dataset.metainfo['classes']), table, IGNORE_INDEX).astype(np.uint8)


def share_ignored(found: Inspection, dataset: BaseDataset) -> float:
    """Share of the pixels that are not evaluated, in [0, 1]."""
    return float(found.pixels[class_of_id(dataset) == IGNORE_INDEX].sum() / max(found.pixels.sum(), 1))


def _read(loader: LoadSegLabel, num_ids: int, paths: tuple[str, str]) -> Inspection:
    """One image with its label, as far as it can be read."""
    found = Inspection()
    image, label = paths
    try:
        size, label_size = read_info(image).size, read_info(label, is_picture=False).size
        found.image_modes[_mode(image)] += 1
        found.label_modes[_mode(label)] += 1
        found.sizes[size] += 1
        try:
            ids = read_label(label, num_ids, loader.accept_palette, loader.accept_mask_255)
        except UserError as error:
            found.errors = [str(error)]
            ids = read_label(label, accept_palette=True, accept_mask_255=True)  # whatever is there, to tell of it
        found.pixels = np.bincount(ids.ravel(), minlength=NUM_IDS)
        found.images = (found.pixels > 0).astype(np.int64)
        check_sizes(label_size, size, label, image)
    except UserError as error:
        found.errors = [str(error)]
    found.num_sound = int(not found.errors)
    return found


def _mode(path: str) -> str:
    """Pillow's mode from the header; for what Pillow does not know, the bands."""
    try:
        with Image.open(path) as image:
            return image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return f'{read_info(path, is_picture=False).num_bands} bands'


def _remark_on_strays(found: Inspection, dataset: BaseDataset, labels: Sequence[str | None]) -> None:
    """Labels that belong to no image; a list chooses some, so there they mean nothing."""
    folder = dataset.data_prefix.get('seg_map_path')
    if dataset.ann_file or not folder or not os.path.isdir(folder):
        return
    known = {os.path.abspath(label) for label in labels if label}
    there = (os.path.abspath(path) for path in Path(folder).rglob(f'*{dataset.seg_map_suffix}'))
    _note(found.remarks, sorted(path for path in there if path not in known), 'labels belong to no image')


def _remark_on_classes(found: Inspection, dataset: BaseDataset) -> None:
    table, names = class_of_id(dataset), dataset.metainfo['classes']
    absent = [name for place, name in enumerate(names) if not found.pixels[table == place].any()]
    if absent and found.pixels.any():
        found.remarks.append(f'classes without a pixel: {", ".join(absent)}')


def _note(notes: list[str], names: Sequence[str], what: str) -> None:
    if names:
        shown = ', '.join(names[:MAX_SHOWN]) + (', ...' if len(names) > MAX_SHOWN else '')
        notes.append(f'{len(names)} {what}: {shown}')
