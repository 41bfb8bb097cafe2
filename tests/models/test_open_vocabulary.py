from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch
from open_clip.model import CLIP

import segearth
from segearth.errors import ConfigError, DataError
from segearth.inference.refinement import REFINEMENTS
from segearth.inference.scoring import encode_windows
from segearth.inference.settings import ORIGINAL_KEYS, InferenceSettings
from segearth.maps.labelling import SegmenterModel
from segearth.models.dense_clip import DenseCLIP
from segearth.models.open_vocabulary import READOUT_KEYS, OpenVocabularySegmenter
from segearth.models.segmentor import SegEarthSegmentation
from simfeatup import build_upsampler

SETTINGS = InferenceSettings(crop_size=32, stride=16, prob_threshold=0.25)


@pytest.fixture
def parts():
    torch.manual_seed(0)
    vision = {'image_size': 32, 'layers': 2, 'width': 32, 'head_width': 16, 'patch_size': 8}
    text = {'context_length': 8, 'vocab_size': 10, 'width': 8, 'heads': 1, 'layers': 1}
    encoder = DenseCLIP(CLIP(16, vision, text).visual.eval())
    words = torch.nn.functional.normalize(torch.randn(5, 16), dim=-1)
    return encoder, words, torch.tensor([0, 1, 1, 2, 2]), build_upsampler('bilinear', 16)


@pytest.fixture
def images():
    return torch.randint(0, 256, (2, 3, 40, 56), dtype=torch.uint8)


@pytest.mark.parametrize('with_upsampler', [True, False])
@pytest.mark.parametrize('crop', [32, 0])
@pytest.mark.parametrize('size', [None, (70, 90)])
def test_the_shell_gives_what_the_core_gives(parts, images, with_upsampler, crop, size):
    parts = parts if with_upsampler else parts[:3]
    core = OpenVocabularySegmenter(*parts, settings=replace(SETTINGS, crop_size=crop))
    shell = SegEarthSegmentation.from_parts(*parts, slide_crop=crop, slide_stride=16, prob_thd=0.25)
    data = shell.data_preprocessor({'inputs': list(images.flip(1))})  # mmseg reads blue first
    samples = shell.predict(data['inputs'])
    scores, labels = core(images)
    assert torch.equal(scores, torch.stack([sample.seg_logits.data for sample in samples]))
    assert torch.equal(labels, torch.stack([sample.pred_sem_seg.data for sample in samples]))
    scores, labels = core(images[:1], size)
    assert scores.shape == (1, 3, *(size or images.shape[-2:]))
    assert labels.shape == (1, 1, *scores.shape[-2:])
    assert torch.allclose(scores.sum(1) <= 1 + 1e-5, torch.tensor(True))


def test_encoded_once_scored_often(parts, images):
    model = OpenVocabularySegmenter(*parts, settings=SETTINGS)
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    windows = model.normalise(images[..., :32, :32])
    others = torch.nn.functional.normalize(torch.randn(2, 16), dim=-1)
    with torch.inference_mode():
        encoded = encode_windows(model.encoder, windows, torch.float32)
        usual, plain = model.score_encoded(encoded), model.score_encoded(encoded, cls_token_weight=0.0)
        of_others = model.score_encoded(encoded, others)
        assert len(calls) == 1
        assert torch.equal(usual, model.score_windows(windows))
        model.settings = replace(model.settings, cls_token_weight=0.0)
        assert torch.equal(plain, model.score_windows(windows))
    assert of_others.shape == (2, 2, 32, 32)
    assert not torch.equal(usual, plain)


def test_several_vocabularies_in_one_pass(parts, images):
    model = OpenVocabularySegmenter(*parts, settings=SETTINGS)
    other = model.text_embeddings.flip(0)
    image = model.normalise(images[:1])
    with torch.inference_mode():
        both = model.score_images(
            image,
            score=lambda encoded: torch.cat([model.score_encoded(encoded), model.score_encoded(encoded, other)], 1),
            num_scores=10,
        )
        first = model.score_images(image)
        model.set_vocabulary(other, model.query_to_class)
        assert torch.equal(both, torch.cat([first, model.score_images(image)], 1))


