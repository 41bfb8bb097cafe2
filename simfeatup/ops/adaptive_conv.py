"""A convolution with a kernel of its own at every output pixel: joint bilateral upsampling, CARAFE and SAPA end in it.

Source: written from the equation; the original calls a CUDA extension of the same meaning (FeatUp, arXiv 2403.10516).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from simfeatup.errors import UpsamplerError
from simfeatup.ops.operator import Operator
from simfeatup.proof import pattern


def adaptive_conv(features: Tensor, kernels: Tensor, rows: Tensor | None = None, cols: Tensor | None = None) -> Tensor:
    """Weighs the Ty x Tx neighbours of every output pixel with that pixel's own kernel.

    ``out[b, c, y, x] = sum_ij kernels[b, i, j, y, x] * features[b, c, rows[y] + i, cols[x] + j]``

    Features (B, C, h, w) by kernels (B, Ty, Tx, H, W) -> (B, C, H, W), differentiable once with respect to both.
    Rows (H,) and cols (W,) are the first feature row and column under each output row and column, 0 to h - Ty and
    w - Tx; None is 0, 1, 2, ..., the ordinary convolution of features padded to h = H + Ty - 1.
    """
    return _CONV(features, kernels, *_starts(features.shape, kernels, rows, cols)).permute(0, 3, 1, 2)


def adaptive_conv_norm(
    features: Tensor, stages: Sequence[tuple[Tensor, Tensor | None, Tensor | None]], num_maps: int
) -> tuple[Tensor, Tensor]:
    """The operator stage by stage, where of most channels only their length is wanted in the end; without gradients.

    Features (B, C, h, w) and (kernels, rows, cols) of at least one stage, as for :func:`adaptive_conv`, -> the first
    channels (B, num_maps, H, W), and (B, H, W), the sum of the squares of all others.
    """
    shape: tuple[int, ...] = features.shape
    used = []
    for kernels, rows, cols in stages:
        used.append((kernels, *_starts(shape, kernels, rows, cols)))
        shape = *shape[:2], *kernels.shape[3:]
    return _NORM(features, *(list(part) for part in zip(*used, strict=True)), num_maps)


def _plain(features: Tensor, kernels: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """(B, H, W, C)."""
    taps_y, taps_x, height, width = kernels.shape[1:]
    is_dense = features.shape[2:] == (height + taps_y - 1, width + taps_x - 1)  # then the starts are 0, 1, 2, ...
    out = torch.zeros_like(features[:, :, :1, :1]).expand(-1, -1, height, width).clone()
    for i in range(taps_y):
        strip = features.narrow(2, i, height) if is_dense else features.index_select(2, rows + i)
        for j in range(taps_x):
            shifted = strip.narrow(3, j, width) if is_dense else strip.index_select(3, cols + j)
            out = out.addcmul_(shifted, kernels[:, i, j].unsqueeze(1))
    return out.permute(0, 2, 3, 1).contiguous()


def _plain_norm(
    features: Tensor, kernels: list[Tensor], rows: list[Tensor], cols: list[Tensor], num_maps: int
) -> tuple[Tensor, Tensor]:
    for stage in zip(kernels, rows, cols, strict=True):
        features = _plain(features, *stage).permute(0, 3, 1, 2)
    return features[:, :num_maps].contiguous(), features[:, num_maps:].square().sum(1).contiguous()


def _example(sizes: tuple, dtype: torch.dtype, device: torch.device) -> tuple:
    """Two images; sizes are C, h, w, Ty, Tx, H, W."""
    channels, *lengths = sizes
    grid, taps, size = lengths[:2], lengths[2:4], lengths[4:]
    features = pattern(2, channels, *grid, dtype=dtype, device=device)
    kernels = pattern(2, *taps, *size, dtype=dtype, device=device)
    starts = [
        torch.arange(outputs, device=device) * (length - extent + 1) // outputs
        for length, extent, outputs in zip(grid, taps, size, strict=True)
    ]
    return features, kernels, *starts


def _example_norm(sizes: tuple, dtype: torch.dtype, device: torch.device) -> tuple:
    """Two stages, for all but the last have a way of their own to write their result."""
    features, kernels, rows, cols = _example(sizes, dtype, device)
    second = [torch.arange(side, device=device) for side in sizes[-2:]]
    return features, [kernels, kernels[:, :1, :1]], [rows, second[0]], [cols, second[1]], sizes[0] // 2


def _check(features: Tensor, kernels: Tensor, rows: Tensor, cols: Tensor) -> None:
    for starts, length, taps in zip((rows, cols), features.shape[2:], kernels.shape[1:3], strict=True):
        # A look at the values waits for the device; on CPUs a wrong one would read foreign memory.
        if starts.device.type != 'cpu' or not len(starts):
            continue
        least, most = starts.aminmax()
        if least < 0 or most + taps > length:
            raise UpsamplerError(f'adaptive_conv needs starts from 0 to {length - taps}; got {starts.tolist()}.')


def _check_norm(
    features: Tensor, kernels: list[Tensor], rows: list[Tensor], cols: list[Tensor], num_maps: int
) -> None:
    for stage in zip(kernels, rows, cols, strict=True):
        _check(features, *stage)
        features = stage[0][:, 0]  # of the size of the stage's result


_SIZES = 37, 5, 6, 3, 3, 7, 9  # pixels in pairs and alone, a block of channels partly filled
_CONV = Operator(
    'adaptive_conv(Tensor features, Tensor kernels, Tensor rows, Tensor cols) -> Tensor',
    _plain, {name: f'simfeatup.ops.{name}.conv:adaptive_conv' for name in ('cpu', 'cuda')}, _example, _SIZES,
    lambda features, kernels, *_: (*features.shape[1:], *kernels.shape[1:]), check=_check,
)  # fmt: skip
_CONV.differentiate(2, {name: f'simfeatup.ops.{name}.conv:adaptive_conv_backward' for name in ('cpu', 'cuda')})
_NORM = Operator(
    'adaptive_conv_norm(Tensor features, Tensor[] kernels, Tensor[] rows, Tensor[] cols, int num_maps) -> '
    '(Tensor, Tensor)',
    _plain_norm, {name: f'simfeatup.ops.{name}.conv:adaptive_conv_norm' for name in ('cpu', 'cuda')}, _example_norm,
    _SIZES, lambda features, kernels, *_: (*features.shape[1:], *kernels[-1].shape[1:]), check=_check_norm,
)  # fmt: skip


def _starts(shape: Sequence[int], kernels: Tensor, *starts: Tensor | None) -> list[Tensor]:
    """Checks that all shapes belong together; starts of the ordinary convolution where there are none."""
    if len(shape) != 4 or kernels.ndim != 5 or shape[0] != kernels.shape[0]:
        raise UpsamplerError(
            f'adaptive_conv needs features (B, C, h, w) and kernels (B, Ty, Tx, H, W) of one batch size; got '
            f'{tuple(shape)} and {tuple(kernels.shape)}.'
        )
    for given, length, taps, outputs in zip(starts, shape[2:], kernels.shape[1:3], kernels.shape[3:], strict=True):
        if given is None and length != outputs + taps - 1:
            raise UpsamplerError(
                f'adaptive_conv with {taps} taps for {outputs} outputs a side needs features padded to '
                f'{outputs + taps - 1}; got {length}.'
            )
        if given is not None and given.shape != (outputs,):
            raise UpsamplerError(
                f'adaptive_conv needs one start for each of {outputs} outputs; got {tuple(given.shape)}.'
            )
    return [
        torch.arange(outputs, device=kernels.device) if given is None else given
        for given, outputs in zip(starts, kernels.shape[3:], strict=True)
    ]
