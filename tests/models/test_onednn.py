"""Products by oneDNN equal torch's own, also after the weights have changed."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F

from segearth.models.onednn import ACTIVATIONS, linear

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 1e-2, torch.float64: 1e-12}


@pytest.mark.parametrize('activation', ACTIVATIONS)
@pytest.mark.parametrize('frozen', [True, False])
@pytest.mark.parametrize('dtype', TOLERANCE)
def test_equals_torch(dtype, frozen, activation):
    torch.manual_seed(0)
    weight, bias = torch.nn.Parameter(torch.randn(6, 4, dtype=dtype), not frozen), torch.randn(6, dtype=dtype)
    inputs = torch.randn(2, 3, 4, dtype=dtype)
    with torch.inference_mode():
        expected = ACTIVATIONS[activation](F.linear(inputs, 0.5 * weight, bias))
        for _ in range(2):
            result = linear(inputs, weight, bias, activation, weight_factor=0.5)
            torch.testing.assert_close(result, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize('change', ['in place', 'data', 'load_state_dict', 'factor'])
def test_sees_changes(change):
    layer = torch.nn.Linear(8, 5).requires_grad_(False)
    inputs, factor = torch.randn(3, 8), 1.0
    with torch.no_grad():
        before = linear(inputs, layer.weight, layer.bias)
        if change == 'in place':
            layer.weight.mul_(2)
        elif change == 'data':
            layer.weight.data = layer.weight.data + 1
        elif change == 'load_state_dict':
            layer.load_state_dict(torch.nn.Linear(8, 5).state_dict())
        else:
            factor = 3.0
        after = linear(inputs, layer.weight, layer.bias, weight_factor=factor)
        torch.testing.assert_close(after, F.linear(inputs, factor * layer.weight, layer.bias), atol=1e-5, rtol=0)
    assert not torch.allclose(before, after)


def test_a_weight_in_training_is_read_anew():
    weight, inputs = torch.nn.Parameter(torch.ones(4, 4)), torch.ones(1, 4)
    with torch.no_grad():
        linear(inputs, weight, None)
        weight.data.zero_()  # which torch does not count as a change
        assert torch.equal(linear(inputs, weight, None), torch.zeros(1, 4))


def test_copies_and_weights_that_are_gone():
    layer = torch.nn.Linear(8, 8).requires_grad_(False)
    inputs = torch.randn(3, 8)
    with torch.no_grad():
        expected = linear(inputs, layer.weight, layer.bias)
        twin = copy.deepcopy(layer)
        twin.weight.mul_(2)
        assert torch.equal(linear(inputs, layer.weight, layer.bias), expected)
    gone = weakref.ref(layer.weight)
    del layer
    gc.collect()
    assert gone() is None
