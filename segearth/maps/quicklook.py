"""A small picture of a map: scene, classes, legend, scale bar."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segearth.io.panels import Palette, colour_map, draw_panels
from segearth.maps.labelling import NO_DATA

LONGEST_SIDE = 1024  # pixels of one panel
SHORTEST_SIDE = 160  # a smaller scene is enlarged, so that the scale bar has room
BAR_SHARE = 0.4  # longest bar, of the panel's width


def reduction(height: int, width: int) -> int:
    """Every how many pixels of a scene one is kept."""
    return max(math.ceil(max(height, width) / LONGEST_SIDE), 1)


def draw_quicklook(
    picture: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    palette: Palette,
    metres_a_pixel: float | None,
    step: int,
) -> Image.Image:
    """Draws scene and classes side by side.

    Picture (h, w, 3) uint8 and labels (h, w) uint8 are every ``step``-th pixel of a scene. Without the metres a pixel
    of the scene the bar counts pixels.
    """
    classes = colour_map(labels, palette)
    classes[labels == NO_DATA] = 255
    enlargement = max(math.ceil(SHORTEST_SIDE / min(labels.shape)), 1)
    panels = [np.repeat(np.repeat(array, enlargement, 0), enlargement, 1) for array in (picture, classes)]
    unit_a_pixel = (metres_a_pixel or 1) * step / enlargement
    panels[1] = _with_scale_bar(panels[1], unit_a_pixel, is_metric=metres_a_pixel is not None)
    return draw_panels([('scene', panels[0]), ('classes', panels[1])], class_names, palette)


def round_length(longest: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... that is not longer."""
    power = 10 ** math.floor(math.log10(longest))
    return next(factor * power for factor in (5, 2, 1) if factor * power <= longest * (1 + 1e-9))


def _with_scale_bar(panel: np.ndarray, unit_a_pixel: float, is_metric: bool) -> np.ndarray:
    image = Image.fromarray(panel)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=13)
    length = round_length(BAR_SHARE * image.width * unit_a_pixel)
    text = f'{length:g} pixels' if not is_metric else f'{length / 1000:g} km' if length >= 1000 else f'{length:g} m'
    bar = round(length / unit_a_pixel)
    box_width = max(bar, round(draw.textlength(text, font=font))) + 12
    top = image.height - 34
    draw.rectangle((4, top, 4 + box_width, image.height - 5), fill='white', outline='black')
    draw.text((10, top + 3), text, fill='black', font=font)
    draw.rectangle((10, top + 21, 10 + bar, top + 24), fill='black')
    return np.asarray(image)
