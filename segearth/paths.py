"""Where configs, weights and caches lie, independent of the working directory.

There are two kinds of places to run from: a checkout (also after ``pip install -e .``), whose configs/ and weights/ lie
beside this package, and an installed package, which carries copies of them in its folder ``shipped`` (pyproject.toml
puts them there). That folder alone decides: what lies beside an installed package belongs to others.
"""

import getpass
import importlib.util
import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from segearth.errors import ConfigError, MissingFileError, did_you_mean

_PACKAGE = Path(__file__).resolve().parent
IS_INSTALLED = (_PACKAGE / 'shipped').is_dir()
"""Whether this is an installed package without a checkout around it."""
PROJECT_ROOT = _PACKAGE / 'shipped' if IS_INSTALLED else _PACKAGE.parent
"""Folder that holds configs/ and weights/: the checkout, or what the package carries; the latter may be read-only."""


def weights_folders() -> list[Path]:
    """Folders of weight files, in order: $SEGEARTH_WEIGHTS, ./weights, those fetched where installed, those shipped."""
    return _folders(os.environ.get('SEGEARTH_WEIGHTS'), Path('weights'), *_fetched_weights(), PROJECT_ROOT / 'weights')


def download_folder() -> Path:
    """Where fetched weights go: $SEGEARTH_WEIGHTS, else weights/ of the checkout, or of the cache where installed."""
    return _folders(os.environ.get('SEGEARTH_WEIGHTS'), *_fetched_weights(), PROJECT_ROOT / 'weights')[0]


def config_folders() -> list[Path]:
    """Folders searched for configs and class-name files: the working directory, then the checkout or the package."""
    return _folders(Path(), PROJECT_ROOT, PROJECT_ROOT / 'configs')


def class_file_folders(config: Path) -> list[Path]:
    """Folders searched for the class-name file that a config names: where the config's own configs/ lies, then others.

    Not the working directory first: a checkout of another program there may have files of the same names.
    """
    own = [config.parent.parent] if config.parent.name == 'configs' else []
    return _folders(*own, *config_folders(), config.parent)


def data_folders() -> list[Path]:
    """Folders that a relative folder of data is searched in; the last is where it is made: never in the package."""
    return _folders(Path(), *([] if IS_INSTALLED else [PROJECT_ROOT]))


def cache_folder() -> Path:
    """Folder of everything that can be computed or fetched again: $SEGEARTH_CACHE, else $XDG_CACHE_HOME/segearth,
    else ~/.cache/segearth.
    """
    users = Path(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'))
    if not users.is_absolute():  # a user without a home
        users = Path(tempfile.gettempdir()) / f'cache-{getattr(os, "getuid", getpass.getuser)()}'
    return Path(os.environ.get('SEGEARTH_CACHE') or users / 'segearth')


def program_command(program: str) -> str:
    """How a program of tools/, such as ``dataset_converters/loveda``, is started: the package has one of them."""
    is_command = IS_INSTALLED and program == 'download_weights'
    return 'segearth download-weights' if is_command else f'python tools/{program}.py'


def restore_remedy(path: str) -> str:
    """What to do when a file is missing that belongs to the repository and to the package."""
    if IS_INSTALLED:
        return 'It belongs to the package: install segearth again.'
    return f'It belongs to the repository: "git checkout -- {path}" brings it back.'


def require(extra: str, *modules: str) -> None:
    """Refuses to go on where modules of an extra, a group of optional dependencies in pyproject.toml, are missing."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        package = f"'segearth[{extra}]'" if IS_INSTALLED else f"-e '.[{extra}]'"
        raise ConfigError(f'this needs {", ".join(missing)}, not installed here: pip install {package}')


def find_config(name: str | os.PathLike[str], patterns: Sequence[str] = ('cfg_*.py',)) -> Path:
    """Finds a config by its path, or by its name below configs/; its suffix may be left out.

    A MissingFileError, where it is nowhere found, offers similar names of those that match the patterns.
    """
    path = Path(name) if Path(name).suffix else Path(f'{name}.py')
    folder = PROJECT_ROOT / 'configs'
    known = sorted(found.relative_to(folder).as_posix() for pattern in patterns for found in folder.glob(pattern))
    remedy = did_you_mean(path.name, known).strip() or f'In configs/ there are: {", ".join(known)}.'
    return find_file(path, config_folders(), 'config', remedy)


def find_file(name: str | os.PathLike[str], folders: Iterable[Path], what: str, remedy: str) -> Path:
    """Finds a file by its path, or by its path below one of some folders, which are tried in order.

    A relative path is tried with its folders first, then by file name alone; an absolute path is not searched for
    elsewhere. A MissingFileError lists where it was looked for; its message also says what the file is ("class-name
    file") and the remedy. A ConfigError says that the name is no path.
    """
    if not isinstance(name, str | os.PathLike):
        raise ConfigError(f'{what}: {name!r} is no path of a file')
    path, folders = Path(name).expanduser(), list(folders)
    tried = [path]
    if not path.is_absolute():
        tried = [folder / path for folder in folders] + [folder / path.name for folder in folders]
    for candidate in dict.fromkeys(tried):
        if candidate.is_file():
            return candidate.resolve()
    for candidate in tried:
        if candidate.is_dir():
            files = sorted(file.name for file in candidate.iterdir() if file.is_file())
            raise MissingFileError(
                f'{what}: {name!s} is a folder; give the file in it ({", ".join(files[:6]) or "it has none"})'
            )
    places = ', '.join(dict.fromkeys(str(candidate.resolve()) for candidate in tried))
    raise MissingFileError(f'{what} not found: {name!s} (looked for {places}). {remedy}')


def _fetched_weights() -> list[Path]:
    return [cache_folder() / 'weights'] if IS_INSTALLED else []


def _folders(*paths: str | Path | None) -> list[Path]:
    found = []
    for path in [path for path in paths if path]:
        with suppress(FileNotFoundError):  # the working directory was deleted
            found.append(Path(path).expanduser().resolve())
    return list(dict.fromkeys(found))
