"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from segearth.errors import DataError

# How Pillow writes each kind; labels never become JPEG, whose numbers are not exact.
ENCODINGS: dict[str, dict] = {
    '.png': {'format': 'PNG', 'compress_level': 4},
    '.tif': {'format': 'TIFF', 'compression': 'tiff_adobe_deflate'},
    '.jpg': {'format': 'JPEG', 'quality': 95, 'subsampling': 0},
}


class CannotWriteError(DataError):
    """The disk is full or the folder cannot be written: going on makes no sense."""


def is_written(path: Path) -> bool:
    """Whether a file is there; an empty one, as a power cut may leave, does not count."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def encode(array: np.ndarray, suffix: str) -> bytes:
    """Encodes an image (H, W, 3) or a label (H, W), uint8, in the format of a suffix; labels get Pillow mode L."""
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, **ENCODINGS[suffix.lower()])
    return buffer.getvalue()


def write_file(path: Path, data: bytes) -> None:
    """Writes a file beside its place and moves it there when it is complete.

    Raises:
        CannotWriteError: Disk full, no permission, ...; what was there before is untouched.
    """
    part = _part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        raise _cannot_write(path, part, error) from error


def link_file(path: Path, target: str) -> None:
    """Makes a symbolic link to an absolute path, replacing what is there.

    Raises:
        CannotWriteError: As for :func:`write_file`.
    """
    part = _part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        part.symlink_to(target)
        os.replace(part, path)
    except OSError as error:
        raise _cannot_write(path, part, error) from error


def _part(path: Path) -> Path:
    """The same name every time, so that the next run replaces what a killed one left."""
    return path.with_name(f'.{path.name}.part')


def _cannot_write(path: Path, part: Path, error: OSError) -> CannotWriteError:
    with suppress(OSError):  # the first error is the one to tell
        part.unlink(missing_ok=True)
    reason = error.strerror or error
    return CannotWriteError(f'cannot write {path}: {reason}. Run again when that is mended: it goes on')
