"""One file over HTTP: resumed after an interruption, checked, and in place only when it is whole.

A second run continues ``FILE.part`` if the server says, by the validator (ETag or Last-Modified) that was kept, that it
still serves the same content; or, without one, if a checksum will tell at the end. Publishers state a sha256, a git
blob id, or nothing: what is known is compared, and the sha256 of a fetched file is written beside it, for
``sha256sum -c``, so that later damage shows in any case.

Source: RFC 9110, section 14 (range requests) and section 13.1.5 (If-Range).
"""

import contextlib
import errno
import http.client
import logging
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

from filelock import FileLock
from huggingface_hub import constants
from huggingface_hub.utils.sha import git_hash, sha_fileobj

from segearth.errors import CheckpointError, UserError
from segearth.io.atomic import write_bytes
from segearth.progress import Report
from segearth.weights.records import Checksum

logger = logging.getLogger(__name__)

TIMEOUT = 30  # seconds without a byte
ATTEMPTS = 4  # in a row without a new byte
FIRST_PAUSE = 1.0  # seconds before the second attempt, doubled each time
CHUNK = 1 << 20  # bytes
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)


class DownloadError(UserError, OSError):
    """A file could not be fetched."""


class _Interrupted(Exception):
    """The connection broke; another attempt may continue."""


def fetch(url: str, target: Path, checksum: Checksum | None = None, progress: Report = lambda *_: None) -> Path:
    """Fetches a file (http or https) to ``target`` unless it is there, and gives that path.

    After a :class:`DownloadError` the next call continues with what had arrived; content that is not what it must be,
    which a CheckpointError says, is thrown away.
    """
    if target.is_file():
        return target
    if not url.startswith(('http://', 'https://')):
        raise DownloadError(f'{url} is no http or https address')
    refuse_offline(url, f', or put {target} there')
    part = _Part(target.with_name(f'{target.name}.part'))
    with disk_errors_named(target.parent), one_process(target.with_name(f'.{target.name}.lock')):
        if not target.is_file():
            _fetch_with_retries(url, part, checksum is not None, progress)
            try:
                verify(part.path, checksum)
            except CheckpointError as error:
                part.discard()
                raise CheckpointError(f'{url} was fetched and thrown away: {error}') from error
            os.replace(part.path, target)
            part.discard()
    return target


def refuse_offline(what: str, alternative: str = '') -> None:
    """Raises a :class:`DownloadError` if offline mode is on."""
    if constants.HF_HUB_OFFLINE:
        raise DownloadError(f'{what} was not fetched: offline mode is on (HF_HUB_OFFLINE). Unset it{alternative}')


@contextlib.contextmanager
def one_process(lock: Path) -> Iterator[None]:
    """Lets one process at a time pass; who waited on a lock file that is removed by then finds the result there."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        yield
        lock.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors_named(folder: Path) -> Iterator[None]:
    """Turns the errors of a full or read-only disk into a :class:`DownloadError`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            message = f'no space left on the disk of {folder}. What has arrived is kept: make space and run again'
        elif isinstance(error, PermissionError):
            message = f'{folder} cannot be written ({error}); set SEGEARTH_WEIGHTS to a folder of yours'
        else:
            raise
        raise DownloadError(message) from error


def digest(path: Path, kind: str) -> str:
    """The checksum of a file in hexadecimal digits; kinds as :class:`segearth.weights.records.Checksum` has them."""
    with path.open('rb') as file:
        return git_hash(file.read()) if kind == 'git blob' else sha_fileobj(file).hex()


def verify(path: Path, checksum: Checksum | None) -> None:
    """Raises a CheckpointError if a file is not what is known of it; nothing is known if ``checksum`` is None."""
    if checksum is not None and (found := digest(path, checksum.kind)) != checksum.value:
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


class _Part:
    """A file that is arriving, and beside it the validator of the content that it is a part of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._validator = path.with_name(f'{path.name}.validator')

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def validator(self) -> str:
        return self._validator.read_text(encoding='latin-1').strip() if self._validator.is_file() else ''

    def expect(self, headers: Message, start: int) -> None:
        if start == 0:  # never old bytes beside a new validator
            self.path.unlink(missing_ok=True)
        etag = headers.get('ETag', '')
        validator = headers.get('Last-Modified', '') if etag.startswith('W/') or not etag else etag
        self._validator.write_text(validator, encoding='latin-1')

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._validator.unlink(missing_ok=True)


def _fetch_with_retries(url: str, part: _Part, is_verified: bool, progress: Report) -> None:
    failures, largest = 0, 0
    while True:
        try:
            return _fetch_once(url, part, is_verified, progress)
        except _Interrupted as error:
            failures, largest = (1, part.size) if part.size > largest else (failures + 1, largest)
            if failures == ATTEMPTS:
                arrived = f'{_megabytes(part.size)} have arrived. ' if part.size else ''
                raise DownloadError(
                    f'{url} could not be fetched: {error}. {arrived}Check the network and the proxy, '
                    'then run the same command again: it continues where it stopped'
                ) from error
            logger.warning('%s: %s; trying again', url, error)
            time.sleep(FIRST_PAUSE * 2 ** (failures - 1))


def _fetch_once(url: str, part: _Part, is_verified: bool, progress: Report) -> None:
    offset = part.size if part.validator or is_verified else 0
    headers = {'User-Agent': 'segearth-download', 'Accept-Encoding': 'identity'}
    if offset:
        headers['Range'] = f'bytes={offset}-'
        if part.validator:
            headers['If-Range'] = part.validator
    try:
        opener = urllib.request.build_opener()  # reads the proxy variables now
        with opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
            _receive(response, part, offset, progress)
    except urllib.error.HTTPError as error:
        if error.code == 416 and offset:
            if error.headers.get('Content-Range', '').strip() == f'bytes */{offset}':
                return  # it is whole already
            part.discard()
            raise _Interrupted('the part that had arrived does not fit the file any more') from error
        answer = f'the server answered {error.code} {error.reason}'
        if error.code in RETRIED_STATUS:
            raise _Interrupted(answer) from error
        raise DownloadError(f'{url} could not be fetched: {answer}') from error
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError) as error:
        reason = getattr(error, 'reason', None) or error
        raise _Interrupted(str(reason) or type(error).__name__) from error


def _receive(response: http.client.HTTPResponse, part: _Part, offset: int, progress: Report) -> None:
    there = offset if response.status == http.client.PARTIAL_CONTENT else 0  # a server may send everything all the same
    if there and not response.headers.get('Content-Range', '').startswith(f'bytes {offset}-'):
        raise _Interrupted('the server sent another range than was asked for')
    length = response.headers.get('Content-Length', '')
    total = there + int(length) if length.isdigit() else None
    free = shutil.disk_usage(part.path.parent).free
    if total is not None and free < total - there:
        raise DownloadError(
            f'no space left on the disk of {part.path.parent}: {_megabytes(total - there)} are needed, '
            f'{_megabytes(free)} are free. Make space, or set SEGEARTH_WEIGHTS to a folder on another disk'
        )
    part.expect(response.headers, there)
    with part.path.open('r+b' if there else 'wb') as file:
        file.seek(there)
        file.truncate()
        progress(there, total)
        while chunk := response.read(CHUNK):
            file.write(chunk)
            there += len(chunk)
            progress(there, total)
    if total is not None and there < total:
        raise _Interrupted(f'the connection closed after {there} of {total} bytes')


def _megabytes(size: int) -> str:
    return f'{size / 1e6:.1f} MB'
