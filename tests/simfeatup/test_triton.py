from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from simfeatup import UpsamplerError, build_upsampler
from simfeatup.ops.adaptive_conv import adaptive_conv, adaptive_conv_norm
from simfeatup.ops.joint_kernel import joint_kernel
from simfeatup.ops.operator import PATHS, use_backend

triton = pytest.importorskip('triton', reason='Triton comes with torch for CUDA')

IS_INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
DEVICE = 'cpu' if IS_INTERPRETED else 'cuda'
needs_device = pytest.mark.skipif(
    not IS_INTERPRETED and not torch.cuda.is_available(), reason='needs a CUDA device or TRITON_INTERPRET=1'
)


def test_in_the_interpreter():
    """Triton decides when it is imported whether it interprets, so this file runs again in a process of its own."""
    if IS_INTERPRETED:
        pytest.skip('this is that process')
    if tuple(map(int, triton.__version__.split('.')[:2])) < (3, 2):
        pytest.skip('the interpreter of Triton 3.1, beside torch 2.5, takes no tl.arange of a constant argument')
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, 'TRITON_INTERPRET': '1', 'OMP_NUM_THREADS': '1', 'PYTEST_ADDOPTS': ''}
    command = [sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', str(Path(__file__))]
    result = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stdout[-3000:]
    assert '11 passed' in result.stdout


@pytest.fixture
def small_blocks(monkeypatch):
    """Several blocks, the last one partly filled, on tensors small enough for the interpreter."""
    from simfeatup.ops.cuda import conv, joint

    for module, name in ((conv, 'PIXELS'), (conv, 'CHANNELS'), (joint, 'PIXELS')):
        monkeypatch.setattr(module, name, 4)


@needs_device
def test_adaptive_conv_equals_reference(small_blocks):
    torch.manual_seed(0)
    features = torch.randn(1, 5, 3, 6, device=DEVICE, requires_grad=True)
    kernels = torch.randn(1, 2, 3, 2, 6, device=DEVICE, requires_grad=True)
    starts = torch.tensor([0, 1], device=DEVICE), torch.tensor([0, 0, 1, 1, 3, 2], device=DEVICE)
    outputs, gradients = [], []
    for backend in ('reference', 'cuda'):
        with use_backend(backend):
            out = adaptive_conv(features, kernels, *starts)
            outputs.append(out)
            gradients.append(torch.autograd.grad(out.square().sum(), (features, kernels)))
    torch.testing.assert_close(*outputs)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@needs_device
def test_norm_equals_reference(small_blocks):
    torch.manual_seed(0)
    features, kernels = torch.randn(2, 7, 3, 6, device=DEVICE), torch.randn(2, 2, 2, 2, 5, device=DEVICE)
    results = []
    for backend in ('reference', 'cuda'):
        with use_backend(backend):
            results.append(adaptive_conv_norm(features, [(kernels, None, None)], 3))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@needs_device
@pytest.mark.parametrize('faintness', [1.0, 1e-9])
def test_joint_kernel_equals_reference(faintness, small_blocks):
    torch.manual_seed(0)
    keys, spatial = torch.randn(1, 3, 3, 7, device=DEVICE), torch.rand(3, 3, device=DEVICE) * faintness
    arguments = [tensor.requires_grad_() for tensor in (keys, torch.tensor(0.7, device=DEVICE), spatial)]
    weights = torch.randn(1, 3, 3, 1, 5, device=DEVICE)
    outputs, gradients = [], []
    for backend in ('reference', 'cuda'):
        with use_backend(backend):
            out = joint_kernel(*arguments)
            outputs.append(out)
            gradients.append(torch.autograd.grad((out * weights).sum(), arguments))
    torch.testing.assert_close(*outputs)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@needs_device
def test_whole_upsampler(monkeypatch):
    torch.manual_seed(0)
    upsampler = build_upsampler('jbu_one', 4, radius=1, key_dim=3).to(DEVICE).eval()
    features, guidance = torch.randn(1, 4, 1, 2, device=DEVICE), torch.randn(1, 3, 2, 4, device=DEVICE)
    outputs = []
    for backend in ('reference', 'cuda'):
        monkeypatch.setenv('SIMFEATUP_BACKEND', backend)
        outputs.append(upsampler(features, guidance))
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-4)


