"""The ablation as a Markdown page, a section and a picture for each part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segearth.demo.classes import CLASSES
from segearth.io.atomic import replacing, write_bytes
from studies.ablation_tiles import Outcome

BILINEAR = 'bilinear'
CEILING, FLOOR = 'optical encoder on the optical partner (ceiling)', 'optical encoder on SAR (floor)'
Outcomes = Mapping[str, Outcome]


def attention_table(outcomes: Mapping[str, Mapping[float, Outcome]]) -> str:
    """Attention by lambda: mean IoU with its interval, and the lead of the best lambda over 0."""
    lambdas = list(next(iter(outcomes.values())))
    rows = [['attention', *(f'lambda {value:g}' for value in lambdas), 'best lambda over 0']]
    for name, row in outcomes.items():
        best = max(lambdas, key=lambda value: row[value].miou)
        rows.append([name, *(_with_interval(row[value]) for value in lambdas), _lead(row[best], row[0.0])])
    return _table(rows)


def upsampling_table(outcomes: Outcomes) -> str:
    """Upsamplers: mean IoU, lead over bilinear, every training, every class."""
    leads = {name: _lead(outcome, outcomes[BILINEAR]) for name, outcome in outcomes.items()}
    return _outcome_table(['upsampler', 'mIoU', 'over bilinear'], outcomes, leads | {BILINEAR: ''})


def sar_table(outcomes: Outcomes) -> str:
    """SAR encoders: mean IoU, share of the gap between floor and ceiling that is closed, trainings, classes."""
    floor, ceiling = outcomes[FLOOR].miou, outcomes[CEILING].miou
    closed = {name: f'{100 * (outcome.miou - floor) / (ceiling - floor):.0f} %' for name, outcome in outcomes.items()}
    return _outcome_table(['encoder', 'mIoU', 'gap closed'], outcomes, closed | {FLOOR: '', CEILING: ''})


def draw_curves(outcomes: Mapping[str, Mapping[float, Outcome]], path: Path) -> None:
    """Mean IoU of each attention over lambda."""

    def draw(axes: Axes) -> None:
        for name, row in outcomes.items():
            axes.plot(list(row), [outcome.miou for outcome in row.values()], marker='o', markersize=3, label=name)
        axes.set(xlabel='lambda of Global Bias Alleviation', ylabel='mIoU in %')
        axes.legend(fontsize=7)

    _save(path, 3.6, draw)


def draw_points(outcomes: Outcomes, path: Path) -> None:
    """Mean IoU of each variant, its interval and its trainings."""

    def draw(axes: Axes) -> None:
        places = np.arange(len(outcomes))[::-1]
        for place, outcome in zip(places, outcomes.values(), strict=True):
            axes.plot(outcome.interval(), [place, place], color='tab:blue', linewidth=2)
            axes.plot(outcome.runs, [place] * len(outcome.runs), 'o', color='tab:blue', alpha=0.5, markersize=4)
            axes.plot(outcome.miou, place, '|', color='black', markersize=12)
        axes.set_yticks(places, list(outcomes), fontsize=7)
        axes.set(xlabel='mIoU in %: interval of 95 %, each training, mean')
        axes.grid(axis='x', alpha=0.3)

    _save(path, 0.9 + 0.3 * len(outcomes), draw)


def update_page(path: Path, introduction: str, sections: Mapping[str, str], order: Sequence[str]) -> None:
    """Writes a page of sections; those that are not given stay as the page has them.

    Args:
        path: Of the page; it need not be there yet.
        introduction: Title and what holds for all sections.
        sections: Heading -> Markdown below it.
        order: All headings; sections of the page with other headings are dropped.
    """
    before = path.read_text(encoding='utf-8').split('\n## ')[1:] if path.is_file() else []
    texts = {part.partition('\n')[0]: part.partition('\n')[2] for part in before} | dict(sections)
    parts = [introduction.strip(), *(f'## {name}\n\n{texts[name].strip()}' for name in order if name in texts)]
    write_bytes(path, ('\n\n'.join(parts) + '\n').encode())


def _save(path: Path, height: float, draw: Callable[[Axes], None]) -> None:
    figure = Figure(figsize=(7, height), layout='constrained')
    draw(figure.subplots())
    with replacing(path) as part:
        figure.savefig(part, format='png', dpi=100)


def _outcome_table(titles: Sequence[str], outcomes: Outcomes, third: Mapping[str, str]) -> str:
    rows = [[*titles, 'each training', *CLASSES]]
    for name, outcome in outcomes.items():
        runs = ', '.join(f'{value:.1f}' for value in outcome.runs) if len(outcome.runs) > 1 else ''
        classes = ['-' if np.isnan(value) else f'{value:.0f}' for value in outcome.ious]
        rows.append([name, _with_interval(outcome), third[name], runs, *classes])
    return _table(rows)


def _table(rows: Iterable[Sequence[str]]) -> str:
    lines = [f'| {" | ".join(row)} |' for row in rows]
    return '\n'.join([lines[0], '|' + '---|' * (lines[0].count('|') - 1), *lines[1:]]) + '\n'


def _with_interval(outcome: Outcome) -> str:
    low, high = outcome.interval()
    return f'{outcome.miou:.1f} ({low:.1f} to {high:.1f})'


def _lead(outcome: Outcome, other: Outcome) -> str:
    low, high = outcome.interval(other)
    return f'{outcome.miou - other.miou:+.1f} ({low:+.1f} to {high:+.1f})'
