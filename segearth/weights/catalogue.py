"""Everything that can be fetched: encoders, upsamplers and what they need beside the weights, under one kind of name.

Made of the encoder and upsampler tables, so that a new row there is offered here too.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from segearth.errors import ConfigError
from segearth.weights.checksums import Checksum
from segearth.weights.encoders import ENCODERS, HUGGING_FACE, EncoderRecord
from segearth.weights.upsamplers import UPSAMPLER_WEIGHTS, UpsamplerRecord

TAG = 'open_clip'  # kept in the cache of the Hugging Face client, found by open_clip
HUB = 'Hugging Face'
ADDRESS = 'address'
ARCHIVE = 'zip at an address'
PAGE = 'by hand'  # published where no program can fetch it
REPOSITORY = 'this repository'  # comes with the checkout, or is made by training


@dataclass(frozen=True)
class Item:
    """One file to fetch.

    Attributes:
        name: Name on the command line.
        group: Name that stands for several items: the clip_type, or the upsampler's model_name.
        source: One of the kinds above.
        file: Where it goes, relative to the weights folder; None for tags.
        origin: Address, "repository/file" on Hugging Face, tag, or page.
        home: Page of the project.
        licence: Licence of the file.
        checksum: What is known of the content.
        needs: Names of items that are useless without each other (a tokenizer).
        record: Encoder record, for tags.
    """

    name: str
    group: str
    source: str
    file: str | None
    origin: str
    home: str
    licence: str
    checksum: Checksum | None = None
    needs: tuple[str, ...] = ()
    record: EncoderRecord | None = None


TOKENIZER = Item(
    'BERT-tokenizer', 'BERT-tokenizer', HUB, 'bert-base-uncased/vocab.txt', 'google-bert/bert-base-uncased/vocab.txt',
    f'{HUGGING_FACE}/google-bert/bert-base-uncased', 'Apache-2.0',
)  # fmt: skip


def _encoder_item(record: EncoderRecord) -> Item:
    if record.tag:
        source, origin = TAG, f'{record.architecture}, tag {record.tag}'
    elif record.hf_repo and record.hf_file:
        source, origin = HUB, f'{record.hf_repo}/{record.hf_file}'
    elif record.url:
        source, origin = ARCHIVE if record.url.endswith('.zip') else ADDRESS, record.url
    elif record.model_config:
        source, origin = REPOSITORY, record.home
    else:
        source, origin = PAGE, record.home
    return Item(
        record.name, record.clip_type, source, record.file, origin, record.home, record.licence,
        checksum=Checksum('sha256', record.sha256) if record.sha256 else None,
        needs=(TOKENIZER.name,) if record.is_blip else (),
        record=record,
    )  # fmt: skip


def _upsampler_item(record: UpsamplerRecord) -> Item:
    known = {'sha256': record.sha256, 'git blob': record.git_blob}
    checksums = [Checksum(kind, value) for kind, value in known.items() if value]
    source, origin = (ADDRESS, record.url) if record.url else (REPOSITORY, record.home)
    return Item(
        record.name, record.model_name, source, record.file, origin, record.home, record.licence,
        checksum=checksums[0] if checksums else None,
    )  # fmt: skip


def catalogue() -> tuple[Item, ...]:
    """All items, encoders first."""
    return (*map(_encoder_item, ENCODERS), TOKENIZER, *map(_upsampler_item, UPSAMPLER_WEIGHTS))


def select(names: Sequence[str]) -> list[Item]:
    """Items by name or group, each once, with what they need.

    Raises:
        ConfigError: A name is neither; the message lists the known ones.
    """
    items = catalogue()
    chosen: dict[str, Item] = {}
    for name in names:
        found = [item for item in items if name.lower() in (item.name.lower(), item.group.lower())]
        if not found:
            known = list(dict.fromkeys(part for item in items for part in (item.group, item.name)))
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f' Did you mean {" or ".join(near)}?' if near else ''
            raise ConfigError(f'unknown weights {name!r}.{hint} Known: {", ".join(item.name for item in items)}')
        for item in found:
            chosen[item.name] = item
            chosen.update({other.name: other for other in items if other.name in item.needs})
    return list(chosen.values())
