"""Pictures and tables of the page."""

from __future__ import annotations

import html
from collections.abc import Sequence

import matplotlib
import numpy as np

from segearth.app.session import Answer
from segearth.io.panels import Palette, colour_map, overlay
from segearth.maps.area import ClassArea
from segearth.maps.labelling import NO_DATA

SCORE_COLOURS = 'viridis'  # readable for colour-blind eyes


def map_over_scene(answer: Answer, opacity: float) -> np.ndarray:
    """(h, w, 3) uint8: the classes over the scene, which shows through where there is no data."""
    blended = overlay(answer.picture, answer.labels, answer.palette, opacity)
    return np.where((answer.labels == NO_DATA)[..., None], answer.picture, blended)


def class_map(labels: np.ndarray, palette: Palette) -> np.ndarray:
    """(h, w, 3) uint8, white where there is no data."""
    picture = colour_map(labels, palette)
    picture[labels == NO_DATA] = 255
    return picture


def score_maps(answer: Answer) -> list[tuple[np.ndarray, str]]:
    """One picture a class, its probability from dark (0) to bright (1), with a caption."""
    colours = matplotlib.colormaps[SCORE_COLOURS]
    return [
        (colours(probability.astype(np.float32), bytes=True)[..., :3], name)
        for probability, name in zip(answer.probabilities, answer.class_names, strict=True)
    ]


def area_table(areas: Sequence[ClassArea], palette: Palette) -> str:
    """Legend and areas, in HTML."""
    is_known = any(row.hectares is not None for row in areas)
    rows = []
    for row, colour in zip(areas, palette, strict=True):
        square = (
            f'<span class="legend" style="background: rgb({", ".join(str(int(value)) for value in colour)})"></span>'
        )
        hectares = f'<td>{row.hectares:.2f}</td>' if row.hectares is not None else ''
        rows.append(
            f'<tr><td>{square}{html.escape(row.name)}</td><td>{row.share:.1%}</td><td>{row.pixels}</td>{hectares}</tr>'
        )
    head = '<th>class</th><th>share</th><th>pixels</th>' + ('<th>hectares</th>' if is_known else '')
    note = '' if is_known else '<p>The image has no coordinate reference system, so its areas are unknown.</p>'
    return f'<table class="areas"><tr>{head}</tr>{"".join(rows)}</table>{note}'
