"""Numbers to the picture that encoders expect: (H, W, 3) uint8 in the order red, green, blue.

One :class:`Stretch` holds for an image, and for all of a scene whose map is made block by block: blocks of their own
brightness would get classes of their own. 8-bit numbers are a picture already and stay as they are, so the benchmark's
sets reach the encoder exactly as in the original. No data (not finite, what the file declares, floats beyond 1e30)
becomes 0. All other numbers go from black to white along a straight line:

- Optical: between the 2nd and the 98th percentile, the same for all three channels so that colours keep their balance.
- Radar is brought to decibels first. Complex numbers are replaced by their magnitude, and numbers of at most -1000 (the
  usual -9999 and its kin) are no data. Numbers are taken for decibels if 1 % of them or more lie below -1, which
  amplitude and power never do (noise removal leaves tiny negatives only); otherwise for linear amplitude,
  dB = 20 log10(a). If the median lies in the range of calibrated backscatter, -40 to 10 dB, the line is fixed, so that
  one brightness means one backscatter in every tile: -25 to 0 dB for the first band (co-polarised, VV or HH), -32 to
  -7 dB for the second (cross-polarised, VH or HV, about 7 dB weaker). These are the ordinary display ranges of
  Sentinel-1; on the Sen1Floods11 sample they hold the 2nd to the 98th percentile of both bands. Otherwise (16-bit
  digital numbers) each band is stretched between its own percentiles.

One band is repeated in all channels. Two radar bands become (first, second, mean of both), which stays close to the
grey pictures that SAR encoders are trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from segearth.errors import ConfigError, DataError
from segearth.io.raster import ImageInput, name_of, read_raster

Limits = Sequence[tuple[float, float]]
"""(black, white): one pair for all bands or one for each; of radar in decibels."""

STRETCH_PERCENTILES = (2.0, 98.0)  # usual display stretch of satellite images
FILL_BEYOND = 1e30  # floats beyond are fill values, such as -3.4e38, whether the file says so or not
NODATA_AT_MOST = -1000.0  # no backscatter is as low, in decibels or linear
DECIBELS_BELOW = -1.0  # 1 % of the numbers below this: decibels
CALIBRATED_MEDIAN_DB = (-40.0, 10.0)
DB_RANGES = ((-25.0, 0.0), (-32.0, -7.0))  # co-polarised, cross-polarised
LOG_FACTORS = {'amplitude': 20.0, 'power': 10.0, 'db': None}

WHOLE_PIXELS = 4096 * 4096  # a scene without overviews is read as a whole up to this size
SAMPLE_SIDE = 1024  # pixels of the reduced picture that percentiles are taken from
TILES_A_SIDE = 8  # of the sample of a larger scene without overviews
TILE_SIDE = 256  # pixels
SCARCE = 0.01  # share of the sample; with less data in it the whole scene is looked through
STRIP_PIXELS = 2**22  # read at once then
KEPT_PIXELS = 2**21  # at most, about


@dataclass(frozen=True)
class Stretch:
    """From numbers to a picture."""

    sensor: str  # 'optical' or 'sar'
    limits: tuple[tuple[float, float], ...] | None  # black and white; None takes numbers as 0 to 255
    scale: str = 'db'  # what radar numbers are; or 'amplitude', 'power'

    def __call__(self, bands: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
        """Makes (H, W, 3) uint8 of one or three bands (B, H, W) of any type, or two of radar.

        ``valid``, (H, W) bool, says where there is data; a picture of 8 bit keeps its numbers where there is none.
        """
        if self.limits is not None or bands.dtype != np.uint8:
            is_radar = self.sensor == 'sar' and bands.dtype != np.uint8
            values = _decibels(_backscatter(bands, valid), self.scale) if is_radar else _numbers(bands, valid)
            bands = _scale_to_uint8(values, self.limits or ((0, 255),))
        if len(bands) == 2:
            mean = np.rint(bands.mean(axis=0, dtype=np.float32)).astype(np.uint8)
            bands = np.concatenate([bands, mean[None]])
        picture = bands.transpose(1, 2, 0)
        return np.broadcast_to(picture, (*picture.shape[:2], 3)).copy()


def read_optical(image: ImageInput, bands: tuple[int, ...] | None = None) -> np.ndarray:
    """Reads a file, an image of Pillow or an array (H, W), (H, W, B) as an RGB picture, (H, W, 3) uint8.

    The bands are the numbers of red, green and blue, from 1 (Sentinel-2: 4, 3, 2); None takes an image of one band as
    grey, of three as RGB, and the first three of four (RGB and near infrared). A DataError or MissingFileError says
    that the image cannot be read, or that its bands need to be chosen.
    """
    raster = read_raster(image, bands=bands)
    selected = raster.bands[:3] if len(raster.bands) == 4 and bands is None else raster.bands
    if len(selected) not in (1, 3):
        raise DataError(
            f'{name_of(image)} has {len(raster.bands)} bands: say which are red, green and blue, as in '
            "dict(type='LoadOpticalImage', bands=(4, 3, 2)) or Segmenter(bands=(4, 3, 2)) for Sentinel-2; for radar: "
            'LoadSARImage, Segmenter(sensor="sar")'
        )
    if selected.dtype.kind == 'c':
        raise DataError(f'{name_of(image)} holds complex numbers: a radar image; give sensor="sar", or LoadSARImage')
    is_picture = selected.dtype == np.uint8
    limits = None if is_picture else (_percentile_limits(_numbers(selected, raster.valid)),)
    return Stretch('optical', limits)(selected, raster.valid)


def read_sar(
    image: ImageInput, bands: tuple[int, ...] | None = None, scale: str = 'auto', db_ranges: Limits | None = None
) -> np.ndarray:
    """Reads a radar image as a picture, (H, W, 3) uint8; images and errors are those of :func:`read_optical`.

    The bands are the numbers of one or two, from 1, None for all; ``scale`` and ``db_ranges`` are those of
    :func:`sar_to_rgb`.
    """
    raster = read_raster(image, bands=bands)
    try:
        return sar_to_rgb(raster.bands, scale, db_ranges, raster.valid)
    except DataError as error:
        raise DataError(f'{name_of(image)}: {error}') from error


READERS = {'optical': read_optical, 'sar': read_sar}
"""Sensor -> reader of images: path or object, bands -> (H, W, 3) uint8."""


def sar_to_rgb(
    bands: np.ndarray, scale: str = 'auto', db_ranges: Limits | None = None, valid: np.ndarray | None = None
) -> np.ndarray:
    """Turns backscatter into a picture (H, W, 3) uint8 by the rule of this module.

    The bands are (H, W), (1, H, W) or (2, H, W) of any type, or (3, H, W) of 8 bit; a DataError refuses others. The
    scale is 'auto', or what the numbers are: 'db', 'amplitude' or 'power'; a ConfigError refuses others. The ranges are
    (lowest, highest) decibels of each band, by the rule if None; ``valid``, (H, W) bool, says where there is data.
    """
    if scale != 'auto' and scale not in LOG_FACTORS:
        raise ConfigError(f'unknown scale {scale!r} of a SAR image; known: auto, {", ".join(LOG_FACTORS)}')
    bands = bands[None] if bands.ndim == 2 else bands
    is_picture = bands.dtype == np.uint8
    if len(bands) not in (1, 2) and not (len(bands) == 3 and is_picture):
        raise DataError(
            f'{len(bands)} bands of {bands.dtype}: a SAR image has one or two; choose them, as in '
            "dict(type='LoadSARImage', bands=(1, 2)), co-polarised first"
        )
    stretch = Stretch('sar', None) if is_picture else _radar_stretch(_backscatter(bands, valid), scale, db_ranges)
    return stretch(bands, valid)


def stretch_to_uint8(bands: np.ndarray) -> np.ndarray:
    """Brings numbers (B, H, W) of any type into [0, 255] by the rule for optical images."""
    return bands if bands.dtype == np.uint8 else _scale_to_uint8(bands, (_percentile_limits(bands),))


def decide_stretch(scene: Any, setting: str = 'auto') -> Stretch:
    """Decides the stretch of an open :class:`segearth.maps.scene.Scene` from a sample of it.

    The setting is 'percentile' (2nd to 98th), 'none' (numbers are 0 to 255 already), 'a,b' (black and white in the
    scene's unit; of radar in decibels) or 'auto', the rule of this module; all else is a ConfigError.
    """
    sensor = scene.source.sensor
    explicit = _explicit_limits(setting)
    if sensor == 'sar' and not scene.is_picture:
        if setting == 'none':
            raise ConfigError('--stretch none takes numbers as 0 to 255, which this radar scene has not; leave it out')
        values = _backscatter(_sample(scene))
        return _radar_stretch(values, limits=explicit and (explicit,) * len(values), is_fixed=setting == 'auto')
    if explicit is None and (setting == 'none' or (setting == 'auto' and scene.is_picture)):
        return Stretch(sensor, None)
    return Stretch(sensor, (explicit or _percentile_limits(_sample(scene)),))


def fitted_size(sides: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    """(height, width) of an image of such sides fitted into a size, whose larger number holds for its longer side.

    The rule is mmcv's, but that no side becomes shorter than a pixel.
    """
    scale = min(max(size) / max(sides), min(size) / min(sides))
    height, width = (max(int(side * scale + 0.5), 1) for side in sides)
    return height, width


def fit_image(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Fits an image (H, W, C) into a size (:func:`fitted_size`), bilinearly."""
    height, width = fitted_size(image.shape[:2], size)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def _explicit_limits(setting: str) -> tuple[float, float] | None:
    if setting in ('auto', 'percentile', 'none'):
        return None
    try:
        low, high = (float(number) for number in setting.split(','))
    except (ValueError, AttributeError):  # AttributeError: it is no text
        low = high = np.nan
    if not low < high:
        raise ConfigError(f'--stretch is {setting!r}; allowed: percentile, none, or black,white as in 0,3000')
    return low, high


def _percentile_limits(values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest number where the percentiles are equal, as for a small object on an empty ground."""
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, STRETCH_PERCENTILES))
    return (low, high) if low < high else (float(values.min()), float(values.max()))


def _radar_stretch(
    values: np.ndarray, scale: str = 'auto', limits: Limits | None = None, is_fixed: bool = True
) -> Stretch:
    """The stretch of backscatter (B, ...); without ``is_fixed`` by percentiles, calibrated or not."""
    found = values[np.isfinite(values)]
    if scale == 'auto':
        scale = 'db' if found.size and np.percentile(found, 1) < DECIBELS_BELOW else 'amplitude'
    if limits is None:
        bands = zip(_decibels(values, scale), DB_RANGES, strict=False)
        limits = tuple(_decibel_range(band, fixed, is_fixed) for band, fixed in bands)
    return Stretch('sar', tuple(limits[: len(values)]), scale)


def _decibel_range(band: np.ndarray, fixed: tuple[float, float], is_fixed: bool) -> tuple[float, float]:
    found = band[np.isfinite(band)]
    lowest, highest = CALIBRATED_MEDIAN_DB
    if not found.size or (is_fixed and lowest <= np.median(found) <= highest):
        return fixed
    low, high = (float(value) for value in np.percentile(found, STRETCH_PERCENTILES))
    return low, max(high, low + 1e-3)  # a constant band has no range of its own


def _numbers(bands: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Floats in which neighbouring numbers stay apart, NaN where there is no data; of complex numbers the magnitude."""
    values = bands.astype(np.result_type(bands.dtype, np.float32))
    with np.errstate(invalid='ignore', over='ignore'):
        magnitude = np.abs(values)
        is_number = magnitude < FILL_BEYOND
    values = magnitude if np.iscomplexobj(values) else values
    return np.where(is_number if valid is None else is_number & valid, values, values.dtype.type(np.nan))


def _backscatter(bands: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    values = _numbers(bands, valid).astype(np.float32)
    return np.where(values > NODATA_AT_MOST, values, np.float32(np.nan))


def _decibels(values: np.ndarray, scale: str) -> np.ndarray:
    """No echo, or less than the noise, is NaN."""
    factor = LOG_FACTORS[scale]
    return values if factor is None else factor * np.log10(np.where(values > 0, values, np.float32(np.nan)))


def _scale_to_uint8(bands: np.ndarray, limits: Limits) -> np.ndarray:
    """Linear between black and white; what is not finite becomes 0."""
    values = bands.astype(np.result_type(bands.dtype, np.float32))
    low, high = np.broadcast_to(limits, (len(bands), 2)).T[:, :, None, None]
    span = np.maximum(high - low, np.finfo(np.float32).tiny)
    scaled = (values - low.astype(values.dtype)) / span.astype(values.dtype)
    return np.rint(np.clip(np.where(np.isfinite(values), scaled, 0), 0, 1) * 255).astype(np.uint8)


def _sample(scene: Any) -> np.ndarray:
    """(B, n) floats of the scene's valid pixels, NaN elsewhere."""
    height, width = scene.height, scene.width
    if scene.has_overviews or height * width <= WHOLE_PIXELS:
        step = (height * width) ** 0.5 / SAMPLE_SIDE
        size = (height, width) if step <= 1 else (max(round(height / step), 1), max(round(width / step), 1))
        parts = [scene.read((0, 0, height, width), size)]
    else:
        tile = (min(TILE_SIDE, height), min(TILE_SIDE, width))
        tops, lefts = (
            sorted({round(place) for place in np.linspace(0, side - extent, TILES_A_SIDE)})
            for side, extent in zip((height, width), tile, strict=True)
        )
        parts = [scene.read((y, x, y + tile[0], x + tile[1])) for y in tops for x in lefts]
    sample = np.concatenate([_numbers(*part).reshape(len(part[0]), -1) for part in parts], axis=1)
    found = sample[np.isfinite(sample)]
    is_scarce = found.size < SCARCE * sample.size or (found == found[0]).all()
    return _all_numbers(scene) if is_scarce and sample[0].size < height * width else sample


def _all_numbers(scene: Any) -> np.ndarray:
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
