"""What is published of the data sets: figures, the settings that belong to them, numbers of images; as one table.

Figures are those of the method itself (row SegEarth-OV) with CLIP ViT-B/16. Some could not be checked against the paper
itself; they are marked. The settings are those of the original's configs.

Source: SegEarth-OV (arXiv 2410.01768), SegEarth-OV-2 (arXiv 2508.18067).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segearth.errors import ConfigError, MissingFileError
from segearth.paths import PROJECT_ROOT

MEAN_IOU = 'mIoU'
FOREGROUND_IOU = 'foreground IoU'
"""What is reported of sets with one class: the IoU of that class, where mIoU would count the background too."""
SEVERAL_CLASSES = 'SegEarth-OV, CLIP ViT-B/16, arXiv 2410.01768: sets of several classes'
ONE_CLASS = 'SegEarth-OV, CLIP ViT-B/16, arXiv 2410.01768: sets of one class'
NOT_PUBLIC = 'no public figure found'
PAPER = 'as published for the evaluation'
RULE = 'follows from the split and the cutting rule'
AUTHORS = "the data set's authors"

OPTICAL = {
    'CLIP': 'CLIP', 'VIT': 'ViT-B/16', 'MODEL': 'SegEarth', 'Upsampler': 'jbu_one', 'Lambda': -0.3, 'Logit scale': 50,
    'Background': 0, 'Read-out blocks': 1, 'Window': 224, 'Stride': 112, 'Resize': '(448, 448)',
}  # fmt: skip
"""Column of the results -> the published setting."""
SAR = {**OPTICAL, 'CLIP': 'AlignEarth', 'MODEL': 'SCLIP', 'Read-out blocks': 2}
SAR_WHOLE = {**SAR, 'Window': 0, 'Resize': '(224, 224)'}

_ONE_CLASS = {'measure': FOREGROUND_IOU, 'source': ONE_CLASS}
_FACTS: dict[str, dict[str, Any]] = {
    'optical': {},
    'building': _ONE_CLASS,
    'road': _ONE_CLASS,
    'water': _ONE_CLASS,
    'sar': {'base': SAR_WHOLE, 'source': NOT_PUBLIC, 'is_verified': False},
}
"""Group, a table of the paper -> what its records have in common."""

ALL = 'all'
GROUPS = tuple(_FACTS)
NOT_IN_THE_PAPER = ('cfg_demo', 'cfg_demo_sar')


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
    threshold: float  # probability threshold of the original's config
    images: PublishedCount | None = None  # None where their number is not known for certain
    is_verified: bool = True  # the figure was checked against the paper
    measure: str = MEAN_IOU  # or FOREGROUND_IOU
    source: str = SEVERAL_CLASSES  # where the figure comes from
    base: Mapping[str, Any] = field(default_factory=lambda: OPTICAL)  # settings of the group
    others: Mapping[str, Any] = field(default_factory=dict)  # settings that differ from those

    @property
    def settings(self) -> dict[str, Any]:
        """Column of the results -> the published setting."""
        return {**self.base, 'Threshold': self.threshold, **self.others}


_UNVERIFIED = {'is_verified': False}
_ROWS: tuple[tuple[str, str, float | None, float, tuple[int, str] | None, dict[str, Any]], ...] = (
    ('cfg_openearthmap', 'optical', 40.3, 0.1, None, {}),
    ('cfg_loveda', 'optical', 36.9, 0.3, (1669, AUTHORS), {}),
    ('cfg_iSAID', 'optical', 21.7, 0.4, (11644, RULE), {}),
    # 14 tiles of 6000 x 6000: 12 x 12 crops each
    ('cfg_potsdam', 'optical', 47.1, 0.1, (2016, RULE), {'others': {'Background': 5}}),
    ('cfg_vaihingen', 'optical', 29.1, 0.1, (398, RULE), {'others': {'Background': 5}}),
    # 90 images of 3840 x 2160, 2 x 3 tiles each; 60 of 4096 x 2160, 2 x 4
    ('cfg_uavid', 'optical', 42.5, 0.3, (1020, RULE), {}),
    ('cfg_udd5', 'optical', 50.6, 0.4, (40, AUTHORS), {'others': {'Background': 4}}),
    ('cfg_vdd', 'optical', 45.3, 0.3, (40, AUTHORS), {}),
    ('cfg_whu_aerial', 'building', 49.2, 0.6, (1036, AUTHORS), {}),
    ('cfg_whu_sat_II', 'building', 28.4, 0.7, (3726, AUTHORS), {}),
    ('cfg_inria', 'building', 44.6, 0.6, (675, RULE), _UNVERIFIED),  # 27 images of 5000 x 5000: 5 x 5 tiles each
    ('cfg_xBD', 'building', 37.0, 0.0, (933, AUTHORS), {**_UNVERIFIED, 'others': {'Lambda': 0}}),
    ('cfg_chn6-cug', 'road', 35.4, 0.8, (903, AUTHORS), _UNVERIFIED),
    ('cfg_deepglobe_road', 'road', 17.8, 0.7, (1530, PAPER), _UNVERIFIED),
    ('cfg_massachusetts_road', 'road', 11.5, 0.7, (49, PAPER), {}),
    ('cfg_spacenet_road', 'road', 23.8, 0.7, (567, PAPER), _UNVERIFIED),
    ('cfg_wbs-si', 'water', 60.2, 0.6, (499, PAPER), {}),
    ('cfg_openearthmap_sar', 'sar', None, 0, None, {'base': SAR}),
    ('cfg_ddhrnet_korea_sar', 'sar', None, 0, None, {}),
    ('cfg_ddhrnet_shandong_sar', 'sar', None, 0, None, {}),
    ('cfg_ddhrnet_xian_sar', 'sar', None, 0, None, {}),
    ('cfg_fusar_sar', 'sar', None, 0, None, {'base': SAR}),
    ('cfg_pie_sar', 'sar', None, 0, None, {}),
    ('cfg_whu_sar', 'sar', None, 0, None, {'others': {'Background': 6}}),
    ('cfg_yeseg_sar', 'sar', None, 0.3, None, {}),
    ('cfg_hrsid', 'sar', None, 0.6, None, {'base': OPTICAL, 'measure': FOREGROUND_IOU, 'others': {'Window': 0}}),
)
"""Config, group, figure, threshold, (images, how that is known), what differs from the group."""
PUBLISHED: dict[str, PublishedRecord] = {
    config: PublishedRecord(
        config, group, figure, threshold, images and PublishedCount(*images), **(_FACTS[group] | differing)
    )
    for config, group, figure, threshold, images, differing in _ROWS
}
"""Config, without suffix -> what is published of its data set; in the order of the paper's tables."""


def published_images(config: str) -> PublishedCount | None:
    """Published number of images of a config's data set, by its file name; None where it is not known."""
    stem = Path(config).stem
    return PUBLISHED[stem].images if stem in PUBLISHED else None


def group_configs(group: str = ALL, folder: Path = PROJECT_ROOT / 'configs') -> list[Path]:
    """Configs of a group in the order of the table; all of the folder but the demo's, a user's own last, for 'all'."""
    if group not in (ALL, *GROUPS):
        raise ConfigError(f'unknown group {group!r}; known: {", ".join((*GROUPS, ALL))}')
    found = {path.stem: path for path in sorted(folder.glob('cfg_*.py')) if path.stem not in NOT_IN_THE_PAPER}
    in_order = [name for name in PUBLISHED if name in found] + [name for name in found if name not in PUBLISHED]
    known = {name: record.group for name, record in PUBLISHED.items()}
    chosen = [found[name] for name in in_order if group in (ALL, known.get(name))]
    if not chosen:
        raise MissingFileError(f'no configs of the group {group!r} in {folder}: is the checkout whole?')
    return chosen
