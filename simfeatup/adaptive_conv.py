"""The one operator of the package: a convolution with a kernel of its own at every output pixel.

Joint bilateral upsampling, CARAFE and SAPA all end in it. Nothing here unfolds the features. The plain loop over
the taps, in torch, is the definition; :mod:`simfeatup.cpu.conv` and :mod:`simfeatup.cuda.conv` compute the same,
forward and backward, and :mod:`simfeatup.backends` says which one runs.

Source: written from the equation; the original calls a CUDA extension of the same meaning (FeatUp, Fu et al.,
arXiv 2403.10516).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from simfeatup.backends import choose_backend, is_proved
from simfeatup.errors import UpsamplerError
from simfeatup.proof import BOTH, both_ways, pattern, sizes_to_prove

LOOP_SIZES = 37, (5, 6), (3, 3), (7, 9)
"""C, (h, w), (Ty, Tx), (H, W) in which compiled loops prove themselves: pixels in pairs and alone, a block of channels
partly filled. Triton kernels do so in the sizes at hand."""

Stages = Sequence[tuple[Tensor, Tensor | None, Tensor | None]]


def adaptive_conv(
    features: Tensor,
    kernels: Tensor,
    rows: Tensor | None = None,
    cols: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Weighs the Ty x Tx neighbours of every output pixel with that pixel's own kernel.

    ``out[b, c, y, x] = sum_ij kernels[b, i, j, y, x] * features[b, c, rows[y] + i, cols[x] + j]``

    Args:
        features: (B, C, h, w), already padded so that every tap lies inside.
        kernels: (B, Ty, Tx, H, W).
        rows: (H,) integers, the first feature row under each output row, 0 to h - Ty. None is 0, 1, 2, ..., the
            ordinary convolution, and needs h = H + Ty - 1.
        cols: (W,) integers, the same for the columns.
        backend: See :func:`simfeatup.backends.choose_backend`.

    Returns:
        (B, C, H, W), differentiable once with respect to features and kernels.

    Raises:
        UpsamplerError: The shapes do not belong together, a start lies outside, or the back end cannot be used.
    """
    rows, cols = _starts(features.shape, kernels, rows, cols)
    name = choose_backend(features, backend)
    with_gradients = torch.is_grad_enabled() and (features.requires_grad or kernels.requires_grad)
    if not _is_proved(name, BOTH if with_gradients else 'forward', features, kernels):
        return _reference(features, kernels, rows, cols)
    return _AdaptiveConv.apply(features, kernels, rows, cols, implementation(name))


