"""Pictures of label maps: colours of the classes, and panels side by side with a legend of their names."""

import colorsys
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Palette = Sequence[Sequence[int]]
"""One RGB colour a class, values in [0, 255]."""

IGNORED_COLOUR = (255, 0, 255)  # pixels without a class: ground truth that is not labelled
FAMILIAR: dict[str, tuple[int, int, int]] = {
    name: colour
    for colour, names in (
        ((220, 50, 47), 'building, buildings, house, houses, roof, city, town, urban, residential area, residential'),
        ((38, 110, 235), 'water, river, lake, sea, ocean, pond, water body'),
        ((0, 100, 0), 'tree, trees, forest, woodland'),
        ((128, 128, 128), 'road, roads, street, pavement'),
        ((120, 215, 90), 'grass, grassland, meadow, lawn, low vegetation'),
        ((245, 215, 60), 'cropland, farmland, field, fields, agriculture, agricultural, agricultural land'),
        ((165, 110, 65), 'bareland, barren, bare land, bare soil, bare ground'),
        ((250, 235, 190), 'beach, sand'),
        ((60, 60, 60), 'background'),
    )
    for name in names.split(', ')
}
"""Class name -> colour."""

LEAST_DISTANCE = 60  # in RGB, between colours that can be told apart
FONT_SIZE = 15  # pixels, at least; larger pictures get larger letters
FONT_SHARE = 45  # of the picture's height
GOLDEN_RATIO = 0.618033988749895  # steps round the hue circle that stay far apart


def default_palette(num_classes: int) -> list[tuple[int, int, int]]:
    """Distinct colours for classes that have none of their own."""
    hues = [(index * GOLDEN_RATIO) % 1 for index in range(num_classes)]
    values = [0.95 - 0.3 * (index % 3) / 2 for index in range(num_classes)]
    colours = [colorsys.hsv_to_rgb(hue, 0.65, value) for hue, value in zip(hues, values, strict=True)]
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in colours]


def palette_of(class_names: Sequence[str]) -> list[tuple[int, int, int]]:
    """RGB colours of classes: the familiar one of a known name, else one that no other class has."""
    colours: list[tuple[int, int, int] | None] = [None] * len(class_names)
    for index, name in enumerate(class_names):
        familiar = FAMILIAR.get(name.casefold())
        if familiar not in colours:
            colours[index] = familiar
    used = [colour for colour in colours if colour is not None]
    spare = default_palette(2 * len(class_names))
    free = [colour for colour in spare if all(math.dist(colour, other) >= LEAST_DISTANCE for other in used)]
    others = iter([*free, *(colour for colour in spare if colour not in free)])
    return [next(others) if colour is None else colour for colour in colours]


def colour_map(labels: np.ndarray, palette: Palette) -> np.ndarray:
    """Colours a label map (H, W): (H, W, 3) uint8. What is no class, as 255, gets :data:`IGNORED_COLOUR`."""
    table = np.asarray([*palette, IGNORED_COLOUR], dtype=np.uint8)
    known = (labels >= 0) & (labels < len(palette))
    return table[np.where(known, labels, len(palette)).astype(np.int64)]


def overlay(image: np.ndarray, labels: np.ndarray, palette: Palette, opacity: float = 0.5) -> np.ndarray:
    """Blends a label map over an image (H, W, 3) uint8; opacity in [0, 1]."""
    blended = image * (1 - opacity) + colour_map(labels, palette) * opacity
    return blended.round().astype(np.uint8)


def draw_panels(panels: Sequence[tuple[str, np.ndarray]], class_names: Sequence[str], palette: Palette) -> Image.Image:
    """Draws titled images (H, W, 3) uint8 side by side, all as high as the first, with a legend below."""
    height = panels[0][1].shape[0]
    size = max(FONT_SIZE, height // FONT_SHARE)
    margin = size // 2
    font = ImageFont.load_default(size=size)
    images = [Image.fromarray(array) for _, array in panels]
    images = [image.resize((max(round(image.width * height / image.height), 1), height)) for image in images]
    width = sum(image.width for image in images) + margin * (len(images) + 1)
    legend = _legend_places(class_names, font, size, width)
    row_height = size + margin
    top = row_height + margin
    rows = 1 + max((row for row, _ in legend), default=-1)
    canvas = Image.new('RGB', (width, top + height + margin + rows * row_height + margin), 'white')
    draw = ImageDraw.Draw(canvas)
    left = margin
    for (title, _), image in zip(panels, images, strict=True):
        draw.text((left, margin), title, fill='black', font=font)
        canvas.paste(image, (left, top))
        left += image.width + margin
    for (row, x), name, colour in zip(legend, class_names, palette, strict=False):
        y = top + height + margin + row * row_height
        draw.rectangle((x, y, x + size, y + size), fill=tuple(int(c) for c in colour), outline='black')
        draw.text((x + size + margin // 2, y), name, fill='black', font=font)
    return canvas


def draw_matrix(names: Sequence[str], amounts: np.ndarray, height: int) -> Image.Image:
    """Draws amounts (K, K) of what goes from a class, a row, to a class, a column, about ``height`` pixels high.

    Off the diagonal the larger ones are redder.
    """
    font = ImageFont.load_default(size=FONT_SIZE)
    texts = [[f'{value:,.0f}' if value >= 100 else f'{value:.3g}' if value else '' for value in row] for row in amounts]
    margin = FONT_SIZE // 2
    left = top = round(max(map(font.getlength, names))) + 2 * margin  # names of columns stand upright
    side = max((height - top) // len(names), FONT_SIZE + margin)
    wide = max(side, round(max(font.getlength(text) for row in texts for text in row)) + 2 * margin)
    canvas = Image.new('RGB', (left + wide * len(names) + 1, top + side * len(names) + 1), 'white')
    draw = ImageDraw.Draw(canvas)
    largest = max((amounts * (1 - np.eye(len(names)))).max(), np.finfo(float).tiny)
    for row, name in enumerate(names):
        y = top + row * side
        draw.text((left - margin, y + side / 2), name, fill='black', font=font, anchor='rm')
        upright = Image.new('RGB', (top, FONT_SIZE + margin), 'white')
        ImageDraw.Draw(upright).text((margin, 0), name, fill='black', font=font)
        canvas.paste(upright.rotate(90, expand=True), (left + row * wide + (wide - upright.height) // 2, 0))
        for column, text in enumerate(texts[row]):
            x = left + column * wide
            paleness = 255 - round(190 * float(amounts[row, column] / largest) ** 0.5) if row != column else 0
            fill = (255, paleness, paleness) if row != column else (225, 225, 225)
            draw.rectangle((x, y, x + wide, y + side), fill=fill, outline='black')
            draw.text((x + wide / 2, y + side / 2), text, fill='black', font=font, anchor='mm')
    return canvas


def _legend_places(
    names: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, size: int, width: int
) -> list[tuple[int, int]]:
    """(row, x) of each entry, wrapped at the picture's width."""
    margin = size // 2
    places, row, x = [], 0, margin
    for name in names:
        needed = size + margin // 2 + round(font.getlength(name)) + 2 * margin
        if x > margin and x + needed > width:
            row, x = row + 1, margin
        places.append((row, x))
        x += needed
    return places
