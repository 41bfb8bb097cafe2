"""Loading steps for mmseg pipelines, each a thin layer over the functions that hold the rules.

A file that cannot be used, or whose bands need to be chosen, is a DataError; one that is not there a MissingFileError.
"""

from collections.abc import Mapping, Sequence

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets import transforms as mmseg_transforms
from mmseg.registry import TRANSFORMS

from segearth.io.labels import IGNORE_INDEX, check_sizes, read_label
from segearth.io.pictures import fitted_size, read_optical, read_sar
from segearth.io.raster import read_band_numbers

NUM_IDS = IGNORE_INDEX + 1  # of a label file


class _LoadPicture(BaseTransform):
    """Reads ``img_path``; sets ``img`` (H, W, 3) in mmseg's order blue, green, red, ``img_shape`` and ``ori_shape``."""

    def __init__(self, bands: Sequence[int] | None = None, to_float32: bool = False) -> None:
        self.bands = read_band_numbers(bands or None, 'bands are')
        self.to_float32 = to_float32

    def _read(self, path: str) -> np.ndarray:
        """(H, W, 3) uint8, RGB."""
        raise NotImplementedError

    def transform(self, results: dict) -> dict:
        """Adds the image to a sample."""
        image = np.ascontiguousarray(self._read(results['img_path'])[..., ::-1])
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results


@TRANSFORMS.register_module()
class LoadOpticalImage(_LoadPicture):
    """Loads an optical image (:mod:`segearth.io.pictures` has the rule).

    For 8-bit images the same numbers as mmseg's LoadImageFromFile; besides it reads GeoTIFF of any type and number
    of bands, and names the file when it is damaged.

    Args:
        bands: Numbers of the red, green and blue band, from 1; None takes the first three.
        to_float32: Give floats instead of 8-bit numbers.
    """

    def _read(self, path: str) -> np.ndarray:
        return read_optical(path, self.bands)


@TRANSFORMS.register_module()
class LoadSARImage(_LoadPicture):
    """Loads a radar image as three channels (:mod:`segearth.io.pictures` has the rule).

    Args:
        bands: Numbers of one or two bands, from 1, co-polarised first; None takes all.
        scale: 'auto', or what the numbers are: 'db', 'amplitude' or 'power'.
        db_ranges: (lowest, highest) decibels of each band; None by the rule.
        to_float32: Give floats instead of 8-bit numbers.
    """

    def __init__(
        self,
        bands: Sequence[int] | None = None,
        scale: str = 'auto',
        db_ranges: Sequence[tuple[float, float]] | None = None,
        to_float32: bool = False,
    ) -> None:
        super().__init__(bands, to_float32)
        self.scale = scale
        self.db_ranges = tuple(db_ranges) if db_ranges else None

    def _read(self, path: str) -> np.ndarray:
        return read_sar(path, self.bands, self.scale, self.db_ranges)


@TRANSFORMS.register_module()
class LoadSegLabel(mmseg_transforms.LoadAnnotations):
    """Loads a label as mmseg's LoadAnnotations does, with checks (:mod:`segearth.io.labels` has the rule).

    Which ids there are is told to it by the data set (:func:`segearth.datasets.checks.bind_label_checks`).

    Args:
        accept_palette: Take the numbers of a palette file (mode P) for class ids.
        accept_mask_255: Take a two-class label of 0 and 255 as it is, 255 being ignored.
        reduce_zero_label: Id 0 is not evaluated, and the others count from 1; leave it to the data set.
    """

    def __init__(
        self, accept_palette: bool = False, accept_mask_255: bool = False, reduce_zero_label: bool | None = None
    ) -> None:
        super().__init__(reduce_zero_label=reduce_zero_label)
        self.accept_palette = accept_palette
        self.accept_mask_255 = accept_mask_255
        self.num_ids: int | None = None

    def _load_seg_map(self, results: dict) -> None:
        path = results['seg_map_path']
        label = read_label(path, self.num_ids, self.accept_palette, self.accept_mask_255)
        check_sizes(label.shape, results.get('ori_shape', label.shape), path, results.get('img_path', 'image'))
        table = class_table(results.get('reduce_zero_label', self.reduce_zero_label), results.get('label_map'))
        results['gt_seg_map'] = table[label]
        results['seg_fields'].append('gt_seg_map')


def class_table(reduce_zero_label: bool | None, label_map: Mapping[int, int] | None) -> np.ndarray:
    """(256,) uint8: class of each label id, 255 staying 255.

    With `reduce_zero_label` id 0 is not evaluated, and the others count from 1; `label_map` says of each class, so
    numbered, which it is of a subset, or 255.
    """
    table = np.arange(NUM_IDS, dtype=np.uint8)
    for number, new in (label_map or {}).items():
        table[number] = new
    return table[[IGNORE_INDEX, *range(IGNORE_INDEX - 1), IGNORE_INDEX]] if reduce_zero_label else table


@TRANSFORMS.register_module(force=True)
class Resize(mmseg_transforms.Resize):
    """Resizes as mmseg's does, but that images of a pixel or two in height or width do not vanish (cv2.error)."""

    def _resize_img(self, results: dict) -> None:
        image = results.get('img')
        if image is None or not self.keep_ratio:
            super()._resize_img(results)
            return
        height, width = fitted_size(image.shape[:2], results['scale'])
        fitted = mmcv.imresize(image, (width, height), interpolation=self.interpolation, backend=self.backend)
        results['img'], results['img_shape'] = fitted, fitted.shape[:2]
        results['scale_factor'] = (fitted.shape[1] / image.shape[1], fitted.shape[0] / image.shape[0])
        results['keep_ratio'] = self.keep_ratio
