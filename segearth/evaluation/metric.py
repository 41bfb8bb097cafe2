"""Mean IoU as mmseg computes it, with exact counts and the figures of each class kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from torch import Tensor

from segearth.errors import DataError


@METRICS.register_module()
class ClassIoUMetric(IoUMetric):
    """IoUMetric whose counts are float64.

    mmseg counts in float32, which loses pixels above 2^24 in an image and depends on the order of summation over
    images; here every count is exact, so the figures do not depend on how many processes share the work.

    Args:
        collect_device: How processes exchange counts; 'gpu' sends them, whatever the device, where 'cpu' would need
            a folder that all machines see.
        **settings: Of mmseg's IoUMetric.

    Attributes:
        num_images: Images counted.
        class_scores: (name, IoU, accuracy) of each class in [0, 1], nan where a class does not occur.
        summary: aAcc, mIoU, mAcc in percent, as the evaluation returned them.
    """

    def __init__(self, collect_device: str = 'gpu', **settings: Any) -> None:
        super().__init__(collect_device=collect_device, **settings)
        self.num_images = 0
        self.class_scores: list[tuple[str, float, float]] = []
        self.summary: dict[str, float] = {}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Sums the counts (four vectors an image) and returns aAcc, mIoU, mAcc in percent.

        Raises:
            DataError: No pixel of any image has a label.
        """
        intersection, union, _, label = (torch.stack(list(counts)).sum(dim=0) for counts in zip(*results, strict=True))
        if label.sum() == 0:
            raise DataError('no pixel of any image has a label: nothing can be measured. Are these the right labels?')
        names: Sequence[str] = self.dataset_meta['classes']
        scores = zip(names, (intersection / union).tolist(), (intersection / label).tolist(), strict=True)
        self.class_scores = list(scores)
        self.num_images = len(results)
        self.summary = super().compute_metrics(results)
        return self.summary

    @staticmethod
    def intersect_and_union(
        pred_label: Tensor, label: Tensor, num_classes: int, ignore_index: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Counts pixels of each class where there is a label: intersection, union, prediction, label; each (K,)."""
        is_labelled = label != ignore_index
        pred_label, label = pred_label[is_labelled].long(), label[is_labelled].long()

        def count(ids: Tensor) -> Tensor:
            return torch.bincount(ids, minlength=num_classes)[:num_classes].double().cpu()

        intersection, predicted, labelled = count(label[pred_label == label]), count(pred_label), count(label)
        return intersection, predicted + labelled - intersection, predicted, labelled
