"""The boundary of the operators: what each one computes, what computes the same faster, and which of them runs.

``reference`` is plain torch and works everywhere; ``cpu`` are loops compiled by numba, ``cuda`` Triton kernels. The
device decides; ``SIMFEATUP_BACKEND=reference`` in the environment forces one, and so does :func:`use_backend`. What is
fast runs after a proof only (:mod:`simfeatup.proof`), forced or not. An operator is registered with torch.library; its
plain definition is its fake implementation too, so that torch.export and torch.compile take it as one node, and its
gradient is a second operator, whose definition is the first one's derivative.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial, update_wrapper
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from simfeatup.errors import UpsamplerError
from simfeatup.proof import TOLERANCE, Case, FastPath, pattern

BACKENDS = {'reference': 'torch', 'cpu': 'numba', 'cuda': 'triton'}  # name -> the package it needs
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
    """Name of the implementation that is to run for tensors on a device, as far as an operator has it."""
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


@dataclass(eq=False)
class Operator:
    """An operator of tensors, registered with torch.library as ``simfeatup::NAME``."""

    schema: str  # ``NAME(Tensor ..., ...) -> ...`` of torch.library; the first tensor gives device and dtype
    plain: Callable  # what it computes, in plain torch; results are contiguous
    fast: Mapping[str, str]  # back end -> ``module:function`` of the same, for tensors of one dtype, float32 or 64
    example: Callable[..., tuple]  # (sizes, dtype, device) -> arguments on which ``fast`` proves itself
    sizes: tuple = ()  # of the example for compiled loops; Triton kernels prove themselves in the sizes at hand
    sizes_of: Callable[..., tuple] | None = None  # arguments -> their sizes, where there are Triton kernels
    paths: Mapping[str, FastPath] = field(default_factory=lambda: PATHS)  # back end -> the fast path it belongs to
    check: Callable[..., None] | None = None  # refuses arguments by their values, before anything runs

    def __post_init__(self) -> None:
        self.name, _, self._signature = self.schema.partition('(')
        self._registered = torch.library.custom_op(
            f'simfeatup::{self.name}', self._run, mutates_args=(), schema=f'({self._signature}'
        )
        self._registered.register_fake(self.plain)
        update_wrapper(self, self.plain)

    def __call__(self, *arguments: Any) -> Any:
        """Computes the operator."""
        return self._registered(*arguments)

    def differentiate(self, count: int, fast: Mapping[str, str]) -> None:
        """Gives the first ``count`` arguments of an operator of one result gradients, by an operator NAME_backward.

        The second operator, and ``fast``, take (gradient of the result, the operator's arguments, whether the gradient
        of each of the first is wanted) and give these gradients.
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

    def _run(self, *arguments: Any) -> Any:
        first = arguments[0]
        device = first.device
        if self.check:
            self.check(*arguments)
        is_cast = torch.is_autocast_enabled(device.type)
        with torch.autocast(device.type, enabled=False) if is_cast else nullcontext():
            name = choose_backend(device)
            if name not in self.fast:
                return self.plain(*arguments)
            tensors = _tensors(arguments)
            dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
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
        floats = [tensor for tensor in _tensors(arguments) if tensor.is_floating_point()]
        if any(tensor.requires_grad or tensor.dtype != dtype for tensor in floats):
            arguments = _cast(arguments, dtype)
        with torch.cuda.device_of(first) if first.is_cuda else nullcontext():  # Triton would take the current one
            results = getattr(import_module(module), function)(*arguments)
        return _cast(results, first.dtype)

    def _prove(
        self, name: str, sizes: tuple, dtype: torch.dtype, device: torch.device
    ) -> Iterable[tuple[Tensor, Tensor]]:
        with use_backend('reference'), torch.no_grad():
            arguments = self.example(sizes, dtype, device)
            results = self._fast(name, dtype, *arguments), self.plain(*arguments)
        fast, plain = (_tensors(result if isinstance(result, list | tuple) else [result]) for result in results)
        return zip(fast, plain, strict=True)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """A value with all its floating-point tensors, alone or in sequences, in a dtype."""
    if isinstance(value, Tensor):
        return value.detach().to(dtype) if value.is_floating_point() else value
    return type(value)(_cast(part, dtype) for part in value) if isinstance(value, list | tuple) else value


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    """The tensors of some values, alone or in lists; called for every window, so without recursion."""
    parts = [part for value in values for part in (value if isinstance(value, list) else [value])]
    return [part for part in parts if isinstance(part, Tensor)]


def _size_to_prove(size: int) -> int:
    """Small sizes as they are, larger ones as 96 to 111 of the same remainder by 16, which decides what is compiled."""
    return size if size < LARGEST_SIDE else LARGEST_SIDE + size % 16
