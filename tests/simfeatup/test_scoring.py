from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from simfeatup import UPSAMPLERS, UpsamplerError, build_upsampler, load_upsampler
from simfeatup.ops.adaptive_conv import adaptive_conv_norm
from simfeatup.scoring import coordinates, score, score_reference
from simfeatup.upsamplers.base import LinearUpsampler
from tests.conftest import GOLDEN

LINEAR = ['jbu_one', 'jbu_stack', 'bilinear', 'joint_bilateral', 'naf', 'anything']
DIM, QUERIES = 24, 5


def inputs(grid=(3, 4), patch=16, dim=DIM, batch=2):
    torch.manual_seed(0)
    features = torch.randn(batch, dim, *grid) + torch.randn(dim, 1, 1)
    guidance = torch.randn(batch, 3, grid[0] * patch, grid[1] * patch)
    return features, guidance, F.normalize(torch.randn(QUERIES, dim), dim=1)


def upsampler_of(name, dim=DIM):
    torch.manual_seed(1)
    return build_upsampler(name, dim).eval()


@pytest.mark.parametrize('name', LINEAR)
@pytest.mark.parametrize(('grid', 'patch'), [((3, 4), 16), ((2, 3), 14), ((2, 1), 32), ((6, 5), 16)])
def test_equals_the_plain_path(name, grid, patch):
    arguments = inputs(grid, patch)
    upsampler = upsampler_of(name)
    with torch.no_grad():
        fast, plain = score(upsampler, *arguments), score_reference(upsampler, *arguments)
    assert fast.shape == (2, QUERIES, grid[0] * patch, grid[1] * patch)
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=0)


def test_equals_the_plain_path_with_released_weights(shared):
    upsampler = load_upsampler('jbu_stack', 512, shared / 'weights' / 'clip_jbu_stack_cocostuff.ckpt')
    arguments = inputs(dim=512, batch=1)
    with torch.no_grad():
        torch.testing.assert_close(
            score(upsampler, *arguments), score_reference(upsampler, *arguments), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize('name', LINEAR)
def test_linear_map_gives_the_upsampler(name):
    """f = A u + c, with the same kernels for features and for anything else."""
    features, guidance, _ = inputs()
    upsampler = upsampler_of(name)
    with torch.no_grad():
        matrix, constant = upsampler.channel_map()
        stages = upsampler.stages(guidance, (3, 4))
        shares = features.unflatten(1, (upsampler.num_groups, -1)).flatten(0, 1)
        parts, squares = adaptive_conv_norm(shares, stages, shares.shape[1])
        assert not squares.any()
        u = parts.unflatten(0, (2, -1)).flatten(1, 2)
        rebuilt = torch.einsum('oc,bchw->bohw', matrix, u) + constant[:, None, None]
        torch.testing.assert_close(rebuilt, upsampler(features, guidance), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(adaptive_conv_norm(shares[:, :2], stages, 2)[0], parts[:, :2])


@pytest.mark.parametrize('name', sorted(set(UPSAMPLERS) - set(LINEAR)))
def test_others_take_the_plain_path(name):
    upsampler = upsampler_of(name)
    arguments = inputs()
    assert not isinstance(upsampler, LinearUpsampler)
    with torch.no_grad():
        torch.testing.assert_close(score(upsampler, *arguments), score_reference(upsampler, *arguments))


@pytest.mark.parametrize('count', [6, 24, 40])
def test_coordinates_keep_dot_products(count):
    torch.manual_seed(0)
    tokens = torch.randn(2, count, DIM)
    tokens[:, 1] = tokens[:, 0]  # dependent tokens do no harm
    kept = coordinates(tokens)
    assert kept.shape == (2, count, min(count, DIM))
    torch.testing.assert_close(kept @ kept.mT, tokens @ tokens.mT, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize('count', [12, 40])
def test_truncated_rank_is_the_best_of_its_size(count):
    torch.manual_seed(0)
    tokens = torch.randn(1, count, DIM)
    kept = coordinates(tokens, 4)
    assert kept.shape == (1, count, 4)
    values = torch.linalg.svdvals(tokens[0])
    missing = (tokens @ tokens.mT - kept @ kept.mT)[0].diagonal().sum()
    torch.testing.assert_close(missing, values[4:].square().sum(), atol=1e-3, rtol=1e-4)


def test_truncated_rank_scores():
    arguments = inputs((6, 6))
    upsampler = upsampler_of('jbu_one')
    with torch.no_grad():
        exact = score(upsampler, *arguments)
        errors = [(score(upsampler, *arguments, rank=rank) - exact).abs().max() for rank in (2, 12, 24)]
    assert errors[0] > errors[1] > 1e-5 > errors[2]


def test_golden_upsampler_weights_score_alike():
    golden = np.load(GOLDEN / 'upsamplers.npz')
    source, guidance = (torch.from_numpy(golden[f'jbu_one_{key}']) for key in ('source', 'guidance'))
    upsampler = build_upsampler('jbu_one', source.shape[1]).eval()
    upsampler.load_state_dict(
        {key.split('|')[1]: torch.from_numpy(golden[key]) for key in golden.files if key.startswith('jbu_one|')}
    )
    text = F.normalize(torch.randn(QUERIES, source.shape[1]), dim=1)
    expected = torch.einsum('qc,bchw->bqhw', text, F.normalize(torch.from_numpy(golden['jbu_one_output']), dim=1))
    with torch.no_grad():
        torch.testing.assert_close(score(upsampler, source, guidance, text), expected, atol=1e-4, rtol=1e-4)


def test_errors():
    features, guidance, text = inputs()
    upsampler = upsampler_of('jbu_one')
    with pytest.raises(UpsamplerError, match='rank is 0; allowed'):
        score(upsampler, features, guidance, text, rank=0)
    with pytest.raises(UpsamplerError, match=r'text embeddings \(Q, 24\); got \(5, 23\)'):
        score(upsampler, features, guidance, text[:, 1:])
    with pytest.raises(UpsamplerError, match='24 channels; got 23'):
        score(upsampler, features[:, 1:], guidance, text)
