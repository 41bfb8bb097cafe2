"""One stretch for the whole scene: which numbers become black and white, decided once from a sample of it.

The rules are those of :mod:`segearth.io.optical` and :mod:`segearth.io.sar`; deciding them block
by block would make blocks differ in brightness, and their classes with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segearth.errors import ConfigError
from segearth.inference.sliding_window import Box
from segearth.io.optical import STRETCH_PERCENTILES, percentile_limits, scale_to_uint8
from segearth.io.raster import without_fill
from segearth.io.sar import (
    CALIBRATED_MEDIAN_DB,
    DB_RANGES,
    DECIBELS_BELOW,
    LOG_FACTORS,
    NODATA_AT_MOST,
    sar_to_rgb,
)
from segearth.maps.scene import Scene

WHOLE_PIXELS = 4096 * 4096  # a scene without overviews is read as a whole up to this size
SAMPLE_SIDE = 1024  # pixels of the reduced picture that percentiles are taken from
TILES_A_SIDE = 8  # of the sample of a larger scene without overviews
TILE_SIDE = 256  # pixels
SCARCE = 0.01  # share of the sample; with less data in it the whole scene is looked through
STRIP_PIXELS = 2**22  # read at once then
KEPT_PIXELS = 2**21  # at most, about


@dataclass(frozen=True)
class Stretch:
    """From a scene's numbers to the picture that the encoder expects.

    Attributes:
        sensor: 'optical' or 'sar'.
        limits: (black, white), one pair for all optical bands, or decibels of each radar band; None takes 8-bit
            numbers as they are.
        scale: Of radar numbers: 'db' or 'amplitude'.
    """

    sensor: str
    limits: tuple[tuple[float, float], ...] | None
    scale: str = 'db'

    def __call__(self, bands: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Applies the stretch.

        Args:
            bands: (B, h, w) of the scene's type.
            valid: (h, w) bool; what is not valid becomes black, but keeps its number in a picture of 8 bit.

        Returns:
            (h, w, 3) uint8, RGB.
        """
        if self.sensor == 'sar':
            if bands.dtype == np.uint8 and self.limits is not None:
                bands = scale_to_uint8(_numbers(bands, valid), self.limits)
            return sar_to_rgb(without_fill(bands, valid), self.scale, self.limits)
        if self.limits is not None or bands.dtype != np.uint8:
            bands = scale_to_uint8(_numbers(bands, valid), self.limits or (0, 255))
        picture = bands.transpose(1, 2, 0)
        return np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))


def decide_stretch(scene: Scene, setting: str = 'auto') -> Stretch:
    """Decides the stretch of a scene.

    Args:
        scene: Open scene.
        setting: 'percentile' (2nd to 98th of a sample), 'none' (numbers are 0 to 255 already), 'a,b' (black and white
            in the scene's unit; of radar in decibels); 'auto' is none for 8 bit and percentile for other optical
            scenes, the display ranges of sar_rgb.py for radar.

    Raises:
        ConfigError: Anything else.
    """
    sensor = scene.source.sensor
    explicit = _explicit_limits(setting)
    scale = 'db'
    sample = None
    if sensor == 'sar' and not scene.is_picture:
        sample = _sample(scene)
        scale = _sar_scale(sample)
        if setting == 'none':
            raise ConfigError(
                '--stretch none takes numbers as 0 to 255, which this radar scene is not in; leave it out'
            )
    if explicit is not None:
        return Stretch(sensor, (explicit,) * (len(scene.bands) if sensor == 'sar' else 1), scale)
    if setting == 'none' or (setting == 'auto' and scene.is_picture):
        return Stretch(sensor, None)
    sample = _sample(scene) if sample is None else sample
    if sensor == 'sar' and not scene.is_picture:
        fixed = DB_RANGES if setting == 'auto' else ()
        return Stretch(
            sensor,
            tuple(_decibel_range(band, scale, fixed[index : index + 1]) for index, band in enumerate(sample)),
            scale,
        )
    return Stretch(sensor, (percentile_limits(sample),) * (len(sample) if sensor == 'sar' else 1))


