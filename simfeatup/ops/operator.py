"""The boundary of the operators: what each one computes, what computes the same faster, and which of them runs.

``reference`` is plain torch and works everywhere; ``cpu`` are loops compiled by numba, ``cuda`` Triton kernels. The
device decides; ``SIMFEATUP_BACKEND=reference`` in the environment forces one, and so does :func:`use_backend`. What is
fast runs after a proof only (:mod:`simfeatup.proof`), forced or not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial, update_wrapper
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from simfeatup.errors import UpsamplerError
from simfeatup.proof import TOLERANCE, Case, FastPath, pattern

BACKENDS = {'reference': 'torch', 'cpu': 'numba', 'cuda': 'triton'}
"""Name -> the package it needs."""
PATHS = {
    'cpu': FastPath('numba', 'SIMFEATUP_NUMBA', 'plain torch, slower'),
    'cuda': FastPath('Triton', 'SIMFEATUP_TRITON', 'plain torch, slower'),
    'sparse': FastPath('sparse products', 'SIMFEATUP_SPARSE', 'dense products, slower'),
}
VARIABLE = 'SIMFEATUP_BACKEND'
LARGEST_SIDE = 96  # pixels of an image that Triton kernels prove themselves on, a multiple of 16

_forced: ContextVar[str | None] = ContextVar('forced_backend', default=None)


@contextmanager
def use_backend(backend: str | None) -> Iterator[None]:
    """Forces a back end within a ``with`` block, in this thread; None leaves the choice as it is."""
    token = _forced.set(backend or _forced.get())
    try:
        yield
    finally:
        _forced.reset(token)


def choose_backend(device: torch.device) -> str:
    """Name of the implementation that is to run for tensors on a device, as far as an operator has it.

    Raises:
        UpsamplerError: A forced back end that is unknown, not installed, or not for the device.
    """
    name = _forced.get() or os.environ.get(VARIABLE) or 'auto'
    if name == 'auto':
        return device.type
    if name not in BACKENDS:
        raise UpsamplerError(f'There is no back end {name!r} ({VARIABLE}). Known: auto, {", ".join(BACKENDS)}.')
    if find_spec(BACKENDS[name]) is None:
        raise UpsamplerError(f'The back end {name!r} needs {BACKENDS[name]}: pip install {BACKENDS[name]}.')
    is_interpreted = name == 'cuda' and os.environ.get('TRITON_INTERPRET') == '1'  # Triton's, for tests on CPUs
    if name not in ('reference', device.type) and not is_interpreted:
        raise UpsamplerError(f'The back end {name!r} is not for tensors on {device}; leave the choice to auto.')
    return name


class Operator:
    """An operator of tensors, registered with torch.library as ``simfeatup::NAME``.

    Args:
        schema: ``NAME(Tensor ..., ...) -> ...`` as torch.library writes it. The first tensor gives device and dtype.
        plain: What it computes, in plain torch; results are contiguous.
        fast: Back end -> ``module:function`` that computes the same, for tensors of one dtype, float32 or float64.
        example: (sizes, dtype, device) -> arguments on which ``fast`` proves itself.
        sizes: Sizes of the example for compiled loops. Triton kernels prove themselves in the sizes at hand.
        sizes_of: Arguments -> their sizes; for operators with Triton kernels.
        paths: Back end -> the fast path it belongs to.
        check: Refuses arguments by their values, before anything runs.
    """

    def __init__(
        self,
        schema: str,
        plain: Callable,
        fast: Mapping[str, str],
        example: Callable[..., tuple],
        sizes: tuple = (),
        sizes_of: Callable[..., tuple] | None = None,
        paths: Mapping[str, FastPath] = PATHS,
        check: Callable[..., None] | None = None,
    ) -> None:
        self.name, _, self._signature = schema.partition('(')
        self.plain, self.fast, self.example = plain, fast, example
        self.sizes, self.sizes_of, self.paths, self.check = sizes, sizes_of, paths, check
        self._registered = torch.library.custom_op(
            f'simfeatup::{self.name}', self._run, mutates_args=(), schema=f'({self._signature}'
        )
        self._registered.register_fake(plain)
        update_wrapper(self, plain)

    def __call__(self, *arguments: Any) -> Any:
        """Computes the operator."""
        return self._registered(*arguments)

    def differentiate(self, count: int, fast: Mapping[str, str]) -> Operator:
        """Gives the operator gradients, by a second one, ``NAME_backward``.

        Args:
            count: The first so many arguments have gradients; the operator has one result.
            fast: As for the operator: (gradient of the result, the operator's arguments, whether the gradient of each
                of the first is wanted) -> these gradients.

        Returns:
            The second operator.
        """

        def plain(grad: Tensor, *arguments: Any) -> list[Tensor]:
            *inputs, needs = arguments
            wanted = [index for index, needed in enumerate(needs) if needed]

            def compute(*variables: Tensor) -> Tensor:
                given = dict(zip(wanted, variables, strict=True))
                return self.plain(*(given.get(index, value) for index, value in enumerate(inputs)))

            derivative = torch.func.vjp(compute, *(inputs[index] for index in wanted))[1]
            grads = dict(zip(wanted, derivative(grad), strict=True))
            return [grads[index].contiguous() if index in grads else grad.new_empty(0) for index in range(count)]

        def example(*settings: Any) -> tuple:
            arguments = self.example(*settings)
            result = self.plain(*arguments)
            return pattern(*result.shape, dtype=result.dtype, device=result.device), *arguments, [True] * count

        sizes_of = self.sizes_of
        backward = Operator(
            f'{self.name}_backward(Tensor grad, {self._signature.rpartition(")")[0]}, bool[] needs) -> Tensor[]',
            plain, fast, example, self.sizes,
            sizes_of and (lambda grad, *arguments: sizes_of(*arguments[:-1])),
            self.paths,
        )  # fmt: skip

        def save(ctx: Any, inputs: tuple, output: Tensor) -> None:
            ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))

        def gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
            needs = list(ctx.needs_input_grad[:count])
            grads = backward(grad, *ctx.saved_tensors, needs)
            rest = [None] * (len(ctx.needs_input_grad) - count)
            return *(value if needed else None for value, needed in zip(grads, needs, strict=True)), *rest

        self._registered.register_autograd(gradients, setup_context=save)
        return backward

    def _run(self, *arguments: Any) -> Any:
        first = arguments[0]
        device = first.device
        if self.check:
            self.check(*arguments)
        with _without_autocast(device.type):
            name = choose_backend(device)
            if name not in self.fast:
                return self.plain(*arguments)
            dtypes = {tensor.dtype for tensor in _tensors(arguments)}
            dtype = torch.float64 if torch.float64 in dtypes else torch.float32
            case: Case = (self.name, dtype)
            sizes = self.sizes
            if name == 'cuda' and self.sizes_of:
                sizes = tuple(map(_size_to_prove, self.sizes_of(*arguments)))
                case = *case, device, *sizes
            proof = partial(self._prove, name, sizes, dtype, device)
            fast, plain = (partial(run, *arguments) for run in (partial(self._fast, name, dtype), self.plain))
            return self.paths[name].run(case, proof, fast, plain, TOLERANCE)

    def _fast(self, name: str, dtype: torch.dtype, *arguments: Any) -> Any:
        module, _, function = self.fast[name].partition(':')
        first = arguments[0]
        with torch.cuda.device_of(first) if first.is_cuda else nullcontext():  # Triton would take the current one
            results = getattr(import_module(module), function)(*(_cast(value, dtype) for value in arguments))
        return _cast(results, arguments[0].dtype)

    def _prove(
        self, name: str, sizes: tuple, dtype: torch.dtype, device: torch.device
    ) -> Iterable[tuple[Tensor, Tensor]]:
        with use_backend('reference'), torch.no_grad():
            arguments = self.example(sizes, dtype, device)
            results = self._fast(name, dtype, *arguments), self.plain(*arguments)
        return zip(*map(_tensors, results), strict=True)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """A value with all its floating-point tensors, alone or in sequences, in a dtype."""
    if isinstance(value, Tensor):
        return value.detach().to(dtype) if value.is_floating_point() else value
    return type(value)(_cast(part, dtype) for part in value) if isinstance(value, list | tuple) else value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for part in value:
            yield from _tensors(part)


def _without_autocast(device: str) -> Any:
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _size_to_prove(size: int) -> int:
    """Small sizes as they are, larger ones as 96 to 111 of the same remainder by 16, which decides what is compiled."""
    return size if size < LARGEST_SIDE else LARGEST_SIDE + size % 16
