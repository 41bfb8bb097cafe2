"""The ablation as a Markdown page, a section and a picture for each part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segearth.demo.classes import CLASSES
from segearth.training.files import write_whole
from studies.ablation_tiles import Outcome

BILINEAR = 'bilinear'
CEILING, FLOOR = 'optical encoder on the optical partner (ceiling)', 'optical encoder on SAR (floor)'
Outcomes = Mapping[str, Outcome]


def attention_table(outcomes: Mapping[str, Mapping[float, Outcome]]) -> str:
    """Attention by lambda: mean IoU with its interval, and the lead of the best lambda over 0."""
    lambdas = list(next(iter(outcomes.values())))
    lines = _head(['attention', *(f'lambda {value:g}' for value in lambdas), 'best lambda over 0'])
    for name, row in outcomes.items():
        best = max(lambdas, key=lambda value: row[value].miou)
        low, high = row[best].interval(row[0.0])
        lead = f'{row[best].miou - row[0.0].miou:+.1f} ({low:+.1f} to {high:+.1f})'
        lines.append(_row([name, *(_with_interval(row[value]) for value in lambdas), lead]))
    return '\n'.join(lines) + '\n'


def upsampling_table(outcomes: Outcomes) -> str:
    """Upsamplers: mean IoU, lead over bilinear, every training, every class."""
    lines = _head(['upsampler', 'mIoU', 'over bilinear', 'each training', *CLASSES])
    for name, outcome in outcomes.items():
        low, high = outcome.interval(outcomes[BILINEAR])
        lead = '' if name == BILINEAR else f'{outcome.miou - outcomes[BILINEAR].miou:+.1f} ({low:+.1f} to {high:+.1f})'
        lines.append(_row([name, _with_interval(outcome), lead, _runs(outcome), *_classes(outcome)]))
    return '\n'.join(lines) + '\n'


def sar_table(outcomes: Outcomes) -> str:
    """SAR encoders: mean IoU, share of the gap between floor and ceiling that is closed, trainings, classes."""
    floor, ceiling = outcomes[FLOOR].miou, outcomes[CEILING].miou
    lines = _head(['encoder', 'mIoU', 'gap closed', 'each training', *CLASSES])
    for name, outcome in outcomes.items():
        closed = '' if name in (FLOOR, CEILING) else f'{100 * (outcome.miou - floor) / (ceiling - floor):.0f} %'
        lines.append(_row([name, _with_interval(outcome), closed, _runs(outcome), *_classes(outcome)]))
    return '\n'.join(lines) + '\n'


def draw_curves(outcomes: Mapping[str, Mapping[float, Outcome]], path: Path) -> None:
    """Mean IoU of each attention over lambda."""
    figure, axes = _figure(3.6)
    for name, row in outcomes.items():
        axes.plot(list(row), [outcome.miou for outcome in row.values()], marker='o', markersize=3, label=name)
    axes.set(xlabel='lambda of Global Bias Alleviation', ylabel='mIoU in %')
    axes.legend(fontsize=7)
    write_whole(path, lambda part: figure.savefig(part, format='png', dpi=100))


def draw_points(outcomes: Outcomes, path: Path) -> None:
    """Mean IoU of each variant, its interval and its trainings."""
    figure, axes = _figure(0.9 + 0.3 * len(outcomes))
    places = np.arange(len(outcomes))[::-1]
    for place, outcome in zip(places, outcomes.values(), strict=True):
        axes.plot(outcome.interval(), [place, place], color='tab:blue', linewidth=2)
        axes.plot(outcome.runs, [place] * len(outcome.runs), 'o', color='tab:blue', alpha=0.5, markersize=4)
        axes.plot(outcome.miou, place, '|', color='black', markersize=12)
    axes.set_yticks(places, list(outcomes), fontsize=7)
    axes.set(xlabel='mIoU in %: interval of 95 %, each training, mean')
    axes.grid(axis='x', alpha=0.3)
    write_whole(path, lambda part: figure.savefig(part, format='png', dpi=100))


def update_page(path: Path, introduction: str, sections: Mapping[str, str], order: Sequence[str]) -> None:
    """Writes a page of sections; those that are not given stay as the page has them.

    Args:
        path: Of the page; it need not be there yet.
        introduction: Title and what holds for all sections.
        sections: Heading -> Markdown below it.
        order: All headings; sections of the page with other headings are dropped.
    """
    kept = {}
    if path.is_file():
        for part in path.read_text(encoding='utf-8').split('\n## ')[1:]:
            heading, _, body = part.partition('\n')
            kept[heading] = body.strip()
    texts = kept | {heading: body.strip() for heading, body in sections.items()}
    page = '\n\n'.join([introduction.strip(), *(f'## {name}\n\n{texts[name]}' for name in order if name in texts)])
    write_whole(path, lambda part: Path(part).write_text(page + '\n', encoding='utf-8'))


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, height), layout='constrained')
    return figure, figure.subplots()


def _head(titles: Iterable[str]) -> list[str]:
    titles = list(titles)
    return [_row(titles), '|' + '---|' * len(titles)]


def _row(cells: Iterable[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _with_interval(outcome: Outcome) -> str:
    low, high = outcome.interval()
    return f'{outcome.miou:.1f} ({low:.1f} to {high:.1f})'


def _runs(outcome: Outcome) -> str:
    return ', '.join(f'{value:.1f}' for value in outcome.runs) if len(outcome.runs) > 1 else ''


def _classes(outcome: Outcome) -> list[str]:
    return ['-' if np.isnan(value) else f'{value:.0f}' for value in outcome.ious]
