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
    surplus = sqrt(height * width / limits.pixels)  # pixels of the image, a side, in one that there is room for
    size = pixel_size(dataset.crs, dataset.transform, dataset.shape)
    room = f'{limits.pixels / 1e6:g} million'
    why = f'The image has {height} x {width} pixels and this page maps {room}: the map is reduced'
    instead = 'segearth predict maps it in full.'
    if size is None:
        if surplus <= 1:
            return Fit(None)
        step = _rounded_up(surplus)
        return Fit(
            f'{step:g}{PIXELS}', f'{why}, each of its pixels is {step:g} x {step:g} of the image. {instead}'
        )  # fmt: skip
    side = sqrt(size[0] * size[1])
    encoders = nearest_known(dataset, name, known[0], inf) if known else None
    if side * surplus > (encoders or side):
        metres = _rounded_up(side * surplus)
        return Fit(metres, f'{why}, to {metres:g} m a pixel instead of {encoders or side:.3g} m. {instead}')
    if encoders is not None:
        note = f'Mapped at {encoders:g} m a pixel, the finest that the encoder knows; the image has {side:.3g} m.'
        return Fit(encoders, note)
    return Fit(None)


def _rounded_up(value: float) -> float:
    unit = 10.0 ** (floor(log10(value)) + 1 - DIGITS)
    return float(f'{ceil(value / unit) * unit:.{DIGITS}g}')
