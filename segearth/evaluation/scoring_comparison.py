"""Fast scoring beside the plain one on the images of a config: what exactness and truncated ranks come to.

Each window is encoded once and scored in every way, so that only the scoring differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmseg.registry import MODELS
from torch import Tensor

from segearth.errors import ConfigError
from segearth.evaluation.metric import count_pixels, figures_of
from segearth.evaluation.settings_sweep import read_images
from segearth.inference.scoring import EncodedWindows
from segearth.models.segmentor import SegEarthSegmentation

PLAIN, EXACT = 'plain path', 'fast, exact'


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
        settings: As :func:`segearth.evaluation.configuration.load_config` gives them.
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
