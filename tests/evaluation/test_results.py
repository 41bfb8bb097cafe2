from __future__ import annotations

import errno
import multiprocessing
import os

import openpyxl
import pandas as pd
import pytest
from filelock import FileLock

from segearth.errors import MissingFileError, ResultsError
from segearth.evaluation import append, results
from segearth.evaluation.results import (
    FIRST_COLUMNS,
    ResultRow,
    append_row,
    check_results_path,
    read_row,
    read_rows,
    write_row,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'results.xlsx'


def test_rows_and_classes_are_appended(path, make_row):
    append_row(make_row('r1'), path)
    append_row(make_row('r2', Threshold=0.3), path)
    table = pd.read_excel(path)
    assert tuple(table.columns[:7]) == FIRST_COLUMNS
    assert table['Run'].tolist() == ['r1', 'r2']
    assert table['mIoU'].tolist() == [40.5, 40.5]
    assert table['Threshold'].isna().tolist() == [True, False]
    classes = pd.read_excel(path, sheet_name='classes')
    assert classes[['Run', 'Class', 'IoU']].values.tolist()[0] == ['r1', 'a', 12.5]
    assert len(classes) == 4
    lines = path.with_suffix('.txt').read_text().splitlines()
    assert len(lines) == 2
    assert 'mIoU 40.5' in lines[0]


def test_the_same_run_counts_once(path, make_row):
    for _ in range(2):
        append_row(make_row('r1'), path)
    assert len(read_rows(path)) == 1
    assert len(path.with_suffix('.txt').read_text().splitlines()) == 1


def test_the_table_of_the_original_goes_on(path, make_row):
    old = dict(zip(FIRST_COLUMNS, ['CLIP', 'ViT-B/16', 'SegEarth', 'LoveDADataset', 1.0, 2.0, 3.0], strict=True))
    pd.DataFrame([old]).to_excel(path, index=False)
    append_row(make_row(), path)
    rows = read_rows(path)
    assert [row['mIoU'] for row in rows] == [2.0, 40.5]
    assert rows[0]['Run'] is None


def test_other_sheets_and_columns_of_the_user_stay(path, make_row):
    append_row(make_row('r1'), path)
    workbook = openpyxl.load_workbook(path)
    workbook.create_sheet('mine')['A1'] = 'note'
    workbook.worksheets[0].cell(1, workbook.worksheets[0].max_column + 1, 'Remark')
    workbook.save(path)
    append_row(make_row('r2'), path)
    assert openpyxl.load_workbook(path)['mine']['A1'].value == 'note'
    assert 'Remark' in read_rows(path)[1]


@pytest.mark.parametrize('kind', ['text', 'empty', 'cut', 'foreign'])
def test_files_that_are_no_results_are_kept_aside(path, make_row, caplog, kind):
    if kind == 'foreign':
        pd.DataFrame([{'name': 'A', 'age': 3}]).to_excel(path, index=False)
    elif kind == 'cut':
        append_row(make_row('r0'), path)
        path.write_bytes(path.read_bytes()[:-300])
    else:
        path.write_bytes(b'' if kind == 'empty' else b'precious')
    before = path.read_bytes()
    append_row(make_row(), path)
    (aside,) = path.parent.glob('results.kept-*.xlsx')
    assert aside.read_bytes() == before
    assert aside.name in caplog.text
    assert len(read_rows(path)) == 1


def _append_some(path, process: int) -> None:
    for index in range(4):
        append_row(ResultRow(f'{process}-{index}', dict.fromkeys(FIRST_COLUMNS, 1.0)), path)


def test_runs_that_finish_together_lose_nothing(path):
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=_append_some, args=(path, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len({row['Run'] for row in read_rows(path)}) == 16
    assert len(path.with_suffix('.txt').read_text().splitlines()) == 16


def test_a_full_disk_leaves_everything_and_says_the_row(path, make_row, monkeypatch):
    append_row(make_row('r1'), path)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}

    def no_space(_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(results.os, 'fsync', no_space)
    with pytest.raises(ResultsError, match='No space left on device.*"run": "r2".*segearth.evaluation.append'):
        append_row(make_row('r2'), path)
    with pytest.raises(ResultsError, match='kept in own.json'):
        append_row(make_row('r2'), path, kept_in='own.json')
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_lock_that_is_never_freed(path, make_row, monkeypatch):
    monkeypatch.setattr(results, 'LOCK_TIMEOUT', 0.1)
    with FileLock(f'{path}.lock'), pytest.raises(ResultsError, match='results.xlsx.lock'):
        append_row(make_row(), path)


def test_a_kept_row_is_appended_later(path, make_row, capsys):
    row = make_row()
    write_row(row, path.parent / 'result.json')
    assert read_row(path.parent / 'result.json') == row
    append.main([str(path.parent / 'result.json'), '--results', str(path)])
    assert read_rows(path)[0]['Run'] == 'r1'
    assert 'run r1' in capsys.readouterr().out


def test_rows_that_cannot_be_read(tmp_path):
    with pytest.raises(MissingFileError, match='no.json'):
        read_row(tmp_path / 'no.json')
    (tmp_path / 'x.json').write_text('{"run": 1}')
    with pytest.raises(ResultsError, match='not a result row'):
        read_row(tmp_path / 'x.json')
    with pytest.raises(ResultsError, match='cannot read results'):
        read_rows(tmp_path / 'x.json')


def test_paths_are_checked_beforehand(tmp_path, monkeypatch):
    assert check_results_path(tmp_path / 'new' / 'r.xlsx').parent.is_dir()
    (tmp_path / 'file').write_text('')
    monkeypatch.setattr(os, 'access', lambda *_: False)
    for wrong in ('r.csv', 'file/r.xlsx', 'r.xlsx'):
        with pytest.raises(ResultsError, match='--results'):
            check_results_path(tmp_path / wrong)
