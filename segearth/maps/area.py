"""Area of each class, in pixels and hectares, and the table that goes with a map."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segearth.inference.sliding_window import Box
from segearth.maps.ground import PixelAreas

SQUARE_METRES_A_HECTARE = 1e4


@dataclass(frozen=True)
class ClassArea:
    """What a map holds of a class.

    Attributes:
        name: Of the class.
        pixels: Their number.
        share: Of the pixels with data, in [0, 1].
        hectares: None for a scene without a coordinate reference system.
    """

    name: str
    pixels: int
    share: float
    hectares: float | None


class AreaCount:
    """Adds up areas box by box."""

    def __init__(self, num_classes: int, areas: PixelAreas) -> None:
        self._areas = areas
        self._pixels = np.zeros(num_classes, np.int64)
        self._square_metres = np.zeros(num_classes)

    def add(self, box: Box, labels: np.ndarray) -> None:
        """Adds the labels (h, w) uint8 of a box; others than classes are left out."""
        num_classes = len(self._pixels)
        self._pixels += np.bincount(labels.ravel(), minlength=256)[:num_classes]
        if self._areas.is_known:
            weights = np.broadcast_to(self._areas.of_box(box), labels.shape)
            self._square_metres += np.bincount(labels.ravel(), weights.ravel(), minlength=256)[:num_classes]

    def table(self, class_names: Sequence[str]) -> list[ClassArea]:
        """One row a class."""
        total = max(int(self._pixels.sum()), 1)
        hectares = self._square_metres / SQUARE_METRES_A_HECTARE
        return [
            ClassArea(name, int(count), int(count) / total, float(area) if self._areas.is_known else None)
            for name, count, area in zip(class_names, self._pixels, hectares, strict=True)
        ]


def write_areas(path: Path, table: Sequence[ClassArea]) -> None:
    """Writes the table as CSV; hectares stay empty where they are unknown."""
    with open(path, 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(['class', 'pixels', 'share', 'hectares'])
        for row in table:
            hectares = '' if row.hectares is None else f'{row.hectares:.4f}'
            writer.writerow([row.name, row.pixels, f'{row.share:.6f}', hectares])


def read_areas(path: Path) -> list[ClassArea]:
    """Reads a table that :func:`write_areas` wrote."""
    with open(path, newline='', encoding='utf-8') as file:
        return [
            ClassArea(
                row['class'],
                int(row['pixels']),
                float(row['share']),
                float(row['hectares']) if row['hectares'] else None,
            )
            for row in csv.DictReader(file)
        ]
