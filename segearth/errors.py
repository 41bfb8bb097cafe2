"""Errors a user can mend.

Every message says what was given, what is allowed and what to do about it. The command-line programs print
the message alone and exit with code 2 (:func:`segearth.cli.run_cli`); anything else that is raised is a defect
of ours and keeps its traceback.

Each class can be built from one string, because mmengine's registry raises a second instance of the same type
with the name of the class under construction put before the message.
"""

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """Base of all errors whose cause is an input of the user's."""


class ConfigError(UserError, ValueError):
    """A setting, a class-name file or a command-line option cannot be used."""


class DataError(UserError, ValueError):
    """An image, a label or a data set cannot be used."""


class CheckpointError(UserError, ValueError):
    """A weight file cannot be used."""


class ResultsError(UserError, ValueError):
    """Results cannot be read or written."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that was named does not exist."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``' Did you mean A or B?'`` for a message about a name that does not exist; empty where nothing is like it."""
    near = difflib.get_close_matches(name, list(dict.fromkeys(known)), n=3, cutoff=0.5)
    return f' Did you mean {" or ".join(near)}?' if near else ''


def shorten(names: Sequence[object], limit: int) -> str:
    """The first names of a long list for a message, with dots where there are more."""
    return ', '.join(map(str, names[:limit])) + (', ...' if len(names) > limit else '')


def cut(text: str, limit: int = 60) -> str:
    """The beginning of a long text for a message, with dots where there is more."""
    return text if len(text) <= limit else f'{text[: limit - 3]}...'
