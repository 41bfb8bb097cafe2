"""Optical bands to the picture that encoders expect: three channels of 8 bit, red, green, blue.

8-bit numbers stay as they are, so the benchmark's images reach the encoder exactly as in the original. Everything
else (16-bit reflectance, floats) is stretched linearly between two percentiles, the same for all three channels so
that colours keep their balance.
"""

from __future__ import annotations

import os

import numpy as np

from segearth.datasets.raster import read_raster, select_bands
from segearth.errors import DataError

STRETCH_PERCENTILES = (2.0, 98.0)  # usual display stretch of satellite images


def read_optical(path: str | os.PathLike[str], bands: tuple[int, ...] | None = None) -> np.ndarray:
    """Reads an image file as an RGB picture.

    Args:
        path: PNG, JPEG, GeoTIFF and the like.
        bands: Numbers of the red, green and blue band, from 1 (Sentinel-2: 4, 3, 2); None takes a file of one band
            as grey, of three as RGB, and the first three of four (RGB and near infrared).

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: The file cannot be read, or its bands need to be chosen.
        MissingFileError: There is no such file.
    """
    raster = read_raster(path)
    selected = select_bands(raster.bands, bands, path)
    if len(selected) == 4 and bands is None:
        selected = selected[:3]
    if len(selected) not in (1, 3):
        raise DataError(
            f'{path} has {len(raster.bands)} bands: say which are red, green and blue, as in '
            "dict(type='LoadOpticalImage', bands=(4, 3, 2)) for Sentinel-2; for radar use LoadSARImage"
        )
    rgb = stretch_to_uint8(selected, raster.nodata).transpose(1, 2, 0)
    return np.ascontiguousarray(np.broadcast_to(rgb, (*rgb.shape[:2], 3)))


def stretch_to_uint8(bands: np.ndarray, nodata: float | None = None) -> np.ndarray:
    """Brings numbers of any type into [0, 255].

    Args:
        bands: (B, H, W). 8-bit numbers are returned unchanged, whatever ``nodata`` is.
        nodata: Number without meaning; it and everything not finite becomes 0.

    Returns:
        (B, H, W) uint8.
    """
    if bands.dtype == np.uint8:
        return bands
    values = bands.astype(np.float32)
    valid = np.isfinite(values)
    if nodata is not None and np.isfinite(nodata):
        valid &= values != np.float32(nodata)
    if not valid.any():
        return np.zeros(bands.shape, np.uint8)
    low, high = np.percentile(values[valid], STRETCH_PERCENTILES)
    scaled = (values - low) / max(high - low, np.finfo(np.float32).tiny)
    return np.rint(np.clip(np.where(valid, scaled, 0), 0, 1) * 255).astype(np.uint8)
