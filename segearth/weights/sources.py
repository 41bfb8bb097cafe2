"""All that can be fetched, and the way of each to its place: one function for each kind of source.

Files on Hugging Face, and the repositories behind open_clip's tags, go through huggingface_hub (mirrors by
``HF_ENDPOINT``, proxies, tokens, resuming, a cache), everything else through transfer.py.
"""

import contextlib
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError

from segearth.errors import CheckpointError, ConfigError, MissingFileError, UserError, did_you_mean
from segearth.io.atomic import replacing
from segearth.paths import download_folder, find_file, weights_folders
from segearth.progress import Report
from segearth.weights import transfer
from segearth.weights.encoders import ENCODERS
from segearth.weights.records import ADDRESS, ARCHIVE, HUB, TAG, TOKENIZERS, UPSAMPLER_WEIGHTS, Checksum, WeightRecord

STAGING = '.fetching'  # below the weights folder, for files of Hugging Face that are on their way
TAG_FILES = ('open_clip_model.safetensors', 'open_clip_pytorch_model.bin')  # what open_clip looks for, in its order


def catalogue() -> tuple[WeightRecord, ...]:
    """All records, encoders first."""
    return (*ENCODERS, *TOKENIZERS, *UPSAMPLER_WEIGHTS)


def select(names: Sequence[str]) -> list[WeightRecord]:
    """Records by name or group, each once, with what they need; a ConfigError lists the known names."""
    records = {record.name: record for record in catalogue()}
    chosen: dict[str, WeightRecord] = {}
    for name in names:
        found = [one for one in records.values() if name.lower() in (one.name.lower(), one.group.lower())]
        if not found:
            hint = did_you_mean(name, [part for one in records.values() for part in (one.group, one.name)])
            raise ConfigError(f'unknown weights {name!r}.{hint} Known: {", ".join(records)}')
        for one in found:
            chosen |= {one.name: one} | {needed: records[needed] for needed in one.needs}
    return list(chosen.values())


def locate(record: WeightRecord) -> Path | None:
    """The file where it is already there, in any weights folder or in the cache of Hugging Face's client."""
    if record.source == TAG:
        found = (try_to_load_from_cache(_tag_repository(record), name) for name in TAG_FILES)
        return next((Path(path) for path in found if isinstance(path, str)), None)
    try:
        return find_file(record.file or '', weights_folders(), record.name, '')
    except MissingFileError:
        return None


def check(record: WeightRecord) -> str:
    """Verifies a file by what the publisher says or else by the note of its download, and says by which of them."""
    path = locate(record)
    if path is None:
        raise MissingFileError(f'not there. {record.remedy}')
    cached = _as_sha256(path.resolve().name) if record.source == TAG else None  # how the cache names large files
    for checksum, origin in ((record.checksum or cached, 'published'), (transfer.read_note(path), 'fetched')):
        if checksum is not None:
            transfer.verify(path, checksum)
            return f'{checksum.kind} as {origin}'
    return 'no checksum known'


def install(record: WeightRecord, progress: Report = lambda *_: None) -> Path:
    """Fetches a file unless it is there, from Hugging Face with the progress of its own client, and gives its path."""
    path = locate(record)
    if path is not None:
        transfer.verify(path, record.checksum)
        return path
    if record.source not in INSTALLERS:
        raise transfer.DownloadError(record.remedy)
    target = download_folder() / (record.file or '')
    try:
        with transfer.disk_errors_named(download_folder()):
            path = INSTALLERS[record.source](record, target, progress)
            if record.file:
                transfer.write_note(path)
            return path
    except UserError as error:
        raise type(error)(f"{str(error).rstrip('.')}. The project's page: {record.home}") from error


def fetch_tag(record: WeightRecord) -> Path:
    """The weights of an open_clip tag, from the cache, else through Hugging Face's client; else a DownloadError."""
    repository = _tag_repository(record)
    what = f"open_clip's tag {record.tag!r} of {record.architecture} ({repository})"
    return locate(record) or _from_hub(what, repository, TAG_FILES)[0]


def _fetch_archive(record: WeightRecord, target: Path, progress: Report) -> Path:
    archive = transfer.fetch(record.origin, download_folder() / record.origin.rsplit('/', 1)[1], progress=progress)
    try:
        with zipfile.ZipFile(archive) as content:
            members = [name for name in content.namelist() if name.rsplit('/', 1)[-1] == target.name]
            if len(members) != 1:
                raise CheckpointError(f'{archive} holds {len(members)} files named {target.name}, expected one')
            with replacing(target) as part:
                with content.open(members[0]) as source, part.open('wb') as file:
                    shutil.copyfileobj(source, file)
                transfer.verify(part, record.checksum)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        archive.unlink()
        raise CheckpointError(f'{archive} is no whole zip archive and was thrown away; run again') from error
    archive.unlink()
    return target


def _fetch_hub_file(record: WeightRecord, target: Path, _: Report) -> Path:
    owner, name, file = record.origin.split('/', 2)
    staging = download_folder() / STAGING / record.name  # what the client finds there of an earlier try it resumes
    with transfer.one_process(staging.with_name(f'{record.name}.lock')):
        if target.is_file():
            return target
        fetched, published = _from_hub(record.origin, f'{owner}/{name}', [file], local_dir=staging)
        try:
            transfer.verify(fetched, record.checksum or published)
        except CheckpointError as error:
            shutil.rmtree(staging)
            raise CheckpointError(f'fetched from Hugging Face and thrown away: {error}') from error
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(fetched, target)
        shutil.rmtree(staging)
    return target


def _from_hub(what: str, repository: str, names: Sequence[str], **place: Any) -> tuple[Path, Checksum | None]:
    """The first of the files that a repository has, and what Hugging Face states of its content.

    The metadata are asked for first: without a network the download itself fails only after most of a minute.
    """
    transfer.refuse_offline(what)
    try:
        *others, held = names
        for name in others:
            with contextlib.suppress(EntryNotFoundError):
                get_hf_file_metadata(hf_hub_url(repository, name))
                held = name
        published = _as_sha256(get_hf_file_metadata(hf_hub_url(repository, held)).etag or '')
        return Path(hf_hub_download(repository, held, **place)), published
    except Exception as error:  # the client and its HTTP client have no base class in common
        if isinstance(error, PermissionError) or getattr(error, 'errno', None) in transfer.FULL_DISK:
            raise
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise transfer.DownloadError(f'{what} could not be fetched from Hugging Face ({reason})') from error


def _as_sha256(text: str) -> Checksum | None:
    """A text as a sha256 if it is one: the ETag of large files on Hugging Face, and their names in the cache, are."""
    return Checksum('sha256', text) if re.fullmatch('[0-9a-f]{64}', text) else None


def _tag_repository(record: WeightRecord) -> str:
    import open_clip  # late: takes seconds, and the help of a program does without

    return open_clip.get_pretrained_cfg(record.architecture, record.tag)['hf_hub'].strip('/')


INSTALLERS: dict[str, Callable[[WeightRecord, Path, Report], Path]] = {
    TAG: lambda record, *_: fetch_tag(record),
    HUB: _fetch_hub_file,
    ADDRESS: lambda record, target, progress: transfer.fetch(record.origin, target, record.checksum, progress),
    ARCHIVE: _fetch_archive,
}