@pytest.mark.parametrize('crop', [32, (24, 40), 0])
@pytest.mark.parametrize('with_upsampler', [True, False])
def test_propagation_by_the_fast_and_by_the_plain_path(parts, images, with_upsampler, crop):
    settings = replace(SETTINGS, refine='propagation', crop_size=crop)
    model = OpenVocabularySegmenter(*parts[: 4 if with_upsampler else 3], settings=settings)
    batch = model.normalise(images)
    with torch.inference_mode():
        refined = model.score_images(batch)
        model.settings = replace(settings, exact_reference=True)
        torch.testing.assert_close(model.score_images(batch), refined, atol=1e-5, rtol=0)
        torch.testing.assert_close(model.score_images(batch[1:])[0], refined[1], atol=1e-5, rtol=0)
        model.settings = replace(settings, refine=None)
        assert not torch.allclose(model.score_images(batch, images.shape[-2:]), refined, atol=1e-3)


@pytest.mark.parametrize('crop', [32, 0])
@pytest.mark.parametrize('with_upsampler', [True, False])
def test_the_context_is_all_images_given_at_once(parts, images, with_upsampler, crop):
    settings = replace(SETTINGS, refine='context', crop_size=crop)
    model = OpenVocabularySegmenter(*parts[: 4 if with_upsampler else 3], settings=settings)
    calls = []
    model.encoder.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    scores, labels = model(images, (70, 90))
    assert sum(calls) == (2 if crop == 0 else 2 * 2 * 3)  # each window once
    assert scores.shape == (2, 3, 70, 90) and labels.shape == (2, 1, 70, 90)
    assert not torch.allclose(model(images[:1], (70, 90))[0], scores[:1], atol=1e-4)
    batches = [model.normalise(part) for part in (images[:1], images[1:, :, :, :40])]
    with torch.inference_mode():
        first, second = model.score_batches(batches, [None, None])
        assert first.shape[-2:] == (40, 56) and second.shape[-2:] == (40, 40)
        assert torch.equal(next(model.score_batches(batches[:1], [None])), model.score_images(batches[0]))
        assert not torch.allclose(first, model.score_images(batches[0]), atol=1e-4)


def test_the_context_needs_weights_that_know_the_image_alone(parts, images):
    settings = replace(SETTINGS, refine='context')
    model = OpenVocabularySegmenter(*parts[:3], upsampler=build_upsampler('resize_conv', 16).eval(), settings=settings)
    with pytest.raises(ConfigError, match='ResizeConv has none.*feature_up=False'):
        model(images)


def test_the_context_gives_its_posteriors_back(parts, images):
    """With windows of a patch each nothing is interpolated or averaged."""
    model = OpenVocabularySegmenter(*parts[:3], settings=replace(SETTINGS, refine='context', crop_size=8, stride=8))
    batch = model.normalise(images)
    with torch.inference_mode():
        scores = model.score_images(batch)[:, :, 4::8, 4::8]
        windows = batch.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        encoded = encode_windows(model.encoder, windows, torch.float32, is_per_patch=True)
        alone = model.score_encoded(encoded, refine=None)
        (expected,) = REFINEMENTS['context'].of_group([alone], [encoded.features], 50)
    torch.testing.assert_close(scores.permute(0, 2, 3, 1).flatten(0, 2), expected[..., 0, 0], atol=1e-4, rtol=1e-4)


def test_the_context_of_single_windows_is_refused(parts, images):
    model = OpenVocabularySegmenter(*parts, settings=replace(SETTINGS, refine='context'))
    windows = model.normalise(images)
    for call in (
        lambda: model.score_windows(windows),
        lambda: model.score_images(windows, score=model.score_encoded),
        lambda: SegmenterModel(model),
    ):
        with pytest.raises(ConfigError, match="refine='propagation'"):
            call()


def test_the_surroundings_do_not_matter(parts, images):
    model = OpenVocabularySegmenter(*parts, settings=SETTINGS)
    expected = model(images)[0]
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(model(images)[0], expected)


def test_settings_are_frozen_and_checked():
    with pytest.raises(FrozenInstanceError):
        SETTINGS.stride = 8
    assert InferenceSettings(crop_size=[64, 32]).crop_size == (64, 32)
    with pytest.raises(ConfigError, match='prob_thd.*allowed: 0 to 1'):
        InferenceSettings(prob_threshold=2)
    with pytest.raises(ConfigError, match='window_batch_size is True'):
        InferenceSettings(window_batch_size=True)


