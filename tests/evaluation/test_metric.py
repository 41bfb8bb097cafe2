from __future__ import annotations

import pytest
import torch
from mmseg.evaluation import IoUMetric

from segearth.errors import DataError
from segearth.evaluation.metric import ClassIoUMetric, count_pixels, figures_of

CLASSES = ('a', 'b', 'c', 'never')


def process(metric, pairs):
    metric.dataset_meta = {'classes': CLASSES}
    for prediction, label in pairs:
        metric.process({}, [{'pred_sem_seg': {'data': prediction[None]}, 'gt_sem_seg': {'data': label[None]}}])
    return metric.evaluate(len(pairs))


def test_the_figures_are_those_of_mmseg():
    torch.manual_seed(0)
    pairs = [(torch.randint(0, 3, (20, 30)), torch.randint(0, 3, (20, 30))) for _ in range(3)]
    pairs[0][1][:5] = 255
    metric = ClassIoUMetric()
    assert process(metric, pairs) == pytest.approx(process(IoUMetric(), pairs), abs=0.011)  # percent, two decimals
    assert metric.num_images == 3
    names, ious, _ = zip(*metric.class_scores, strict=True)
    assert names == CLASSES
    assert ious[3] != ious[3]  # nan: no such pixel
    summary, class_ious = figures_of(sum(count_pixels(*pair, len(CLASSES)) for pair in pairs))
    assert summary == metric.summary
    assert class_ious == [*(round(100 * iou, 2) for iou in ious[:3]), None]


def test_counts_are_exact_beyond_float32():
    counts = ClassIoUMetric.intersect_and_union(torch.zeros(3), torch.zeros(3), 4, 255)
    many = 2**24  # from here on, float32 knows even numbers only
    assert [(count + many)[0].item() for count in counts] == [many + 3] * 4


def test_nothing_labelled():
    with pytest.raises(DataError, match='no pixel of any image has a label'):
        process(ClassIoUMetric(), [(torch.zeros(4, 4, dtype=torch.long), torch.full((4, 4), 255))])
    with pytest.raises(DataError, match='no pixel of any image has a label'):
        figures_of(torch.zeros(4, 2))
