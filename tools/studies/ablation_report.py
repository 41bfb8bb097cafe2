"""The ablation as a Markdown page, a section and a picture for each part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from segearth.demo.classes import CLASSES
from segearth.io.atomic import replacing, write_bytes
from studies.ablation_tiles import Outcome

BILINEAR = 'bilinear'
CEILING, FLOOR = 'optical encoder on the optical partner (ceiling)', 'optical encoder on SAR (floor)'
Outcomes = Mapping[str, Outcome]


def report_attention(outcomes: Outcomes, picture: Path) -> str:
    """Attentions by lambda, outcomes by NAME:LAMBDA: mean IoU, its interval, and the lead of the best lambda over 0."""
    curves: dict[str, dict[float, Outcome]] = {}
    for key, outcome in outcomes.items():
        name, _, value = key.rpartition(':')
        curves.setdefault(name, {})[float(value)] = outcome
    figure = Figure(figsize=(7, 3.6), layout='constrained')
    axes = figure.subplots()
    rows = []
    for name, row in curves.items():
        axes.plot(list(row), [outcome.miou for outcome in row.values()], marker='o', markersize=3, label=name)
        best = max(row.values(), key=lambda outcome: outcome.miou)
        rows.append([name, *map(_with_interval, row.values()), _lead(best, row[0.0])])
    axes.set(xlabel='lambda of Global Bias Alleviation', ylabel='mIoU in %')
    axes.legend(fontsize=7)
    _save(figure, picture)
    return _table([['attention', *(f'lambda {value:g}' for value in row), 'best lambda over 0'], *rows])


def report_upsampling(outcomes: Outcomes, picture: Path) -> str:
    """Upsamplers: mean IoU, lead over bilinear, every training, every class."""
    leads = {name: _lead(outcome, outcomes[BILINEAR]) for name, outcome in outcomes.items()}
    return _report(['upsampler', 'mIoU', 'over bilinear'], outcomes, leads | {BILINEAR: ''}, picture)


def report_sar(outcomes: Outcomes, picture: Path) -> str:
    """SAR encoders: mean IoU, share of the gap between floor and ceiling that is closed, trainings, classes."""
    floor, ceiling = outcomes[FLOOR].miou, outcomes[CEILING].miou
    closed = {name: f'{100 * (outcome.miou - floor) / (ceiling - floor):.0f} %' for name, outcome in outcomes.items()}
    return _report(['encoder', 'mIoU', 'gap closed'], outcomes, closed | {FLOOR: '', CEILING: ''}, picture)


def update_page(path: Path, introduction: str, sections: Mapping[str, str], order: Sequence[str]) -> None:
    """Writes a page of sections, heading -> Markdown, in an order of all headings.

    Sections that are not given stay as the page has them, if it is there already; those of other headings are dropped.
    """
    before = path.read_text(encoding='utf-8').split('\n## ')[1:] if path.is_file() else []
    texts = {part.partition('\n')[0]: part.partition('\n')[2] for part in before} | dict(sections)
    parts = [introduction.strip(), *(f'## {name}\n\n{texts[name].strip()}' for name in order if name in texts)]
    write_bytes(path, ('\n\n'.join(parts) + '\n').encode())


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as part:
        figure.savefig(part, format='png', dpi=100)


def _report(titles: Sequence[str], outcomes: Outcomes, third: Mapping[str, str], picture: Path) -> str:
    """Draws each variant's mean IoU with its interval and trainings; returns the table."""
    figure = Figure(figsize=(7, 0.9 + 0.3 * len(outcomes)), layout='constrained')
    axes, places = figure.subplots(), np.arange(len(outcomes))[::-1]
    rows = [[*titles, 'each training', *CLASSES]]
    for place, (name, outcome) in zip(places, outcomes.items(), strict=True):
        axes.plot(outcome.interval(), [place, place], color='tab:blue', linewidth=2)
        axes.plot(outcome.runs, [place] * len(outcome.runs), 'o', color='tab:blue', alpha=0.5, markersize=4)
        axes.plot(outcome.miou, place, '|', color='black', markersize=12)
        runs = ', '.join(f'{value:.1f}' for value in outcome.runs) if len(outcome.runs) > 1 else ''
        classes = ['-' if np.isnan(value) else f'{value:.0f}' for value in outcome.ious]
        rows.append([name, _with_interval(outcome), third[name], runs, *classes])
    axes.set_yticks(places, list(outcomes), fontsize=7)
    axes.set(xlabel='mIoU in %: interval of 95 %, each training, mean')
    axes.grid(axis='x', alpha=0.3)
    _save(figure, picture)
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
