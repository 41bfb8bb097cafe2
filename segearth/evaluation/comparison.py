"""Measured figures beside published ones, and whether the two may be compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any

from segearth.errors import UserError
from segearth.evaluation.groups import GROUPS, group_of
from segearth.evaluation.reported import FOREGROUND_IOU, REPORTED, ReportedRecord
from segearth.evaluation.row import settings_digest
from segearth.evaluation.settings import load_config
from segearth.paths import PROJECT_ROOT
from segearth.preparation.published import PUBLISHED_COUNTS

AS_PUBLISHED = 'as published'
LEFT_OUT = ('Limit', 'Skipped', 'Weights')  # columns that are empty in a run as published


@dataclass(frozen=True)
class Comparison:
    """A measured figure beside a published one.

    Attributes:
        record: What is published.
        row: The row of the run in the results, column -> value; None where the set was not measured.
        measured: Figure in percent, of the record's kind; None where there is none.
        differences: How the run differs from the published settings; empty where it does not.
    """

    record: ReportedRecord
    row: Mapping[str, Any] | None = None
    measured: float | None = None
    differences: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """Group of the config."""
        return group_of(self.record.config) or ''

    @property
    def gain(self) -> float | None:
        """Measured minus reported, in points."""
        if self.measured is None or self.record.figure is None:
            return None
        return round(self.measured - self.record.figure, 2)

    @property
    def is_comparable(self) -> bool:
        """There is a difference, and it is not one of settings."""
        return self.gain is not None and not self.differences


@dataclass(frozen=True)
class Average:
    """Averages over the comparable sets of a group.

    Attributes:
        group: Name of the group.
        num_sets: Sets that count: measured as published, with a published figure.
        num_configs: All sets of the group.
        measured: Mean of the measured figures in percent; None without sets.
        reported: Mean of the published figures of the same sets.
    """

    group: str
    num_sets: int
    num_configs: int
    measured: float | None
    reported: float | None


def compare(rows: Sequence[Mapping[str, Any]], class_rows: Iterable[Mapping[str, Any]]) -> list[Comparison]:
    """Puts the rows of the results beside the published figures, in the order of the table.

    Of several runs with the same settings the last one counts; runs with other settings get lines of their own.

    Args:
        rows: Of the first sheet of the results, the oldest first.
        class_rows: Of the sheet of classes.
    """
    scores = defaultdict(list)
    for entry in class_rows:
        scores[entry.get('Run')].append((entry.get('Class'), entry.get('IoU')))
    comparisons = []
    for name, record in REPORTED.items():
        mine = {row.get('Settings'): row for row in rows if row.get('Config') == name}
        for row in mine.values():
            measured = row.get('mIoU')
            if record.measure == FOREGROUND_IOU:
                measured = foreground_iou(scores[row.get('Run')])
            comparisons.append(Comparison(record, row, measured, tuple(find_differences(row, record))))
        if not mine:
            comparisons.append(Comparison(record))
    return comparisons


def foreground_iou(class_scores: Sequence[tuple[Any, float | None]]) -> float | None:
    """IoU of class 1 of a set with two classes, background and another; None for other sets."""
    return class_scores[1][1] if len(class_scores) == 2 else None


def find_differences(row: Mapping[str, Any], record: ReportedRecord) -> list[str]:
    """How the settings of a run differ from the published ones: by columns, by number of images, by the rest."""
    if row.get('Settings') is None:
        return ['settings not recorded']
    differences = [
        f'{column} {row.get(column)}, published {value}'
        for column, value in record.settings.items()
        if not _is_same(row.get(column), value)
    ]
    differences += [f'{column} {row[column]}' for column in LEFT_OUT if row.get(column)]
    published = PUBLISHED_COUNTS.get(f'{record.config}.py')
    if published and not row.get('Limit') and row.get('Images') != published.count:
        differences.append(f'{row.get("Images")} of {published.count} images')
    if not differences and row['Settings'] != _shipped_digest(record.config):
        differences.append(f'class words or other settings than configs/{record.config}.py')
    return differences


def average_groups(comparisons: Sequence[Comparison]) -> list[Average]:
    """Averages per group, over the sets that may be compared; where a set has several such runs the last counts."""
    averages = []
    for group in GROUPS:
        mine = [entry for entry in comparisons if entry.group == group]
        sets = list({entry.record.config: entry for entry in mine if entry.is_comparable}.values())
        pairs = [(entry.measured, entry.record.figure) for entry in sets]
        known = [(mine, theirs) for mine, theirs in pairs if mine is not None and theirs is not None]
        measured, reported = (round(fmean(side), 2) for side in zip(*known, strict=True)) if known else (None, None)
        averages.append(Average(group, len(sets), len({entry.record.config for entry in mine}), measured, reported))
    return averages


def _is_same(value: Any, expected: Any) -> bool:
    try:
        return float(value) == float(expected)
    except (TypeError, ValueError):
        return value == expected


@cache
def _shipped_digest(name: str) -> str | None:
    try:
        config = load_config(str(PROJECT_ROOT / 'configs' / f'{name}.py'))
        return settings_digest(config.model, config.test_dataloader.dataset)
    except UserError:
        return None
