"""Results of runs: a row in a spreadsheet, and a line in a text file beside it.

Each run first writes its row as JSON into its work folder, then appends it to the shared files. Appending takes a
lock, so runs that finish together wait for each other; it puts a new file in the place of the old one at once, so a
crash or a full disk leaves that whole; and it knows a run by its id, so appending a row again changes nothing.
"""

import errno
import glob
import io
import logging
import os
import re
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openpyxl
from filelock import FileLock, SoftFileLock, Timeout
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
from openpyxl.utils.exceptions import InvalidFileException
from openpyxl.worksheet.worksheet import Worksheet

from segearth.cli import build_parser, run_cli
from segearth.errors import ResultsError
from segearth.evaluation.row import FIRST_COLUMNS, ResultRow, read_row
from segearth.io.atomic import write_bytes
from segearth.io.outputs import make_folder

CLASS_COLUMNS = ('Run', 'Config', 'Dataset', 'Class', 'IoU', 'Acc')
RENAMED = {'Class words': 'Classes'}
"""Column of older files -> its name today; such a file keeps its own, and goes on below it."""
SUMMARY_SHEET, CLASS_SHEET = 'results', 'classes'
LOCK_TIMEOUT = 60.0  # seconds to wait for other runs; each holds the lock for a fraction of one
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
TOO_LONG = 32_000  # characters; a cell holds no more than 32767
NO_TEXT = re.compile('[\ud800-\udfff\ufffe\uffff]')  # halves of characters, and none; XML has neither
LONGEST_NAME = 200  # bytes of the spreadsheet's name; files beside it have longer ones

logger = logging.getLogger(__name__)


class _NotResultsError(Exception):
    """A file that is not a spreadsheet of results; the message says what it is instead."""


def check_results_path(path: Path) -> Path:
    """Checks a path for results before a run spends its time, makes its folder, and returns the path."""
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise ResultsError(f'--results {path.name[:40]}...: the name is too long; give a shorter one')
    if path.suffix.lower() != '.xlsx' or path.is_dir():
        raise ResultsError(f'--results {path}: give the path of a spreadsheet that ends in .xlsx, such as results.xlsx')
    make_folder(path.parent, '--results')
    for file in (path, path.with_suffix('.txt')):
        target = Path(os.path.realpath(file))
        if not target.parent.is_dir():
            raise ResultsError(f'--results {path}: {file} is a link to {target}, whose folder does not exist')
        if not os.access(target.parent, os.W_OK):
            raise ResultsError(f'--results {path}: the folder {target.parent} cannot be written to; choose another')
        if target.exists() and not (target.is_file() and os.access(target, os.W_OK)):
            raise ResultsError(f'--results {path}: {target} is write-protected or no file; choose another')
    return path


def append_row(row: ResultRow, path: Path, kept_in: Path | None = None) -> None:
    """Appends a row to a spreadsheet and to the text file of the same name beside it.

    A spreadsheet that cannot be read or is not one of results is renamed, with a warning, and a new one is begun. Where
    the files cannot be written, the message of the ResultsError has the row, or the file that it is ``kept_in``.
    """
    kept = f'The row is kept in {kept_in}' if kept_in else f'The row, to be saved as row.json: {row.to_json()}'
    command = f'python -m segearth.evaluation.results {kept_in or "row.json"} --results {path}'
    remedy = f'Files that were there are whole. {kept}; append it later with: {command}'
    try:
        with _alone(path):
            _append_to_workbook(row, path)
            _append_to_text(row, path.with_suffix('.txt'))
    except OSError as error:
        reason = error.strerror or error
        if isinstance(error, Timeout):
            reason = f'another program has held {error.lock_file} for {LOCK_TIMEOUT:.0f} s'
        raise ResultsError(f'cannot write {path}: {reason}. {remedy}') from error


def read_rows(path: Path, sheet: str | None = None) -> list[dict[str, Any]]:
    """Reads the rows, column -> value, of a sheet of results; None for the first, the runs."""
    try:
        workbook = _load(path)
    except (OSError, _NotResultsError) as error:
        raise ResultsError(f'cannot read results from {path}: {error}') from error
    if sheet is not None and sheet not in workbook.sheetnames:
        return []
    return _rows(workbook[sheet] if sheet else workbook.worksheets[0])


