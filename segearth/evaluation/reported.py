"""The published figures, and the settings that belong to them, as a table.

Figures are those of the method itself (row SegEarth-OV) with CLIP ViT-B/16. Some could not be checked against the paper
itself; they are marked. The settings are those of the original's configs.

Source: SegEarth-OV (arXiv 2410.01768), SegEarth-OV-2 (arXiv 2508.18067).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MEAN_IOU = 'mIoU'
FOREGROUND_IOU = 'foreground IoU'
"""What is reported of sets with one class: the IoU of that class, where mIoU would count the background too."""
MAIN_TABLE = 'SegEarth-OV, CLIP ViT-B/16, arXiv 2410.01768: sets of several classes'
ONE_CLASS_TABLE = 'SegEarth-OV, CLIP ViT-B/16, arXiv 2410.01768: sets of one class'
NOT_PUBLIC = 'no public figure found'

OPTICAL = {
    'CLIP': 'CLIP', 'VIT': 'ViT-B/16', 'MODEL': 'SegEarth', 'Upsampler': 'jbu_one', 'Lambda': -0.3, 'Logit scale': 50,
    'Background': 0, 'Read-out blocks': 1, 'Window': 224, 'Stride': 112, 'Resize': '(448, 448)',
}  # fmt: skip
"""Column of the results -> the published setting."""
SAR = {**OPTICAL, 'CLIP': 'AlignEarth', 'MODEL': 'SCLIP', 'Read-out blocks': 2}
SAR_WHOLE = {**SAR, 'Window': 0, 'Resize': '(224, 224)'}


@dataclass(frozen=True)
class ReportedRecord:
    """A published figure.

    Attributes:
        config: Name of the config, without suffix.
        figure: In percent; None where none is public.
        threshold: Probability threshold of the original's config.
        measure: :data:`MEAN_IOU` or :data:`FOREGROUND_IOU`.
        is_verified: The figure was checked against the paper.
        source: Where it comes from.
        base: Settings of the group.
        others: Settings that differ from the group's.
    """

    config: str
    figure: float | None
    threshold: float
    measure: str = MEAN_IOU
    is_verified: bool = True
    source: str = MAIN_TABLE
    base: Mapping[str, Any] = field(default_factory=lambda: OPTICAL)
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """Column of the results -> the published setting."""
        return {**self.base, 'Threshold': self.threshold, **self.others}


def _one_class(config: str, figure: float, threshold: float, is_verified: bool = True, **others: Any) -> ReportedRecord:
    return ReportedRecord(config, figure, threshold, FOREGROUND_IOU, is_verified, ONE_CLASS_TABLE, others=others)


def _sar(
    config: str, base: Mapping[str, Any] = SAR_WHOLE, threshold: float = 0, measure: str = MEAN_IOU, **others: Any
) -> ReportedRecord:
    return ReportedRecord(config, None, threshold, measure, False, NOT_PUBLIC, base, others)


_RECORDS = (
    ReportedRecord('cfg_openearthmap', 40.3, 0.1),
    ReportedRecord('cfg_loveda', 36.9, 0.3),
    ReportedRecord('cfg_iSAID', 21.7, 0.4),
    ReportedRecord('cfg_potsdam', 47.1, 0.1, others={'Background': 5}),
    ReportedRecord('cfg_vaihingen', 29.1, 0.1, others={'Background': 5}),
    ReportedRecord('cfg_uavid', 42.5, 0.3),
    ReportedRecord('cfg_udd5', 50.6, 0.4, others={'Background': 4}),
    ReportedRecord('cfg_vdd', 45.3, 0.3),
    _one_class('cfg_whu_aerial', 49.2, 0.6),
    _one_class('cfg_whu_sat_II', 28.4, 0.7),
    _one_class('cfg_inria', 44.6, 0.6, is_verified=False),
    _one_class('cfg_xBD', 37.0, 0.0, is_verified=False, Lambda=0),
    _one_class('cfg_chn6-cug', 35.4, 0.8, is_verified=False),
    _one_class('cfg_deepglobe_road', 17.8, 0.7, is_verified=False),
    _one_class('cfg_massachusetts_road', 11.5, 0.7),
    _one_class('cfg_spacenet_road', 23.8, 0.7, is_verified=False),
    _one_class('cfg_wbs-si', 60.2, 0.6),
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
REPORTED: dict[str, ReportedRecord] = {record.config: record for record in _RECORDS}
"""Config, without suffix -> what is published of its data set."""
