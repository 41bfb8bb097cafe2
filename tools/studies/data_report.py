"""The findings of an inspection, in words and as a picture."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset
from PIL import Image

from segearth.datasets.checks import num_ids_of
from segearth.errors import UserError
from segearth.io.labels import IGNORE_INDEX, read_label
from segearth.io.panels import IGNORED_COLOUR, colour_map, default_palette, draw_panels
from segearth.published import PublishedCount
from studies.data_inspection import Inspection, class_of_id, share_ignored

logger = logging.getLogger(__name__)

MAX_SHOWN = 4  # sizes or modes listed
OUTSIDE = 'outside the classes'
THUMBNAIL = 240  # pixels, the longer side
MAX_TITLE = 26  # characters that fit above a thumbnail


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


def describe_inspection(
    found: Inspection, dataset: BaseDataset, published: PublishedCount | None, picture: Path | None
) -> str:
    """Several lines: files, counts, sizes, label ids with their shares, and what is wrong.

    Args:
        found: The findings.
        dataset: What was looked at.
        published: Published number of images, if known.
        picture: The contact sheet, if one was drawn.
    """
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
    shown = ', '.join(f'{name} ({count})' for name, count in counts.most_common(MAX_SHOWN))
    return (shown or 'none read') + (f', and {len(counts) - MAX_SHOWN} more' if len(counts) > MAX_SHOWN else '')


def draw_contact_sheet(dataset: BaseDataset, indices: Sequence[int]) -> Image.Image | None:
    """Draws images above their labels, with a legend of the classes.

    Args:
        dataset: A data set of this project or of mmseg; the first step of its pipeline loads images.
        indices: Places of the images; those that cannot be read are left out.

    Returns:
        The picture; None if no image could be read.
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
