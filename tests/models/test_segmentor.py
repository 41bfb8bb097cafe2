import json

import numpy as np
import pytest
import torch
from mmseg.structures import SegDataSample
from open_clip.model import CLIP

from segearth.errors import ConfigError
from segearth.models.dense_clip import DenseCLIP
from segearth.models.segmentor import SegEarthSegmentation
from simfeatup import build_upsampler
from tests.conftest import GOLDEN

CASES = (
    'default', 'no_upsampler', 'no_gba', 'sar', 'threshold', 'whole_image', 'resized_back', 'maskclip_residual',
    'crop_not_multiple_of_patch',
)  # fmt: skip


@pytest.fixture(scope='module')
def golden():
    return np.load(GOLDEN / 'segmentor.npz')


@pytest.fixture(scope='module')
def parts(golden):
    def tensors(prefix):
        return {
            name.removeprefix(prefix): torch.from_numpy(golden[name])
            for name in golden.files
            if name.startswith(prefix)
        }

    clip = CLIP(**json.loads(str(golden['config'])))
    clip.visual.load_state_dict(tensors('visual.'))
    upsampler = build_upsampler('jbu_one', 24)
    upsampler.load_state_dict(tensors('upsampler.'))
    text = torch.from_numpy(golden['query_features']), torch.from_numpy(golden['query_idx'])
    return clip.visual.eval(), upsampler.eval(), *text


@pytest.mark.parametrize('case', CASES)
def test_equals_the_original(case, golden, parts):
    visual, upsampler, text_embeddings, query_to_class = parts
    settings = json.loads(str(golden['cases']))[case]
    sample = SegDataSample()
    sample.set_metainfo({'ori_shape': tuple(settings.pop('ori_shape', golden['image'].shape[-2:]))})
    model = SegEarthSegmentation.from_parts(visual, text_embeddings, query_to_class, upsampler, **settings)
    model.predict(torch.from_numpy(golden['image']), [sample])
    expected = golden[f'{case}|logits_every_3rd_pixel']
    torch.testing.assert_close(sample.seg_logits.data[:, ::3, ::3], torch.from_numpy(expected), atol=1e-4, rtol=1e-4)
    same = sample.pred_sem_seg.data.numpy() == golden[f'{case}|pred']
    assert same.mean() >= 0.999


@pytest.mark.parametrize('settings', [{}, {'slide_crop': 0}, {'slide_crop': 56, 'slide_stride': 40}])
@pytest.mark.parametrize('name', ['jbu_one', 'jbu_stack', 'bilinear'])
def test_fast_scores_equal_the_plain_path(name, settings, golden, parts):
    visual, jbu_one, text_embeddings, query_to_class = parts
    torch.manual_seed(0)
    upsampler = jbu_one if name == 'jbu_one' else build_upsampler(name, 24).eval()
    image = torch.from_numpy(golden['image'])
    settings = {'slide_crop': 64, 'slide_stride': 32} | settings
    fast, plain = (
        SegEarthSegmentation.from_parts(
            visual, text_embeddings, query_to_class, upsampler, exact_reference=exact, **settings
        )
        for exact in (False, True)
    )
    # 1e-5 on trained weights (docs/performance.md); these random ones cancel features to 1/200 of their length at some
    # pixels, where the plain path itself is 5e-6 from float64
    torch.testing.assert_close(fast.encode_decode(image), plain.encode_decode(image), atol=2e-5, rtol=0)
    same = fast.predict(image)[0].pred_sem_seg.data == plain.predict(image)[0].pred_sem_seg.data
    assert same.float().mean() >= 0.9999


@pytest.mark.parametrize('ori_shape', [(96, 128), (150, 210), (41, 300)])
def test_whole_images_without_upsampler_are_interpolated_once(ori_shape, golden, parts):
    """By the definition: cosines of the patches, bilinear to the original size, softmax, best word of each class."""
    visual, _, text, query_to_class = parts
    image = torch.from_numpy(golden['image'])
    encoder = DenseCLIP(visual)
    model = SegEarthSegmentation.from_parts(encoder, text, query_to_class, slide_crop=0)
    with torch.inference_mode():
        cls_token, patch_tokens = encoder(image)
    normalise = torch.nn.functional.normalize
    scores = normalise(patch_tokens, dim=-1) @ text.T - 0.3 * (normalise(cls_token, dim=-1) @ text.T)[:, None]
    scores = scores.transpose(1, 2).unflatten(-1, (6, 8))
    scores = torch.nn.functional.interpolate(scores, ori_shape, mode='bilinear', align_corners=False)
    probabilities = (50 * scores).softmax(dim=1)[0]
    expected = torch.stack([probabilities[query_to_class == label].amax(dim=0) for label in range(5)])
    (sample,) = model.predict(image, [SegDataSample(metainfo={'ori_shape': ori_shape})])
    torch.testing.assert_close(sample.seg_logits.data, expected, atol=1e-5, rtol=1e-5)


def test_truncated_rank_is_close_and_full_rank_exact(golden, parts):
    image = torch.from_numpy(golden['image'])
    exact, full, truncated = (
        SegEarthSegmentation.from_parts(*parts[:1], *parts[2:], parts[1], slide_crop=0, score_rank=rank)
        for rank in (None, 24, 8)
    )
    scores = exact.encode_decode(image)
    torch.testing.assert_close(full.encode_decode(image), scores, atol=2e-5, rtol=0)
    error = (truncated.encode_decode(image) - scores).abs().max()
    assert 1e-6 < error < 0.5


