from __future__ import annotations

import errno
import multiprocessing
import os
import time
from pathlib import Path

import openpyxl
import openpyxl.chart
import pandas as pd
import pytest
from filelock import FileLock

from segearth.errors import MissingFileError, ResultsError
from segearth.evaluation import results
from segearth.evaluation.results import append_row, check_results_path, edit_workbook, read_rows
from segearth.evaluation.row import FIRST_COLUMNS, ResultRow, read_row, write_row


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


def test_a_table_with_older_names_of_columns_goes_on(path, make_row):
    """Nothing is lost, and no column is there twice."""
    old = {**dict.fromkeys(FIRST_COLUMNS, 1.0), 'Class words': 'cls_old.txt', 'Run': 'r0'}
    pd.DataFrame([old]).to_excel(path, index=False)
    append_row(make_row('r1', Classes='cls_new.txt'), path)
    append_row(make_row('r2', **{'Class words': 'kept_by_an_older_version.txt'}), path)
    table = pd.read_excel(path)
    assert table['Class words'].tolist() == ['cls_old.txt', 'cls_new.txt', 'kept_by_an_older_version.txt']
    assert 'Classes' not in table.columns
    assert [row['Classes'] for row in read_rows(path)] == table['Class words'].tolist()


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

    monkeypatch.setattr(os, 'fsync', no_space)
    with pytest.raises(ResultsError, match='No space left on device.*"run": "r2".*segearth.evaluation.results'):
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
    results.main([str(path.parent / 'result.json'), '--results', str(path)])
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


def test_a_link_to_shared_results(tmp_path, make_row, monkeypatch):
    (tmp_path / 'shared').mkdir()
    (tmp_path / 'own').mkdir()
    shared = tmp_path / 'shared' / 'all of us.xlsx'
    append_row(make_row('r1'), shared)
    shared.chmod(0o664)
    monkeypatch.chdir(tmp_path / 'own')
    Path('r.xlsx').symlink_to('../shared/all of us.xlsx')
    Path('r.txt').symlink_to('../shared/all of us.txt')
    append_row(make_row('r2'), check_results_path(Path('r.xlsx')))
    with edit_workbook(Path('r.xlsx')) as workbook:
        workbook.create_sheet('more')
    assert [row['Run'] for row in read_rows(shared)] == ['r1', 'r2']
    assert 'more' in openpyxl.load_workbook(shared).sheetnames
    assert shared.stat().st_mode & 0o777 == 0o664
    assert len(shared.with_suffix('.txt').read_text().splitlines()) == 2
    assert Path('r.xlsx').is_symlink()
    assert Path('r.txt').is_symlink()


def test_a_link_and_its_aim_have_one_lock(tmp_path, make_row, monkeypatch):
    monkeypatch.setattr(results, 'LOCK_TIMEOUT', 0.1)
    (tmp_path / 'r.xlsx').symlink_to('shared.xlsx')
    with FileLock(tmp_path / 'shared.xlsx.lock'), pytest.raises(ResultsError, match='shared.xlsx.lock'):
        append_row(make_row(), tmp_path / 'r.xlsx')


def test_a_damaged_file_behind_a_link_is_kept_beside_it(tmp_path, make_row):
    (tmp_path / 'shared').mkdir()
    (tmp_path / 'shared' / 'r.xlsx').write_bytes(b'precious')
    (tmp_path / 'r.xlsx').symlink_to('shared/r.xlsx')
    append_row(make_row(), tmp_path / 'r.xlsx')
    (aside,) = (tmp_path / 'shared').glob('r.kept-*.xlsx')
    assert aside.read_bytes() == b'precious'
    assert len(read_rows(tmp_path / 'shared' / 'r.xlsx')) == 1


def test_links_into_nowhere_are_said_beforehand(tmp_path):
    (tmp_path / 'r.xlsx').symlink_to('unmounted/r.xlsx')
    with pytest.raises(ResultsError, match='is a link to .*unmounted.*does not exist'):
        check_results_path(tmp_path / 'r.xlsx')
    (tmp_path / 's.txt').mkdir()
    with pytest.raises(ResultsError, match='s.txt is write-protected or no file'):
        check_results_path(tmp_path / 's.xlsx')


