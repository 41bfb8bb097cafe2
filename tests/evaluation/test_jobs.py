from __future__ import annotations

import fcntl
import io
import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from eval_all import JobDisplay, summary_table
from segearth.evaluation import jobs as module
from segearth.evaluation.jobs import DONE, FAILED, SKIPPED, STOPPED, Job, Outcome, failure_reason, run_jobs
from segearth.evaluation.results import append_row, read_rows
from segearth.evaluation.row import FIRST_COLUMNS, ResultRow, read_row

# Stands in for eval.py where only processes and files matter: notes that it ran, waits, leaves its row.
SCRIPT = """
import json, os, sys, time
folder, name, seconds, code = sys.argv[1:]
with open('ran.txt', 'a') as log:
    log.write(name + '\\n')
print('Iter(test) [ 1/4]', flush=True)
time.sleep(float(seconds))
if code != '0':
    print('error: ' + name + ' has no data', flush=True)
    os._exit(int(code)) if int(code) > 0 else os.kill(os.getpid(), -int(code))
os.makedirs(folder + '/1', exist_ok=True)
summary = dict(dict.fromkeys(COLUMNS, 1.0), Config=name, Settings='digest of ' + name)
with open(folder + '/1/new', 'w') as file:
    json.dump(dict(run='run of ' + name, summary=summary, classes=[]), file)
os.replace(folder + '/1/new', folder + '/1/result.json')
""".replace('COLUMNS', repr(FIRST_COLUMNS))


@pytest.fixture(autouse=True)
def fast(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, 'POLL_SECONDS', 0.01)


@pytest.fixture
def make_jobs(tmp_path):
    def make_jobs(*names: str) -> list[Job]:
        return [Job(tmp_path / f'{name}.py', tmp_path / 'work' / name, f'digest of {name}') for name in names]

    return make_jobs


@pytest.fixture
def results(tmp_path):
    return tmp_path / 'results.xlsx'


def starter(seconds=0.0, codes=None):
    def start(job, devices):
        name = job.config.stem
        arguments = [str(job.folder), name, str(seconds), str((codes or {}).get(name, 0))]
        return [sys.executable, '-S', '-c', SCRIPT, *arguments], dict(os.environ)

    return start


def run(jobs, results, slots=([],), **settings):
    outcomes = []
    run_jobs(jobs, slots, settings.pop('start', starter()), results, report=outcomes.append, **settings)
    return {outcome.job.config.stem: outcome for outcome in outcomes}


def runs(results):
    return [row['Run'] for row in read_rows(results)]


def test_failures_are_reported_and_the_rest_goes_on(make_jobs, results):
    jobs = [*make_jobs('a', 'b', 'c', 'd'), Job(results, results.parent / 'x', None, fault='line 3: syntax')]
    codes = {'a': 2, 'c': -signal.SIGKILL}
    outcomes = run(jobs, results, [['0'], ['1']], start=starter(codes=codes))
    assert [outcomes[name].state for name in 'abcd'] == [FAILED, DONE, FAILED, DONE]
    assert outcomes['a'].reason == 'a has no data'
    assert outcomes['c'].reason == 'ended by SIGKILL; c has no data'
    assert outcomes['results'].reason == 'line 3: syntax'
    assert sorted(runs(results)) == ['run of b', 'run of d']
    assert outcomes['b'].row.summary['mIoU'] == 1.0


def test_resuming_skips_what_is_there_and_takes_rows_that_were_kept(make_jobs, results):
    jobs = make_jobs('a', 'b', 'c')
    run(jobs[:2], results)
    results.unlink()  # as if both were ended between their own row and the common table
    append_row(read_row(jobs[0].folder / '1' / 'result.json'), results)
    outcomes = run(jobs, results, resume=True)
    assert [outcomes[name].state for name in 'abc'] == [SKIPPED, SKIPPED, DONE]
    assert sorted(runs(results)) == [f'run of {name}' for name in 'abc']
    other = Job(jobs[0].config, jobs[0].folder, 'other settings')
    assert run([other], results, resume=True)['a'].state == DONE
    assert run(jobs[:1], results)['a'].state == DONE  # without resuming, it runs
    assert Path('ran.txt').read_text().split() == list('abcaa')


