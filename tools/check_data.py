"""Checks prepared data sets: files, pairs, counts against the published ones, sizes, label ids and their shares.

python tools/check_data.py configs/cfg_loveda.py
python tools/check_data.py --all
python tools/check_data.py configs/cfg_loveda.py --cfg-options test_dataloader.dataset.data_root=elsewhere

A picture of some images with their labels is drawn for each config. Exit code 1 if something is wrong with the
data, 2 if the program was called wrongly.
"""

import argparse
import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import checkout  # noqa: F401 - makes the packages beside it importable
import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from PIL import Image

import segearth.register  # noqa: F401 - the data sets
from segearth.cli import build_parser, run_cli
from segearth.datasets.checks import label_loader, num_ids_of
from segearth.datasets.transforms import NUM_IDS, LoadSegLabel, class_table
from segearth.errors import ConfigError, MissingFileError, UserError, shorten
from segearth.evaluation.configuration import add_config_options, build_dataset, load_config
from segearth.io.atomic import replacing
from segearth.io.labels import IGNORE_INDEX, check_sizes, read_label
from segearth.io.outputs import writing
from segearth.io.panels import IGNORED_COLOUR, colour_map, default_palette, draw_panels
from segearth.io.raster import read_info
from segearth.paths import PROJECT_ROOT
from segearth.preparation.program import positive
from segearth.preparation.recipe import preparation_command
from segearth.progress import Report, progress_bar
from segearth.published import PublishedCount, published_images

logger = logging.getLogger('check_data')

