from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP

from segearth.demo.files import image_and_labels, store_scenes
from tests.conftest import TINY
from tools.train_demo_clip import (
    build_optimizer,
    contrastive_loss,
    draw_crops,
    encode_crops,
    learning_rate_at,
    normalise_images,
    take_step,
)


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    files = store_scenes(tmp_path_factory.mktemp('scenes'), range(2), image_and_labels, size=96, num_workers=1)
    return [np.load(path, mmap_mode='r') for path in files]


def test_crops_are_cut_from_the_scenes(scenes):
    crops, captions = draw_crops(scenes, np.random.default_rng(0), 6, 32)
    again, same = draw_crops(scenes, np.random.default_rng(0), 6, 32)
    assert crops.shape == (6, 32, 32, 3) and len(captions) == 6
    assert captions == same
    np.testing.assert_array_equal(crops, again)


def test_a_store_goes_on_where_it_was(tmp_path, scenes):
    first, second = store_scenes(tmp_path, range(2), image_and_labels, size=96, num_workers=1)
    np.save(first, np.zeros((96, 96, 4), np.uint8))
    second.unlink()
    assert store_scenes(tmp_path, range(2), image_and_labels, size=96, num_workers=1) == [first, second]
    assert not np.load(first).any()  # was done: not drawn again
    np.testing.assert_array_equal(np.load(second), scenes[1])


def test_the_ordinary_path_is_the_models_own(tiny_clip_model):
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        features = encode_crops(tiny_clip_model.visual, images, np.random.default_rng(0), 0.0, num_readout=0)
        torch.testing.assert_close(features, tiny_clip_model.encode_image(images), atol=1e-5, rtol=1e-4)


def test_the_readout_leaves_residual_and_mlp_out(tiny_clip_model):
    visual, images = tiny_clip_model.visual, torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features = encode_crops(visual, images, np.random.default_rng(0), 0.0, num_readout=1)
        tokens = visual.transformer.resblocks[0](visual._embeds(images))
        tokens = visual.transformer.resblocks[1].ln_1(tokens)
        attended = visual.transformer.resblocks[1].attn(tokens, tokens, tokens, need_weights=False)[0][:, 0]
        torch.testing.assert_close(features[0], visual.ln_post(attended[0]) @ visual.proj, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(features[1], tiny_clip_model.encode_image(images)[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(('size', 'dropout'), [((16, 24), 0.0), ((32, 32), 0.5)])
def test_small_crops_and_patch_dropout(tiny_clip_model, size, dropout):
    features = encode_crops(tiny_clip_model.visual, torch.randn(2, 3, *size), np.random.default_rng(0), dropout, 1)
    assert features.shape == (2, TINY['embed_dim']) and features.isfinite().all()


def test_steps_lower_the_loss(scenes):
    torch.manual_seed(0)
    model = CLIP(**TINY).train()
    optimizer = build_optimizer(model, 1e-3)
    crops, captions = draw_crops(scenes, np.random.default_rng(0), 8, 32)
    images, text = normalise_images(torch.from_numpy(crops)), open_clip.SimpleTokenizer(context_length=32)(captions)
    losses = []
    for _ in range(12):
        features = encode_crops(model.visual, images, np.random.default_rng(0), 0.0, 4)
        loss = contrastive_loss(features, model.encode_text(text), model.logit_scale)
        take_step(model, optimizer, loss)
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def test_only_matrices_decay():
    model = CLIP(**TINY)
    decayed, others = build_optimizer(model, 1e-3).param_groups
    assert decayed['weight_decay'] > 0 and others['weight_decay'] == 0
    assert sum(parameter.numel() for group in (decayed, others) for parameter in group['params']) == sum(
        parameter.numel() for parameter in model.parameters()
    )
    assert not any(parameter is model.positional_embedding for parameter in decayed['params'])


def test_learning_rate():
    rates = [learning_rate_at(step, 100, 1.0, 10) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == 1.0 and rates[10] == 1.0
    assert rates[100] == pytest.approx(0) and rates[55] == pytest.approx(0.5)


def test_images_are_normalised_as_the_segmentor_does():
    black = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    torch.testing.assert_close(normalise_images(black)[0, :, 0, 0], torch.tensor([-1.792251, -1.752101, -1.480227]))
    assert normalise_images(black, np.random.default_rng(0)).shape == (1, 3, 4, 4)
