import copy
import json
from functools import partial

import numpy as np
import pytest
import torch
from open_clip.model import CLIP

from segearth.errors import ConfigError
from segearth.models.attention import ATTENTIONS, gaussian_neighbourhood
from segearth.models.dense_clip import ATTENTION_NAMES, DenseCLIP, resize_positions
from tests.conftest import GOLDEN


def golden_tower(arrays):
    visual = CLIP(**json.loads(str(arrays['config']))).visual
    state = {name[7:]: torch.from_numpy(arrays[name]) for name in arrays.files if name.startswith('visual.')}
    visual.load_state_dict(state)
    return visual.eval()


@pytest.mark.parametrize('file', ['dense.npz', 'gem.npz'])
def test_equals_the_original(file):
    arrays = np.load(GOLDEN / file)
    visual = golden_tower(arrays)
    keys = [name for name in arrays.files if name.startswith('tokens|')]
    assert keys
    for key in keys:
        _, attention, size, *options = key.split('|')
        options = dict(option.split('=') for option in options)
        encoder = DenseCLIP(visual, attention, options['residual'] == 'ignored', int(options.get('last', 1)))
        expected_tokens = torch.from_numpy(arrays[key])
        images = torch.from_numpy(arrays[f'image_{size}'])[: len(expected_tokens)]
        with torch.inference_mode():
            cls_token, patch_tokens = encoder(images)
        torch.testing.assert_close(patch_tokens, expected_tokens, atol=1e-4, rtol=1e-4, msg=key)
        if (cls_key := key.replace('tokens', 'cls')) in arrays.files:
            torch.testing.assert_close(cls_token, torch.from_numpy(arrays[cls_key]), atol=1e-4, rtol=1e-4, msg=key)


@pytest.fixture(scope='module')
def visual():
    torch.manual_seed(0)
    vision = {'image_size': 32, 'layers': 3, 'width': 32, 'head_width': 16, 'patch_size': 8}
    text = {'context_length': 8, 'vocab_size': 10, 'width': 8, 'heads': 1, 'layers': 1}
    return CLIP(16, vision, text).visual.eval()


@pytest.mark.parametrize('attention', ATTENTION_NAMES)
@pytest.mark.parametrize('size', [(32, 32), (24, 40), (56, 16)])
def test_batches_of_any_shape_equal_single_images(visual, attention, size):
    encoder = DenseCLIP(visual, attention)
    images = torch.randn(3, 3, *size)
    with torch.inference_mode():
        cls_token, patch_tokens = encoder(images)
        alone = encoder(images[1:2])
    assert cls_token.shape == (3, 16)
    assert patch_tokens.shape == (3, size[0] * size[1] // 64, 16)
    torch.testing.assert_close(cls_token[1:2], alone[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(patch_tokens[1:2], alone[1], atol=1e-5, rtol=1e-5)


def test_vanilla_with_residual_is_clip_itself(visual):
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        cls_token, _ = DenseCLIP(visual, 'vanilla', ignore_residual=False)(images)
        torch.testing.assert_close(cls_token, visual(images), atol=1e-5, rtol=1e-5)


def test_read_outs_of_blocks_are_summed_before_the_projection(visual):
    images = torch.randn(1, 3, 32, 32)
    encoder = DenseCLIP(visual, 'SCLIP', num_readout_blocks=2)
    with torch.inference_mode():
        tokens = encoder.embed(images)
        blocks = visual.transformer.resblocks
        before_last = blocks[0](tokens)
        last = blocks[1](before_last)
        expected = encoder.project(
            encoder._block_readout(blocks[1], before_last, (4, 4)) + encoder._block_readout(blocks[2], last, (4, 4))
        )
        torch.testing.assert_close(encoder(images), expected)


@pytest.mark.parametrize('attention', ['SegEarth', 'GEM'])
def test_outputs_of_blocks_can_be_had(visual, attention):
    images, seen = torch.randn(1, 3, 32, 32), {}
    encoder = DenseCLIP(visual, attention)
    with torch.inference_mode():
        encoder(images, seen.__setitem__)
        tokens = encoder.embed(images)
        for number, block in enumerate(visual.transformer.resblocks[:-1], 1):
            tokens = block(tokens)
            torch.testing.assert_close(seen.pop(number), tokens, atol=1e-5, rtol=1e-5)
    assert not seen


@pytest.mark.parametrize(('attention', 'count'), [('vanilla', 1), ('ClearCLIP', 1), ('SCLIP', 2), ('SegEarth', 3)])
def test_attention_rows_sum_to_the_number_of_pairs(attention, count):
    query, key = torch.randn(2, 2, 4, 5, 8)
    value = torch.ones(2, 4, 5, 8)
    output = ATTENTIONS[attention](query, key, value, (2, 2))
    torch.testing.assert_close(output, torch.full_like(output, count))


def test_gaussian_knows_height_from_width():
    gaussian = gaussian_neighbourhood((2, 3), torch.zeros(1))
    assert gaussian.shape == (7, 7)
    assert gaussian[0].eq(0).all() and gaussian[:, 0].eq(0).all()
    assert gaussian[1, 4] == pytest.approx(np.exp(-0.5))  # one row below
    assert gaussian[1, 3] == pytest.approx(np.exp(-2))  # two columns to the right


@pytest.mark.parametrize('resize', [resize_positions, partial(resize_positions, antialias=True)])
def test_position_tables(resize):
    table = torch.randn(17, 6)
    assert resize(table, (4, 4), (4, 4)) is table
    resized = resize(table, (4, 4), (3, 9))
    assert resized.shape == (28, 6)
    assert torch.equal(resized[0], table[0])
    constant = resize(torch.ones(17, 6), (4, 4), (7, 5))
    torch.testing.assert_close(constant, torch.ones(36, 6))


def test_half_precision_follows_the_tower(visual):
    tower = copy.deepcopy(visual).to(torch.bfloat16)
    with torch.inference_mode():
        cls_token, _ = DenseCLIP(tower)(torch.randn(1, 3, 40, 32))
    assert cls_token.dtype == torch.bfloat16


def test_refuses_what_it_cannot_read(visual):
    with pytest.raises(ConfigError, match='multiple of the patch size'):
        DenseCLIP(visual)(torch.randn(1, 3, 30, 32))
    with pytest.raises(ConfigError, match='unknown attention .*known: vanilla'):
        DenseCLIP(visual, 'clearclip')
    for blocks in (4, '2'):
        with pytest.raises(ConfigError, match=f'is {blocks!r}; allowed: 1 to 3'):
            DenseCLIP(visual, num_readout_blocks=blocks)
    with pytest.raises(ConfigError, match='GEM sums no blocks'):
        DenseCLIP(visual, 'GEM', num_readout_blocks=2)
    with pytest.raises(ConfigError, match='VisionTransformer'):
        DenseCLIP(torch.nn.Linear(1, 1))
    averaging = copy.deepcopy(visual)
    averaging.pool_type = 'avg'
    with pytest.raises(ConfigError, match='pools'):
        DenseCLIP(averaging)
