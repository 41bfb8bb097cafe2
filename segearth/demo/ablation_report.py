"""The ablation as a Markdown page and a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from segearth.demo.ablation import Outcome
from segearth.demo.classes import CLASSES
from segearth.training.files import write_whole

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


def draw_picture(
    attention: Mapping[str, Mapping[float, Outcome]], upsampling: Outcomes, sar: Outcomes, path: Path
) -> None:
    """Curves over lambda, and mean IoU with interval for upsamplers and SAR encoders; empty parts are left out."""
    from matplotlib.figure import Figure

    num_panels = sum(bool(part) for part in (attention, upsampling, sar))
    figure = Figure(figsize=(5.5 * num_panels, 4.2), layout='constrained')
    axes = iter(figure.subplots(1, num_panels, squeeze=False)[0])
    if attention:
        axis = next(axes)
        for name, row in attention.items():
            axis.plot(list(row), [outcome.miou for outcome in row.values()], marker='o', markersize=3, label=name)
        axis.set(title='Attention and Global Bias Alleviation', xlabel='lambda', ylabel='mIoU in %')
        axis.legend(fontsize=7)
    for title, outcomes in (('Upsampling', upsampling), ('SAR', sar)):
        if outcomes:
            _draw_points(next(axes), title, outcomes)
    write_whole(path, lambda part: figure.savefig(part, format='png', dpi=100))


def _draw_points(axis, title: str, outcomes: Outcomes) -> None:
    places = np.arange(len(outcomes))[::-1]
    for place, outcome in zip(places, outcomes.values(), strict=True):
        axis.plot(outcome.interval(), [place, place], color='tab:blue', linewidth=2)
        axis.plot(outcome.runs, [place] * len(outcome.runs), 'o', color='tab:blue', alpha=0.5, markersize=4)
        axis.plot(outcome.miou, place, '|', color='black', markersize=12)
    axis.set_yticks(places, list(outcomes), fontsize=7)
    axis.set(title=title, xlabel='mIoU in %: interval of 95 %, each training, mean')
    axis.grid(axis='x', alpha=0.3)


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
