"""Figures of many settings from one pass over the images: class words, lambdas, thresholds; ways of scoring.

Encoding and upsampling, which take the time, do not depend on them. Each window is encoded once, scored once for each
file of class words, and gets the bias of each lambda added; the maps of all these are averaged over the windows side by
side. A threshold only decides which labels become background. Every step is the one that eval.py takes, in its order,
so the figures are those of separate runs.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner
from mmseg.registry import MODELS
from rich.table import Table
from torch import Tensor

from segearth.errors import ConfigError
from segearth.evaluation.metric import count_pixels, figures_of
from segearth.inference.classes import classify
from segearth.inference.scoring import EncodedWindows, global_bias
from segearth.io.atomic import write_bytes
from segearth.models.open_vocabulary import OpenVocabularySegmenter
from segearth.models.segmentor import SegEarthSegmentation

MAX_SETTINGS = 10_000
FIGURES = ('aAcc', 'mIoU', 'mAcc')
PLAIN, EXACT = 'plain path', 'fast, exact'
WARNING = (
    'Choosing thresholds, lambda or classes by these figures uses the labels of the test images: '
    'a method so tuned is not annotation-free. Choose on other images, and say so'
)


@dataclass(frozen=True)
class Words:
    """Class words, embedded: path of their file, (Q, C) embeddings, (Q,) class of each query, number of classes."""

    path: str
    text_embeddings: Tensor
    query_to_class: Tensor
    num_classes: int


@dataclass
class ScoringFigures:
    """What one way of scoring gave, all images together.

    Attributes:
        name: What it is called.
        changes: Settings of inference that make it.
        score_difference: Largest difference of a query's score to the reference.
        changed: Pixels with another label than the reference.
        pixels: All pixels.
        counts: (4, K) areas, as :func:`segearth.evaluation.metric.count_pixels` gives them.
    """

    name: str
    changes: dict[str, Any]
    score_difference: float = 0.0
    changed: int = 0
    pixels: int = 0
    counts: Tensor = field(default_factory=lambda: torch.tensor(0), repr=False)

    @property
    def mean_iou(self) -> float:
        """In percent, two decimals."""
        return figures_of(self.counts)[0]['mIoU']


def sweep(
    settings: Config,
    dataset: BaseDataset,
    class_files: Sequence[str],
    weights: Sequence[float] = (),
    thresholds: Sequence[float] = (),
    progress: Callable[[Iterator], Iterator] = iter,
) -> pd.DataFrame:
    """Evaluates all combinations.

    Args:
        settings: Config from :func:`segearth.evaluation.configuration.load_config`.
        dataset: Built and checked.
        class_files: Paths of class-name files.
        weights: lambdas of Global Bias Alleviation; none for the config's.
        thresholds: Probability thresholds in [0, 1]; none for the config's.
        progress: Wraps the loop over batches.

    Returns:
        A line a combination: classes (path of the file), lambda, threshold; aAcc, mIoU, mAcc and the IoU of each class
        in percent, as eval.py reports them, nan where a class does not occur.

    Raises:
        ConfigError: A threshold outside [0, 1], too many combinations, or another segmentor.
        DataError: No pixel of any image has a label.
    """
    wrong = [value for value in thresholds if not 0 <= value <= 1]
    if wrong:
        raise ConfigError(f'--threshold, --prob-thd {wrong[0]}: allowed are 0 to 1')
    count = len(class_files) * len(weights or [None]) * len(thresholds or [None])
    if not 0 < count <= MAX_SETTINGS:
        raise ConfigError(f'{count} combinations of settings; allowed: 1 to {MAX_SETTINGS}')
    segmentor, words = build_words(settings.model, class_files)
    model, known = segmentor.core, segmentor.core.settings
    weights = weights or [known.cls_token_weight]
    thresholds = thresholds or [known.prob_threshold]
    totals: dict[tuple[str, float, float], Tensor] = {}
    for image, size, label in read_images(settings, dataset, segmentor, progress):
        maps = score_settings(model, image[None], words, weights, size)
        for (entry, weight), query_scores in zip(product(words, weights), maps, strict=True):
            scores, labels = classify(
                query_scores[0], entry.query_to_class, entry.num_classes, known.logit_scale, size=size
            )
            best = scores.amax(dim=0, keepdim=True)
            for threshold in thresholds:
                prediction = labels.masked_fill(best < threshold, known.background_index).squeeze(0)
                counts = count_pixels(prediction, label, entry.num_classes)
                setting = (entry.path, weight, threshold)
                totals[setting] = totals[setting] + counts if setting in totals else counts
    lines = []
    for setting, counts in totals.items():
        summary, ious = figures_of(counts)
        named = {f'IoU {name}': iou for name, iou in zip(dataset.metainfo['classes'], ious, strict=True)}
        lines.append({**dict(zip(('classes', 'lambda', 'threshold'), setting, strict=True)), **summary, **named})
    return pd.DataFrame(lines)


def read_images(
    settings: Config, dataset: BaseDataset, segmentor: SegEarthSegmentation, progress: Callable[[Iterator], Iterator]
) -> Iterator[tuple[Tensor, tuple[int, int], Tensor]]:
    """Images (3, H, W), normalised; sizes (H0, W0) of their labels; labels (H0, W0)."""
    for batch in progress(Runner.build_dataloader({**settings.test_dataloader, 'dataset': dataset}, seed=0)):
        data = segmentor.data_preprocessor(batch, False)
        for image, sample in zip(data['inputs'], data['data_samples'], strict=True):
            yield image, tuple(sample.ori_shape[:2]), sample.gt_sem_seg.data.squeeze(0)


def build_words(model: dict[str, Any], files: Sequence[str]) -> tuple[SegEarthSegmentation, list[Words]]:
    """The segmentor of a config, and the class words of files embedded by its text encoder.

    Raises:
        ConfigError: The config has another segmentor.
        UserError: A file or weights cannot be used.
    """
    words = []
    for path in files:
        segmentor = MODELS.build({**model, 'name_path': str(path)})
        if not isinstance(segmentor, SegEarthSegmentation):
            raise ConfigError(f'model.type is {model.get("type")}; settings can be swept of SegEarthSegmentation only')
        core = segmentor.core
        words.append(Words(str(path), core.text_embeddings, core.query_to_class, core.num_classes))
    return segmentor, words


@torch.inference_mode()
def score_settings(
    model: OpenVocabularySegmenter,
    images: Tensor,
    words: Sequence[Words],
    weights: Sequence[float],
    size: tuple[int, int] | None = None,
) -> list[Tensor]:
    """Scores of images for each file of class words and each lambda, each window encoded once.

    Args:
        model: Gives encoder, upsampler and windows.
        images: (B, 3, H, W), normalised.
        words: Class words.
        weights: lambdas.
        size: (H0, W0) of the labels, which whole images without an upsampler are scored at; None for (H, W).

    Returns:
        (B, Q, H, W), or (B, Q, H0, W0), for each of words x weights.
    """
    num_scores = [len(entry.text_embeddings) for entry, _ in product(words, weights)]

    def score(encoded: EncodedWindows) -> Tensor:
        maps = []
        for entry in words:
            texts = entry.text_embeddings
            scores = model.score_encoded(encoded, texts, cls_token_weight=0.0)
            maps += [scores + global_bias(encoded.cls_token, texts, weight) for weight in weights]
        return torch.cat(maps, dim=1)

    return list(model.score_images(images, size, score, sum(num_scores)).split(num_scores, dim=1))


@torch.inference_mode()
def compare_scoring(
    settings: Config,
    dataset: BaseDataset,
    ranks: Sequence[int] = (),
    with_plain: bool = True,
    progress: Callable[[Iterator], Iterator] = iter,
) -> list[ScoringFigures]:
    """Scores all images in every way; the first of the result is what the others are compared with.

    Args:
        settings: Config from :func:`segearth.evaluation.configuration.load_config`.
        dataset: Built and checked.
        ranks: Numbers of coordinates kept for the length, see :func:`simfeatup.scoring.score`.
        with_plain: Compare with plain scores; else with fast, exact ones.
        progress: Wraps the loop over batches.

    Raises:
        ConfigError: Another segmentor, or one without an upsampler, which is scored in one way only.
    """
    segmentor = MODELS.build(settings.model)
    if not isinstance(segmentor, SegEarthSegmentation) or segmentor.core.upsampler is None:
        raise ConfigError('scoring is compared of SegEarthSegmentation with an upsampler; see model.feature_up')
    model = segmentor.core
    ways = [ScoringFigures(PLAIN, {'exact_reference': True})] if with_plain else []
    ways += [ScoringFigures(EXACT, {}), *(ScoringFigures(f'rank {rank}', {'score_rank': rank}) for rank in ranks)]

    def score(encoded: EncodedWindows) -> Tensor:
        return torch.cat([model.score_encoded(encoded, **way.changes) for way in ways], 1)

    num_queries = len(model.text_embeddings)
    for image, size, label in read_images(settings, dataset, segmentor, progress):
        maps = model.score_images(image[None], score=score, num_scores=len(ways) * num_queries)[0].split(num_queries)
        reference = model.classify(maps[0], size)[1]
        for way, scores in zip(ways, maps, strict=True):
            labels = model.classify(scores, size)[1]
            way.score_difference = max(way.score_difference, (scores - maps[0]).abs().max().item())
            way.changed += int((labels != reference).sum())
            way.pixels += labels.numel()
            way.counts = way.counts + count_pixels(labels.squeeze(0), label, model.num_classes)
    return ways


def build_table(scores: pd.DataFrame) -> Table:
    """One line a setting; the highest mIoU is printed bold."""
    table = Table('classes', 'lambda', 'threshold', *FIGURES)
    for _, line in scores.iterrows():
        cells = [Path(line['classes']).name, f'{line["lambda"]:g}', f'{line["threshold"]:g}']
        is_best = line['mIoU'] == scores['mIoU'].max()
        table.add_row(*cells, *(f'{line[name]:.2f}' for name in FIGURES), style='bold' if is_best else None)
    return table


def save_curves(scores: pd.DataFrame, path: Path) -> None:
    """Draws mIoU over the threshold, or over lambda where there is one threshold; a curve for each of the rest.

    Raises:
        OSError: It cannot be written.
    """
    over, other = ('threshold', 'lambda') if scores['threshold'].nunique() > 1 else ('lambda', 'threshold')
    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axes = figure.subplots()
    for (classes, value), lines in scores.sort_values(over).groupby(['classes', other], sort=False):
        label = Path(str(classes)).name + (f', lambda {value:g}' if other == 'lambda' else '')
        axes.plot(lines[over], lines['mIoU'], marker='o', label=label)
    axes.set_xlabel('probability threshold' if over == 'threshold' else 'lambda')
    axes.set_ylabel('mIoU in percent')
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    axes.set_title('chosen on test labels: no longer annotation-free', fontsize=9)
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_png(data)
    write_bytes(path, data.getvalue())
