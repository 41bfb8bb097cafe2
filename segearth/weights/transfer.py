"""One file over HTTP: resumed after an interruption, checked, and in place only when it is whole.

The bytes go to ``FILE.part``. A second run continues there if the server says, by the validator (ETag or
Last-Modified) that was kept in ``FILE.part.validator``, that it still serves the same content; or, without one, if a
checksum will tell at the end. The standard library's client reads the usual proxy variables (``https_proxy``,
``no_proxy``). Hugging Face files go through huggingface_hub instead (sources.py).

Source: RFC 9110, section 14 (range requests) and section 13.1.5 (If-Range).
"""

from __future__ import annotations

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
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from pathlib import Path

from filelock import FileLock
from huggingface_hub import constants

from segearth.errors import CheckpointError, UserError
from segearth.weights.checksums import CHUNK, Checksum, verify

logger = logging.getLogger(__name__)

TIMEOUT = 30  # seconds without a byte
ATTEMPTS = 4  # in a row without a new byte
FIRST_PAUSE = 1.0  # seconds before the second attempt, doubled each time
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)

Progress = Callable[[int, int | None], None]
"""Told after each piece: bytes there are, and bytes there will be (None if the server does not say)."""


class DownloadError(UserError, OSError):
    """A file could not be fetched."""


class _Interrupted(Exception):
    """The connection broke; another attempt may continue."""


def fetch(url: str, target: Path, checksum: Checksum | None = None, progress: Progress | None = None) -> Path:
    """Fetches a file unless it is there.

    Args:
        url: http or https address.
        target: Where the file goes. If it exists it is left as it is.
        checksum: What the content must be; None if that is not known.
        progress: Told how far it is.

    Returns:
        ``target``.

    Raises:
        DownloadError: The address does not answer or answers with an error, the disk is full, or offline mode is on.
            What had arrived is kept, and the next call continues there.
        CheckpointError: The content is not what it must be; it is thrown away.
    """
    if target.is_file():
        return target
    if not url.startswith(('http://', 'https://')):
        raise DownloadError(f'{url} is no http or https address')
    if constants.HF_HUB_OFFLINE:
        raise DownloadError(
            f'{url} was not fetched: offline mode is on (HF_HUB_OFFLINE). Unset it, or put {target} there'
        )
    part = target.with_name(f'{target.name}.part')
    with disk_errors_named(target.parent), one_process(target.with_name(f'.{target.name}.lock')):
        if not target.is_file():
            _fetch_with_retries(url, part, checksum, progress or (lambda *_: None))
            os.replace(part, target)
            _discard(part)
    return target


@contextlib.contextmanager
def one_process(lock: Path) -> Iterator[None]:
    """Lets one process at a time pass, and removes the lock file when the work is done.

    A process that waited on a removed lock finds the result there, so two can never work at once.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        yield
        lock.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors_named(folder: Path) -> Iterator[None]:
    """Turns the errors of a full or read-only disk into messages.

    Raises:
        DownloadError: No space left on the folder's disk, or no right to write there.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        if error.errno in FULL_DISK:
            raise DownloadError(
                f'no space left on the disk of {folder}. What has arrived is kept: make space and run again'
            ) from error
        if isinstance(error, PermissionError):
            raise DownloadError(
                f'{folder} cannot be written ({error}); set SEGEARTH_WEIGHTS to a folder of yours'
            ) from error
        raise


def _fetch_with_retries(url: str, part: Path, checksum: Checksum | None, progress: Progress) -> None:
    failures, largest = 0, 0
    while True:
        try:
            _fetch_once(url, part, checksum is not None, progress)
            break
        except _Interrupted as error:
            size = part.stat().st_size if part.is_file() else 0
            failures, largest = (1, size) if size > largest else (failures + 1, largest)
            if failures == ATTEMPTS:
                raise DownloadError(
                    f'{url} could not be fetched: {error}. {_arrived(part)}Check the network and the proxy, '
                    'then run the same command again: it continues where it stopped'
                ) from error
            logger.warning('%s: %s; trying again', url, error)
            time.sleep(FIRST_PAUSE * 2 ** (failures - 1))
    try:
        verify(part, checksum)
    except CheckpointError as error:
        _discard(part)
        raise CheckpointError(f'{url} was fetched and thrown away: {error}') from error


