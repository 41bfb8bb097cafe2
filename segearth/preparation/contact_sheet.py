"""A picture of a few images of a data set with their labels, to see at a glance whether these belong together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset
from PIL import Image

from segearth.datasets.labels import read_label
from segearth.errors import UserError
from segearth.io.panels import IGNORED_COLOUR, colour_map, default_palette, draw_panels
from segearth.preparation.inspection import class_of_id

logger = logging.getLogger(__name__)

THUMBNAIL = 240  # pixels, the longer side
MAX_TITLE = 26  # characters that fit above a thumbnail


def draw_contact_sheet(dataset: BaseDataset, indices: Sequence[int]) -> Image.Image | None:
    """Draws images above their labels, with a legend of the classes.

    Args:
        dataset: Of this project or of mmseg; the first step of its pipeline loads images.
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
