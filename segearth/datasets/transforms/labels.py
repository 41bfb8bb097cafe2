"""Pipeline step that loads and checks labels."""

from __future__ import annotations

import numpy as np
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS

from segearth.datasets.labels import IGNORE_INDEX, check_sizes, read_label


@TRANSFORMS.register_module()
class LoadSegLabel(LoadAnnotations):
    """mmseg's LoadAnnotations with checks (:mod:`segearth.datasets.labels` has the rule).

    How many classes there are is told to it by the data set (:func:`segearth.datasets.checks.bind_label_checks`).

    Args:
        accept_palette: Take the numbers of a palette file (mode P) for class ids.
        accept_mask_255: Take a two-class label of 0 and 255 as it is, 255 being ignored.
        reduce_zero_label: As in mmseg; leave it to the data set.

    Raises:
        DataError: The file cannot be read, is not a label of the classes, or is not of the image's size.
        MissingFileError: There is no such file.
    """

    def __init__(
        self, accept_palette: bool = False, accept_mask_255: bool = False, reduce_zero_label: bool | None = None
    ) -> None:
        super().__init__(reduce_zero_label=reduce_zero_label)
        self.accept_palette = accept_palette
        self.accept_mask_255 = accept_mask_255
        self.num_classes: int | None = None

    def _load_seg_map(self, results: dict) -> None:
        path = results['seg_map_path']
        reduce_zero_label = bool(results.get('reduce_zero_label', self.reduce_zero_label))
        num_ids = None if self.num_classes is None else self.num_classes + reduce_zero_label
        label = read_label(path, num_ids, self.accept_palette, self.accept_mask_255)
        check_sizes(label.shape, results.get('ori_shape', label.shape), path, results.get('img_path', 'image'))
        if reduce_zero_label:
            label = np.where(label == IGNORE_INDEX, IGNORE_INDEX, label - 1).astype(np.uint8)  # 0 - 1 wraps to 255
        if results.get('label_map') is not None:
            table = np.arange(256, dtype=np.uint8)
            table[list(results['label_map'])] = list(results['label_map'].values())
            label = table[label]
        results['gt_seg_map'] = label
        results['seg_fields'].append('gt_seg_map')