def _fetch_once(url: str, part: Path, checksum_known: bool, progress: Progress) -> None:
    offset = part.stat().st_size if part.is_file() else 0
    validator = _validator(part)
    if offset and not (validator or checksum_known):
        offset = 0
    headers = {'User-Agent': 'segearth-download', 'Accept-Encoding': 'identity'}
    if offset:
        headers['Range'] = f'bytes={offset}-'
        if validator:
            headers['If-Range'] = validator
    try:
        opener = urllib.request.build_opener()  # reads the proxy variables now
        with opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
            start = _start(response.status, response.headers, offset)
            total = _total(response.headers, start)
            _check_space(part, total, start)
            if start == 0:  # never old bytes beside a new validator
                part.unlink(missing_ok=True)
            _remember_validator(part, response.headers)
            _copy(response, part, start, total, progress)
    except urllib.error.HTTPError as error:
        if error.code == 416 and offset and _is_complete(error.headers, offset):
            return
        if error.code == 416 and offset:
            _discard(part)
            raise _Interrupted('the part that had arrived does not fit the file any more') from error
        if error.code in RETRIED_STATUS:
            raise _Interrupted(f'the server answered {error.code} {error.reason}') from error
        raise DownloadError(f'{url} could not be fetched: the server answered {error.code} {error.reason}') from error
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError) as error:
        reason = getattr(error, 'reason', None) or error
        raise _Interrupted(str(reason) or type(error).__name__) from error


def _copy(response: http.client.HTTPResponse, part: Path, start: int, total: int | None, progress: Progress) -> None:
    there = start
    with part.open('r+b' if start else 'wb') as file:
        file.seek(start)
        file.truncate()
        progress(there, total)
        while chunk := response.read(CHUNK):
            file.write(chunk)
            there += len(chunk)
            progress(there, total)
    if total is not None and there < total:
        raise _Interrupted(f'the connection closed after {there} of {total} bytes')


def _start(status: int, headers: Mapping[str, str], offset: int) -> int:
    """Where the bytes of a response begin: the server may ignore the range and send everything."""
    if status != http.client.PARTIAL_CONTENT:
        return 0
    found = re.match(r'bytes (\d+)-', headers.get('Content-Range', ''))
    if not found or int(found[1]) != offset:
        raise _Interrupted('the server sent another range than was asked for')
    return offset


def _total(headers: Mapping[str, str], start: int) -> int | None:
    length = headers.get('Content-Length', '')
    return start + int(length) if length.isdigit() else None


def _is_complete(headers: Message, offset: int) -> bool:
    return headers.get('Content-Range', '').strip() == f'bytes */{offset}'


def _check_space(part: Path, total: int | None, start: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and free < total - start:
        raise DownloadError(
            f'no space left on the disk of {part.parent}: {_megabytes(total - start)} are needed, '
            f'{_megabytes(free)} are free. Make space, or set SEGEARTH_WEIGHTS to a folder on another disk'
        )


def _validator_path(part: Path) -> Path:
    return part.with_name(f'{part.name}.validator')


def _validator(part: Path) -> str | None:
    path = _validator_path(part)
    return path.read_text(encoding='latin-1').strip() or None if path.is_file() else None


def _remember_validator(part: Path, headers: Mapping[str, str]) -> None:
    etag = headers.get('ETag', '')
    validator = headers.get('Last-Modified', '') if etag.startswith('W/') or not etag else etag
    _validator_path(part).write_text(validator, encoding='latin-1')


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator_path(part).unlink(missing_ok=True)


def _arrived(part: Path) -> str:
    return f'{_megabytes(part.stat().st_size)} have arrived. ' if part.is_file() and part.stat().st_size else ''


def _megabytes(size: int) -> str:
    return f'{size / 1e6:.1f} MB'