@pytest.mark.parametrize('error', [NotImplementedError('no flock'), OSError(errno.ENOLCK, 'No locks available')])
def test_a_file_system_without_locks(path, make_row, monkeypatch, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr(FileLock, 'acquire', refuse)
    append_row(make_row('r1'), path)
    append_row(make_row('r2'), path)
    assert len(read_rows(path)) == 2
    assert not list(path.parent.glob('*.softlock'))


def test_the_lock_of_another_user(path, make_row, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, 'Permission denied')

    monkeypatch.setattr(FileLock, 'acquire', refuse)
    with pytest.raises(ResultsError, match='its lock .*results.xlsx.lock cannot be opened.*"run": "r1"'):
        append_row(make_row(), path)


@pytest.mark.parametrize('name', ['.~lock.results.xlsx#', '~$results.xlsx'])
def test_a_table_that_is_open_elsewhere(path, make_row, caplog, name):
    (path.parent / name).write_text(',me,here;')
    append_row(make_row(), path)
    assert 'open in another program' in caplog.text
    assert len(read_rows(path)) == 1


def test_what_a_killed_run_left_is_removed(path, make_row):
    (path.parent / '.results.xlsx.123-ab.tmp').write_bytes(b'half')
    append_row(make_row(), path)
    assert not list(path.parent.glob('.*.tmp'))


@pytest.mark.parametrize(
    'name', ['=1+1', 'a\x00b\x0bc', '\ud7ff\U0001f30d', "=cmd|'/c calc'!A0", '-3', 'x' * 50_000, '# a']
)
def test_any_name_of_a_class_stays_a_text(path, name):
    append_row(ResultRow('r1', dict.fromkeys(FIRST_COLUMNS, name), [(name, 1.0, None)]), path)
    workbook = openpyxl.load_workbook(path)
    cells = [workbook[results.CLASS_SHEET].cell(2, 4), workbook.worksheets[0].cell(2, 4)]
    for cell in cells:
        assert cell.data_type == 's'
        assert cell.value[:20].split() == name.replace('\x00', ' ').replace('\x0b', ' ')[:20].split()


def _kill_while_appending(path, process):
    number = 0
    while True:
        number += 1
        append_row(ResultRow(f'{process}-{number}', dict.fromkeys(FIRST_COLUMNS, 1.0)), path)


def test_runs_that_are_killed_leave_a_table_and_no_lock(path):
    context = multiprocessing.get_context('fork')
    for wait in (0.05, 0.13, 0.21):
        process = context.Process(target=_kill_while_appending, args=(path, wait))
        process.start()
        time.sleep(wait)
        process.kill()
        process.join()
        before = len(read_rows(path)) if path.exists() else 0
        append_row(ResultRow(f'after {wait}', dict.fromkeys(FIRST_COLUMNS, 1.0)), path)
        assert len(read_rows(path)) == before + 1
    assert not list(path.parent.glob('*kept*'))


def test_texts_that_no_spreadsheet_holds(path, make_row):
    for run, model in (('r1', 'a\ud800'), ('r2', 'b\uffff'), ('r3', 'c')):
        append_row(make_row(run, MODEL=model), path)
    assert pd.read_excel(path)['Run'].tolist() == ['r1', 'r2', 'r3']


def test_a_spreadsheet_with_a_chart_is_kept_aside(path, make_row):
    book = openpyxl.Workbook()
    book.active.append([1, 2])
    chart = openpyxl.chart.BarChart()
    chart.add_data(openpyxl.chart.Reference(book.active, min_col=1, min_row=1))
    book.create_chartsheet(index=0).add_chart(chart)
    book.save(path)
    append_row(make_row('r1'), path)
    assert pd.read_excel(path)['Run'].tolist() == ['r1']
    assert len(list(path.parent.glob('results.kept-*.xlsx'))) == 1


def test_a_name_too_long(tmp_path):
    with pytest.raises(ResultsError, match='too long'):
        check_results_path(tmp_path / f'{"x" * 300}.xlsx')