def test_killed_at_any_point_nothing_is_lost_or_doubled(make_jobs, results):
    """What was under way goes on alone; the next start waits for it and finds its row. So every job runs once."""
    jobs = make_jobs(*'abcdef')
    context = multiprocessing.get_context('fork')
    for delay in (0.05, 0.12, 0.2, 0.3, 0.4):
        sweep = context.Process(
            target=run, args=(jobs, results, ([], [])), kwargs={'start': starter(0.2), 'resume': True}
        )
        sweep.start()
        time.sleep(delay)
        sweep.kill()
        sweep.join()
    outcomes = run(jobs, results, ([], []), start=starter(0.2), resume=True)
    assert {outcome.state for outcome in outcomes.values()} <= {DONE, SKIPPED}
    assert sorted(runs(results)) == [f'run of {name}' for name in 'abcdef']
    assert sorted(Path('ran.txt').read_text().split()) == list('abcdef')
    assert len(results.with_suffix('.txt').read_text().splitlines()) == 6


def test_a_folder_in_use_is_waited_for(make_jobs, results, caplog):
    jobs = make_jobs('a', 'b')
    jobs[0].folder.mkdir(parents=True)
    lock = (jobs[0].folder / module.LOCK_FILE).open('w')
    fcntl.flock(lock, fcntl.LOCK_EX)
    outcomes = []

    def watch(running, waiting):
        if outcomes and not lock.closed:
            assert waiting == jobs[:1]  # the other one did not wait
            lock.close()

    run_jobs(jobs, [[]], starter(), results, report=outcomes.append, watch=watch)
    assert [outcome.job.config.stem for outcome in outcomes] == ['b', 'a']
    assert caplog.text.count('a is still running from an earlier start') == 1


def test_an_interruption_ends_the_processes_and_says_what_is_left(make_jobs, results):
    outcomes = []

    def watch(running, waiting):
        if running and running[0].images == (1, 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(make_jobs('a', 'b'), [[]], starter(30), results, report=outcomes.append, watch=watch)
    assert [(outcome.state, outcome.reason) for outcome in outcomes] == [
        (STOPPED, 'interrupted'), (STOPPED, 'not started'),
    ]  # fmt: skip
    assert not results.exists()
    assert run(make_jobs('a', 'b'), results, resume=True)['b'].state == DONE


def test_a_row_that_cannot_be_appended_is_a_failure_and_found_later(make_jobs, results, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            'segearth.evaluation.results.write_bytes', lambda *_: (_ for _ in ()).throw(OSError(28, 'full'))
        )
        assert 'full' in run(make_jobs('a'), results)['a'].reason
    assert run(make_jobs('a'), results, resume=True)['a'].state == SKIPPED
    assert runs(results) == ['run of a']


def test_commands_that_cannot_start_and_rows_that_are_damaged(make_jobs, results, caplog):
    (job,) = make_jobs('a')
    outcome = run([job], results, start=lambda *_: (['/no/such/program'], {}))['a']
    assert outcome.state == FAILED
    assert 'cannot be started' in outcome.reason
    (job.folder / '0').mkdir()
    (job.folder / '0' / 'result.json').write_text(json.dumps({'run': 1}))
    assert run([job], results, resume=True)['a'].state == DONE
    assert 'is left out' in caplog.text


def test_reasons(tmp_path):
    console = tmp_path / 'console.log'
    assert failure_reason(console, 1) == f'no output (exit code 1; all of it in {console})'
    console.write_text('Traceback\n  File\nValueError: x\n\n')
    assert failure_reason(console, 1).startswith('ValueError: x (exit code 1')
    console.write_text('error: first\nerror: no images\nINFO done\n')
    assert failure_reason(console, 2) == 'no images'


def test_what_is_shown_while_jobs_run(make_jobs, results):
    job, other = make_jobs('a', 'b')
    console = Console(record=True, width=120, force_terminal=True, file=io.StringIO())
    with JobDisplay(2, console) as display:
        display.watch([], [job])
        display.watch([SimpleNamespace(job=job, images=None)], [other])
        display.watch([SimpleNamespace(job=job, images=(30, 40))], [other])
        row = ResultRow('r', {'mIoU': 12.5, 'Images': 4})
        display.report(Outcome(job, DONE, '', row, 7.0))
        display.report(Outcome(other, FAILED, 'no [data]'))
    console.print(summary_table(display.outcomes))
    shown = console.export_text()
    assert '[1/2] a: done  mIoU 12.5' in shown
    assert '[2/2] b: failed  no [data]' in shown
    assert 'left' in shown.split('[1/2]')[1].splitlines()[0]
    assert [outcome.state for outcome in display.outcomes] == [DONE, FAILED]
