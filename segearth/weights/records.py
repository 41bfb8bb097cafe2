"""What is known of a weight file: where it comes from, under which licence, and how the published one is recognised."""

from dataclasses import dataclass
from pathlib import PurePosixPath

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
            place = f'{HUGGING_FACE}/{self.hub}' if self.hub else self.url or self.home
            return f'Get it with "{program_command("download_weights")} {self.name}" (from {place}).'
        if self.file:
            return f'No program can fetch it: get it from {self.home} and save it as weights/{self.file}.'
        return 'Give the path of your own weight file as clip_path.'
