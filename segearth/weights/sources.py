"""From an item of the catalogue to a file in the weights folder: one function for each kind of source.

Hugging Face files go through huggingface_hub (mirrors by ``HF_ENDPOINT``, offline mode, tokens, its resuming), tags
through open_clip, everything else through transfer.py. A file that is there is never fetched again.
"""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from segearth.errors import CheckpointError, MissingFileError, UserError
from segearth.paths import download_folder, find_file, program_command, weights_folders
from segearth.weights import catalogue, hub
from segearth.weights.catalogue import Item
from segearth.weights.checksums import Checksum, read_note, verify, write_note
from segearth.weights.transfer import DownloadError, Progress, disk_errors_named, fetch, one_process

STAGING = '.fetching'
"""Folder below the weights folder for files of Hugging Face that are on their way."""


def locate(item: Item) -> Path | None:
    """The item's file where it is already there, in any weights folder or in the cache of the hub's client."""
    if item.source == catalogue.TAG and item.record is not None:
        return hub.cached_tag(item.record.architecture, item.record.tag)
    try:
        return find_file(item.file or '', weights_folders(), item.name, '')
    except MissingFileError:
        return None


def check(item: Item) -> str:
    """Verifies a file that is there, by what the publisher says or else by the note of its download.

    Returns:
        What could be said: "sha256 as published", "sha256 as fetched" or "no checksum known".

    Raises:
        MissingFileError: The file is not there.
        CheckpointError: It is damaged.
    """
    path = locate(item)
    if path is None:
        raise MissingFileError(f'not there. {_remedy(item)}')
    # The cache of the hub's client names large files by their sha256.
    cached = hub.as_sha256(path.resolve().name) if item.source == catalogue.TAG else None
    for checksum, origin in ((item.checksum or cached, 'published'), (read_note(path), 'fetched')):
        if checksum is not None:
            verify(path, checksum)
            return f'{checksum.kind} as {origin}'
    return 'no checksum known'


def install(item: Item, progress: Progress | None = None) -> Path:
    """Fetches an item unless it is there.

    Args:
        item: What to fetch.
        progress: Told how far it is (files on Hugging Face show the progress of its own client instead).

    Returns:
        The file.

    Raises:
        DownloadError: It could not be fetched, or no program can fetch it; the message says what to do.
        CheckpointError: What was fetched, or what was there, is not the published file.
    """
    path = locate(item)
    if path is not None:
        verify(path, item.checksum)
        return path
    if item.source not in INSTALLERS:
        raise DownloadError(_remedy(item))
    target = download_folder() / (item.file or '')
    try:
        with disk_errors_named(download_folder()):
            return INSTALLERS[item.source](item, target, progress)
    except UserError as error:
        raise type(error)(f"{str(error).rstrip('.')}. The project's page: {item.home}") from error


def _install_tag(item: Item, _: Path, __: Progress | None) -> Path:
    assert item.record is not None  # tags have one
    return hub.fetch_tag(item.record.architecture, item.record.tag)


def _install_address(item: Item, target: Path, progress: Progress | None) -> Path:
    fetch(item.origin, target, item.checksum, progress)
    write_note(target)
    return target


def _install_archive(item: Item, target: Path, progress: Progress | None) -> Path:
    archive = download_folder() / item.origin.rsplit('/', 1)[1]
    fetch(item.origin, archive, None, progress)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as content:
            members = [name for name in content.namelist() if name.rsplit('/', 1)[-1] == target.name]
            if len(members) != 1:
                raise CheckpointError(f'{archive} holds {len(members)} files named {target.name}, expected one')
            with content.open(members[0]) as source:
                _write_at_once(target, source, item.checksum)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        archive.unlink()
        raise CheckpointError(f'{archive} is no whole zip archive and was thrown away; run again') from error
    write_note(target)
    archive.unlink()
    return target


def _install_from_hub(item: Item, target: Path, _: Progress | None) -> Path:
    owner, name, file = item.origin.split('/', 2)
    staging = download_folder() / STAGING / item.name
    staging.mkdir(parents=True, exist_ok=True)
    with one_process(staging.with_name(f'{item.name}.lock')):
        if target.is_file():
            return target
        fetched, published = hub.fetch_file(f'{owner}/{name}', file, staging)
        try:
            verify(fetched, item.checksum or published)
        except CheckpointError as error:
            shutil.rmtree(staging)
            raise CheckpointError(f'fetched from Hugging Face and thrown away: {error}') from error
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(fetched, target)
        shutil.rmtree(staging)
    write_note(target)
    return target


def _write_at_once(target: Path, source: IO[bytes], checksum: Checksum | None) -> None:
    temporary = target.with_name(f'.{target.name}.tmp')
    try:
        with temporary.open('wb') as file:
            shutil.copyfileobj(source, file)
        verify(temporary, checksum)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _remedy(item: Item) -> str:
    if item.record is not None:
        return item.record.remedy
    return f"Get it with \"{program_command('download_weights')} {item.name}\"."


INSTALLERS: dict[str, Callable[[Item, Path, Progress | None], Path]] = {
    catalogue.TAG: _install_tag,
    catalogue.HUB: _install_from_hub,
    catalogue.ADDRESS: _install_address,
    catalogue.ARCHIVE: _install_archive,
}
