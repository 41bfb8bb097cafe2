"""Mean IoU as mmseg computes it, with exact counts and the figures of each class kept."""

from typing import Any

import numpy as np
import torch
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from torch import Tensor

from segearth.errors import DataError

IGNORED = 255  # label of pixels that are not evaluated
NOTHING_LABELLED = 'no pixel of any image has a label: nothing can be measured. Are these the right labels?'


@METRICS.register_module()
class ClassIoUMetric(IoUMetric):
    """mmseg's IoUMetric, of the same arguments, whose counts are float64.

    mmseg counts in float32, which loses pixels above 2^24 in an image and depends on the order of summation over
    images; here every count is exact, so the figures do not depend on how many processes share the work. These send
    their counts to each other ('gpu', whatever the device), where 'cpu' would need a folder that all machines see.
    """

    def __init__(self, collect_device: str = 'gpu', **settings: Any) -> None:
        super().__init__(collect_device=collect_device, **settings)
        self.num_images = 0
        self.class_scores: list[tuple[str, float, float]] = []  # name, IoU, accuracy in [0, 1]; nan where it is nowhere
        self.summary: dict[str, float] = {}  # aAcc, mIoU, mAcc in percent, as the evaluation returned them

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Sums the counts (four vectors an image) and returns aAcc, mIoU, mAcc in percent."""
        intersection, union, _, label = (torch.stack(list(counts)).sum(dim=0) for counts in zip(*results, strict=True))
        if label.sum() == 0:
            raise DataError(NOTHING_LABELLED)
        ious, accuracies = (intersection / union).tolist(), (intersection / label).tolist()
        self.class_scores = list(zip(self.dataset_meta['classes'], ious, accuracies, strict=True))
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


def count_pixels(prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Counts (4, K) of an image, labels (H, W) both: intersection, union, prediction, label; those of images add up."""
    label = label.to(prediction.device)
    return torch.stack(ClassIoUMetric.intersect_and_union(prediction, label, num_classes, IGNORED))


def figures_of(counts: Tensor) -> tuple[dict[str, float], list[float | None]]:
    """aAcc, mIoU and mAcc, and the IoU of each class (None where it is nowhere), in percent, of counts (4, K)."""
    if not counts[-1].sum():
        raise DataError(NOTHING_LABELLED)
    found = ClassIoUMetric.total_area_to_metrics(*counts, metrics=['mIoU'])
    columns = {'aAcc': 'aAcc', 'mIoU': 'IoU', 'mAcc': 'Acc'}
    summary = {name: float(np.round(np.nanmean(found[key]) * 100, 2)) for name, key in columns.items()}
    return summary, [None if np.isnan(value) else round(100 * float(value), 2) for value in found['IoU']]
