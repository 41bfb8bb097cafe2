"""Radar backscatter to the picture that encoders expect: three channels of 8 bit.

The rule, in order:

1. No data: not finite, what the file declares, or at most -1000 (the usual -9999 and its kin). Becomes 0.
2. 8-bit numbers are a picture already and stay as they are (so the benchmark's sets reach the encoder unchanged).
   Everything else is brought to decibels. Complex numbers are replaced by their magnitude first. Numbers are taken
   for decibels if 1 % of them or more lie below -1, which amplitude and power never do (noise removal leaves tiny
   negatives only); otherwise for linear amplitude, dB = 20 log10(a). ``scale`` overrides, e.g. for power.
3. Decibels become [0, 255]. If the median lies in the range of calibrated backscatter, -40 to 10 dB, by a fixed
   range, so that one brightness means one backscatter in every tile: -25 to 0 dB for the first band (co-polarised,
   VV or HH), -32 to -7 dB for the second (cross-polarised, VH or HV, about 7 dB weaker). Otherwise the numbers are
   not calibrated (16-bit digital numbers) and each band is stretched between its 2nd and 98th percentile.
4. Channels: one band is repeated; two become (first, second, mean of both), which stays close to the grey pictures
   that SAR encoders are trained on; three 8-bit bands are a picture.

The fixed ranges are the ordinary display ranges of Sentinel-1; on the Sen1Floods11 sample they hold the 2nd to the
98th percentile of both bands.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segearth.errors import ConfigError, DataError
from segearth.io.raster import ImageInput, name_of, read_raster, without_fill

NODATA_AT_MOST = -1000.0  # no backscatter is as low, in decibels or linear
DECIBELS_BELOW = -1.0  # 1 % of the numbers below this: decibels
CALIBRATED_MEDIAN_DB = (-40.0, 10.0)
DB_RANGES = ((-25.0, 0.0), (-32.0, -7.0))  # co-polarised, cross-polarised
STRETCH_PERCENTILES = (2.0, 98.0)
LOG_FACTORS = {'amplitude': 20.0, 'power': 10.0, 'db': None}
SCALES = ('auto', *LOG_FACTORS)


def read_sar(
    image: ImageInput,
    bands: tuple[int, ...] | None = None,
    scale: str = 'auto',
    db_ranges: tuple[tuple[float, float], ...] | None = None,
) -> np.ndarray:
    """Reads a radar image as a picture, (H, W, 3) uint8.

    Args:
        image: File (GeoTIFF, PNG, JPEG and the like), image of Pillow, or array (H, W), (H, W, B).
        bands: Numbers of one or two bands, from 1; None takes all.
        scale: As for :func:`sar_to_rgb`.
        db_ranges: As for :func:`sar_to_rgb`.

    Raises:
        DataError: The image cannot be read, or its bands need to be chosen.
        MissingFileError: There is no such file.
    """
    raster = read_raster(image, bands=bands)
    try:
        return sar_to_rgb(without_fill(raster.bands, raster.valid), scale, db_ranges)
    except DataError as error:
        raise DataError(f'{name_of(image)}: {error}') from error


def sar_to_rgb(
    bands: np.ndarray,
    scale: str = 'auto',
    db_ranges: tuple[tuple[float, float], ...] | None = None,
) -> np.ndarray:
    """Turns backscatter into a picture by the rule of this module.

    Args:
        bands: (H, W), (1, H, W) or (2, H, W) of any type; (3, H, W) of 8 bit.
        scale: 'auto', or what the numbers are: 'db', 'amplitude' or 'power'.
        db_ranges: (lowest, highest) decibels of each band, instead of step 3; a map cut into windows needs one
            choice for all of them.

    Returns:
        (H, W, 3) uint8; the channels in the order red, green, blue.

    Raises:
        ConfigError: Unknown ``scale``.
        DataError: Another number of bands.
    """
    if scale not in SCALES:
        raise ConfigError(f'unknown scale {scale!r} of a SAR image; known: {", ".join(SCALES)}')
    bands = bands[None] if bands.ndim == 2 else bands
    if len(bands) not in (1, 2) and not (len(bands) == 3 and bands.dtype == np.uint8):
        raise DataError(
            f'{len(bands)} bands of {bands.dtype}: a SAR image has one or two; choose them, as in '
            "dict(type='LoadSARImage', bands=(1, 2)), co-polarised first"
        )
    grey = bands if bands.dtype == np.uint8 else _grey_bands(bands, scale, db_ranges)
    if len(grey) == 1:
        grey = grey[[0, 0, 0]]
    elif len(grey) == 2:
        mean = np.rint(grey.mean(axis=0, dtype=np.float32)).astype(np.uint8)
        grey = np.concatenate([grey, mean[None]])
    return np.ascontiguousarray(grey.transpose(1, 2, 0))


def _grey_bands(bands: np.ndarray, scale: str, db_ranges: Sequence[tuple[float, float]] | None) -> np.ndarray:
    """(B, H, W) of any type but 8 bit -> (B, H, W) uint8."""
    values = (np.abs(bands) if np.iscomplexobj(bands) else bands).astype(np.float32)
    valid = np.isfinite(values) & (values > NODATA_AT_MOST)
    if not valid.any():
        return np.zeros(bands.shape, np.uint8)
    if scale == 'auto':
        scale = 'db' if np.percentile(values[valid], 1) < DECIBELS_BELOW else 'amplitude'
    grey = np.zeros(bands.shape, np.uint8)
    for index, (band, is_valid) in enumerate(zip(values, valid, strict=True)):
        is_valid = is_valid & (band > 0) if LOG_FACTORS[scale] else is_valid  # no echo, or less than the noise: black
        if not is_valid.any():
            continue
        decibels = _decibels(band[is_valid], scale)
        low, high = db_ranges[index] if db_ranges else _display_range(decibels, index)
        grey[index][is_valid] = np.rint(np.clip((decibels - low) / (high - low), 0, 1) * 255)
    return grey


def _decibels(values: np.ndarray, scale: str) -> np.ndarray:
    factor = LOG_FACTORS[scale]
    return factor * np.log10(values) if factor else values


def _display_range(decibels: np.ndarray, index: int) -> tuple[float, float]:
    lowest, highest = CALIBRATED_MEDIAN_DB
    if lowest <= np.median(decibels) <= highest:
        return DB_RANGES[index]
    low, high = np.percentile(decibels, STRETCH_PERCENTILES)
    return low, max(high, low + 1e-3)  # a constant band has no range of its own
