"""The fast block gives what open_clip's own forward gives, and steps aside where it cannot."""

from __future__ import annotations

import pytest
import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock

from segearth.models.residual_block import add_mlp, linear, run_block

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


@pytest.fixture(params=['gelu', 'tanh', 'quick_gelu', 'layer_scale'])
def block(request):
    settings = {
        'gelu': {},
        'tanh': {'act_layer': lambda: torch.nn.GELU(approximate='tanh')},
        'quick_gelu': {'act_layer': QuickGELU},
        'layer_scale': {'ls_init_value': 0.3},
    }
    torch.manual_seed(0)
    return ResidualAttentionBlock(48, 3, **settings[request.param]).eval()


@pytest.mark.parametrize('dtype', TOLERANCE)
def test_equals_the_block(block, dtype):
    block, tokens = block.to(dtype), torch.randn(2, 17, 48, dtype=dtype)
    for frozen in (False, True):
        block.requires_grad_(not frozen)
        with torch.inference_mode():
            torch.testing.assert_close(run_block(block, tokens), block(tokens), atol=TOLERANCE[dtype], rtol=0)


def test_the_mlp_alone(block):
    tokens = torch.randn(2, 17, 48)
    expected = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    with torch.inference_mode():
        torch.testing.assert_close(add_mlp(block, tokens), expected, atol=1e-5, rtol=0)
    assert torch.equal(add_mlp(block, tokens), expected)


def test_gradients_reach_the_weights(block):
    tokens = torch.randn(1, 5, 48)
    output = run_block(block, tokens)
    assert torch.equal(output, block(tokens))
    output.sum().backward()
    assert all(weight.grad is not None for weight in block.parameters())


def test_autocast_decides_the_dtype(block):
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        assert linear(torch.randn(2, 48), block.mlp.c_fc.weight, None).dtype == torch.bfloat16


def test_without_onednn(block):
    tokens = torch.randn(1, 5, 48)
    with torch.inference_mode():
        fast = run_block(block, tokens)
        with torch.backends.mkldnn.flags(enabled=False):
            torch.testing.assert_close(run_block(block, tokens), fast, atol=1e-5, rtol=0)
