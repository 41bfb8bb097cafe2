"""Chart of measured beside published figures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from segearth.evaluation.comparison import Comparison
from segearth.evaluation.reported import FOREGROUND_IOU
from segearth.io.atomic import write_bytes

INCHES_A_BAR = 0.32
MEASURED, DIFFERING, REPORTED = '#1f6f8b', '#9ec9d9', '#222222'


def save_chart(comparisons: Sequence[Comparison], path: Path) -> None:
    """Draws a bar for each measured figure and a tick for each published one, as PNG.

    Args:
        comparisons: In the order of the picture, from above.
        path: Where to.

    Raises:
        OSError: It cannot be written.
    """
    shown = [entry for entry in comparisons if entry.measured is not None or entry.record.figure is not None]
    figure = Figure(figsize=(9, 1.6 + INCHES_A_BAR * max(len(shown), 1)), layout='constrained')
    axes = figure.subplots()
    for place, entry in enumerate(shown):
        colour, hatch = (DIFFERING, '///') if entry.differences else (MEASURED, None)
        if entry.measured is not None:
            axes.barh(place, entry.measured, color=colour, hatch=hatch, edgecolor='white')
            figures = ' / '.join(
                '-' if value is None else f'{value:.1f}' for value in (entry.measured, entry.record.figure)
            )
            axes.text(99, place, figures, va='center', ha='right', fontsize=7)
        if entry.record.figure is not None:
            style = '-' if entry.record.is_verified else ':'
            axes.plot([entry.record.figure] * 2, [place - 0.42, place + 0.42], color=REPORTED, ls=style, lw=2)
    axes.set_yticks(range(len(shown)), [_label(entry) for entry in shown], fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel('mIoU in percent, * IoU of the foreground; on the right: measured / reported')
    axes.barh([-9], [0], color=MEASURED, label='measured, settings as published')
    axes.barh([-9], [0], color=DIFFERING, hatch='///', edgecolor='white', label='measured, settings or data differ')
    axes.plot([], [], color=REPORTED, lw=2, label='reported')
    axes.plot([], [], color=REPORTED, lw=2, ls=':', label='reported, unverified')
    figure.legend(loc='outside upper center', ncols=2, fontsize=8, frameon=False)
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_png(data)
    write_bytes(path, data.getvalue())


def _label(entry: Comparison) -> str:
    star = ' *' if entry.record.measure == FOREGROUND_IOU else ''
    return f'{entry.group}: {entry.record.config.removeprefix("cfg_")}{star}'
