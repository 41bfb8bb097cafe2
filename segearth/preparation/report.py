"""The findings of an inspection in words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mmengine.dataset import BaseDataset

from segearth.datasets.labels import IGNORE_INDEX
from segearth.preparation.inspection import Inspection, class_of_id, num_ids_of, share_ignored
from segearth.published import PublishedCount

MAX_SHOWN = 4  # sizes or modes listed
OUTSIDE = 'outside the classes'


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