def adaptive_conv_norm(
    features: Tensor,
    stages: Stages,
    num_maps: int,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The operator stage by stage, where of most channels only their length is wanted in the end; without gradients.

    Args:
        features: (B, C, h, w).
        stages: kernels (B, Ty, Tx, H, W), rows and cols of each, as for :func:`adaptive_conv`; at least one.
        num_maps: Channels to return as they are.
        backend: See :func:`simfeatup.backends.choose_backend`.

    Returns:
        (B, num_maps, H, W), the first channels, and (B, H, W), the sum of the squares of all others.

    Raises:
        UpsamplerError: As :func:`adaptive_conv`.
    """
    name, grid, proved = choose_backend(features, backend), features.shape[2:], True
    for kernels, _, _ in stages:
        proved = proved and _is_proved(name, 'length', features, kernels, grid)
        grid = kernels.shape[3:]
    return _norm(features, stages, num_maps, name) if proved else _reference_norm(features, stages, num_maps)


def implementation(name: str) -> ModuleType:
    """The module of a back end other than the reference."""
    return importlib.import_module(f'simfeatup.{name}.conv')


def _norm(features: Tensor, stages: Stages, num_maps: int, name: str) -> tuple[Tensor, Tensor]:
    dtype = _compute_dtype(features, *(kernels for kernels, _, _ in stages))
    used: list[tuple[Tensor, Tensor, Tensor]] = []
    shape: tuple[int, ...] = features.shape
    for kernels, rows, cols in stages:
        used.append((_rows_first(kernels, dtype), *_starts(shape, kernels, rows, cols)))
        shape = *shape[:2], *kernels.shape[3:]
    maps, squares = implementation(name).forward_norm(_channels_last(features, dtype), used, num_maps)
    return maps.to(features.dtype), squares.to(features.dtype)


def _reference_norm(features: Tensor, stages: Stages, num_maps: int) -> tuple[Tensor, Tensor]:
    for stage in stages:
        features = adaptive_conv(features, *stage, backend='reference')
    return features[:, :num_maps], features[:, num_maps:].square().sum(1)


def _reference(features: Tensor, kernels: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    taps_y, taps_x, height, width = kernels.shape[1:]
    is_dense = features.shape[2:] == (height + taps_y - 1, width + taps_x - 1)  # then the starts are 0, 1, 2, ...
    out = features.new_zeros(*features.shape[:2], height, width)
    for i in range(taps_y):
        strip = features.narrow(2, i, height) if is_dense else features.index_select(2, rows + i)
        for j in range(taps_x):
            shifted = strip.narrow(3, j, width) if is_dense else strip.index_select(3, cols + j)
            out.addcmul_(shifted, kernels[:, i, j].unsqueeze(1))
    return out


def _is_proved(name: str, operation: str, features: Tensor, kernels: Tensor, grid: Sequence[int] | None = None) -> bool:
    """Whether a back end has proved an operation for the dtype, and Triton for the sizes, at hand."""
    if name == 'reference':
        return False
    dtype, device = _compute_dtype(features, kernels), features.device
    sizes: tuple = LOOP_SIZES
    if name == 'cuda':
        grids = (sizes_to_prove(shape) for shape in (grid or features.shape[2:], kernels.shape[3:]))
        sizes = features.shape[1], next(grids), tuple(kernels.shape[1:3]), next(grids)
    case = f'adaptive_conv {operation}', dtype, *((device, *sizes) if name == 'cuda' else ())
    return is_proved(name, case, partial(_prove, name, operation, dtype, device, sizes))


def _prove(
    name: str, operation: str, dtype: torch.dtype, device: torch.device, sizes: tuple
) -> Iterator[tuple[Tensor, Tensor]]:
    """What a back end and the reference give for two images."""
    channels, grid, taps, size = sizes
    features = pattern(2, channels, *grid, dtype=dtype, device=device)
    kernels = pattern(2, *taps, *size, dtype=dtype, device=device)
    starts = [
        torch.arange(outputs, device=device) * (length - extent + 1) // outputs
        for length, extent, outputs in zip(grid, taps, size, strict=True)
    ]
    if operation == 'length':  # two stages, for all but the last have a way of their own to write their result
        arguments = features, [(kernels, *starts), (kernels[:, :1, :1], None, None)], channels // 2
        yield from zip(_norm(*arguments, name), _reference_norm(*arguments), strict=True)
        return
    inputs = features.requires_grad_(), kernels.requires_grad_()
    outputs = _AdaptiveConv.apply(*inputs, *starts, implementation(name)), _reference(*inputs, *starts)
    yield from both_ways(*outputs, inputs if operation == BOTH else ())


class _AdaptiveConv(torch.autograd.Function):
    """The operator by a compiled implementation; inside, channels last and the kernels of a row together."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, kernels: Tensor, rows: Tensor, cols: Tensor, module: ModuleType) -> Tensor:
        dtype = _compute_dtype(features, kernels)
        features_last, kernels_used = _channels_last(features, dtype), _rows_first(kernels, dtype)
        ctx.save_for_backward(features_last, kernels_used, rows, cols)
        ctx.module, ctx.dtypes = module, (features.dtype, kernels.dtype)
        shape = *features.shape[:2], *kernels.shape[3:]
        out = torch.empty(shape, dtype=dtype, device=features.device, memory_format=torch.channels_last)
        module.forward(features_last, kernels_used, rows, cols, out.permute(0, 2, 3, 1))
        return out.to(features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, kernels, rows, cols = ctx.saved_tensors
        grad = _channels_last(grad, features.dtype)
        grad_features = grad_kernels = None
        if ctx.needs_input_grad[0]:
            grad_features = ctx.module.backward_features(grad, kernels, features.shape, rows, cols)
            grad_features = grad_features.permute(0, 3, 1, 2).to(ctx.dtypes[0])
        if ctx.needs_input_grad[1]:
            grad_kernels = ctx.module.backward_kernels(grad, features, kernels.shape, rows, cols)
            grad_kernels = grad_kernels.permute(0, 2, 3, 1, 4).to(ctx.dtypes[1])
        return grad_features, grad_kernels, None, None, None


def _compute_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def _channels_last(features: Tensor, dtype: torch.dtype) -> Tensor:
    return features.detach().to(dtype).permute(0, 2, 3, 1).contiguous()


def _rows_first(kernels: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, Ty, Tx, H, W) -> (B, H, Ty, Tx, W): what a row of pixels needs lies together."""
    return kernels.detach().to(dtype).permute(0, 3, 1, 2, 4).contiguous()


def _starts(shape: Sequence[int], kernels: Tensor, rows: Tensor | None, cols: Tensor | None) -> tuple[Tensor, Tensor]:
    """Checks that all shapes belong together; starts of the ordinary convolution where there are none."""
    if len(shape) != 4 or kernels.ndim != 5 or shape[0] != kernels.shape[0]:
        raise UpsamplerError(
            f'adaptive_conv needs features (B, C, h, w) and kernels (B, Ty, Tx, H, W) of one batch size; got '
            f'{tuple(shape)} and {tuple(kernels.shape)}.'
        )
    first, second = (
        _axis_starts(starts, shape[2 + axis], kernels.shape[1 + axis], kernels.shape[3 + axis], kernels)
        for axis, starts in enumerate((rows, cols))
    )
    return first, second


def _axis_starts(starts: Tensor | None, length: int, taps: int, outputs: int, like: Tensor) -> Tensor:
    if starts is None:
        if length != outputs + taps - 1:
            raise UpsamplerError(
                f'adaptive_conv with {taps} taps for {outputs} outputs a side needs features padded to '
                f'{outputs + taps - 1}; got {length}.'
            )
        return torch.arange(outputs, device=like.device)
    if starts.shape != (outputs,):
        raise UpsamplerError(f'adaptive_conv needs one start for each of {outputs} outputs; got {tuple(starts.shape)}.')
    # A look at the values waits for the device; on CPUs a wrong one would read foreign memory.
    if starts.device.type == 'cpu' and outputs and not (starts.min() >= 0 and starts.max() + taps <= length):
        raise UpsamplerError(f'adaptive_conv needs starts from 0 to {length - taps}; got {starts.tolist()}.')
    return starts
