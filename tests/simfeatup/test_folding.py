from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from simfeatup.ops.axes import axis_folding, reflect_pad
from simfeatup.ops.folding import fold_weights, make_stage
from simfeatup.ops.operator import use_backend
from simfeatup.upsamplers.jbu import JBULayer

SIZES = [(14, 28), (14, 25), (3, 6), (1, 2), (2, 9), (6, 6), (5, 3)]


@pytest.mark.parametrize(('length', 'outputs'), SIZES)
def test_axis_is_bicubic_then_reflection(length, outputs):
    values = torch.randn(1, 1, length, 1, dtype=torch.float64)
    resized = F.interpolate(values, (outputs, 1), mode='bicubic', align_corners=False)
    expected = reflect_pad(resized, 5)[0, 0, :, 5].unfold(0, 11, 1)
    starts, weights = map(torch.tensor, axis_folding(length, outputs, 5))
    windows = values.flatten().unfold(0, weights.shape[2], 1)[starts]
    torch.testing.assert_close((weights * windows[:, None]).sum(2), expected)


def test_doubling_needs_nine_taps_for_eleven():
    folding = axis_folding(56, 112, 5)
    assert folding.weights.shape == (112, 11, 9)
    assert (folding.starts[::2] == folding.starts[1::2]).all()


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('size', [(8, 12), (7, 11), (3, 2)])
def test_folded_equals_plain(training, size):
    torch.manual_seed(0)
    layer = JBULayer(radius=3, key_dim=5).train(training)
    layer.range_proj[2].p = layer.fixup_proj[2].p = 0
    features, guidance = torch.randn(2, 4, 4, 6), torch.randn(2, 3, *size)
    with torch.no_grad():
        weights = layer.neighbour_weights(guidance)
        expected = layer.resample(features, weights)
        folded = make_stage(fold_weights(weights, (4, 6)), (4, 6), 3)
        for stage in (folded, layer.stage(guidance, (4, 6))):
            torch.testing.assert_close(stage.apply(features), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('frozen', [True, False])
@pytest.mark.parametrize('change', ['in place', 'data', 'load_state_dict'])
def test_kept_weights_follow_changes(change, frozen):
    torch.manual_seed(0)
    layer, other = (JBULayer(radius=3, key_dim=5).eval().requires_grad_(not frozen) for _ in range(2))
    guidance = torch.randn(1, 3, 8, 12)
    with torch.no_grad():
        before = layer.stage(guidance, (4, 6)).kernels
        if change == 'in place':
            layer.fixup_proj[0].weight.mul_(3)
        elif change == 'data':
            layer.range_temp.data = layer.range_temp.data + 1
        else:
            layer.load_state_dict(other.state_dict())
        after = layer.stage(guidance, (4, 6)).kernels
        assert not torch.allclose(before, after)
        plain = make_stage(fold_weights(layer.neighbour_weights(guidance), (4, 6)), (4, 6), 3).kernels
        torch.testing.assert_close(after, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
def test_compiled_folding_is_the_plain_one(dtype):
    torch.manual_seed(0)
    kernels = torch.randn(2, 5, 5, 7, 8).to(dtype)
    compiled = fold_weights(kernels, (4, 3))
    with use_backend('reference'):
        plain = fold_weights(kernels.double(), (4, 3))
    assert compiled.dtype == dtype
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(compiled.double(), plain, atol=tolerance, rtol=tolerance)


def test_gradient_of_compiled_folding():
    torch.manual_seed(0)
    kernels = torch.randn(2, 3, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: fold_weights(given, (3, 2)), kernels)


def test_wide_rows_are_cut_in_blocks():
    torch.manual_seed(0)
    layer = JBULayer(radius=1, key_dim=3).eval()
    features, guidance = torch.randn(1, 2, 2, 150), torch.randn(1, 3, 4, 300)
    with torch.no_grad():
        expected = layer.resample(features, layer.neighbour_weights(guidance))
        torch.testing.assert_close(layer(features, guidance), expected, atol=1e-5, rtol=1e-5)


def test_training_after_inference():
    layer = JBULayer(radius=1, key_dim=2)
    features, guidance = torch.randn(1, 2, 3, 3), torch.randn(1, 3, 6, 6)
    axis_folding.cache_clear()
    with torch.inference_mode():
        layer.eval()(features, guidance)
    layer.train()(features, guidance).sum().backward()


def test_gradients_equal_those_of_the_plain_layer():
    torch.manual_seed(0)
    layer = JBULayer(radius=2, key_dim=4).double().eval()
    features = torch.randn(1, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    guidance = torch.randn(1, 3, 8, 10, dtype=torch.float64)
    inputs = (features, *layer.parameters())
    weights = torch.randn(1, 3, 8, 10, dtype=torch.float64)
    plain = torch.autograd.grad((layer.resample(features, layer.neighbour_weights(guidance)) * weights).sum(), inputs)
    fast = torch.autograd.grad((layer(features, guidance) * weights).sum(), inputs)
    for one, other in zip(plain, fast, strict=True):
        torch.testing.assert_close(one, other)
