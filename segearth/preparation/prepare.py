"""Preparing one data set: find, convert in several processes, write the list, count; a second run does the rest."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from segearth.errors import DataError
from segearth.io.atomic import remove_left_over, write_bytes
from segearth.io.outputs import writing
from segearth.preparation.conversion import GO_ON, Outcome, convert_pair, is_written
from segearth.preparation.label_rules import read_polygons
from segearth.preparation.pairing import find_names, find_pairs
from segearth.preparation.recipe import Recipe
from segearth.preparation.sources import Pair, close_archives, list_members
from segearth.progress import Report

logger = logging.getLogger(__name__)

Converter = Callable[[Pair], Outcome]
LOCK_NAME = '.preparing.lock'
MAX_FAILURES = 20  # files that cannot be converted before the run is given up
MAX_SHOWN = 5  # of them named in the message


@dataclass(frozen=True)
class Summary:
    """What a data set has now."""

    num_pairs: int  # in the source
    outcome: Outcome
    is_whole_source: bool  # no list said which images to take, though the data set is evaluated on a list

    @property
    def num_results(self) -> int:
        """Images of the prepared data set."""
        return self.outcome.written + self.outcome.present


def prepare(
    recipe: Recipe,
    sources: Sequence[str | os.PathLike[str]],
    all_data: Path,
    ignore_unknown: bool = False,
    link_images: bool = False,
    list_file: str | os.PathLike[str] | None = None,
    allow_missing: bool = False,
    num_jobs: int = 1,
    report: Report = lambda done, total: None,
) -> Summary:
    """Prepares a data set below the folder of all data sets, from folders and zip archives as downloaded.

    The other arguments are options of the programs (program.py says what they do). What is wrong with the source, with
    files in it (after all others are converted) or with the folders is a DataError.
    """
    close_archives()  # an earlier call may have read other files of these names
    read_polygons.cache_clear()
    members = list_members(sources)
    names = find_names(recipe, members, list_file)
    pairs = find_pairs(recipe, members, names, allow_missing)
    folder = all_data / recipe.data_folder
    convert = partial(convert_pair, recipe, folder=folder, ignore_unknown=ignore_unknown, link_images=link_images)
    with _locked(folder):
        remove_left_over(folder / recipe.image_folder)
        remove_left_over(folder / recipe.label_folder)
        outcome = _convert_all(convert, pairs, num_jobs, report)
        if recipe.written_list is not None:
            _write_list(folder / recipe.written_list, [pair.name for pair in pairs], names is not None)
    summary = Summary(len(pairs), outcome, recipe.written_list is not None and names is None)
    if recipe.written_list is None:
        _check_no_others(recipe, folder, summary.num_results)
    return summary


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / LOCK_NAME, timeout=0)
    with writing(folder, 'choose another folder with --out'):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise DataError(f'{folder} is being prepared by another process: wait for it, or stop it') from error
    try:
        yield
    finally:
        lock.release()


def _convert_all(convert: Converter, pairs: Sequence[Pair], num_jobs: int, report: Report) -> Outcome:
    total = Outcome()
    with closing(_outcomes(convert, pairs, num_jobs)) as outcomes:
        for done, outcome in enumerate(outcomes, 1):
            total += outcome
            report(done, len(pairs))
            if len(total.failures) >= MAX_FAILURES:
                break
    count = len(total.failures)
    if count:
        given_up = ', then it was given up' if count >= MAX_FAILURES else ''
        reasons = '\n  '.join(total.failures[:MAX_SHOWN]) + ('\n  ...' if count > MAX_SHOWN else '')
        raise DataError(
            f'{count} of {len(pairs)} pairs could not be converted{given_up}; what was written stays, and a run after '
            f'mending goes on with the rest:\n  {reasons}'
        )
    return total


def _outcomes(convert: Converter, pairs: Sequence[Pair], num_jobs: int) -> Generator[Outcome]:
    if num_jobs <= 1 or len(pairs) <= 1:
        yield from map(convert, pairs)
        return
    # A fork starts at once; the other way, each process would import everything anew.
    context = multiprocessing.get_context('fork' if sys.platform == 'linux' else 'spawn')
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(min(num_jobs, len(pairs)), context, _begin_process) as pool:
        try:
            futures = [pool.submit(convert, pair) for pair in pairs]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise DataError(
                'a process was killed, perhaps for want of memory: run again with fewer --jobs; it goes on'
            ) from error
        except BaseException:  # interrupted or given up: what is being converted now can be left at any moment
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def _begin_process() -> None:
    """Leaves Ctrl-C, which reaches all processes, to the parent, and ends with it even when that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    close_archives()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # the lock on the data set is held until then


def _write_list(path: Path, names: Sequence[str], is_given: bool) -> None:
    """A list that the user gave replaces what is there; the list of all images does not."""
    if not is_given and is_written(path):
        logger.info('%s is kept', path)
        return
    data = ''.join(f'{name}\n' for name in names).encode()
    if not path.is_file() or path.read_bytes() != data:
        with writing(path, GO_ON):
            write_bytes(path, data)


def _check_no_others(recipe: Recipe, data_folder: Path, num_results: int) -> None:
    """The data set classes take every file of the folders, so files of other origin would be evaluated too."""
    for name, suffix in ((recipe.image_folder, recipe.image_suffix), (recipe.label_folder, recipe.label_suffix)):
        folder = data_folder / name
        count = sum(entry.name.endswith(suffix) for entry in os.scandir(folder))
        if count > num_results:
            raise DataError(
                f'{recipe.title}: prepared, but {folder} holds {count} files ending in {suffix}, of which '
                f'{num_results} come from this source. All would be evaluated: move the others away'
            )
