"""The resolution at which the page maps an upload: the encoder's, or a coarser one that the page has room for.

What fits stays as it is. Larger images are reduced until they fit, in metres where they lie on the ground and in pixels
elsewhere, and a note says so.
"""

from dataclasses import dataclass
from math import ceil, floor, inf, log10, sqrt

import rasterio

from segearth.app.uploads import Limits
from segearth.maps.areas import pixel_size
from segearth.maps.scene import PIXELS, nearest_known

DIGITS = 3  # of a resolution that is no round number by itself


@dataclass(frozen=True)
class Fit:
    """The ``resolution`` of a scene as SceneSource has it, and a note for whoever sees the map, or nothing."""

    resolution: float | str | None
    note: str = ''


def fit_upload(
    dataset: rasterio.DatasetReader, name: str, known: tuple[float, float] | None, limits: Limits
) -> Fit:
    """How an opened upload is mapped by an encoder that knows resolutions from fine to coarse, in metres a pixel.

    Coarse images stay coarse: brought to what the encoder knows they would have many pixels more.
    """
    height, width = dataset.shape
    size = pixel_size(dataset.crs, dataset.transform, dataset.shape)
    rows, columns = size or (1.0, 1.0)  # in metres, or in pixels of the image
    extent = height * rows, width * columns
    own = sqrt(rows * columns)
    encoders = nearest_known(dataset, name, known[0], inf) if known and size else None
    wanted = round(extent[0] / encoders) * round(extent[1] / encoders) if encoders else height * width
    if wanted <= limits.pixels:
        if encoders is None:
            return Fit(None)
        note = f'Mapped at {encoders:g} m a pixel, the finest that the encoder knows; the image has {own:.3g} m.'
        return Fit(encoders, note)
    side = _rounded_up(_side(*extent, limits.pixels))
    how = f'each of its pixels is {side:g} x {side:g} of the image'
    if size:
        how = f'to {side:g} m a pixel instead of {encoders or own:.3g} m'
    return Fit(
        side if size else f'{side:g}{PIXELS}',
        f'The image has {height} x {width} pixels and this page maps {limits.pixels / 1e6:g} million: the map is '
        f'reduced, {how}. segearth predict maps it in full.',
    )


def _side(height: float, width: float, pixels: int) -> float:
    """Side of a pixel of which so many fill a height and a width, each rounded by half a pixel at most."""
    # (height / side + 1/2) (width / side + 1/2) = pixels, solved for 1 / side
    area, middle = height * width, (height + width) / 2
    return 2 * area / (sqrt(middle**2 + 4 * area * (pixels - 0.25)) - middle)


def _rounded_up(value: float) -> float:
    unit = 10.0 ** (floor(log10(value)) + 1 - DIGITS)
    return float(f'{ceil(value / unit) * unit:.{DIGITS}g}')
