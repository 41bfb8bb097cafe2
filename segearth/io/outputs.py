"""Results on disk: never shared by two inputs, never in place of an input, refused by the system in plain words."""

import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from segearth.errors import ResultsError

GO_ON = 'make room or give another --out; finished blocks of a map are kept, and --resume goes on with them'
LONGEST_NAME = 255 - len('.aux.xml')  # bytes of a file name that usual file systems take, less what is put behind it


def check_results(results: Mapping[str, Sequence[Path]]) -> None:
    """Checks the paths of all that may be written for each input, before anything is computed.

    A ResultsError refuses two inputs that would write one file (also on file systems that take ``A`` for ``a``, or two
    ways to write an accent for one), a result that would replace an input, and a name that is too long.
    """
    inputs = {os.path.realpath(name): name for name in results}
    owners: dict[str, str] = {}
    for name, paths in results.items():
        for path in paths:
            key = unicodedata.normalize('NFC', os.path.realpath(path)).casefold()
            if owners.setdefault(key, name) != name:
                raise ResultsError(
                    f'{owners[key]} and {name} would both write {path}: run them apart, with different --out'
                )
            if os.path.realpath(path) in inputs:
                replaced = inputs[os.path.realpath(path)]
                raise ResultsError(f'{path}, a result of {name}, would replace the input {replaced}; change --out')
            if len(os.fsencode(path.name)) > LONGEST_NAME:
                raise ResultsError(f'{name}: the name of its result {path.name} is too long; rename the input')


def make_folder(path: Path, option: str = '--out') -> Path:
    """Makes the folder of results that an option of a program names, and returns its path."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror
        raise ResultsError(f'{option} {path} cannot be the folder of results: {reason}; choose another') from error
    return path


@contextmanager
def writing(path: Path, remedy: str = GO_ON) -> Iterator[None]:
    """Turns a full disk, or one that may not be written to, into a ResultsError about the file or folder."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error.__cause__ or error
        raise ResultsError(f'{path} cannot be written ({reason}): {remedy}') from error