EXIT_WRONG_DATA = 1
PLACES = ('data_root', 'data_prefix', 'ann_file', 'indices')  # settings that say where the data are, and which
MAX_SHOWN = 5  # messages of one kind, names in a message
MAX_LISTED = 4  # sizes or modes
OUTSIDE = 'outside the classes'
THUMBNAIL = 240  # pixels, the longer side
MAX_TITLE = 26  # characters that fit above a thumbnail


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program and returns its exit code."""
    parser = build_parser(__doc__)
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='configs, such as configs/cfg_loveda.py')
    parser.add_argument('--all', action='store_true', help='all configs in configs/')
    add_config_options(parser)
    parser.add_argument('--limit', type=positive, help='read only so many labels, evenly spread')
    parser.add_argument('--pictures', type=Path, default=Path('work_dirs/check_data'), help='folder of the pictures')
    parser.add_argument('--columns', type=positive, default=6, help='images in a picture')
    parser.add_argument('--jobs', type=positive, default=max(8, os.cpu_count() or 1), help='files read at once')
    options = parser.parse_args(arguments)
    if options.all == bool(options.configs):
        parser.error('give configs, or --all')
    names = sorted(map(str, (PROJECT_ROOT / 'configs').glob('cfg_*.py'))) if options.all else options.configs
    configs = [load_config(name, options.cfg_options) for name in names]
    wrong = [Path(config.filename).name for config in configs if not is_sound(config, options)]
    rest = f'; not {", ".join(wrong)}' if wrong else ''
    print(f'{len(configs) - len(wrong)} of {len(configs)} data sets are sound{rest}')
    return EXIT_WRONG_DATA if wrong else 0


def is_sound(config: Config, options: argparse.Namespace) -> bool:
    """Checks the data set of one config and prints the findings; a config that cannot be used is an error."""
    init_default_scope(config.get('default_scope', 'mmseg'))
    name, settings = Path(config.filename).name, config.test_dataloader.dataset
    print(f'{name}: {settings.type}')
    try:
        dataset = build_dataset(settings)
    except ConfigError:
        raise
    except UserError as error:
        print(f'  ERROR      {error}')
        if isinstance(error, MissingFileError):
            print(f'  remedy     {preparation_command(name) or "used as downloaded"}; docs/datasets.md')
        return False
    indices = spread(len(dataset), options.limit or len(dataset))
    with progress_bar(name, 'images') as report:
        found = inspect_dataset(dataset, indices, options.jobs, report)
    published = published_images(name)
    is_other_place = any(f'dataset.{place}' in key for key in options.cfg_options for place in PLACES)
    compare_count(found, published, is_other_place)
    picture = None
    if sheet := draw_contact_sheet(dataset, spread(len(dataset), options.columns)):
        picture = options.pictures / f'{Path(name).stem}.png'
        with writing(picture, 'choose another folder with --pictures'), replacing(picture) as part:
            sheet.save(part, format='PNG')
    print(describe_inspection(found, dataset, published, picture))
    return not found.errors


@dataclass
class Inspection:
    """What a data set has."""

    num_pairs: int = 0  # images of the data set, labelled or not
    num_sound: int = 0  # pairs that were looked at and have no fault
    image_modes: Counter[str] = field(default_factory=Counter)  # images of each mode, in Pillow's words (RGB, L, ...)
    label_modes: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # images of each (height, width)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(NUM_IDS, dtype=np.int64))  # of each label id
    images: np.ndarray = field(default_factory=lambda: np.zeros(NUM_IDS, dtype=np.int64))  # that have the id
    errors: list[str] = field(default_factory=list)  # what stands against an evaluation
    remarks: list[str] = field(default_factory=list)  # what one should know


def inspect_dataset(
    dataset: BaseDataset,
    indices: Sequence[int] | None = None,
    num_threads: int = 8,
    report: Report = lambda done, total: None,
) -> Inspection:
    """Reads the headers of the images and all of the labels, or those at some places; `num_threads` files at once."""
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
            for name in ('num_sound', 'image_modes', 'label_modes', 'sizes', 'pixels', 'images'):
                setattr(found, name, getattr(found, name) + getattr(pair, name))
            failures += pair.errors
    found.errors += failures[:MAX_SHOWN]
    if len(failures) > MAX_SHOWN:
        found.errors.append(f'... and {len(failures) - MAX_SHOWN} more files like these')
    _remark_on_strays(found, dataset, [label for _, label in pairs])
    names, classes = dataset.metainfo['classes'], class_of_id(dataset)
    absent = [name for place, name in enumerate(names) if not found.pixels[classes == place].any()]
    if absent and found.pixels.any():
        found.remarks.append(f'classes without a pixel: {", ".join(absent)}')
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


def _note(notes: list[str], names: Sequence[str], what: str) -> None:
    if names:
        notes.append(f'{len(names)} {what}: {shorten(names, MAX_SHOWN)}')


def compare_count(found: Inspection, published: PublishedCount | None, is_other_place: bool) -> None:
    """Adds an error where the number of images is not the published one; a remark where the user chose the place."""
    if published is None or published.count == found.num_pairs:
        return
    text = f'{found.num_pairs} images; published: {published.count} ({published.source})'
    (found.remarks if is_other_place else found.errors).append(text)


def describe_inspection(
    found: Inspection, dataset: BaseDataset, published: PublishedCount | None, picture: Path | None
) -> str:
    """Several lines: files, counts, sizes, label ids with their shares, the contact sheet, and what is wrong."""
    lines = [
        f'  images     {dataset.data_prefix.get("img_path")}: {found.num_pairs}, {_list(found.image_modes)}',
        f'  labels     {dataset.data_prefix.get("seg_map_path")}: {_list(found.label_modes)}',
        f'  published  {f"{published.count} images, {published.source}" if published else "not known"}',
        f'  sizes      {_list(Counter({f"{h} x {w}": n for (h, w), n in found.sizes.items()}))}; height x width',
    ]
    if found.pixels.any():
        lines += _describe_ids(found, dataset)
    if found.num_sound < found.num_pairs:
        lines.append(f'  sound      {found.num_sound} of {found.num_pairs} images with their labels')
    if picture is not None:
        lines.append(f'  picture    {picture}')
    lines += [f'  note       {remark}' for remark in found.remarks]
    lines += [f'  ERROR      {error}' for error in found.errors]
    return '\n'.join(lines)


def _describe_ids(found: Inspection, dataset: BaseDataset) -> list[str]:
    names, table, num_ids = dataset.metainfo['classes'], class_of_id(dataset), num_ids_of(dataset)
    total = found.pixels.sum()
    width = max(len(OUTSIDE), *map(len, names))
    lines = [f'  {"id":>9}  {"class":{width}}  {"pixels":>8}  {"images":>6}']
    for number in range(len(table)):
        is_class = table[number] != IGNORE_INDEX
        if not is_class and not found.pixels[number]:
            continue
        name = names[table[number]] if is_class else OUTSIDE if num_ids <= number < IGNORE_INDEX else 'not evaluated'
        share = found.pixels[number] / total
        lines.append(f'  {number:>9}  {name:{width}}  {share:>8.2%}  {found.images[number]:>6}')
    return [*lines, f'  unlabelled {share_ignored(found, dataset):.2%} of the pixels']


def _list(counts: Counter[str]) -> str:
    shown = ', '.join(f'{name} ({count})' for name, count in counts.most_common(MAX_LISTED))
    return (shown or 'none read') + (f', and {len(counts) - MAX_LISTED} more' if len(counts) > MAX_LISTED else '')


def draw_contact_sheet(dataset: BaseDataset, indices: Sequence[int]) -> Image.Image | None:
    """Draws images above their labels, with a legend of the classes; None if none of them can be read.

    The first step of the data set's pipeline loads the images.
    """
    names = [*dataset.metainfo['classes'], 'not evaluated']
    palette = [*(dataset.metainfo.get('palette') or default_palette(len(names) - 1)), IGNORED_COLOUR]
    load, table = dataset.pipeline.transforms[0], class_of_id(dataset)
    panels = []
    for index in indices:
        sample = dataset.get_data_info(index)
        try:
            image = load({'img_path': sample['img_path']})['img'][..., ::-1].astype(np.uint8)
            labels = table[read_label(sample['seg_map_path'], accept_palette=True, accept_mask_255=True)]
        except UserError as error:
            logger.info('left out of the picture: %s', error)
            continue
        colours = colour_map(labels, palette[:-1])
        pair = [_thumbnail(image, Image.Resampling.BILINEAR), _thumbnail(colours, Image.Resampling.NEAREST)]
        title = Path(sample['img_path']).stem
        panels.append((title if len(title) <= MAX_TITLE else f'...{title[3 - MAX_TITLE :]}', np.concatenate(pair)))
    return draw_panels(panels, names, palette) if panels else None


def spread(total: int, count: int) -> list[int]:
    """Up to `count` places out of `total`, evenly spread."""
    return sorted({round(place) for place in np.linspace(0, total - 1, min(count, total))}) if total else []


def _thumbnail(image: np.ndarray, resampling: Image.Resampling) -> np.ndarray:
    """(THUMBNAIL, THUMBNAIL, 3) with the image in the upper left and white around it."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((THUMBNAIL, THUMBNAIL), resampling)
    canvas = Image.new('RGB', (THUMBNAIL, THUMBNAIL), 'white')
    canvas.paste(picture)
    return np.array(canvas)


if __name__ == '__main__':
    run_cli(main)
