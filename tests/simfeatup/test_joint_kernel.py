from __future__ import annotations

import pytest
import torch

from simfeatup.ops.joint_kernel import joint_kernel
from simfeatup.ops.operator import use_backend

BACKENDS = ['reference', 'cpu']


def compute(backend, *arguments):
    with use_backend(backend):
        return joint_kernel(*arguments)


def inputs(dtype=torch.float32, key_dim=3, faintness=1.0):
    torch.manual_seed(0)
    keys = torch.randn(2, key_dim, 9, 8, dtype=dtype)
    return keys, torch.tensor(0.7, dtype=dtype), torch.rand(5, 5, dtype=dtype) * faintness


def test_pixel_by_definition():
    keys, temperature, spatial = inputs()
    out = compute('reference', keys, temperature, spatial)
    patch = keys[1, :, 3:8, 2:7]
    expected = (temperature * (patch * patch[:, 2:3, 2:3]).sum(0)).flatten().softmax(0).reshape(5, 5) * spatial
    torch.testing.assert_close(out[1, :, :, 3, 2], expected / expected.sum())


@pytest.mark.parametrize('key_dim', [1, 4])
@pytest.mark.parametrize('faintness', [1.0, 1e-9])  # the sum is clamped where all spatial weights are faint
def test_compiled_equals_reference(key_dim, faintness):
    arguments = inputs(torch.float32, key_dim, faintness)
    torch.testing.assert_close(compute('cpu', *arguments), compute('reference', *arguments))


@pytest.mark.parametrize('backend', BACKENDS)
def test_gradients(backend):
    keys, *others = inputs(torch.float64)
    arguments = [tensor.requires_grad_() for tensor in (keys[:1, :2, :6, :7].clone(), *others)]
    with use_backend(backend):
        assert torch.autograd.gradcheck(joint_kernel, arguments)


def test_gradients_where_the_sum_is_clamped():
    gradients = []
    for backend in BACKENDS:
        arguments = [tensor.requires_grad_() for tensor in inputs(torch.float64, faintness=1e-9)]
        torch.manual_seed(1)
        with use_backend(backend):
            out = joint_kernel(*arguments)
            gradients.append(torch.autograd.grad((out * torch.randn_like(out)).sum(), arguments))
    for compiled, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, expected)
