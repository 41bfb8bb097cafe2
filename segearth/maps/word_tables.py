"""What :func:`segearth.maps.words.examine_words` finds, as tables on a terminal, a spreadsheet and a picture."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openpyxl
from openpyxl.utils import get_column_letter
from PIL import Image
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from segearth.errors import ResultsError
from segearth.io.atomic import write_bytes
from segearth.io.outputs import check_results, make_folder, writing
from segearth.io.panels import draw_matrix, draw_panels
from segearth.maps.scene import WORD_ENDINGS
from segearth.maps.words import MARGINS, WordStudy

SHOWN = 3  # classes in a cell on a terminal
LEAST_SHOWN = 0.0005  # share of what is told there, as 0.1%
MATRIX_HEIGHT = 360  # pixels of the picture, at least
WIDEST = 60  # characters of a column of the spreadsheet
MARGIN = 'mean margin'  # columns of numbers in [0, 1] that are no shares
SCORE = 'mean score'


class Sheet(NamedTuple):
    """A table: names of its columns, and rows of words, shares in [0, 1], or shares of classes."""

    name: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def sheets_of(study: WordStudy) -> list[Sheet]:
    """Classes, what they are confused with, words, and those that were tried if there are some."""
    margins = tuple(f'margin < {margin:g}' for margin in MARGINS)
    classes = [(row.name, row.share, row.score, *row.close) for row in study.classes]
    below = ['below the threshold'] if any(row.below for row in study.classes) else []
    if below:
        classes = [(*cells, row.below) for cells, row in zip(classes, study.classes, strict=True)]
    pairs = [(row.name, other, *found) for row in study.classes for other, found in row.seconds.items()]
    words = [(row.class_name, row.word, row.best, row.changed, row.to, row.alone) for row in study.words]
    sheets = [
        Sheet('classes', ('class', 'share', SCORE, *margins, *below), classes),
        Sheet('confusions', ('class', 'second best', 'share of the class', MARGIN), pairs),
        Sheet('words', ('class', 'word', 'best', 'changed without it', 'to', 'class kept with it alone'), words),
    ]
    if study.tried:
        tried = [(row.class_name, row.word, row.gained, row.taken) for row in study.tried]
        sheets.append(Sheet('tried', ('class', 'tried word', 'gained', 'from'), tried))
    return sheets


def shown(study: WordStudy, name: str) -> list[Table]:
    """Tables for a terminal, of the scene ``name``."""
    tables = []
    for sheet in sheets_of(study):
        table = Table(title=Text(sheet.name), title_justify='left', box=SIMPLE)
        for column in sheet.columns:
            table.add_column(column, overflow='fold')
        last = None
        for row in sheet.rows:
            if sheet.name == 'confusions' and row[2] < LEAST_SHOWN:
                continue
            cells = [_text(value, column) for value, column in zip(row, sheet.columns, strict=True)]
            table.add_row(*map(Text, ['' if row[0] == last else cells[0], *cells[1:]]))
            last = row[0]
        tables.append(table)
    seen = 'all of it' if study.seen == 1 else f'{_text(study.seen)} of it, blocks that lie evenly over it'
    tables[0].title = Text(f'{name}: {study.pixels / 1e6:.3g} million pixels, {seen}')
    return tables


def check_files(path: str, out: Path, name: str, overwrite: bool) -> list[Path]:
    """Where the files of a scene will lie; a ResultsError says that they may not, before anything is computed."""
    files = [out / f'{name}{ending}' for ending in WORD_ENDINGS.values()]
    check_results({path: files})
    if not overwrite and (existing := [str(file) for file in files if file.exists()]):
        raise ResultsError(f'results exist already: {", ".join(existing)}; give --overwrite or another --out')
    make_folder(out)
    return files


def write_files(study: WordStudy, files: Sequence[Path]) -> None:
    """Writes the picture and the spreadsheet; a ResultsError says that they cannot be."""
    buffers = io.BytesIO(), io.BytesIO()
    draw_seconds(study).save(buffers[0], 'PNG')
    _workbook(sheets_of(study)).save(buffers[1])
    for file, buffer in zip(files, buffers, strict=True):
        with writing(file, 'make room or give another --out'):
            write_bytes(file, buffer.getvalue())


def draw_seconds(study: WordStudy) -> Image.Image:
    """The matrix of the classes that occur: of a row's pixels, per cent whose second class is that of a column."""
    used = {row.name for row in study.classes if row.seconds}.union(*(row.seconds for row in study.classes))
    names = [row.name for row in study.classes if row.name in used or not used]
    shares = {row.name: row.seconds for row in study.classes}
    amounts = np.array([[100 * shares[name].get(other, (0, 0))[0] for other in names] for name in names])
    amounts = amounts.round(1)
    title = 'second best class, % of the pixels of the row'
    return draw_panels([(title, np.asarray(draw_matrix(names, amounts, MATRIX_HEIGHT)))], (), ())


def _text(value: Any, column: str = '') -> str:
    """A cell on a terminal."""
    if value is None or value == {}:
        return ''
    if isinstance(value, Mapping):
        found = [f'{name} {_text(share)}' for name, share in value.items() if share >= LEAST_SHOWN]
        return ', '.join(found[:SHOWN])
    if isinstance(value, str):
        return value
    if column in (MARGIN, SCORE):
        return f'{value:.2f}'
    return '<0.1%' if 0 < value < LEAST_SHOWN else f'{value:.1%}'


def _workbook(sheets: Sequence[Sheet]) -> openpyxl.Workbook:
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.worksheets[0])
    for sheet in sheets:
        page = workbook.create_sheet(sheet.name)
        for number, row in enumerate([sheet.columns, *sheet.rows], 1):
            for place, (value, column) in enumerate(zip(row, sheet.columns, strict=True), 1):
                cell = page.cell(number, place)
                if isinstance(value, Mapping):
                    value = ', '.join(f'{name} {share:.2%}' for name, share in value.items())
                cell.value = value
                if isinstance(value, str):
                    cell.data_type = 's'  # also where it begins like a formula
                elif column not in (MARGIN, SCORE):
                    cell.number_format = '0.00%'
        for place, values in enumerate(zip(sheet.columns, *sheet.rows, strict=True), 1):
            longest = max(len(value) for value in values if isinstance(value, str))
            page.column_dimensions[get_column_letter(place)].width = min(longest + 2, WIDEST)
    return workbook