@pytest.fixture
def small_parts():
    torch.manual_seed(0)
    vision = {'image_size': 32, 'layers': 2, 'width': 32, 'head_width': 16, 'patch_size': 8}
    text = {'context_length': 8, 'vocab_size': 10, 'width': 8, 'heads': 1, 'layers': 1}
    visual = CLIP(16, vision, text).visual.eval()
    return DenseCLIP(visual), torch.nn.functional.normalize(torch.randn(5, 16), dim=-1), torch.tensor([0, 1, 1, 2, 2])


def build(parts, **settings):
    return SegEarthSegmentation.from_parts(*parts, slide_crop=32, slide_stride=16, **settings)


@pytest.mark.parametrize('crop', [32, 0])
def test_batch_equals_single_images_of_any_size(small_parts, crop):
    model = SegEarthSegmentation.from_parts(*small_parts, slide_crop=crop, slide_stride=16, window_batch_size=3)
    images = [torch.randn(3, 40, 50), torch.randn(3, 33, 64), torch.randn(3, 40, 50)]
    sizes = [(40, 50), (70, 90), (20, 25)]
    samples = [SegDataSample(metainfo={'ori_shape': size}) for size in sizes]
    together = model.predict(images, samples)
    for image, size, result in zip(images, sizes, together, strict=True):
        alone = model.predict(image[None], [SegDataSample(metainfo={'ori_shape': size})])[0]
        assert result.pred_sem_seg.data.shape == (1, *size)
        torch.testing.assert_close(result.seg_logits.data, alone.seg_logits.data)


def test_without_data_samples_keeps_the_input_size(small_parts):
    results = build(small_parts).predict(torch.randn(2, 3, 40, 50))
    assert [tuple(result.seg_logits.data.shape) for result in results] == [(3, 40, 50)] * 2
    assert results[0].pred_sem_seg.data.shape == (1, 40, 50)


def test_labels_alone_where_data_samples_are_none_as_in_the_original(small_parts):
    model, images = build(small_parts), torch.randn(2, 3, 40, 50)
    labels = model.predict(images, None)
    assert torch.equal(labels, torch.cat([sample.pred_sem_seg.data for sample in model.predict(images)]))
    (sample,) = model.test_step({'inputs': [image.round().byte() for image in 100 + 20 * images[:1]]})
    assert sample.pred_sem_seg.data.shape == (1, 40, 50)


def test_global_bias_alleviation_only_where_a_config_says_so(tiny_clip):
    """The defaults of the original's class and, of parts, the paper's."""
    settings = {'clip_type': 'Demo', 'clip_path': str(tiny_clip), 'classes': 'a; b', 'feature_up': False}
    model = SegEarthSegmentation(**settings)
    assert model.core.settings.cls_token_weight == 0
    parts = model.core.encoder, model.core.text_embeddings, model.core.query_to_class
    assert SegEarthSegmentation.from_parts(*parts).core.settings.cls_token_weight == -0.3


@pytest.mark.parametrize('size', [(5, 7), (20, 100), (8, 8)])
def test_images_smaller_than_a_window_or_a_patch(small_parts, size):
    result = build(small_parts).predict(torch.randn(1, 3, *size))[0]
    assert result.pred_sem_seg.data.shape == (1, *size)
    assert torch.isfinite(result.seg_logits.data).all()


def test_window_batches_do_not_change_the_result(small_parts):
    image = torch.randn(1, 3, 70, 60)
    one = build(small_parts, window_batch_size=1).predict(image)[0].seg_logits.data
    many = build(small_parts, window_batch_size=100).predict(image)[0].seg_logits.data
    torch.testing.assert_close(one, many)


def test_threshold_one_is_all_background(small_parts):
    result = build(small_parts, prob_thd=1.0, bg_idx=2).predict(torch.randn(1, 3, 32, 32))[0]
    assert (result.pred_sem_seg.data == 2).all()


@pytest.mark.parametrize('attention', ['GEM', 'NACLIP', 'GAV', 'SCLIP'])
def test_global_bias_alleviation_with_every_read_out(small_parts, attention):
    image = torch.randn(1, 3, 32, 48)
    plain = build(small_parts, model_type=attention, cls_token_lambda=0).predict(image)[0]
    alleviated = build(small_parts, model_type=attention, cls_token_lambda=-0.3).predict(image)[0]
    assert not torch.allclose(plain.seg_logits.data, alleviated.seg_logits.data)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'prob_thd': 1.5}, 'allowed: 0 to 1'),
        ({'window_batch_size': 'many'}, "1 or more, or 'auto'"),
        ({'window_batch_size': 0}, '1 or more'),
        ({'bg_idx': 3}, 'allowed: 0 to 2'),
        ({'model_type': 'SegEarthh'}, 'known: .*SegEarth'),
        ({'ssa_last_n_layers': 3}, 'allowed: 1 to 2'),
    ],
)
def test_settings_that_cannot_be(small_parts, settings, message):
    with pytest.raises(ConfigError, match=message):
        build(small_parts, **settings)


def test_stride_that_leaves_gaps(small_parts):
    model = SegEarthSegmentation.from_parts(*small_parts, slide_crop=32, slide_stride=40)
    with pytest.raises(ConfigError, match='pixels are left out'):
        model.predict(torch.randn(1, 3, 64, 64))


def test_text_that_does_not_fit(small_parts):
    encoder, text_embeddings, _ = small_parts
    with pytest.raises(ConfigError, match='expected'):
        SegEarthSegmentation.from_parts(encoder, text_embeddings, torch.tensor([0, 1]))


def test_training_is_refused(small_parts):
    with pytest.raises(NotImplementedError, match='training-free'):
        build(small_parts)(torch.randn(1, 3, 32, 32), [], mode='loss')
