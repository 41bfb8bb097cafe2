"""What is published of the data sets: figures, the settings that belong to them, numbers of images.

Figures are those of the method itself (row SegEarth-OV) with CLIP ViT-B/16. Some could not be checked against the paper
itself; they are marked. The settings are those of the original's configs.
published.json has the table: settings of all sets, what a group of sets has in common, and what is a set's own.

Source: SegEarth-OV (arXiv 2410.01768), SegEarth-OV-2 (arXiv 2508.18067).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segearth.errors import ConfigError, MissingFileError
from segearth.paths import PROJECT_ROOT

FOREGROUND_IOU = 'foreground IoU'
"""What is reported of sets with one class: the IoU of that class, where mIoU would count the background too."""
ALL = 'all'
NOT_IN_THE_PAPER = ('cfg_demo', 'cfg_real_')  # beginnings of names
_CONTENT = json.loads(Path(__file__).with_suffix('.json').read_text(encoding='utf-8'))
GROUPS = tuple(_CONTENT['groups'])
"""The tables of the paper."""


@dataclass(frozen=True)
class PublishedCount:
    """Number of images, and how it is known."""

    count: int
    source: str


@dataclass(frozen=True)
class PublishedRecord:
    """What is published of a data set."""

    config: str  # its name, without suffix
    group: str  # one of GROUPS
    figure: float | None  # the reported one in percent; None where none is public
    measure: str  # mIoU, or FOREGROUND_IOU
    source: str  # where the figure comes from
    is_verified: bool  # the figure was checked against the paper
    settings: Mapping[str, Any]  # column of the results -> the setting of the original's config
    images: PublishedCount | None = None  # None where their number is not known for certain


def _read_records() -> Iterator[PublishedRecord]:
    for group, shared in _CONTENT['groups'].items():
        for config, own in shared.pop('sets').items():
            own['settings'] = _CONTENT['settings'] | shared['settings'] | own['settings']
            if 'images' in own:
                own['images'] = PublishedCount(*own['images'])
            yield PublishedRecord(config, group, **shared | own)


PUBLISHED = {record.config: record for record in _read_records()}
"""Config, without suffix -> what is published of its data set; in the order of the paper's tables."""


def published_images(config: str) -> PublishedCount | None:
    """Published number of images of a config's data set, by its file name; None where it is not known."""
    stem = Path(config).stem
    return PUBLISHED[stem].images if stem in PUBLISHED else None


def group_configs(group: str = ALL, folder: Path = PROJECT_ROOT / 'configs') -> list[Path]:
    """Configs of a group in the order of the table; all of the folder but the demo's, a user's own last, for 'all'."""
    if group not in (ALL, *GROUPS):
        raise ConfigError(f'unknown group {group!r}; known: {", ".join((*GROUPS, ALL))}')
    found = {path.stem: path for path in sorted(folder.glob('cfg_*.py')) if not path.stem.startswith(NOT_IN_THE_PAPER)}
    groups = {name: record.group for name, record in PUBLISHED.items()}
    in_order = [name for name in dict.fromkeys([*groups, *found]) if name in found]
    chosen = [found[name] for name in in_order if group in (ALL, groups.get(name))]
    if not chosen:
        raise MissingFileError(f'no configs of the group {group!r} in {folder}: is the checkout whole?')
    return chosen
