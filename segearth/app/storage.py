"""One folder for all that a running page keeps on disk: uploads, results, pictures.

Each entry of the folder belongs to browser sessions and goes when the last of them ends, when it is old, or when room
is needed; the folder itself goes when the page ends. A page that was killed leaves its folder behind, with a lock that
nobody holds any more: the next page removes it.
"""

import logging
import math
import os
import shutil
import stat
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

PREFIX = 'segearth-app-'
LOCK = 'lock'
TIDY_EVERY = 30  # seconds
REMEMBERED_ENDS = 10_000  # browser sessions


class Storage:
    """The folder: old entries make room for new ones above ``num_bytes``, and go at an age of so many seconds."""

    def __init__(self, num_bytes: int, seconds: float) -> None:
        remove_leftovers()
        self.seconds = seconds
        self._num_bytes = num_bytes
        self.folder, self._file_lock = _locked_folder()
        self._owners: dict[Path, set[str]] = {}
        self._latest: dict[tuple[str, str], Path] = {}
        self._kept = {self.folder / LOCK}
        self._ended: deque[str] = deque(maxlen=REMEMBERED_ENDS)
        self._mutex = threading.RLock()
        self._closed = threading.Event()
        self._finalizer = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        threading.Thread(target=self._tidy_until_closed, daemon=True).start()

    def keep_present(self) -> None:
        """What is in the folder now belongs to the page itself."""
        self._kept.update(self.folder.iterdir())

    def new_folder(self, owner: str) -> Path:
        """An empty folder of a name that cannot be guessed, for a browser session."""
        path = Path(tempfile.mkdtemp(dir=self.folder, prefix='result-'))
        self.claim(path, owner)
        return path

    def claim(self, path: str | os.PathLike[str], owner: str) -> None:
        """Says that a browser session needs the entry that a file is in; files elsewhere are nobody's business."""
        path = Path(path)
        if self.folder not in path.parents:
            return
        with self._mutex:
            if owner in self._ended:  # it came back, as after a lost connection
                self._ended.remove(owner)
            self._owners.setdefault(self.folder / path.relative_to(self.folder).parts[0], set()).add(owner)

    def replace(self, path: Path, owner: str, kind: str) -> None:
        """Makes a folder the only one of its kind that a browser session has."""
        with self._mutex:
            old = self._latest.get((owner, kind))
            self._latest[owner, kind] = path
            if old is not None:
                self._remove(old)

    def remove(self, path: Path) -> None:
        """Removes a folder that nobody needs after all."""
        with self._mutex:
            self._remove(path)

    def end(self, owner: str) -> None:
        """Removes what belongs to a browser session and to no other."""
        with self._mutex:
            self._ended.append(owner)
            self._latest = {key: path for key, path in self._latest.items() if key[0] != owner}
            for path, owners in list(self._owners.items()):
                owners.discard(owner)
                if not owners:
                    self._remove(path)

    def has_ended(self, owner: str) -> bool:
        """Nobody waits for results of this browser session any more."""
        return self._closed.is_set() or owner in self._ended

    def make_room(self, num_bytes: int) -> bool:
        """Removes what is old, then the oldest until so many bytes fit; False if they cannot."""
        with self._mutex:
            now = time.time()
            entries = sorted((_age_and_size(path), path) for path in set(self.folder.iterdir()) - self._kept)
            used = sum(size for (_, size), _ in entries)
            limit = self._num_bytes if num_bytes <= self._num_bytes else math.inf  # nothing goes for what cannot fit
            for (changed, size), path in entries:
                if now - changed > self.seconds or used + num_bytes > limit:
                    self._remove(path)
                    used -= size
            return used + num_bytes <= self._num_bytes

    def close(self) -> None:
        """Removes the folder; from now on nobody waits for results."""
        self._closed.set()
        with self._mutex:
            self._finalizer.detach()
            shutil.rmtree(self.folder, ignore_errors=True)
            self._file_lock.release()

    def _remove(self, path: Path) -> None:
        self._owners.pop(path, None)
        if path in self._kept:
            return
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)

    def _tidy_until_closed(self) -> None:
        while not self._closed.wait(min(TIDY_EVERY, self.seconds)):
            try:
                self.make_room(0)
            except OSError:  # an entry went while it was looked at: the next round will do
                logger.debug('tidying was interrupted', exc_info=True)


def remove_leftovers() -> None:
    """Removes what killed pages left: only real folders of this user, with a lock file that no process holds."""
    for folder in Path(tempfile.gettempdir()).glob(f'{PREFIX}*'):
        lock = folder / LOCK
        try:
            if not (_is_ours(folder, stat.S_ISDIR) and _is_ours(lock, stat.S_ISREG)):
                continue
            with FileLock(lock, blocking=False):
                shutil.rmtree(folder)
                logger.info('removed what an earlier page left behind: %s', folder)
        except (Timeout, OSError):  # in use, or another page removes it at this moment
            continue


def _locked_folder() -> tuple[Path, FileLock]:
    """A folder that has its name only once it is locked, so that no other page takes it for a leftover."""
    unlocked = Path(tempfile.mkdtemp(prefix='segearth-new-')).resolve()
    lock = FileLock(unlocked / LOCK)
    lock.acquire()
    return unlocked.rename(unlocked.with_name(PREFIX + unlocked.name.removeprefix('segearth-new-'))), lock


def _is_ours(path: Path, is_kind: Callable[[int], bool]) -> bool:
    status = path.lstat()
    return is_kind(status.st_mode) and (not hasattr(os, 'getuid') or status.st_uid == os.getuid())


def _age_and_size(path: Path) -> tuple[float, int]:
    """Time of the last change and bytes of a file, or of all files of a folder."""
    statuses = [file.lstat() for file in (path, *path.rglob('*'))]
    return max(status.st_mtime for status in statuses), sum(status.st_size for status in statuses)
