"""What is published of the data sets: figures, the settings that belong to them, numbers of images; as one table.

Figures are those of the method itself (row SegEarth-OV) with CLIP ViT-B/16. Some could not be checked against the paper
itself; they are marked. The settings are those of the original's configs.

Source: SegEarth-OV (arXiv 2410.01768), SegEarth-OV-2 (arXiv 2508.18067).
"""

from __future__ import annotations

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

ALL = 'all'
GROUPS = ('optical', 'building', 'road', 'water', 'sar')
NOT_IN_THE_PAPER = ('cfg_demo', 'cfg_demo_sar')


@dataclass(frozen=True)
class PublishedCount:
    """Number of images, and how it is known."""

    count: int
    source: str


@dataclass(frozen=True)
class PublishedRecord:
    """What is published of a data set.

    Attributes:
        config: Name of the config, without suffix.
        group: One of :data:`GROUPS`, the tables of the paper.
        figure: The reported figure in percent; None where none is public.
        threshold: Probability threshold of the original's config.
        images: Number of images; None where it is not known for certain.
        measure: :data:`MEAN_IOU` or :data:`FOREGROUND_IOU`.
        is_verified: The figure was checked against the paper.
        source: Where the figure comes from.
        base: Settings of the group.
        others: Settings that differ from the group's.
    """

    config: str
    group: str
    figure: float | None
    threshold: float
    images: PublishedCount | None = None
    measure: str = MEAN_IOU
    is_verified: bool = True
    source: str = SEVERAL_CLASSES
    base: Mapping[str, Any] = field(default_factory=lambda: OPTICAL)
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """Column of the results -> the published setting."""
        return {**self.base, 'Threshold': self.threshold, **self.others}


def _optical(
    config: str, figure: float, threshold: float, images: tuple[int, str] | None = None, **others: Any
) -> PublishedRecord:
    count = PublishedCount(*images) if images else None
    return PublishedRecord(config, 'optical', figure, threshold, count, others=others)


def _one_class(
    config: str, group: str, figure: float, threshold: float, images: tuple[int, str], is_verified: bool = True,
    **others: Any,
) -> PublishedRecord:  # fmt: skip
    count = PublishedCount(*images)
    return PublishedRecord(
        config, group, figure, threshold, count, FOREGROUND_IOU, is_verified, ONE_CLASS, others=others
    )


def _sar(
    config: str, base: Mapping[str, Any] = SAR_WHOLE, threshold: float = 0, measure: str = MEAN_IOU, **others: Any
) -> PublishedRecord:
    return PublishedRecord(config, 'sar', None, threshold, None, measure, False, NOT_PUBLIC, base, others)


_RECORDS = (
    _optical('cfg_openearthmap', 40.3, 0.1),
    _optical('cfg_loveda', 36.9, 0.3, (1669, AUTHORS)),
    _optical('cfg_iSAID', 21.7, 0.4, (11644, RULE)),
    _optical('cfg_potsdam', 47.1, 0.1, (2016, RULE), Background=5),  # 14 tiles of 6000 x 6000: 12 x 12 crops each
    _optical('cfg_vaihingen', 29.1, 0.1, (398, RULE), Background=5),
    # 90 images of 3840 x 2160, 2 x 3 tiles each; 60 of 4096 x 2160, 2 x 4
    _optical('cfg_uavid', 42.5, 0.3, (1020, RULE)),
    _optical('cfg_udd5', 50.6, 0.4, (40, AUTHORS), Background=4),
    _optical('cfg_vdd', 45.3, 0.3, (40, AUTHORS)),
    _one_class('cfg_whu_aerial', 'building', 49.2, 0.6, (1036, AUTHORS)),
    _one_class('cfg_whu_sat_II', 'building', 28.4, 0.7, (3726, AUTHORS)),
    _one_class('cfg_inria', 'building', 44.6, 0.6, (675, RULE), False),  # 27 images of 5000 x 5000: 5 x 5 tiles each
    _one_class('cfg_xBD', 'building', 37.0, 0.0, (933, AUTHORS), False, Lambda=0),
    _one_class('cfg_chn6-cug', 'road', 35.4, 0.8, (903, AUTHORS), False),
    _one_class('cfg_deepglobe_road', 'road', 17.8, 0.7, (1530, PAPER), False),
    _one_class('cfg_massachusetts_road', 'road', 11.5, 0.7, (49, PAPER)),
    _one_class('cfg_spacenet_road', 'road', 23.8, 0.7, (567, PAPER), False),
    _one_class('cfg_wbs-si', 'water', 60.2, 0.6, (499, PAPER)),
    _sar('cfg_openearthmap_sar', SAR),
    _sar('cfg_ddhrnet_korea_sar'),
    _sar('cfg_ddhrnet_shandong_sar'),
    _sar('cfg_ddhrnet_xian_sar'),
    _sar('cfg_fusar_sar', SAR),
    _sar('cfg_pie_sar'),
    _sar('cfg_whu_sar', Background=6),
    _sar('cfg_yeseg_sar', threshold=0.3),
    _sar('cfg_hrsid', OPTICAL, 0.6, FOREGROUND_IOU, Window=0),
)
PUBLISHED: dict[str, PublishedRecord] = {record.config: record for record in _RECORDS}
"""Config, without suffix -> what is published of its data set; in the order of the paper's tables."""


def published_images(config: str) -> PublishedCount | None:
    """Published number of images of a config's data set, by its file name; None where it is not known."""
    record = PUBLISHED.get(Path(config).stem)
    return record.images if record else None


def group_configs(group: str = ALL, folder: Path = PROJECT_ROOT / 'configs') -> list[Path]:
    """Configs of a group in the order of the table; 'all' takes every config in the folder except the demo's.

    Configs in no group (a user's own) come last.

    Raises:
        ConfigError: Unknown group.
        MissingFileError: The folder has no such configs.
    """
    if group not in (ALL, *GROUPS):
        raise ConfigError(f'unknown group {group!r}; known: {", ".join((*GROUPS, ALL))}')
    order = {name: place for place, name in enumerate(PUBLISHED)}
    found = sorted(folder.glob('cfg_*.py'), key=lambda path: (order.get(path.stem, len(order)), path.stem))
    chosen = [
        path
        for path in found
        if path.stem not in NOT_IN_THE_PAPER
        and (group == ALL or (path.stem in PUBLISHED and PUBLISHED[path.stem].group == group))
    ]
    if not chosen:
        raise MissingFileError(f'no configs of the group {group!r} in {folder}: is the checkout whole?')
    return chosen
