"""The sheet ``paper`` of results.xlsx: measured beside published figures, averages per group, and marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openpyxl
from openpyxl.styles import Font, PatternFill

from segearth.evaluation.comparison import AS_PUBLISHED, Average, Comparison, average_groups, compare
from segearth.evaluation.groups import GROUPS
from segearth.evaluation.results import CLASS_SHEET, edit_workbook, read_rows

PAPER_SHEET = 'paper'
COLUMNS = (
    'Group', 'Config', 'Measure', 'Measured', 'Reported', 'Difference', 'Reported is', 'Settings', 'Images', 'Run',
    'Source',
)  # fmt: skip
WIDTHS = (10, 26, 15, 10, 10, 11, 12, 48, 9, 15, 60)  # characters
UNVERIFIED, VERIFIED = 'unverified', 'as printed'
MARK = PatternFill('solid', fgColor='FFF2CC')  # rows that may not be compared
BOLD = Font(bold=True)
NOTES = (
    'Yellow: settings, data or number of images differ from the published ones; such rows do not count in averages.',
    'Averages: over the sets measured as published, measured and reported alike.',
    'unverified: the figure could not be checked against the paper.',
    'foreground IoU: the figure reported of sets with one class; mIoU would count the background too.',
)


def write_paper_sheet(path: Path) -> list[Comparison]:
    """Writes the sheet anew from the rows of the results, and returns what it shows.

    Args:
        path: Spreadsheet of results, which must exist.

    Raises:
        ResultsError: It cannot be read or written.
    """
    comparisons = compare(read_rows(path), read_rows(path, CLASS_SHEET))
    with edit_workbook(path) as workbook:
        if PAPER_SHEET in workbook.sheetnames:
            del workbook[PAPER_SHEET]
        _fill(workbook.create_sheet(PAPER_SHEET), comparisons, average_groups(comparisons))
    return comparisons


def _fill(
    sheet: openpyxl.worksheet.worksheet.Worksheet, comparisons: Sequence[Comparison], averages: Sequence[Average]
) -> None:
    sheet.append(COLUMNS)
    for index, width in enumerate(WIDTHS):
        sheet.column_dimensions[openpyxl.utils.get_column_letter(index + 1)].width = width
        sheet.cell(1, index + 1).font = BOLD
    sheet.freeze_panes = 'A2'
    by_group = {average.group: average for average in averages}
    for group in GROUPS:
        for entry in comparisons:
            if entry.group == group:
                sheet.append(_line(entry))
                if entry.differences:
                    for cell in sheet[sheet.max_row]:
                        cell.fill = MARK
        sheet.append(_average_line(by_group[group]))
        for cell in sheet[sheet.max_row]:
            cell.font = BOLD
    sheet.append([])
    for note in NOTES:
        sheet.append([note])


def _line(entry: Comparison) -> list[Any]:
    record, row = entry.record, entry.row or {}
    known = VERIFIED if record.is_verified else UNVERIFIED
    settings = ('differ: ' + '; '.join(entry.differences) if entry.differences else AS_PUBLISHED) if entry.row else None
    return [
        entry.group, record.config, record.measure, entry.measured, record.figure, entry.gain,
        known if record.figure is not None else None, settings, row.get('Images'), row.get('Run'), record.source,
    ]  # fmt: skip


def _average_line(average: Average) -> list[Any]:
    gain = None
    if average.measured is not None and average.reported is not None:
        gain = round(average.measured - average.reported, 2)
    title = f'average of {average.num_sets} of {average.num_configs} sets'
    return [average.group, title, None, average.measured, average.reported, gain]
