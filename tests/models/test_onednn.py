"""Products by oneDNN equal torch's own, also after the weights have changed."""

from __future__ import annotations

import copy
import gc
import logging
import weakref

import pytest
import torch
import torch.nn.functional as F

from segearth import device
from segearth.models import build
from segearth.models.residual_block import ACTIVATIONS, ONEDNN, linear, serves

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


@pytest.fixture
def unproved(monkeypatch):
    monkeypatch.delenv(ONEDNN.variable, raising=False)
    monkeypatch.setattr(ONEDNN, '_verdicts', {})
    monkeypatch.setattr(ONEDNN, '_said', set())


def refuse_bfloat16(operator):
    def refusing(inputs, *arguments):
        if inputs.dtype == torch.bfloat16:
            raise RuntimeError('bf16 path needs the cpu support avx_ne_convert or avx512bw')
        return operator(inputs, *arguments)

    return refusing


FAULTS = {
    'packing refused': ('_reorder_linear_weight', refuse_bfloat16),
    'product refused': ('_linear_pointwise', refuse_bfloat16),
    'wrong': ('_linear_pointwise', lambda operator: lambda *arguments: operator(*arguments) + 1),
    'one activation wrong': (
        '_linear_pointwise',
        lambda operator: lambda *arguments: operator(*arguments) * (1 + (arguments[3] == 'swish')),
    ),
    'missing': ('_linear_pointwise', lambda operator: None),
}


needs_onednn = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_linear_pointwise')),
    reason='needs a torch with oneDNN',
)


@needs_onednn
@pytest.mark.parametrize('fault', FAULTS)
def test_the_plain_product_where_onednn_fails(fault, unproved, monkeypatch, caplog):
    name, broken = FAULTS[fault]
    monkeypatch.setattr(torch.ops.mkldnn, name, broken(getattr(torch.ops.mkldnn, name)))
    for dtype in (torch.bfloat16, torch.float32):
        inputs, weight, bias = (torch.randn(*shape, dtype=dtype) for shape in ((2, 4), (6, 4), (6,)))
        with torch.inference_mode():
            for activation, function in ACTIVATIONS.items():
                expected = function(F.linear(inputs, weight, bias))
                result = linear(inputs, weight, bias, activation)
                torch.testing.assert_close(result, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    assert ONEDNN.verdicts()[(torch.bfloat16,)] is not None
    lines = [record for record in caplog.records if 'SEGEARTH_ONEDNN=0' in record.getMessage()]
    assert len(lines) == 1 or (len(lines) == 2 and 'refused' not in fault)  # one for each dtype and reason
    with torch.inference_mode():
        assert not serves(inputs.bfloat16(), weight.bfloat16())


@needs_onednn
def test_a_refusal_after_the_proof(unproved, monkeypatch, caplog):
    inputs, weight = torch.randn(2, 4), torch.randn(6, 4)
    with torch.inference_mode():
        linear(inputs, weight, None)
        monkeypatch.setattr(torch.ops.mkldnn, '_linear_pointwise', lambda *_: 1 / 0)
        for _ in range(2):
            torch.testing.assert_close(linear(inputs, weight, None), F.linear(inputs, weight))
    assert len(caplog.records) <= 1


@needs_onednn
def test_turned_off(unproved, monkeypatch):
    monkeypatch.setenv('SEGEARTH_ONEDNN', '0')
    monkeypatch.setattr(torch.ops.mkldnn, '_linear_pointwise', lambda *_: 1 / 0)
    inputs, weight = torch.randn(2, 4), torch.randn(6, 4)
    with torch.inference_mode():
        assert torch.equal(linear(inputs, weight, None), F.linear(inputs, weight))
    assert ONEDNN.verdicts() == {}


@pytest.mark.parametrize(('precision', 'feature'), [('bf16', 'avx512_bf16'), ('bf16', 'bf16'), ('fp16', 'asimdhp')])
def test_slow_precisions_are_named_once(precision, feature, monkeypatch, caplog):
    build._say_slow.cache_clear()
    monkeypatch.setattr(device, 'processor_features', lambda: frozenset({'avx2', feature}))
    build.resolve_precision(precision, 'cpu')
    assert caplog.text == ''
    monkeypatch.setattr(device, 'processor_features', lambda: frozenset({'avx2', 'avx512f'}))
    with caplog.at_level(logging.WARNING):
        for place in ('cpu', None, 'cuda'):
            build.resolve_precision(precision, place)
        build.resolve_precision('fp32', 'cpu')
    assert [record.getMessage() for record in caplog.records] == [
        f'Precision {precision} is slower than fp32 here: this processor has no instructions for it.'
    ]
    build._say_slow.cache_clear()
