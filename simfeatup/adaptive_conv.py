"""The one operator of the package: a convolution with a kernel of its own at every output pixel.

Joint bilateral upsampling, CARAFE and SAPA all end in it. Nothing here unfolds the features: each of the T x T
taps is one multiply-add of a shifted view of all channels.

Source: written from the equation; the original calls a CUDA extension of the same meaning (FeatUp, Fu et al.,
arXiv 2403.10516).
"""

from __future__ import annotations

import torch
from torch import Tensor

from simfeatup.errors import UpsamplerError


def adaptive_conv(features: Tensor, kernels: Tensor, rows: Tensor | None = None, cols: Tensor | None = None) -> Tensor:
    """Weighs the T x T neighbours of every output pixel with that pixel's own kernel.

    ``out[b, c, y, x] = sum_ij kernels[b, i * T + j, y, x] * features[b, c, rows[y] + i, cols[x] + j]``

    Args:
        features: (B, C, h, w), already padded so that every tap lies inside.
        kernels: (B, T * T, H, W), taps in row-major order.
        rows: (H,) integers, the first of the T feature rows of each output row, 0 to h - T. None is 0, 1, 2, ...,
            the ordinary convolution, and needs h = H + T - 1.
        cols: (W,) integers, the same for the columns.

    Returns:
        (B, C, H, W).

    Raises:
        UpsamplerError: The shapes do not belong together.
    """
    taps = _check_shapes(features, kernels, rows, cols)
    batch, channels = features.shape[:2]
    height, width = kernels.shape[2:]
    out = features.new_zeros(batch, channels, height, width)
    for i in range(taps):
        strip = features.narrow(2, i, height) if rows is None else features.index_select(2, rows + i)
        for j in range(taps):
            shifted = strip.narrow(3, j, width) if cols is None else strip.index_select(3, cols + j)
            out.addcmul_(shifted, kernels[:, i * taps + j].unsqueeze(1))
    return out


def _check_shapes(features: Tensor, kernels: Tensor, rows: Tensor | None, cols: Tensor | None) -> int:
    """Returns T, the taps a side."""
    if features.ndim != 4 or kernels.ndim != 4 or features.shape[0] != kernels.shape[0]:
        raise UpsamplerError(
            f'adaptive_conv needs features (B, C, h, w) and kernels (B, T*T, H, W) of one batch size; got '
            f'{tuple(features.shape)} and {tuple(kernels.shape)}.'
        )
    taps = round(kernels.shape[1] ** 0.5)
    if taps * taps != kernels.shape[1]:
        raise UpsamplerError(f'adaptive_conv needs T*T taps a pixel, a square number; got {kernels.shape[1]}.')
    for starts, have, need, axis in zip((rows, cols), features.shape[2:], kernels.shape[2:], 'hw', strict=True):
        if starts is None and have != need + taps - 1:
            raise UpsamplerError(
                f'adaptive_conv with kernels of {taps} x {taps} for an output of {axis} = {need} needs features padded '
                f'to {axis} = {need + taps - 1}; got {have}.'
            )
        if starts is not None and starts.shape != (need,):
            raise UpsamplerError(
                f'adaptive_conv needs one start for each of {need} outputs; got {tuple(starts.shape)}.'
            )
    return taps


def reflect_pad(maps: Tensor, radius: int) -> Tensor:
    """Pads the two last axes by reflection without repeating the edge, as often as a small map needs it.

    Args:
        maps: (B, C, H, W) of any size.
        radius: Pixels added on each side.

    Returns:
        (B, C, H + 2 radius, W + 2 radius). Where both sides exceed the radius it is ``F.pad(mode='reflect')``.
    """
    if radius < min(maps.shape[2:]):
        return torch.nn.functional.pad(maps, [radius] * 4, mode='reflect')
    height, width = (reflect_indices(n, radius, maps.device) for n in maps.shape[2:])
    return maps.index_select(2, height).index_select(3, width)


def reflect_indices(length: int, radius: int, device: torch.device | None = None) -> Tensor:
    """Indices (length + 2 radius,) into an axis of ``length`` entries that is mirrored at its first and last entry."""
    positions = torch.arange(-radius, length + radius, device=device)
    period = max(2 * (length - 1), 1)
    positions = positions.remainder(period)
    return torch.minimum(positions, period - positions) if length > 1 else torch.zeros_like(positions)
