"""How programs end: messages, exit codes, signals."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time

import pytest

from segearth.cli import EXIT_CLOSED_PIPE, EXIT_INTERRUPTED, add_segmenter_options, run_cli
from tests.processes import NUM_PROCESSES, TIMEOUT, start_forked


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_told_to_end_is_an_interruption_and_once_is_enough(capfd, number):
    def main():
        try:
            os.kill(os.getpid(), number)
            time.sleep(TIMEOUT)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # while it tidies up
            os.kill(os.getpid(), number)
            print('tidied up', flush=True)

    def act(_):
        signal.signal(number, signal.SIG_DFL)  # under nohup, SIGHUP is ignored from the start
        run_cli(main)

    assert start_forked(act) == [EXIT_INTERRUPTED] * NUM_PROCESSES
    output = capfd.readouterr()
    assert output.out.count('tidied up') == NUM_PROCESSES
    assert output.err.count(f'interrupted by {number.name}') == NUM_PROCESSES
    assert 'Traceback' not in output.err


def test_an_interruption_in_a_destructor_is_not_lost(capfd):
    class Slow:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)

    def main():
        Slow()
        time.sleep(TIMEOUT)

    assert start_forked(lambda _: run_cli(main)) == [EXIT_INTERRUPTED] * NUM_PROCESSES
    output = capfd.readouterr()
    assert output.err.count('interrupted by SIGTERM') == NUM_PROCESSES
    assert 'Traceback' not in output.err


def test_what_nohup_ignores_stays_ignored():
    def act(_):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        run_cli(lambda: os.kill(os.getpid(), signal.SIGHUP))

    assert start_forked(act) == [0] * NUM_PROCESSES


def test_forks_of_a_program_end_at_once(tmp_path):
    """One that is told to end before its own work begins must not go on with the program."""

    def main():
        if not os.fork():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(TIMEOUT)
            except KeyboardInterrupt:
                (tmp_path / 'went on').touch()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGTERM

    assert start_forked(lambda _: run_cli(main)) == [0] * NUM_PROCESSES
    assert not (tmp_path / 'went on').exists()


def test_a_reader_that_has_seen_enough_is_no_error():
    talk = "lambda: [print('line', flush=True) for _ in range(100_000)] and 0"
    code = f'from segearth.cli import run_cli; run_cli({talk})'
    run = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout.readline() == b'line\n'
    run.stdout.close()
    assert run.stderr.read() == b''
    assert run.wait() == EXIT_CLOSED_PIPE


def test_what_windows_lacks_is_not_needed(tmp_path):
    """A map where Python has none of the names that it lacks on Windows; the rest of Windows is not imitated."""
    program = '''
import os, signal, sys
for module, names in ((signal, ('SIGHUP', 'SIGUSR1', 'SIGCHLD', 'pthread_kill')), (os, ('getuid', 'chown', 'killpg'))):
    for name in names:
        delattr(module, name)
import numpy, rasterio
profile = dict(driver='GTiff', width=40, height=40, count=3, dtype='uint8')
with rasterio.open('scene.tif', 'w', **profile) as dataset:
    dataset.write(numpy.zeros((3, 40, 40), 'uint8'))
sys.argv[1:] = ['predict', 'scene.tif', '--classes', 'water; road', '--encoder', 'Demo', '--out', 'maps']
from segearth.commands import entry
entry()
'''
    done = subprocess.run([sys.executable, '-c', program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'maps' / 'scene_classes.tif').is_file()


@pytest.mark.parametrize(('given', 'read'), [('0.3', 0.3), ('0.1,0.3', (0.1, 0.3)), ('0.1;x', None), ('', None)])
def test_thresholds_for_all_or_one_a_class(given, read, capsys):
    parser = argparse.ArgumentParser()
    add_segmenter_options(parser)
    if read is not None:
        assert parser.parse_args(['--threshold', given]).prob_thd == read
        return
    with pytest.raises(SystemExit):
        parser.parse_args(['--threshold', given])
    assert 'give a number, or one a class as in 0.1,0.3' in capsys.readouterr().err
