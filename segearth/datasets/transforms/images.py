"""Pipeline steps that load images, optical and radar, and fit them into a size."""

from __future__ import annotations

from collections.abc import Sequence

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets import transforms as mmseg_transforms
from mmseg.registry import TRANSFORMS

from segearth.io.pictures import fitted_size, read_optical, read_sar


class _LoadPicture(BaseTransform):
    """Reads ``img_path``; sets ``img`` (H, W, 3) in mmseg's order blue, green, red, ``img_shape`` and ``ori_shape``."""

    def __init__(self, to_float32: bool = False) -> None:
        self.to_float32 = to_float32

    def read(self, path: str) -> np.ndarray:
        """Reads a file as (H, W, 3) uint8, RGB."""
        raise NotImplementedError

    def transform(self, results: dict) -> dict:
        """Adds the image to a sample."""
        image = np.ascontiguousarray(self.read(results['img_path'])[..., ::-1])
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

    Raises:
        DataError: The file cannot be read, or its bands need to be chosen.
        MissingFileError: There is no such file.
    """

    def __init__(self, bands: Sequence[int] | None = None, to_float32: bool = False) -> None:
        super().__init__(to_float32)
        self.bands = tuple(bands) if bands else None

    def read(self, path: str) -> np.ndarray:
        """Reads a file as (H, W, 3) uint8, RGB."""
        return read_optical(path, self.bands)


@TRANSFORMS.register_module()
class LoadSARImage(_LoadPicture):
    """Loads a radar image as three channels (:mod:`segearth.io.pictures` has the rule).

    Args:
        bands: Numbers of one or two bands, from 1, co-polarised first; None takes all.
        scale: 'auto', or what the numbers are: 'db', 'amplitude' or 'power'.
        db_ranges: (lowest, highest) decibels of each band; None by the rule.
        to_float32: Give floats instead of 8-bit numbers.

    Raises:
        DataError: The file cannot be read, or its bands need to be chosen.
        MissingFileError: There is no such file.
    """

    def __init__(
        self,
        bands: Sequence[int] | None = None,
        scale: str = 'auto',
        db_ranges: Sequence[tuple[float, float]] | None = None,
        to_float32: bool = False,
    ) -> None:
        super().__init__(to_float32)
        self.bands = tuple(bands) if bands else None
        self.scale = scale
        self.db_ranges = tuple(db_ranges) if db_ranges else None

    def read(self, path: str) -> np.ndarray:
        """Reads a file as (H, W, 3) uint8."""
        return read_sar(path, self.bands, self.scale, self.db_ranges)


@TRANSFORMS.register_module(force=True)
class Resize(mmseg_transforms.Resize):
    """mmseg's Resize, but that images of a pixel or two in height or width do not vanish: that ends in cv2.error."""

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
