"""Files that are written whole or not at all, where they are: through links, with the rights that they had."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NEW_FILE_MODE = 0o666  # less the user's umask


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write to, which takes the place of ``path`` when the block ends without an error.

    A link is followed, and stays one. A file that is there keeps its mode, and its owner and group as far as the user
    may set them; a new one has what the user's umask leaves. The folder of ``path`` is made where it is missing, that
    of a link's aim is not. The file to write to lies beside it, its name begins with a dot and ends in ``.tmp``.
    An OSError says that it cannot be written, is write-protected or a folder; what was there before is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    target = Path(os.path.realpath(path))
    if target.is_symlink():  # what is not resolved goes round in a circle
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, 'the file is write-protected', str(path))
    part = target.with_name(f'.{target.name[:100]}.{os.getpid()}-{os.urandom(4).hex()}.tmp')
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, NEW_FILE_MODE))
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)  # a library may have put a file of its own there, for nobody else to read
        with open(part, 'r+b') as file:
            os.fsync(file.fileno())
        if target.exists():
            _take_rights(part, target)
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a whole file, as :func:`replacing` does."""
    with replacing(path) as part:
        part.write_bytes(data)


def remove_left_over(folder: Path) -> None:
    """Removes what killed processes left half-written in a folder; nobody else may be writing into it."""
    for part in folder.glob('.*.*-????????.tmp'):
        part.unlink(missing_ok=True)


def _take_rights(part: Path, target: Path) -> None:
    """Gives a new file the mode, owner, group and access list of the one that it replaces."""
    known = target.stat()
    with suppress(OSError, AttributeError):  # the group alone may be settable, and on Windows neither
        os.chown(part, -1, known.st_gid)
    with suppress(OSError, AttributeError):
        os.chown(part, known.st_uid, -1)
    with suppress(OSError):  # extended attributes are not everywhere to be had; the mode then follows
        shutil.copystat(target, part)
    part.chmod(known.st_mode & 0o7777)
    os.utime(part)
