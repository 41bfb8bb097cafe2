"""Pictures and tables of the page, as HTML that needs nothing else: pictures are in it as data.

The map is the scene with one transparent picture a class on it, so that page.js fades and switches classes in the
browser, without asking the server. The table of areas is its legend.
"""

import base64
import html
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from segearth.app.session import Answer
from segearth.io.panels import Palette, colour_map
from segearth.maps.areas import ClassArea
from segearth.maps.labelling import NO_DATA
from segearth.maps.styles import RAMP

OPACITY = 60  # per cent, at first
SCENE = {'format': 'JPEG', 'quality': 92}
THUMBNAIL_SIDE = 160  # pixels
EXAMPLES_OF = 'or an example of Sentinel-2'
UNKNOWN = 'The image has no coordinate reference system, so its areas are unknown.'


def map_view(answer: Answer) -> str:
    """Scene, classes over it, opacity, and the table of areas, whose rows switch classes."""
    height, width = answer.labels.shape
    layers = ''.join(
        f'<img src="{_data(_layer(answer.labels == index, colour), format="PNG", bits=1, transparency=0)}"'
        f' data-class="{index}" alt="">'
        for index, colour in enumerate(answer.palette)
        if (answer.labels == index).any()
    )
    scene = _data(Image.fromarray(answer.picture), **SCENE)
    note = f'<p class="note">{html.escape(answer.note)}</p>' if answer.note else ''
    style = f'style="opacity: {OPACITY / 100}"'
    return f"""<div class="map-view">
<div class="stage" style="max-width: calc(80vh * {width / height:.4f})">
<div class="pictures"><img class="scene" src="{scene}" width="{width}" height="{height}" alt="the scene">
<div class="layers" role="img" aria-label="classes over the scene" {style}>{layers}</div></div>
<div class="controls"><label for="opacity">opacity of the classes</label>
<input id="opacity" type="range" min="0" max="100" value="{OPACITY}"><button type="button">full screen</button></div>
{note}</div>
{area_table(answer.areas, answer.palette)}</div>"""


def area_table(areas: Sequence[ClassArea], palette: Palette) -> str:
    """Legend and areas, with a box to switch each class; pixels where hectares are unknown."""
    is_known = any(row.hectares is not None for row in areas)
    rows = []
    for row, colour in zip(areas, palette, strict=True):
        rgb = ', '.join(str(int(value)) for value in colour)
        square = f'<span class="square" style="background: rgb({rgb})"></span>'
        label = f'<label><input type="checkbox" checked>{square}<span>{html.escape(row.name)}</span></label>'
        area = f'{row.hectares:,.2f}' if row.hectares is not None else f'{row.pixels:,}'
        rows.append(f'<tr><td>{label}</td><td>{row.share:.1%}</td><td>{area}</td></tr>')
    everything = '<label><input type="checkbox" checked aria-label="all classes">class</label>'
    head = f'<tr><th>{everything}</th><th>share</th><th>{"hectares" if is_known else "pixels"}</th></tr>'
    note = '' if is_known else f'<p class="note">{UNKNOWN}</p>'
    return f'<div id="areas"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>{note}</div>'


def example_table(paths: Sequence[Path]) -> str:
    """One button an image, with a small picture of it; its value is the number of the image, from 0."""
    buttons = []
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            picture = _data(image.convert('RGB'), **SCENE)
        name = html.escape(path.stem.rpartition('_')[2])
        buttons.append(f'<td><button type="button" value="{number}"><img src="{picture}" alt="">{name}</button></td>')
    rows = '</tr><tr>'.join(buttons)
    return f'<table><caption>{EXAMPLES_OF}</caption><tbody><tr>{rows}</tr></tbody></table>'


def class_map(labels: np.ndarray, palette: Palette) -> np.ndarray:
    """(h, w, 3) uint8, white where there is no data."""
    picture = colour_map(labels, palette)
    picture[labels == NO_DATA] = 255
    return picture


def score_maps(answer: Answer) -> list[tuple[np.ndarray, str]]:
    """One picture a class, its probability from dark (0) to bright (1), with a caption."""
    colours = matplotlib.colormaps[RAMP]
    return [
        (colours(probability.astype(np.float32), bytes=True)[..., :3], name)
        for probability, name in zip(answer.probabilities, answer.class_names, strict=True)
    ]


def _layer(mask: np.ndarray, colour: Sequence[int]) -> Image.Image:
    picture = Image.fromarray(mask.astype(np.uint8), 'P')
    picture.putpalette([0, 0, 0, *map(int, colour)])
    return picture


def _data(picture: Image.Image, **settings: Any) -> str:
    """A picture as an address that holds it."""
    content = BytesIO()
    picture.save(content, **settings)
    kind = str(settings['format']).lower()
    return f'data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}'
