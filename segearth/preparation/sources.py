"""Files of a data set as downloaded: in folders and in zip archives, which are read member by member, not unpacked."""

import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO

from PIL import Image

from segearth.errors import DataError, MissingFileError
from segearth.io.gdal_files import FileContent

ARCHIVES = frozenset({'.zip', '.7z', '.rar', '.tar', '.tgz', '.gz', '.bz2', '.xz', '.z', '.001'})
READ_ERRORS = (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, OSError)


@dataclass(frozen=True)
class Member:
    """One file of a source.

    Patterns are matched with `path`: with forward slashes, beginning with the name of the source that the user gave,
    archives counting as folders without their suffix.
    """

    container: str  # the file itself, or the archive that holds it
    inner: str | None  # name within the archive; None for a plain file
    path: str

    def __str__(self) -> str:
        return self.container if self.inner is None else f'{self.container}/{self.inner}'

    @property
    def suffix(self) -> str:
        """Ending in small letters, such as ``.png``."""
        return PurePosixPath(self.path).suffix.lower()

    def stream(self) -> IO[bytes]:
        """Opens the file for reading; errors while reading are those of :data:`READ_ERRORS`."""
        return open(self.container, 'rb') if self.inner is None else _open_archive(self.container).open(self.inner)

    def content(self) -> FileContent:
        """The whole file, as readers of images take it."""
        with self._telling(), self.stream() as stream:
            return FileContent(stream.read(), str(self))

    def image_size(self) -> tuple[int, int]:
        """(height, width) of an image in pixels, from the header alone."""
        with self._telling(), self.stream() as stream, Image.open(stream) as image:
            return image.height, image.width

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (*READ_ERRORS, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = str(error).rstrip('.') or type(error).__name__
            remedy = 'Download it again, or unpack the archive yourself'
            raise DataError(f'cannot read {self}: {reason}. {remedy}') from error


@dataclass(frozen=True)
class Pair:
    """An image and its label, under the name that the result will have."""

    name: str
    image: Member
    label: Member


def list_members(sources: Sequence[str | os.PathLike[str]]) -> list[Member]:
    """Lists the files of folders and zip archives, those in the folders too; not hidden ones, nor ``__MACOSX``."""
    members: list[Member] = []
    for source in sources:
        path = Path(source).expanduser().resolve()
        if path.is_dir():
            members += _members_of_folder(path)
        elif not path.is_file():
            raise MissingFileError(f'source not found: {source}. Give the folder or zip archive as downloaded')
        elif path.suffix.lower() in ARCHIVES - {'.zip'}:
            raise DataError(f'{path} is no zip archive: unpack it and give the folder')
        else:
            members += _members_of_file(path, path.name)
    return members


def close_archives() -> None:
    """Closes all archives. Needed after a fork: the reading positions of inherited files are shared."""
    _open_archive.cache_clear()


def _members_of_folder(folder: Path) -> Iterator[Member]:
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if _is_wanted(name))
        for name in sorted(files):
            if _is_wanted(name):
                path = Path(root, name)
                yield from _members_of_file(path, path.relative_to(folder.parent).as_posix())


def _members_of_file(path: Path, shown: str) -> Iterator[Member]:
    if path.suffix.lower() != '.zip':
        yield Member(str(path), None, shown)
        return
    prefix = shown[: -len('.zip')]
    for info in _open_archive(str(path)).infolist():
        if not info.is_dir() and all(_is_wanted(part) for part in info.filename.split('/')):
            yield Member(str(path), info.filename, f'{prefix}/{info.filename}')


def _is_wanted(name: str) -> bool:
    return name != '__MACOSX' and not (name.startswith('.') and name not in ('.', '..'))


@lru_cache(maxsize=32)
def _open_archive(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f'{path} is no complete zip archive ({error}): download it again') from error
