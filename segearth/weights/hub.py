"""Files of Hugging Face, through its own client: single files, and the repositories behind open_clip's tags.

The client brings mirrors (``HF_ENDPOINT``), proxies, tokens, resuming and a cache. Used when weights are fetched ahead
(sources.py) and when an encoder is built from a tag. A file in the cache is used without asking the network, and a
network that is not there is noticed at once instead of after the client's retries, most of a minute.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import open_clip
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError

from segearth.weights.checksums import Checksum
from segearth.weights.transfer import FULL_DISK, DownloadError

TAG_FILES = ('open_clip_model.safetensors', 'open_clip_pytorch_model.bin')
"""What open_clip looks for in a repository, in its order."""


def cached_tag(architecture: str | None, tag: str | None) -> Path | None:
    """The weights of an open_clip tag if they are in the cache; asks no network."""
    found = (try_to_load_from_cache(_repository(architecture, tag), name) for name in TAG_FILES)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def fetch_tag(architecture: str | None, tag: str | None) -> Path:
    """The weights of an open_clip tag, through open_clip's own download unless they are in the cache.

    Raises:
        DownloadError: They could not be fetched.
    """
    path = cached_tag(architecture, tag)
    if path is not None:
        return path
    repository = _repository(architecture, tag)
    with _errors_named(f"open_clip's tag {tag!r} of {architecture} ({repository})"):
        with contextlib.suppress(EntryNotFoundError):  # then the repository holds the other file
            get_hf_file_metadata(hf_hub_url(repository, TAG_FILES[0]))
        return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(architecture, tag)))


def fetch_file(repository: str, file: str, folder: Path) -> tuple[Path, Checksum | None]:
    """Fetches one file of a repository.

    Args:
        repository: "owner/name".
        file: Path in the repository.
        folder: Where the client works; what it finds there of an earlier try it resumes.

    Returns:
        The file, below ``folder``, and what Hugging Face states of its content.

    Raises:
        DownloadError: It could not be fetched.
    """
    with _errors_named(f'{repository}/{file}'):
        published = as_sha256(get_hf_file_metadata(hf_hub_url(repository, file)).etag or '')
        return Path(hf_hub_download(repository, file, local_dir=folder)), published


def as_sha256(text: str) -> Checksum | None:
    """A text as a sha256 if it is one: the ETag of large files on Hugging Face, and their names in the cache, are."""
    return Checksum('sha256', text) if re.fullmatch('[0-9a-f]{64}', text) else None


def _repository(architecture: str | None, tag: str | None) -> str:
    return open_clip.get_pretrained_cfg(architecture, tag)['hf_hub'].strip('/')


@contextlib.contextmanager
def _errors_named(what: str) -> Iterator[None]:
    if constants.HF_HUB_OFFLINE:
        raise DownloadError(f'{what} was not fetched: offline mode is on (HF_HUB_OFFLINE). Unset it')
    try:
        yield
    except Exception as error:  # open_clip, the client and its HTTP client have no base class in common
        if isinstance(error, PermissionError) or getattr(error, 'errno', None) in FULL_DISK:
            raise
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DownloadError(f'{what} could not be fetched from Hugging Face ({reason})') from error
