"""Measured figures beside published ones: whether the two may be compared, a sheet of results.xlsx, and a chart."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import openpyxl
from matplotlib.figure import Figure
from openpyxl.styles import Font, PatternFill

from segearth.errors import UserError
from segearth.evaluation.configuration import load_config
from segearth.evaluation.results import CLASS_SHEET, edit_workbook, read_rows
from segearth.evaluation.row import settings_digest
from segearth.io.atomic import replacing
from segearth.paths import PROJECT_ROOT
from segearth.published import FOREGROUND_IOU, GROUPS, PUBLISHED, PublishedRecord

LEFT_OUT = ('Limit', 'Skipped', 'Weights', 'Refinement', 'Fast')  # empty, 0 or none in a run as published
PAPER_SHEET = 'paper'
WIDTHS = {
    'Group': 10, 'Config': 26, 'Measure': 15, 'Measured': 10, 'Reported': 10, 'Difference': 11, 'Reported is': 12,
    'Settings': 48, 'Images': 9, 'Run': 15, 'Source': 60,
}  # fmt: skip
"""Column of the sheet -> characters."""
MARK = PatternFill('solid', fgColor='FFF2CC')  # rows that may not be compared
BOLD = Font(bold=True)
NOTES = (
    'Yellow: settings, data or number of images differ from the published ones; such rows do not count in averages.',
    'Averages: over the sets measured as published, measured and reported alike.',
    'unverified: the figure could not be checked against the paper.',
    'foreground IoU: the figure reported of sets with one class; mIoU would count the background too.',
)
INCHES_A_BAR = 0.32
MEASURED, DIFFERING, REPORTED = '#1f6f8b', '#9ec9d9', '#222222'


@dataclass(frozen=True)
class Comparison:
    """A measured figure beside a published one."""

    record: PublishedRecord
    row: Mapping[str, Any] | None = None  # of the run, column -> value; None where the set was not measured
    measured: float | None = None  # in percent, of the record's kind
    differences: tuple[str, ...] = ()  # how the run differs from the published settings

    @property
    def gain(self) -> float | None:
        """Measured minus reported, in points."""
        return _difference(self.measured, self.record.figure)

    @property
    def is_comparable(self) -> bool:
        """There is a difference, and it is not one of settings."""
        return self.gain is not None and not self.differences


class Average(NamedTuple):
    """Means in percent over the sets of a group that count (measured as published, with a published figure)."""

    group: str
    num_sets: int
    num_configs: int  # all sets of the group
    measured: float | None  # None without sets, as the next
    reported: float | None


def _difference(measured: float | None, reported: float | None) -> float | None:
    return None if measured is None or reported is None else round(measured - reported, 2)


def compare(rows: Sequence[Mapping[str, Any]], class_rows: Iterable[Mapping[str, Any]]) -> list[Comparison]:
    """Puts the rows of the results, and of its sheet of classes, beside the published figures, in the table's order.

    Of several runs with the same settings the last one counts; runs with other settings get lines of their own.
    """
    ious = defaultdict(list)
    for entry in class_rows:
        ious[entry.get('Run')].append(entry.get('IoU'))
    comparisons = []
    for name, record in PUBLISHED.items():
        mine = {row.get('Settings'): row for row in rows if row.get('Config') == name}
        for row in mine.values():
            measured = row.get('mIoU')
            if record.measure == FOREGROUND_IOU:  # class 1 of background and another
                known = ious[row.get('Run')]
                measured = known[1] if len(known) == 2 else None
            comparisons.append(Comparison(record, row, measured, tuple(_find_differences(row, record))))
        if not mine:
            comparisons.append(Comparison(record))
    return comparisons


def _find_differences(row: Mapping[str, Any], record: PublishedRecord) -> list[str]:
    """How the settings of a run differ from the published ones: by columns, by number of images, by the rest."""
    if row.get('Settings') is None:
        return ['settings not recorded']
    differences = [
        f'{column} {row.get(column)}, published {value}'
        for column, value in record.settings.items()
        if not _is_same(row.get(column), value)
    ]
    differences += [f'{column} {row[column]}' for column in LEFT_OUT if row.get(column) not in (None, 0, 'none')]
    published = record.images
    if published and not row.get('Limit') and row.get('Images') != published.count:
        differences.append(f'{row.get("Images")} of {published.count} images')
    if not differences and row['Settings'] != _shipped_digest(record.config):
        differences.append(f'class words or other settings than configs/{record.config}.py')
    return differences


def _is_same(value: Any, expected: Any) -> bool:
    try:
        return float(value) == float(expected)
    except (TypeError, ValueError):
        return value == expected


@cache
def _shipped_digest(name: str) -> str | None:
    try:
        config = load_config(str(PROJECT_ROOT / 'configs' / f'{name}.py'))
        return settings_digest(config)
    except UserError:
        return None


def average_groups(comparisons: Sequence[Comparison]) -> list[Average]:
    """Averages per group, over the sets that may be compared; where a set has several such runs the last counts."""
    averages = []
    for group in GROUPS:
        mine = [entry for entry in comparisons if entry.record.group == group]
        sets = {entry.record.config: entry for entry in mine if entry.is_comparable}
        pairs = [(entry.measured, entry.record.figure) for entry in sets.values()]
        known = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
        measured, reported = (round(fmean(side), 2) for side in zip(*known, strict=True)) if known else (None, None)
        averages.append(Average(group, len(sets), len({entry.record.config for entry in mine}), measured, reported))
    return averages


def write_paper_sheet(path: Path) -> list[Comparison]:
    """Writes the sheet ``paper`` of an existing spreadsheet anew from its rows, and returns what it shows."""
    comparisons = compare(read_rows(path), read_rows(path, CLASS_SHEET))
    with edit_workbook(path) as workbook:
        if PAPER_SHEET in workbook.sheetnames:
            del workbook[PAPER_SHEET]
        sheet = workbook.create_sheet(PAPER_SHEET)
        _append(sheet, list(WIDTHS), font=BOLD)
        for letter, width in zip(map(openpyxl.utils.get_column_letter, range(1, 99)), WIDTHS.values(), strict=False):
            sheet.column_dimensions[letter].width = width
        sheet.freeze_panes = 'A2'
        for average in average_groups(comparisons):
            for entry in comparisons:
                if entry.record.group == average.group:
                    _append(sheet, _line(entry), **({'fill': MARK} if entry.differences else {}))
            gain = _difference(average.measured, average.reported)
            title = f'average of {average.num_sets} of {average.num_configs} sets'
            _append(sheet, [average.group, title, None, average.measured, average.reported, gain], font=BOLD)
        for line in ([], *([note] for note in NOTES)):
            sheet.append(line)
    return comparisons


def _append(sheet: Any, line: Sequence[Any], **style: Any) -> None:
    sheet.append(line)
    for cell in sheet[sheet.max_row]:
        for name, value in style.items():
            setattr(cell, name, value)


def _line(entry: Comparison) -> list[Any]:
    record, row = entry.record, entry.row or {}
    known = None if record.figure is None else 'as printed' if record.is_verified else 'unverified'
    settings = None
    if entry.row:
        settings = 'differ: ' + '; '.join(entry.differences) if entry.differences else 'as published'
    return [
        record.group, record.config, record.measure, entry.measured, record.figure, entry.gain, known, settings,
        row.get('Images'), row.get('Run'), record.source,
    ]  # fmt: skip


def save_chart(comparisons: Sequence[Comparison], path: Path) -> None:
    """Draws a bar for each measured figure and a tick for each published one, as PNG."""
    shown = [entry for entry in comparisons if entry.measured is not None or entry.record.figure is not None]
    figure = Figure(figsize=(9, 1.6 + INCHES_A_BAR * max(len(shown), 1)), layout='constrained')
    axes = figure.subplots()
    labels = []
    for place, entry in enumerate(shown):
        record = entry.record
        star = ' *' if record.measure == FOREGROUND_IOU else ''
        labels.append(f'{record.group}: {record.config.removeprefix("cfg_")}{star}')
        if entry.measured is not None:
            colour, hatch = (DIFFERING, '///') if entry.differences else (MEASURED, None)
            axes.barh(place, entry.measured, color=colour, hatch=hatch, edgecolor='white')
            figures = [f'{value:.1f}' if value is not None else '-' for value in (entry.measured, record.figure)]
            axes.text(99, place, ' / '.join(figures), va='center', ha='right', fontsize=7)
        if record.figure is not None:
            style = '-' if record.is_verified else ':'
            axes.plot([record.figure] * 2, [place - 0.42, place + 0.42], color=REPORTED, ls=style, lw=2)
    axes.set_yticks(range(len(shown)), labels, fontsize=8)
    title = 'mIoU in percent, * IoU of the foreground; on the right: measured / reported'
    axes.set(ylim=(len(shown) - 0.4, -0.6), xlim=(0, 100), xlabel=title)
    axes.barh([-9], [0], color=MEASURED, label='measured, settings as published')
    axes.barh([-9], [0], color=DIFFERING, hatch='///', edgecolor='white', label='measured, settings or data differ')
    axes.plot([], [], color=REPORTED, lw=2, label='reported')
    axes.plot([], [], color=REPORTED, lw=2, ls=':', label='reported, unverified')
    figure.legend(loc='outside upper center', ncols=2, fontsize=8, frameon=False)
    with replacing(path) as part:
        figure.savefig(part, format='png')