def test_settings_that_do_not_fit_the_classes(parts):
    model = OpenVocabularySegmenter(*parts, settings=replace(SETTINGS, background_index=2))
    with pytest.raises(ConfigError, match='allowed: 0 to 2'):
        model.settings = replace(SETTINGS, background_index=3)
    with pytest.raises(ConfigError, match='background_index.*allowed: 0 to 1'):
        model.set_vocabulary(parts[1][:2], torch.tensor([0, 1]))
    assert model.settings.background_index == 2
    assert model.num_classes == 3


def test_settings_by_the_originals_keys_and_by_ours():
    keys = {'prob_thd': 0.5, 'bg_idx': 1, 'slide_crop': 64, 'slide_stride': 32, 'cls_token_lambda': -0.1}
    ours = {ORIGINAL_KEYS[key]: value for key, value in keys.items()}
    assert InferenceSettings.from_keys(keys) == InferenceSettings.from_keys(ours) == InferenceSettings(**ours)
    with pytest.raises(ConfigError, match="unknown setting 'prob_thr'. Did you mean prob_thd"):
        InferenceSettings.from_keys({'prob_thr': 0.5})
    with pytest.raises(ConfigError, match='one setting; give it once'):
        InferenceSettings.from_keys({'bg_idx': 1, 'background_index': 1})


def test_a_segmenter_takes_either_words(tiny_clip, images):
    image = images[0].permute(1, 2, 0).numpy()
    made = [
        segearth.Segmenter('a; b', clip_path=str(tiny_clip), **settings)
        for settings in (
            {'model_type': 'SCLIP', 'ssa_last_n_layers': 2, 'slide_crop': 64, 'slide_stride': 32},
            {'attention': 'SCLIP', 'num_readout_blocks': 2, 'crop_size': 64, 'stride': 32},
        )
    ]
    assert made[0].model.settings == made[1].model.settings
    assert (made[0](image).scores == made[1](image).scores).all()
    with pytest.raises(ConfigError, match='attention.*once'):
        segearth.Segmenter('a; b', clip_path=str(tiny_clip), model_type='SCLIP', attention='SCLIP')


def test_a_config_may_say_every_setting():
    known = set(SegEarthSegmentation.config_defaults())
    names = {key: name for name, key in ORIGINAL_KEYS.items()}
    assert {names.get(field.name, field.name) for field in fields(InferenceSettings)} <= known
    assert set(READOUT_KEYS) <= known


@pytest.mark.parametrize(
    ('words', 'classes', 'names', 'message'),
    [
        (torch.ones(2, 16), torch.tensor([0]), None, r'expected \(Q, C\) and \(Q,\)'),
        (torch.ones(0, 16), torch.tensor([], dtype=torch.long), None, r'expected \(Q, C\)'),
        (torch.ones(2, 9), torch.tensor([0, 1]), None, '9 channels, the encoder 16'),
        (torch.ones(2, 16), torch.tensor([0, -1]), None, 'from 0'),
        (torch.ones(2, 16), torch.tensor([0, 1]), ['a'], '2 classes, from 0; 1 names'),
    ],
)
def test_words_that_do_not_fit(parts, words, classes, names, message):
    model = OpenVocabularySegmenter(*parts)
    with pytest.raises(ConfigError, match=message):
        model.set_vocabulary(words, classes, names)
    assert model.num_classes == 3


@pytest.mark.parametrize('shape', [(3, 40, 56), (1, 4, 40, 56), (0, 3, 40, 56), (1, 3, 0, 56)])
def test_images_of_another_shape(parts, shape):
    with pytest.raises(DataError, match='expected'):
        OpenVocabularySegmenter(*parts)(torch.zeros(shape))


def test_a_callers_default_dtype_does_not_matter(parts, images):
    expected = OpenVocabularySegmenter(*parts, settings=SETTINGS)(images)[0]
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(OpenVocabularySegmenter(*parts, settings=SETTINGS)(images)[0], expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_as_many_thresholds_as_classes(parts):
    model = OpenVocabularySegmenter(*parts)
    with pytest.raises(ConfigError, match='2 numbers for 3 classes'):
        model.settings = replace(model.settings, prob_threshold=(0.1, 0.2))
    model.settings = replace(model.settings, prob_threshold=[0.1, 0.2, 0.3])
    assert model.settings.prob_threshold == (0.1, 0.2, 0.3)
