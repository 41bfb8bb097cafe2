"""Figures of many settings from one pass over the images: thresholds, lambdas, class words.

Encoding and upsampling, which take the time, do not depend on them. Each window is encoded once, scored once for each
file of class words, and gets the bias of each lambda added; the maps of all these are averaged over the windows side by
side. A threshold only decides which labels become background. Every step is the one that eval.py takes, in its order,
so the figures are those of separate runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from segearth.errors import ConfigError
from segearth.evaluation.metric import ClassIoUMetric
from segearth.inference.classes import classify
from segearth.inference.scoring import EncodedWindows, global_bias
from segearth.models.open_vocabulary import OpenVocabularySegmenter
from segearth.models.segmentor import SegEarthSegmentation

IGNORED = 255
MAX_SETTINGS = 10_000


@dataclass(frozen=True)
class Setting:
    """One combination: class-name file, lambda, probability threshold."""

    words: str
    cls_token_weight: float
    prob_threshold: float


@dataclass(frozen=True)
class SettingScores:
    """Figures of a setting in percent, as eval.py reports them; None where a class does not occur."""

    setting: Setting
    overall_accuracy: float
    mean_iou: float
    mean_accuracy: float
    class_ious: tuple[float | None, ...]


@dataclass(frozen=True)
class Words:
    """Class words, embedded: path of their file, (Q, C) embeddings, (Q,) class of each query, number of classes."""

    path: str
    text_embeddings: Tensor
    query_to_class: Tensor
    num_classes: int


def sweep(
    settings: Config,
    dataset: BaseDataset,
    words_files: Sequence[str],
    weights: Sequence[float],
    thresholds: Sequence[float],
    progress: Callable[[Iterator], Iterator] = iter,
) -> list[SettingScores]:
    """Evaluates all combinations.

    Args:
        settings: As :func:`segearth.evaluation.settings.load_config` gives them.
        dataset: Built and checked.
        words_files: Paths of class-name files.
        weights: lambdas of Global Bias Alleviation.
        thresholds: Probability thresholds in [0, 1].
        progress: Wraps the loop over batches.

    Returns:
        In the order of words, lambda, threshold.

    Raises:
        ConfigError: A threshold outside [0, 1], too many combinations, or another segmentor.
    """
    wrong = [value for value in thresholds if not 0 <= value <= 1]
    if wrong:
        raise ConfigError(f'--prob-thd {wrong[0]}: allowed are 0 to 1')
    combinations = [Setting(*values) for values in product(words_files, weights, thresholds)]
    if not 0 < len(combinations) <= MAX_SETTINGS:
        raise ConfigError(f'{len(combinations)} combinations of settings; allowed: 1 to {MAX_SETTINGS}')
    model, words = build_words(settings.model, words_files)
    totals: dict[Setting, Tensor] = {}
    loader = Runner.build_dataloader({**settings.test_dataloader, 'dataset': dataset}, seed=0)
    for batch in progress(loader):
        data = model.data_preprocessor(batch, False)
        for image, sample in zip(data['inputs'], data['data_samples'], strict=True):
            for setting, counts in _count_image(model.core, image, sample, words, weights, thresholds):
                totals[setting] = totals[setting] + counts if setting in totals else counts
    return [_to_scores(setting, counts) for setting, counts in totals.items()]


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


def _count_image(
    model: OpenVocabularySegmenter,
    image: Tensor,
    sample: SegDataSample,
    words: Sequence[Words],
    weights: Sequence[float],
    thresholds: Sequence[float],
) -> Iterator[tuple[Setting, Tensor]]:
    """Counts (4, K) of an image for each setting: intersection, union, prediction, label."""
    label = sample.gt_sem_seg.data.squeeze(0)
    size = tuple(sample.ori_shape[:2])
    maps = score_settings(model, image[None], words, weights, size)
    for (entry, weight), query_logits in zip(product(words, weights), maps, strict=True):
        scores, labels = classify(
            query_logits[0],
            entry.query_to_class,
            entry.num_classes,
            model.settings.logit_scale,
            size=size,
        )
        best = scores.amax(dim=0, keepdim=True)
        for threshold in thresholds:
            prediction = labels.masked_fill(best < threshold, model.settings.background_index).squeeze(0)
            counts = ClassIoUMetric.intersect_and_union(
                prediction, label.to(prediction.device), entry.num_classes, IGNORED
            )
            yield Setting(entry.path, weight, threshold), torch.stack(counts)


def _to_scores(setting: Setting, counts: Tensor) -> SettingScores:
    if not counts[-1].sum():
        raise ConfigError('no pixel of any image has a label: nothing can be measured')
    figures = ClassIoUMetric.total_area_to_metrics(*counts, metrics=['mIoU'])
    accuracy, iou, acc = (float(np.round(np.nanmean(figures[name]) * 100, 2)) for name in ('aAcc', 'IoU', 'Acc'))
    ious = tuple(None if np.isnan(value) else round(100 * float(value), 2) for value in figures['IoU'])
    return SettingScores(setting, accuracy, iou, acc, ious)