def _explicit_limits(setting: str) -> tuple[float, float] | None:
    if setting in ('auto', 'percentile', 'none'):
        return None
    try:
        low, high = (float(number) for number in setting.split(','))
    except ValueError:
        low = high = np.nan
    if not low < high:
        raise ConfigError(f'--stretch is {setting!r}; allowed: percentile, none, or black,white as in 0,3000')
    return low, high


def _sample(scene: Scene) -> np.ndarray:
    """(B, n) floats of the scene's valid pixels, NaN elsewhere; of complex numbers the magnitude."""
    height, width = scene.height, scene.width
    if scene.has_overviews or height * width <= WHOLE_PIXELS:
        step = (height * width) ** 0.5 / SAMPLE_SIDE
        size = (height, width) if step <= 1 else (max(round(height / step), 1), max(round(width / step), 1))
        parts = [scene.read((0, 0, height, width), size)]
    else:
        parts = [scene.read(box) for box in _tiles(height, width)]
    sample = np.concatenate([_numbers(*part).reshape(len(part[0]), -1) for part in parts], axis=1)
    found = sample[np.isfinite(sample)]
    is_scarce = found.size < SCARCE * sample.size or (found == found[0]).all()
    return _all_numbers(scene) if is_scarce and sample[0].size < height * width else sample


def _all_numbers(scene: Scene) -> np.ndarray:
    """(B, n) of the valid pixels, evenly thinned, of a scene whose sample missed them."""
    rows = max(STRIP_PIXELS // scene.width, 1)
    kept: list[np.ndarray] = []
    step = 1
    for top in range(0, scene.height, rows):
        bands, valid = scene.read((top, 0, min(top + rows, scene.height), scene.width))
        values = _numbers(bands, valid).reshape(len(bands), -1)
        kept.append(values[:, np.isfinite(values).any(axis=0)][:, ::step])
        if sum(part.shape[1] for part in kept) > KEPT_PIXELS:
            step *= 2
            kept = [np.concatenate(kept, axis=1)[:, ::2]]
    return np.concatenate(kept, axis=1)


def _tiles(height: int, width: int) -> list[Box]:
    tile = (min(TILE_SIDE, height), min(TILE_SIDE, width))
    tops, lefts = (
        sorted({round(place) for place in np.linspace(0, side - extent, TILES_A_SIDE)})
        for side, extent in zip((height, width), tile, strict=True)
    )
    return [(y, x, y + tile[0], x + tile[1]) for y in tops for x in lefts]


def _numbers(bands: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(B, h, w) floats, NaN where there is no data; of complex numbers the magnitude."""
    values = without_fill(bands.astype(np.float32) if bands.dtype == np.uint8 else bands, valid)
    return np.abs(values) if np.iscomplexobj(values) else values


def _sar_scale(sample: np.ndarray) -> str:
    values = sample[np.isfinite(sample) & (sample > NODATA_AT_MOST)]
    return 'db' if len(values) and np.percentile(values, 1) < DECIBELS_BELOW else 'amplitude'


def _decibel_range(band: np.ndarray, scale: str, fixed: tuple[tuple[float, float], ...]) -> tuple[float, float]:
    values = band[np.isfinite(band) & (band > NODATA_AT_MOST)]
    if LOG_FACTORS[scale]:
        values = LOG_FACTORS[scale] * np.log10(values[values > 0])
    if not len(values):
        return DB_RANGES[0]
    lowest, highest = CALIBRATED_MEDIAN_DB
    if fixed and lowest <= np.median(values) <= highest:
        return fixed[0]
    low, high = (float(value) for value in np.percentile(values, STRETCH_PERCENTILES))
    return low, max(high, low + 1e-3)  # a constant band has no range of its own
