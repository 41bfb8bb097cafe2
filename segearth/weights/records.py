"""What is known of a weight file: where it comes from, under which licence, and how the published one is recognised.

The rows are in ``catalogue.json``, each with those fields of its record that differ from the defaults. Licences are as
published beside the weights; where that was not certain the row says "unknown" and names the page. No checksum is
guessed.

Source: SegEarth-OV-2 (arXiv 2508.18067), its list of encoders, pretrained tags and file names; SegEarth-OV
(arXiv 2410.01768) for jbu_one, FeatUp (arXiv 2403.10516) for jbu_stack.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from segearth.paths import program_command, restore_remedy

HUGGING_FACE = 'https://huggingface.co'
OURS = 'weights/README.md'
"""``home`` of the files that come with the repository and the package, or are made by training."""

TAG = 'open_clip'  # kept in the cache of the Hugging Face client, found by open_clip
HUB = 'Hugging Face'
ADDRESS = 'address'
ARCHIVE = 'zip at an address'
REPOSITORY = 'this repository'
PAGE = 'by hand'  # published where no program can fetch it


@dataclass(frozen=True)
class Checksum:
    """What is known of a file's content."""

    kind: str  # "sha256", or "git blob": SHA-1 of a header with the size and the content, as git names files
    value: str  # hexadecimal digits


@dataclass(frozen=True, kw_only=True)
class WeightRecord:
    """One file to fetch."""

    name: str  # for people and command lines, such as RemoteCLIP-ViT-B-32
    group: str  # stands for several: the config key ``clip_type``, or ``model_name`` of an upsampler
    file: str | None = None  # relative to a weights folder; None with a tag or where ``clip_path`` must be given
    architecture: str | None = None  # name in open_clip; None for other networks
    tag: str | None = None  # open_clip's, of pretrained weights
    hub: str | None = None  # "owner/name/file" on Hugging Face
    url: str | None = None  # elsewhere; a .zip holds the file as a member
    home: str = ''  # page of the project that publishes it
    licence: str = ''  # of the weights
    paper: str = ''
    checksum: Checksum | None = None  # what its publisher says of the content
    needs: tuple[str, ...] = ()  # names of the records without which it is useless, such as a tokenizer

    @property
    def source(self) -> str:
        """The kind of place it comes from, one of those above."""
        if self.tag or self.hub:
            return TAG if self.tag else HUB
        if self.url:
            return ARCHIVE if self.url.endswith('.zip') else ADDRESS
        return REPOSITORY if self.home == OURS else PAGE

    @property
    def origin(self) -> str:
        """The address, "owner/name/file" on Hugging Face, the tag, or the page."""
        return f'{self.architecture}, tag {self.tag}' if self.tag else self.hub or self.url or self.home

    @property
    def remedy(self) -> str:
        """What to do when the file is missing."""
        if self.source == REPOSITORY:
            return restore_remedy(f'weights/{PurePosixPath(self.file or "").parent}')
        if self.source != PAGE:
            place = f'{HUGGING_FACE}/{self.hub.rpartition("/")[0]}' if self.hub else self.url or self.home
            return f'Get it with "{program_command("download_weights")} {self.name}" (from {place}).'
        if self.file:
            return f'No program can fetch it: get it from {self.home} and save it as weights/{self.file}.'
        return 'Give the path of your own weight file as clip_path.'


@dataclass(frozen=True, kw_only=True)
class UpsamplerRecord(WeightRecord):
    """One weight file of an upsampler; its ``group`` is a key of :data:`simfeatup.UPSAMPLERS`."""

    file: str
    dim: int | None = None  # channels of the features it was trained for; None for any encoder's
    encoder: str  # whose features it was trained on


Record = TypeVar('Record', bound=WeightRecord)


def read_records(kind: str, record: type[Record]) -> tuple[Record, ...]:
    """The rows of a kind in ``catalogue.json``, in its order, as records of a class."""
    rows = json.loads(Path(__file__).with_name('catalogue.json').read_text(encoding='utf-8'))[kind]
    for row in rows:
        row |= {key: tuple(value) for key, value in row.items() if isinstance(value, list)}
        row['checksum'] = Checksum(**row['checksum']) if 'checksum' in row else None
    return tuple(record(**row) for row in rows)


TOKENIZERS = read_records('tokenizers', WeightRecord)
UPSAMPLER_WEIGHTS = read_records('upsamplers', UpsamplerRecord)
"""HEAD in the address of jbu_one is whatever branch its repository shows first; "latest" in that of naf is its newest
release, for the tag is not known here; the checksum of jbu_stack is that of a copy of the release."""


def upsampler_record(path: str | os.PathLike[str]) -> UpsamplerRecord | None:
    """The record of a released file, by its name alone (the original's configs name another folder), or None."""
    return next((record for record in UPSAMPLER_WEIGHTS if Path(record.file).name == Path(str(path)).name), None)
