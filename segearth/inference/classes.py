"""From query scores to class scores and a label map.

Source: SegEarth-OV-2 (arXiv 2508.18067): softmax over all words at a fixed logit scale, the maximum over the words
of a class, argmax, and pixels below a probability threshold become background.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

STRIP_BYTES = 128 * 2**20  # memory of one strip of query probabilities


def classify(
    query_logits: Tensor,
    query_to_class: Tensor,
    num_classes: int,
    logit_scale: float,
    prob_threshold: float = 0.0,
    background_index: int = 0,
    size: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Turns cosine scores (Q, H, W) of queries into class probabilities and labels, in strips of rows.

    Their classes are ``query_to_class`` (Q,). The logits are resized bilinearly to (H0, W0) where a size is given.
    Pixels whose largest class score is lower than the threshold get the label of the background.

    Returns:
        seg_logits: (K, H0, W0), softmax probability of the best word of each class, in [0, 1].
        pred_sem_seg: (1, H0, W0), int64 labels.
    """
    num_queries, height, width = query_logits.shape
    out_height, out_width = size or (height, width)
    seg_logits = query_logits.new_zeros(num_classes, out_height, out_width)
    classes = query_to_class.tolist()
    rows_a_strip = max(STRIP_BYTES // (num_queries * out_width * query_logits.element_size()), 1)
    for top in range(0, out_height, rows_a_strip):
        rows = slice(top, min(top + rows_a_strip, out_height))
        logits = _resized_rows(query_logits, rows, (out_height, out_width))
        probabilities = logits.mul(logit_scale).softmax(dim=0)
        for query, label in enumerate(classes):
            torch.maximum(seg_logits[label, rows], probabilities[query], out=seg_logits[label, rows])
    best, labels = seg_logits.max(dim=0, keepdim=True)
    labels[best < prob_threshold] = background_index
    return seg_logits, labels


def _resized_rows(maps: Tensor, rows: slice, size: tuple[int, int]) -> Tensor:
    """Rows of ``F.interpolate(maps, size, mode='bilinear', align_corners=False)``, without the other rows."""
    height, width = maps.shape[-2:]
    if (height, width) == tuple(size):
        return maps[:, rows]
    targets = torch.arange(rows.start, rows.stop, device=maps.device, dtype=torch.float64)
    centres = ((targets + 0.5) * (height / size[0]) - 0.5).clamp_min(0)  # align_corners=False, in source rows
    upper = centres.floor().long().clamp_max(height - 1)
    lower = (upper + 1).clamp_max(height - 1)
    weight = (centres - upper).to(maps.dtype)[:, None]
    strip = torch.lerp(maps[:, upper], maps[:, lower], weight)
    return F.interpolate(strip[None], size=(strip.shape[1], size[1]), mode='bilinear', align_corners=False)[0]
