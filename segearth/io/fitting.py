"""Images fitted into a size, as mmcv does it for evaluation, without mmcv: the same numbers, to the last."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np


def fitted_size(sides: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    """(height, width) of an image fitted into a size, keeping its ratio; no side becomes shorter than a pixel.

    Args:
        sides: (height, width) of the image in pixels.
        size: Two numbers of pixels, of which the larger holds for the image's longer side, as in mmcv.
    """
    scale = min(max(size) / max(sides), min(size) / min(sides))
    height, width = (max(int(side * scale + 0.5), 1) for side in sides)
    return height, width


def fit_image(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Fits an image (H, W, C) into a size (:func:`fitted_size`), bilinearly."""
    height, width = fitted_size(image.shape[:2], size)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
