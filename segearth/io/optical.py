"""Optical bands to the picture that encoders expect: three channels of 8 bit, red, green, blue.

8-bit numbers stay as they are, so the benchmark's images reach the encoder exactly as in the original. Everything
else (16-bit reflectance, floats) is stretched linearly between two percentiles, the same for all three channels so
that colours keep their balance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segearth.errors import DataError
from segearth.io.raster import ImageInput, name_of, read_raster, without_fill

STRETCH_PERCENTILES = (2.0, 98.0)  # usual display stretch of satellite images


def read_optical(image: ImageInput, bands: tuple[int, ...] | None = None) -> np.ndarray:
    """Reads an image as an RGB picture.

    Args:
        image: File (PNG, JPEG, GeoTIFF and the like), image of Pillow, or array (H, W), (H, W, B).
        bands: Numbers of the red, green and blue band, from 1 (Sentinel-2: 4, 3, 2); None takes an image of one band
            as grey, of three as RGB, and the first three of four (RGB and near infrared).

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: The image cannot be read, or its bands need to be chosen.
        MissingFileError: There is no such file.
    """
    raster = read_raster(image, bands=bands)
    selected = raster.bands
    if len(selected) == 4 and bands is None:
        selected = selected[:3]
    if len(selected) not in (1, 3):
        raise DataError(
            f'{name_of(image)} has {len(raster.bands)} bands: say which are red, green and blue, as in '
            "dict(type='LoadOpticalImage', bands=(4, 3, 2)) or Segmenter(bands=(4, 3, 2)) for Sentinel-2; for radar: "
            'LoadSARImage, Segmenter(sensor="sar")'
        )
    if selected.dtype.kind == 'c':
        raise DataError(f'{name_of(image)} holds complex numbers: a radar image; give sensor="sar", or LoadSARImage')
    rgb = stretch_to_uint8(without_fill(selected, raster.valid)).transpose(1, 2, 0)
    return np.ascontiguousarray(np.broadcast_to(rgb, (*rgb.shape[:2], 3)))


def stretch_to_uint8(bands: np.ndarray) -> np.ndarray:
    """Brings numbers of any type into [0, 255].

    Args:
        bands: (B, H, W). 8-bit numbers are returned unchanged; what is not finite becomes 0.

    Returns:
        (B, H, W) uint8.
    """
    if bands.dtype == np.uint8:
        return bands
    return scale_to_uint8(bands, percentile_limits(bands))


def percentile_limits(values: np.ndarray) -> tuple[float, float]:
    """Black and white of a stretch.

    Args:
        values: Numbers of any shape; those that are not finite do not count.

    Returns:
        2nd and 98th percentile; smallest and largest number where these are equal (a small object on an empty
        ground); (0, 1) without any number.
    """
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, STRETCH_PERCENTILES))
    return (low, high) if low < high else (float(values.min()), float(values.max()))


def scale_to_uint8(bands: np.ndarray, limits: tuple[float, float] | Sequence[tuple[float, float]]) -> np.ndarray:
    """Scales numbers linearly from black and white to 0 and 255.

    Args:
        bands: (B, H, W); what is not finite becomes 0.
        limits: (black, white), one pair for all bands or one for each.

    Returns:
        (B, H, W) uint8.
    """
    values = bands.astype(np.result_type(bands.dtype, np.float32))
    low, high = np.broadcast_to(limits, (len(bands), 2)).T[:, :, None, None]
    span = np.maximum(high - low, np.finfo(np.float32).tiny)
    scaled = (values - low.astype(values.dtype)) / span.astype(values.dtype)
    return np.rint(np.clip(np.where(np.isfinite(values), scaled, 0), 0, 1) * 255).astype(np.uint8)