@contextmanager
def edit_workbook(path: Path) -> Iterator[openpyxl.Workbook]:
    """Opens a spreadsheet of results for changes besides the rows, alone; it is written when the block ends."""
    try:
        with _alone(path):
            workbook = _load(path)
            yield workbook
            _save(workbook, path)
    except (OSError, _NotResultsError) as error:
        raise ResultsError(f'cannot change {path}: {error}. The file is as it was') from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keeps other programs of ours out: those that know the file by another name (a link) too."""
    target = Path(os.path.realpath(path))
    editors = [name for name in (f'.~lock.{target.name}#', f'~${target.name}') if (target.parent / name).exists()]
    if editors:
        logger.warning('%s is open in another program (%s): load it anew there before you save it', path, editors[0])
    lock = FileLock(f'{target}.lock', timeout=LOCK_TIMEOUT, mode=0o666)  # a group shares it
    try:
        lock.acquire()
    except PermissionError as error:
        raise PermissionError(error.errno, f'its lock {lock.lock_file} cannot be opened ({error.strerror})') from error
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:  # a Timeout too
            raise
        lock = SoftFileLock(f'{target}.softlock', timeout=LOCK_TIMEOUT)  # some network file systems have no others
        lock.acquire()
    try:
        for left_by_a_killed_run in target.parent.glob(f'.{glob.escape(target.name)}.*.tmp'):
            left_by_a_killed_run.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def _load(path: Path) -> openpyxl.Workbook:
    try:
        workbook = openpyxl.load_workbook(path)
    except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, SyntaxError, EOFError, TypeError) as error:
        raise _NotResultsError(f'unreadable ({type(error).__name__}: {error})') from error
    if len(workbook.worksheets) < len(workbook.sheetnames):  # they cannot be written again
        raise _NotResultsError('foreign (it has sheets that are charts)')
    if tuple(_header(workbook.worksheets[0])[: len(FIRST_COLUMNS)]) != FIRST_COLUMNS:
        raise _NotResultsError(f'foreign (its first columns are not {", ".join(FIRST_COLUMNS)})')
    return workbook


def _header(sheet: Worksheet) -> list[Any]:
    """Names of the columns, as they are called today."""
    return [RENAMED.get(cell.value, cell.value) for cell in sheet[1]]


def _rows(sheet: Worksheet) -> list[dict[str, Any]]:
    header = _header(sheet)
    return [dict(zip(header, row, strict=True)) for row in sheet.iter_rows(min_row=2, values_only=True)]


def _append_to_workbook(row: ResultRow, path: Path) -> None:
    try:
        workbook = _load(path) if path.exists() else _new_workbook()
    except _NotResultsError as error:
        real = Path(os.path.realpath(path))
        stamp = f'{time.strftime("%Y%m%d-%H%M%S")}-{os.urandom(3).hex()}'
        aside = real.rename(real.with_name(f'{real.stem}.kept-{stamp}{real.suffix}'))
        logger.warning('%s is %s: kept as %s, and a new one is begun', path, error, aside.name)
        workbook = _new_workbook()
    sheet = workbook.worksheets[0]
    if any(line.get('Run') == row.run for line in _rows(sheet)):
        return
    _append_values(sheet, {**row.summary, 'Run': row.run})
    if CLASS_SHEET not in workbook.sheetnames:
        _append_header(workbook.create_sheet(CLASS_SHEET), CLASS_COLUMNS)
    shared = {'Run': row.run, 'Config': row.summary.get('Config'), 'Dataset': row.summary.get('Dataset')}
    for name, iou, accuracy in row.classes:
        _append_values(workbook[CLASS_SHEET], {**shared, 'Class': name, 'IoU': iou, 'Acc': accuracy})
    _save(workbook, path)


def _new_workbook() -> openpyxl.Workbook:
    workbook = openpyxl.Workbook()
    workbook.active.title = SUMMARY_SHEET
    _append_header(workbook.active, FIRST_COLUMNS)
    return workbook


def _save(workbook: openpyxl.Workbook, path: Path) -> None:
    data = io.BytesIO()
    workbook.save(data)  # into memory: a full disk then shows itself in one place
    write_bytes(path, data.getvalue())


def _append_header(sheet: Worksheet, names: Sequence[str]) -> None:
    sheet.append(list(names))
    sheet.freeze_panes = 'A2'


def _append_values(sheet: Worksheet, values: dict[str, Any]) -> None:
    """Appends values under the columns of their names; new columns are added on the right."""
    header = _header(sheet)
    values = {RENAMED.get(name, name): value for name, value in values.items()}  # a row that an older version kept
    for name in values:
        if name not in header:
            header.append(name)
            sheet.cell(1, len(header), name)
    line = sheet.max_row + 1
    for column, name in enumerate(header, 1):
        value = values.get(name)
        if isinstance(value, str):  # without what spreadsheets cannot hold, and not longer than they hold
            value = NO_TEXT.sub(' ', ILLEGAL_CHARACTERS_RE.sub(' ', value))[:TOO_LONG]
        cell = sheet.cell(line, column, value)
        if isinstance(value, str):
            cell.data_type = 's'  # also where it begins like a formula


def _append_to_text(row: ResultRow, path: Path) -> None:
    old = path.read_bytes() if path.exists() else b''
    if f'run {row.run}'.encode() in old:
        return
    if old and not old.endswith(b'\n'):
        old += b'\n'
    write_bytes(path, old + (row.to_line() + '\n').encode(errors='replace'))


def main(arguments: Sequence[str] | None = None) -> None:
    """Appends rows that runs kept."""
    parser = build_parser('Appends rows that runs kept in their work folders.')
    parser.add_argument('rows', nargs='+', type=Path, help='result.json of a run')
    parser.add_argument('--results', type=Path, default=Path('results.xlsx'), help='spreadsheet (default: %(default)s)')
    options = parser.parse_args(arguments)
    check_results_path(options.results)
    for path in options.rows:
        row = read_row(path)
        append_row(row, options.results, kept_in=path)
        print(f'{options.results}: {row.to_line()}')


if __name__ == '__main__':
    run_cli(main)
