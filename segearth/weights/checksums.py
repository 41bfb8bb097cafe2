"""Whether a file is the one that was published, and whether it is still the one that was fetched.

Publishers state a sha256, a git blob id, or nothing. What is known is compared; of every fetched file the sha256 is
written beside it (``FILE.sha256``, the format of ``sha256sum -c``), so that later damage shows even where the
publisher states nothing.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from segearth.errors import CheckpointError
from segearth.io.atomic import write_bytes

CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Checksum:
    """What is known of a file's content.

    Attributes:
        kind: "sha256" or "git blob".
        value: Hexadecimal digits.
    """

    kind: str
    value: str


def digest(path: Path, kind: str) -> str:
    """The checksum of a file, in hexadecimal digits.

    Args:
        path: File.
        kind: "sha256", or "git blob": SHA-1 of a header with the size and the content, as git names files.
    """
    algorithm = hashlib.sha256()
    if kind == 'git blob':
        algorithm = hashlib.sha1(f'blob {path.stat().st_size}\0'.encode(), usedforsecurity=False)
    with path.open('rb') as file:
        while chunk := file.read(CHUNK):
            algorithm.update(chunk)
    return algorithm.hexdigest()


def verify(path: Path, checksum: Checksum | None) -> None:
    """Compares a file with what is known of it; nothing is known if ``checksum`` is None.

    Raises:
        CheckpointError: The file is another one, or damaged.
    """
    if checksum is None:
        return
    found = digest(path, checksum.kind)
    if found != checksum.value:
        raise CheckpointError(
            f'{path} is damaged or not the published file: its {checksum.kind} is {found}, expected {checksum.value}'
        )


def note_path(path: Path) -> Path:
    """The file beside a weight file that holds its sha256."""
    return path.with_name(f'{path.name}.sha256')


def write_note(path: Path) -> None:
    """Writes the sha256 of a file beside it."""
    write_bytes(note_path(path), f'{digest(path, "sha256")}  {path.name}\n'.encode())


def read_note(path: Path) -> Checksum | None:
    """What the file beside a weight file says; None where there is none or it says nothing."""
    note = note_path(path)
    found = re.match(r'[0-9a-f]{64}', note.read_text(encoding='utf-8', errors='replace')) if note.is_file() else None
    return Checksum('sha256', found[0]) if found else None
