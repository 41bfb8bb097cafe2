"""The program ``segearth predict`` as a process of its own, in the Python environment that the user names.

QGIS's own Python has no torch, and must not get one: what runs here is started, watched and ended, never imported.
Knows of QGIS only the feedback object that it tells what happens.
"""

import os
import queue
import signal
import subprocess
import tempfile
import threading
from contextlib import suppress

SETTING = 'SEGEARTH_PYTHON'  # of Processing; the environment variable of this name goes before it
INSIDE = ('bin/python', 'bin/python3', 'Scripts/python.exe', 'python.exe')  # of an environment's folder
START = 'import sys; sys.path.pop(0); '  # what lies in the working directory is not meant
PROBE = START + 'import importlib.util as found; print("segearth", bool(found.find_spec("segearth")))'
RUN = START + 'from segearth.commands import entry; entry()'
PROBE_SECONDS = 60  # for a first start from a slow disk
END_SECONDS = 15  # for tidying up, before it is ended by force
TICK = 0.2  # seconds between two looks at the cancel button
QGIS_OWN = ('GDAL_DATA', 'GDAL_DRIVER_PATH', 'PROJ_LIB', 'PROJ_DATA', '__PYVENV_LAUNCHER__')
"""Variables that QGIS sets for its own libraries; so are those that begin with PYTHON."""
IS_WINDOWS = os.name == 'nt'
APART = {'creationflags': 0x08000000} if IS_WINDOWS else {'start_new_session': True}  # no console; a group to end
NAME_IT = (
    'Name the Python of the environment that has segearth in Settings > Options > Processing > Providers > SegEarth, '
    f'or in the environment variable {SETTING}, as in /home/me/segearth/.venv/bin/python'
)


class ProgramError(Exception):
    """The program could not be started, or ended with a message."""


def environment():
    """Variables of the program: QGIS's, less those that lead another Python astray."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith('PYTHON') and name not in QGIS_OWN}
    return {**kept, 'PYTHONIOENCODING': 'utf-8', 'SEGEARTH_PROGRESS': 'lines'}


def find_python(setting):
    """The Python that has segearth, from the environment variable or else the setting: a program, or a venv's folder.

    A ProgramError says that none is named, that it is no Python, or that segearth is not installed in it.
    """
    named = os.path.expanduser((os.environ.get(SETTING) or setting or '').strip().strip('"'))
    if not named:
        raise ProgramError(f'No Python environment is named yet. {NAME_IT}')
    python = named
    if os.path.isdir(named):
        candidates = [os.path.join(named, *place.split('/')) for place in INSIDE]
        python = next(filter(os.path.isfile, candidates), None)
        if python is None:
            raise ProgramError(f'{named} is a folder without {", ".join(INSIDE)}. {NAME_IT}')
    try:
        answer = subprocess.run(
            [python, '-c', PROBE], env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, encoding='utf-8', errors='replace', timeout=PROBE_SECONDS, check=False, **APART,
        ).stdout  # fmt: skip
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, 'strerror', None) or f'no answer within {PROBE_SECONDS} s'
        raise ProgramError(f'{python} is no Python that can be started ({reason}). {NAME_IT}') from error
    if 'segearth True' in answer:
        return python
    if 'segearth False' in answer:
        raise ProgramError(
            f'{python} has no segearth. {NAME_IT}; or install segearth there, in the folder of its checkout: '
            f'"{python}" -m pip install ".[maps]"'
        )
    raise ProgramError(f'{python} is no Python, or a broken one (it says {answer.strip()[-200:]!r}). {NAME_IT}')


def predict(python, arguments, feedback):
    """Runs ``segearth predict``; returns the paths of its results, or None if it was cancelled.

    A ProgramError has the message of the program. However this ends, the program and all it started end, too.
    """
    with tempfile.TemporaryFile() as paths:
        child = subprocess.Popen(
            [python, '-c', RUN, 'predict', *arguments], env=environment(), stdin=subprocess.DEVNULL, stdout=paths,
            stderr=subprocess.PIPE, encoding='utf-8', errors='replace', **APART,
        )  # fmt: skip
        lines = queue.SimpleQueue()
        threading.Thread(target=_read, args=(child.stderr, lines), daemon=True).start()
        try:
            error = _tell(lines, feedback)
            code = None if feedback.isCanceled() else child.wait()
        finally:
            if child.poll() is None:
                _end(child)
            child.stderr.close()
        if code is None:
            return None
        if code:
            raise ProgramError(error or f'segearth ended with code {code}; what it said is in the log above')
        paths.seek(0)
        return paths.read().decode('utf-8').splitlines()


def _read(stream, lines):
    for line in stream:
        lines.put(line.rstrip('\n'))
    lines.put(None)


def _tell(lines, feedback):
    """Passes messages and progress on until the program ends or is cancelled; returns the error it ends with."""
    error, last = [], ''
    while not feedback.isCanceled():
        with suppress(queue.Empty):
            line = lines.get(timeout=TICK)
            if line is None:
                return '\n'.join(error) or (last and f'segearth ended: {last}')
            kind, _, text = line.partition(': ')
            if kind == 'progress':
                done, total = map(int, text.split('/'))
                feedback.setProgress(100 * done / max(total, 1))
            elif kind in ('WARNING', 'ERROR'):
                feedback.pushWarning(text)
            elif kind == 'INFO':
                feedback.pushInfo(text)
            elif error or kind == 'error' or text.startswith('error: '):  # the latter of wrong options
                error.append(line.partition('error: ')[2] or line)
            elif line.strip():
                feedback.pushConsoleInfo(line)
                last = line
    return None


def _end(child):
    """Asks the program to end, which keeps what is done, and forces it and all it started."""
    if IS_WINDOWS:
        subprocess.run(['taskkill', '/F', '/T', '/PID', str(child.pid)], capture_output=True, check=False, **APART)
    else:
        with suppress(OSError):
            os.killpg(child.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(END_SECONDS)
        with suppress(OSError):  # all are gone
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()
