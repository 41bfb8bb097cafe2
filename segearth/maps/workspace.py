"""Finished blocks on disk until all are done: what makes a run resumable and its results appear at once.

Beside the results lies a hidden folder ``.NAME.parts`` with the settings of the run and one file a finished block. A
run is begun as long as its settings are there: they are written first and removed first, and a folder without them is
rubbish. All files appear under their names only when they are whole. A lock file keeps a second run on the same results
out; the operating system gives it back when a run dies.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from filelock import FileLock, Timeout

from segearth.errors import ConfigError, ResultsError, cut
from segearth.io.atomic import replacing, write_bytes
from segearth.io.outputs import make_folder, writing

logger = logging.getLogger(__name__)

SETTINGS_TAG = 'SEGEARTH_SETTINGS'  # of finished GeoTIFFs: what they were made with, as JSON
SHOWN_DIFFERENCES = 3


class Workspace:
    """The hidden folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / 'settings.json'  # there as long as a run is begun

    def has_block(self, index: int) -> bool:
        """The block is finished."""
        return self._block_path(index).is_file()

    def save_block(self, index: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps the arrays of a finished block; a ResultsError says that the disk is full or not writable."""
        path = self._block_path(index)
        with writing(path), replacing(path) as part, part.open('wb') as file:
            np.savez_compressed(file, **dict[str, Any](arrays))

    def load_block(self, index: int) -> dict[str, np.ndarray]:
        """The arrays of a finished block."""
        with np.load(self._block_path(index), allow_pickle=False) as arrays:
            return dict(arrays)

    def result_folder(self) -> Path:
        """An empty folder, in the run's own, to make results in; what an interrupted run left half done is gone."""
        folder = self.folder / 'results'
        with writing(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        return folder

    def publish(self, results: Mapping[Path, Path]) -> None:
        """Gives finished files (temporary -> final path) their names, in order, and removes the folder.

        Whenever it is interrupted, a resumed run makes the files again from the blocks, or finds all of them in place.
        """
        for temporary, final in results.items():
            with writing(final):
                os.replace(temporary, final)
        self.discard()

    def discard(self) -> None:
        """Deletes the run, and what is left of one."""
        with writing(self.folder):
            self.settings.unlink(missing_ok=True)
            if self.folder.exists():
                shutil.rmtree(self.folder)

    def _block_path(self, index: int) -> Path:
        return self.folder / f'block_{index:06d}.npz'


@contextmanager
def open_workspace(
    out: Path,
    name: str,
    settings: Mapping[str, Any],
    results: Sequence[Path],
    possible: Sequence[Path],
    resume: bool = False,
    overwrite: bool = False,
) -> Iterator[Workspace | None]:
    """Opens and locks the workspace of a run; gives None if the run to be resumed is finished already.

    ``possible`` are the final paths of a run that makes all kinds of results; none of another run may stay beside the
    new ``results``. With ``overwrite`` old results stay until the new ones are complete.
    """
    if resume and overwrite:
        raise ConfigError('--resume goes on with a run and --overwrite begins anew: give one of them')
    make_folder(out)
    lock = FileLock(out / f'.{name}.lock', blocking=False)
    with writing(out):
        try:
            lock.acquire()
        except Timeout as error:
            raise ResultsError(
                f'another run is writing {results[-1]}: wait for its end, or give another --out'
            ) from error
    try:
        workspace = Workspace(out / f'.{name}.parts')
        settings = json.loads(json.dumps(settings))  # tuples become lists
        if overwrite or not workspace.settings.is_file():
            workspace.discard()
            if not overwrite and _is_finished(settings, results, possible, resume):
                yield None
                return
            with writing(workspace.folder):
                write_bytes(workspace.settings, json.dumps(settings, indent=1, sort_keys=True).encode())
        elif resume:
            try:
                known = json.loads(workspace.settings.read_text())
            except (OSError, ValueError) as error:
                raise ResultsError(
                    f'{workspace.settings} cannot be read ({error}): begin anew with --overwrite'
                ) from error
            _compare(known, settings, workspace.folder)
        else:
            raise ResultsError(
                f'there is an unfinished run for {results[-1]}: go on with it with --resume, or begin anew with '
                '--overwrite'
            )
        yield workspace
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _is_finished(settings: Mapping[str, Any], results: Sequence[Path], possible: Sequence[Path], resume: bool) -> bool:
    existing = [path for path in possible if path.exists()]
    if not existing:
        return False
    if not resume:
        raise ResultsError(f'results exist already: {", ".join(map(str, existing))}; give --overwrite or another --out')
    if results[-1] in existing:
        with rasterio.open(results[-1]) as dataset:
            _compare(json.loads(dataset.tags().get(SETTINGS_TAG, '{}')), settings, results[-1])
    if set(existing) != set(results):
        odd, *_ = sorted(set(existing) ^ set(results))
        state = 'is missing' if odd in results else 'is not of it'
        raise ResultsError(f'the run to be resumed is finished, but {odd} {state}: give --overwrite')
    logger.info('%s is finished already', results[-1])
    return True


def _compare(old: Mapping[str, Any], new: Mapping[str, Any], place: Path) -> None:
    old, new = _flat(old), _flat(new)
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    shown = [
        f'{key} was {cut(json.dumps(old.get(key)))}, is {cut(json.dumps(new.get(key)))}'
        for key in keys[:SHOWN_DIFFERENCES]
    ]
    if len(keys) > len(shown):
        shown.append(f'{len(keys) - len(shown)} more')
    if keys:
        raise ResultsError(
            f'{place} was made with other settings ({"; ".join(shown)}): give the same ones to --resume, or --overwrite'
        )


def _flat(settings: Mapping[str, Any], start: str = '') -> dict[str, Any]:
    """Settings of settings under names such as ``model.attention``, so that a message shows what differs alone."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f'{start}{key}.') if isinstance(value, Mapping) else {f'{start}{key}': value}
    return flat
