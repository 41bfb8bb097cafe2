"""Table, CSV and curves of a sweep over settings."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table

from segearth.evaluation.settings_sweep import SettingScores
from segearth.io.atomic import write_bytes

WARNING = (
    'Choosing thresholds, lambda or class words by these figures uses the labels of the test images: '
    'a method so tuned is not annotation-free. Choose on other images, and say so'
)


def build_table(scores: Sequence[SettingScores]) -> Table:
    """One line a setting; the highest mIoU is printed bold."""
    table = Table('class words', 'lambda', 'threshold', 'aAcc', 'mIoU', 'mAcc')
    best = max(entry.mean_iou for entry in scores)
    for entry in scores:
        setting = entry.setting
        figures = (entry.overall_accuracy, entry.mean_iou, entry.mean_accuracy)
        cells = [Path(setting.words).name, f'{setting.cls_token_weight:g}', f'{setting.prob_threshold:g}']
        table.add_row(
            *cells, *(f'{figure:.2f}' for figure in figures), style='bold' if entry.mean_iou == best else None
        )
    return table


def save_csv(scores: Sequence[SettingScores], class_names: Sequence[str], path: Path) -> None:
    """Writes a line a setting, with the IoU of each class.

    Raises:
        OSError: It cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['words', 'lambda', 'threshold', 'aAcc', 'mIoU', 'mAcc', *(f'IoU {name}' for name in class_names)])
    for entry in scores:
        setting = entry.setting
        values = (setting.words, setting.cls_token_weight, setting.prob_threshold)
        figures = (entry.overall_accuracy, entry.mean_iou, entry.mean_accuracy)
        writer.writerow([*values, *figures, *('' if iou is None else iou for iou in entry.class_ious)])
    write_bytes(path, text.getvalue().encode())


def save_curves(scores: Sequence[SettingScores], path: Path) -> None:
    """Draws mIoU over the threshold, or over lambda where there is one threshold; a curve for each of the rest.

    Raises:
        OSError: It cannot be written.
    """
    over_threshold = len({entry.setting.prob_threshold for entry in scores}) > 1
    curves = defaultdict(list)
    for entry in scores:
        weight, threshold = entry.setting.cls_token_weight, entry.setting.prob_threshold
        words = Path(entry.setting.words).name
        label, place = (f'{words}, lambda {weight:g}', threshold) if over_threshold else (words, weight)
        curves[label].append((place, entry.mean_iou))
    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axes = figure.subplots()
    for label, points in curves.items():
        axes.plot(*zip(*sorted(points), strict=True), marker='o', label=label)
    axes.set_xlabel('probability threshold' if over_threshold else 'lambda')
    axes.set_ylabel('mIoU in percent')
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    axes.set_title('chosen on test labels: no longer annotation-free', fontsize=9)
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_png(data)
    write_bytes(path, data.getvalue())
