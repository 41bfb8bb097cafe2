"""Fast scoring beside the plain path on the images of a config: what exactness and truncated ranks come to.

Each window is encoded once and scored by every path, so that only the paths differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner
from mmseg.registry import MODELS
from torch import Tensor

from segearth.errors import ConfigError
from segearth.evaluation.metric import ClassIoUMetric
from segearth.evaluation.settings_sweep import IGNORED
from segearth.inference.scoring import EncodedWindows
from segearth.models.open_vocabulary import OpenVocabularySegmenter
from segearth.models.segmentor import SegEarthSegmentation

PLAIN, EXACT = 'plain path', 'fast, exact'


@dataclass
class PathFigures:
    """What one path gave, all images together.

    Attributes:
        name: Of the path.
        score_difference: Largest difference of a query's score to the reference.
        changed: Pixels with another label than the reference.
        pixels: All pixels.
        counts: (4, K) areas, as mmseg's IoUMetric keeps them.
    """

    name: str
    score_difference: float = 0.0
    changed: int = 0
    pixels: int = 0
    counts: Tensor | None = field(default=None, repr=False)

    @property
    def mean_iou(self) -> float:
        """In percent; nan where no pixel has a label."""
        assert self.counts is not None  # known once an image was counted
        figures = ClassIoUMetric.total_area_to_metrics(*self.counts, metrics=['mIoU'])
        return 100 * float(np.nanmean(figures['IoU']))


def compare_paths(
    settings: Config,
    dataset: BaseDataset,
    ranks: Sequence[int] = (),
    with_plain: bool = True,
    progress: Callable[[Iterator], Iterator] = iter,
) -> list[PathFigures]:
    """Scores all images by every path; the first of the result is what the others are compared with.

    Args:
        settings: As :func:`segearth.evaluation.settings.load_config` gives them.
        dataset: Built and checked.
        ranks: Numbers of coordinates kept for the length, see :func:`simfeatup.scoring.score`.
        with_plain: Compare with the plain path; else with fast, exact scores.
        progress: Wraps the loop over batches.

    Raises:
        ConfigError: Another segmentor, or one without an upsampler, which has one path only.
    """
    model = MODELS.build(settings.model)
    if not isinstance(model, SegEarthSegmentation) or model.core.upsampler is None:
        raise ConfigError('paths are compared of SegEarthSegmentation with an upsampler; see model.feature_up')
    paths: dict[str, dict] = {PLAIN: {'exact_reference': True}} if with_plain else {}
    paths |= {EXACT: {}} | {f'rank {rank}': {'score_rank': rank} for rank in ranks}
    figures = [PathFigures(name) for name in paths]
    loader = Runner.build_dataloader({**settings.test_dataloader, 'dataset': dataset}, seed=0)
    for batch in progress(loader):
        data = model.data_preprocessor(batch, False)
        for image, sample in zip(data['inputs'], data['data_samples'], strict=True):
            maps = _score(model.core, image[None], list(paths.values()))
            size = tuple(sample.ori_shape[:2])
            _count(figures, maps, model.core, size, sample.gt_sem_seg.data.squeeze(0))
    return figures


@torch.inference_mode()
def _score(model: OpenVocabularySegmenter, images: Tensor, paths: Sequence[dict]) -> list[Tensor]:
    """(Q, H, W) of one image for each path."""

    def score(encoded: EncodedWindows) -> Tensor:
        return torch.cat([model.score_encoded(encoded, **path) for path in paths], 1)

    num_queries = len(model.text_embeddings)
    return list(model.score_images(images, score=score, num_scores=len(paths) * num_queries)[0].split(num_queries))


def _count(
    figures: Sequence[PathFigures],
    maps: Sequence[Tensor],
    model: OpenVocabularySegmenter,
    size: tuple[int, int],
    label: Tensor,
) -> None:
    reference = None
    for entry, scores in zip(figures, maps, strict=True):
        labels = model.classify(scores, size)[1].squeeze(0)
        reference = labels if reference is None else reference
        entry.score_difference = max(entry.score_difference, (scores - maps[0]).abs().max().item())
        entry.changed += int((labels != reference).sum())
        entry.pixels += labels.numel()
        areas = ClassIoUMetric.intersect_and_union(labels, label.to(labels.device), model.num_classes, IGNORED)
        counts = torch.stack(areas)
        entry.counts = counts if entry.counts is None else entry.counts + counts