KERNELS = {
    'conv.adaptive_conv': 'adaptive_conv',
    'joint.joint_kernel': 'joint_kernel',
    'conv.adaptive_conv_backward': 'adaptive_conv_backward',
}


@needs_device
@pytest.mark.parametrize('fault', ['exception', 'wrong'])
@pytest.mark.parametrize('kernel', KERNELS)
def test_a_kernel_that_fails_its_proof_is_not_used(kernel, fault, small_blocks, monkeypatch, caplog):
    monkeypatch.setattr(PATHS['cuda'], '_verdicts', {})
    monkeypatch.setattr(PATHS['cuda'], '_said', set())
    module, _, name = kernel.partition('.')
    module = importlib.import_module(f'simfeatup.ops.cuda.{module}')
    right = getattr(module, name)

    def broken(*arguments):
        if fault == 'exception':
            raise RuntimeError('CUDA error: no kernel image is available for execution on the device')
        result = right(*arguments)
        return [part.mul_(2) for part in result] if isinstance(result, list) else result.mul_(2)

    monkeypatch.setattr(module, name, broken)
    keys, spatial = torch.randn(1, 2, 3, 6, device=DEVICE), torch.rand(3, 3, device=DEVICE)
    features, kernels = torch.randn(1, 5, 3, 6, device=DEVICE), torch.randn(1, 2, 3, 2, 4, device=DEVICE)
    kernels.requires_grad_('backward' in name)
    temperature = torch.tensor(0.7, device=DEVICE)
    results = []
    for backend in ('reference', 'cuda'):
        with use_backend(backend):
            convolved = adaptive_conv(features, kernels)
            slopes = torch.autograd.grad(convolved.square().sum(), kernels) if kernels.requires_grad else ()
            results.append((joint_kernel(keys, temperature, spatial), convolved, *slopes))
    torch.testing.assert_close(*results)
    (refused,) = [case for case, reason in PATHS['cuda'].verdicts().items() if reason]
    assert refused[0] == KERNELS[kernel]
    assert set(refused[3:]) & {5, 3, 2}, 'proved in the sizes at hand'
    assert 'SIMFEATUP_TRITON=0' in caplog.text


@pytest.mark.slow
@pytest.mark.skipif(IS_INTERPRETED, reason='compiles')
def test_compiles_to_machine_code_without_a_device(monkeypatch, tmp_path):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from simfeatup.ops.cuda import conv, joint

    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    numbers = ['num_maps', 'h', 'w', 'channels', 'height', 'width', 'taps_y', 'taps_x', 'key_dim', 'side']
    types = {**dict.fromkeys(numbers, 'i32'), 'rows': '*i64', 'cols': '*i64', 'least': 'fp32'}
    blocks = {'PIXELS': joint.PIXELS, 'CHANNELS': conv.CHANNELS, 'KEYS': 32}
    for kernel in (conv._forward_norm, conv._backward_kernels, conv._backward_features, joint._grad_similarity,
                   joint._grad_keys):  # fmt: skip
        constants = {name: blocks[name] for name in kernel.arg_names if name in blocks}
        signature = {name: 'constexpr' if name in blocks else types.get(name, '*fp32') for name in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        assert triton.compile(source, target=GPUTarget('cuda', 90, 32)).asm['cubin']


@pytest.mark.skipif(IS_INTERPRETED or torch.cuda.is_available(), reason='for machines without a CUDA device')
def test_needs_its_device():
    with use_backend('cuda'), pytest.raises(UpsamplerError, match='not for tensors on cpu'):
        adaptive_conv(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1, 1))
