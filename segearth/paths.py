"""Where configs, weights and caches lie, independent of the working directory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from segearth.errors import MissingFileError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
"""Folder that holds configs/ and weights/ (the checkout, also when installed with ``pip install -e .``)."""


def weights_folders() -> list[Path]:
    """Folders searched for weight files, in order: $SEGEARTH_WEIGHTS, ./weights, the checkout's weights/."""
    return _folders(os.environ.get('SEGEARTH_WEIGHTS'), Path('weights'), PROJECT_ROOT / 'weights')


def config_folders() -> list[Path]:
    """Folders searched for configs and class-name files, in order: the working directory, then the checkout."""
    return _folders(None, Path(), PROJECT_ROOT, PROJECT_ROOT / 'configs')


def cache_folder() -> Path:
    """Folder of everything that can be computed again: $SEGEARTH_CACHE, else ~/.cache/segearth."""
    return Path(os.environ.get('SEGEARTH_CACHE') or Path.home() / '.cache' / 'segearth')


def find_file(name: str | os.PathLike[str], folders: Iterable[Path], what: str, remedy: str) -> Path:
    """Finds a file by its path, or by its path below one of some folders.

    Args:
        name: File path; an absolute path is not searched for elsewhere.
        folders: Folders to try in order. A relative path is tried with its folders first, then by file name alone.
        what: What the file is, for the message ("class-name file", "weights of CLIP ViT-B/16").
        remedy: What to do when it is missing, for the message.

    Raises:
        MissingFileError: Nowhere found; the message lists where it was looked for.
    """
    path = Path(name).expanduser()
    tried = [path] if path.is_absolute() else []
    if not path.is_absolute():
        folders = list(folders)
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


def _folders(environment: str | None, *defaults: Path) -> list[Path]:
    first = [Path(environment).expanduser()] if environment else []
    found = []
    for path in [*first, *defaults]:
        with suppress(FileNotFoundError):  # the working directory was deleted
            found.append(path.resolve())
    return list(dict.fromkeys(found))
