"""Preparing one data set from start to end: find, convert, write the list, count."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from segearth.errors import DataError
from segearth.preparation.conversion import DEFAULTS, Options, Outcome, convert_all
from segearth.preparation.pairing import find_names, find_pairs
from segearth.preparation.recipes import Recipe
from segearth.preparation.sources import list_members
from segearth.preparation.writing import CannotWriteError, is_written, write_file

logger = logging.getLogger(__name__)

LOCK_NAME = '.preparing.lock'

Progress = Callable[[int], Callable[[], None]]
"""Told how many pairs there are, returns what to call after each."""


@dataclass(frozen=True)
class Summary:
    """What a data set has now.

    Attributes:
        num_pairs: Images and labels of the source.
        outcome: Results written and found.
        image_folder: Where the images are.
        label_folder: Where the labels are.
        is_whole_source: No list said which images to take, though the data set is evaluated on a list.
    """

    num_pairs: int
    outcome: Outcome
    image_folder: Path
    label_folder: Path
    is_whole_source: bool

    @property
    def num_results(self) -> int:
        """Images of the prepared data set."""
        return self.outcome.written + self.outcome.present


def prepare(
    recipe: Recipe,
    sources: Sequence[str | os.PathLike[str]],
    all_data: Path,
    options: Options = DEFAULTS,
    list_file: str | os.PathLike[str] | None = None,
    allow_missing: bool = False,
    num_jobs: int = 1,
    progress: Progress = lambda total: lambda: None,
) -> Summary:
    """Prepares a data set; may be stopped at any moment and called again.

    Args:
        recipe: The data set.
        sources: Folders and zip archives as downloaded.
        all_data: Folder of all data sets.
        options: Choices about single files.
        list_file: Names of the images wanted, one a line.
        allow_missing: Leave out images that are wanted but not there, or without label.
        num_jobs: Processes.
        progress: Shows how far it is.

    Raises:
        CannotWriteError: The disk is full, or the folder cannot be written.
        DataError: The source is not what the recipe expects, files in it are damaged or hold unknown colours, the
            folders hold images of another origin, or another process prepares this data set.
        MissingFileError: A source or a list does not exist.
    """
    members = list_members(sources)
    names = find_names(recipe, members, list_file)
    pairs = find_pairs(recipe, members, names, allow_missing)
    folder = all_data / recipe.data_folder
    with _locked(folder):
        outcome = convert_all(recipe, pairs, folder, options, num_jobs, progress(len(pairs)))
        if recipe.written_list is not None:
            _write_list(folder / recipe.written_list, [pair.name for pair in pairs], names is not None)
    summary = Summary(
        num_pairs=len(pairs),
        outcome=outcome,
        image_folder=folder / recipe.image_folder,
        label_folder=folder / recipe.label_folder,
        is_whole_source=recipe.written_list is not None and names is None,
    )
    if recipe.written_list is None:
        _check_no_others(recipe, summary)
    return summary


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / LOCK_NAME, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise DataError(f'{folder} is being prepared by another process: wait for it, or stop it') from error
    except OSError as error:
        reason = error.strerror or error
        raise CannotWriteError(f'cannot write to {folder}: {reason}. Choose another folder with --out') from error
    try:
        yield
    finally:
        lock.release()


def _write_list(path: Path, names: Sequence[str], is_given: bool) -> None:
    """A list that the user gave replaces what is there; the list of all images does not."""
    if not is_given and is_written(path):
        logger.info('%s is kept', path)
        return
    data = ''.join(f'{name}\n' for name in names).encode()
    if not path.is_file() or path.read_bytes() != data:
        write_file(path, data)


def _check_no_others(recipe: Recipe, summary: Summary) -> None:
    """The data set classes take every file of the folders, so files of other origin would be evaluated too."""
    for folder, suffix in ((summary.image_folder, recipe.image_suffix), (summary.label_folder, recipe.label_suffix)):
        count = sum(entry.name.endswith(suffix) for entry in os.scandir(folder))
        if count > summary.num_results:
            raise DataError(
                f'{recipe.title}: prepared, but {folder} holds {count} files ending in {suffix}, of which '
                f'{summary.num_results} come from this source. All would be evaluated: move the others away'
            )
