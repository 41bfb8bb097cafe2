import json
import logging
import warnings

import huggingface_hub.constants
import open_clip
import pytest
import torch
from open_clip.model import CLIP
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file

from segearth.errors import CheckpointError, ConfigError, MissingFileError
from segearth.models import build
from segearth.models.build import Encoder, build_encoder, weights_file
from segearth.models.dense_clip import DenseCLIP
from segearth.weights.encoders import ENCODERS, get_record

from .conftest import TINY

PHRASES = ['a photo of a road', 'a satellite image of the water.', 'tree']


@pytest.fixture
def weights(tiny_clip_model):
    return {name: value.clone() for name, value in tiny_clip_model.state_dict().items()}


@pytest.fixture
def demo(weights_folder, weights):
    folder = weights_folder / 'demo'
    folder.mkdir()
    save_file(weights, folder / 'demo_clip.safetensors')
    (folder / 'demo_clip.json').write_text(json.dumps(TINY))
    return folder


def test_the_demo_encoder(demo, tiny_clip_model):
    encoder = build_encoder('Demo', 'ViT-B/16')
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder.visual, DenseCLIP)
    assert encoder.record.group == 'Demo'
    assert encoder.visual.patch_size == (8, 8)
    images = torch.randn(2, 3, 32, 48)
    cls_token, patch_tokens = encoder.visual(images)
    assert cls_token.shape == (2, 16)
    assert patch_tokens.shape == (2, 24, 16)
    expected = DenseCLIP(tiny_clip_model.visual)(images)
    torch.testing.assert_close((cls_token, patch_tokens), expected)
    tokens = open_clip.tokenize(PHRASES, context_length=32)
    torch.testing.assert_close(encoder.text(PHRASES), tiny_clip_model.encode_text(tokens))


def test_encoders_are_frozen(demo):
    encoder = build_encoder('Demo')
    for tower in (encoder.visual, encoder.text):
        assert not tower.training
        assert not any(parameter.requires_grad for parameter in tower.parameters())
    assert not encoder.text(PHRASES).requires_grad
    assert not any(name.startswith('model.visual') for name, _ in encoder.text.named_parameters())


def test_demo_sar_shares_the_architecture(demo, weights, monkeypatch, tmp_path):
    monkeypatch.setattr('segearth.paths.PROJECT_ROOT', tmp_path)  # away from the weights of the repository
    with pytest.raises(MissingFileError, match='demo_sar.safetensors.*git checkout'):
        build_encoder('DemoSAR')
    save_file(weights, demo / 'demo_sar.safetensors')
    assert build_encoder('DemoSAR').record.group == 'DemoSAR'


@pytest.mark.parametrize(
    ('precision', 'dtype'),
    [('fp32', torch.float32), ('bf16', torch.bfloat16), ('fp16', torch.half), ('auto', torch.float32)],
)
def test_precision(demo, precision, dtype):
    encoder = build_encoder('Demo', precision=precision)
    reference = build_encoder('Demo').visual(torch.ones(1, 3, 32, 32))
    found = encoder.visual(torch.ones(1, 3, 32, 32))
    assert found[1].dtype == dtype
    for low, full in zip(found, reference, strict=True):
        torch.testing.assert_close(low.float(), full, rtol=0.1, atol=0.1)
    assert encoder.text(PHRASES).dtype == torch.float32, 'text runs once, in full precision'


def test_the_readout_settings_arrive(demo):
    encoder = build_encoder('Demo', attention='SCLIP', ignore_residual=False, num_readout_blocks=2)
    assert (encoder.visual.attention, encoder.visual.ignore_residual, encoder.visual.num_readout_blocks) == (
        'SCLIP',
        False,
        2,
    )


@pytest.mark.parametrize('form', ['plain', 'state_dict', 'module', 'safetensors', 'half', 'vector logit_scale'])
def test_an_architecture_with_a_file_of_the_users(tmp_path, tiny_architecture, tiny_clip_model, weights, form):
    path = tmp_path / 'mine.pt'
    contents = {
        'plain': weights,
        'state_dict': {'state_dict': weights, 'epoch': 3},
        'module': {'state_dict': {f'module.{name}': value for name, value in weights.items()}},
        'half': {name: value.half() for name, value in weights.items()},
        'vector logit_scale': {**weights, 'logit_scale': weights['logit_scale'].reshape(1)},
    }
    if form == 'safetensors':
        save_file(weights, path)
    else:
        torch.save(contents[form], path)
    encoder = build_encoder(tiny_architecture, clip_path=str(path))
    images = torch.randn(1, 3, 32, 32)
    tolerance = 1e-2 if form == 'half' else 1e-5
    expected = DenseCLIP(tiny_clip_model.visual)(images)
    torch.testing.assert_close(encoder.visual(images), expected, rtol=tolerance, atol=tolerance)


class Archive(CLIP):
    """Named and nested as the archives that OpenAI published, with their three numbers."""

    def __init__(self):
        super().__init__(**TINY)
        for name in ('input_resolution', 'context_length', 'vocab_size'):
            if hasattr(self, name):
                delattr(self, name)
            self.register_buffer(name, torch.tensor(32))

    def forward(self, images):
        return self.visual(images)


def test_openai_archive(tmp_path, tiny_architecture, tiny_clip_model, weights, caplog):
    model = Archive().eval()
    model.load_state_dict(weights, strict=False)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.trace(model, torch.zeros(1, 3, 32, 32), check_trace=False).save(str(tmp_path / 'openai.pt'))
    with caplog.at_level(logging.WARNING):
        encoder = build_encoder(tiny_architecture, clip_path=tmp_path / 'openai.pt')
    assert 'QuickGELU' in caplog.text, 'such files were trained with another activation'
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(encoder.visual(images), DenseCLIP(tiny_clip_model.visual)(images))


def test_the_file_says_image_size_and_context_length(tmp_path, tiny_architecture):
    torch.manual_seed(1)
    larger = {**TINY, 'vision_cfg': {**TINY['vision_cfg'], 'image_size': 48}}
    larger['text_cfg'] = {**TINY['text_cfg'], 'context_length': 20}
    model = CLIP(**larger).eval()
    torch.save(model.state_dict(), tmp_path / 'larger.pt')
    encoder = build_encoder(tiny_architecture, clip_path=tmp_path / 'larger.pt')
    assert torch.equal(encoder.visual.visual.positional_embedding, model.visual.positional_embedding)
    expected = model.encode_text(open_clip.tokenize(PHRASES, context_length=20))
    torch.testing.assert_close(encoder.text(PHRASES), expected)


@pytest.fixture
def tiny_records(monkeypatch, tiny_architecture):
    """The table with every open_clip architecture replaced by the tiny one."""
    from dataclasses import replace

    from segearth.weights import encoders

    table = tuple(
        replace(record, architecture=tiny_architecture) if record.architecture else record for record in ENCODERS
    )
    monkeypatch.setattr(encoders, 'ENCODERS', table)


@pytest.mark.parametrize(
    'record', [record for record in ENCODERS if record.architecture], ids=lambda record: record.name
)
def test_every_record_builds_with_its_activation(record, tiny_records, weights_folder, weights, monkeypatch):
    path = weights_folder / (record.file or 'from_tag.pt')
    path.parent.mkdir(exist_ok=True)
    torch.save(weights, path)
    monkeypatch.setattr(build, 'fetch_tag', lambda *_: path)
    encoder = build_encoder(record.group, record.vit_type)
    expected = QuickGELU if record.quick_gelu else torch.nn.GELU
    vision, text = encoder.visual.visual.transformer, encoder.text.model.transformer
    assert {type(block.mlp.gelu) for block in [*vision.resblocks, *text.resblocks]} == {expected}


def test_clip_path_overrides_the_record(tiny_records, weights_folder, weights):
    torch.save(weights, weights_folder / 'other.pt')
    assert build_encoder('CLIP', clip_path='other.pt').record.quick_gelu
    with pytest.raises(MissingFileError, match='nothing.pt.*clip_path'):
        build_encoder('CLIP', clip_path='nothing.pt')


def test_missing_weights_say_where_and_how(weights_folder):
    with pytest.raises(MissingFileError) as error:
        build_encoder('RemoteCLIP', 'ViT-L/14')
    for part in ('RemoteCLIP-ViT-L-14.pt', str(weights_folder), 'tools/download_weights.py RemoteCLIP-ViT-L-14'):
        assert part in str(error.value)


def test_a_tag_that_cannot_be_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setenv('HOME', str(tmp_path))
    with pytest.raises(MissingFileError) as error:
        weights_file(get_record('OpenCLIP', 'ViT-B/16'))
    for part in ('laion2b_s34b_b88k', 'tools/download_weights.py OpenCLIP-ViT-B-16', 'clip_path'):
        assert part in str(error.value)


def test_an_architecture_without_a_file_names_the_encoders_that_have_one():
    with pytest.raises(ConfigError, match='clip_path.*CLIP-ViT-B-16, OpenCLIP-ViT-B-16'):
        build_encoder('ViT-B-16')


def test_files_that_do_not_fit(demo, tiny_architecture, weights):
    del weights['ln_final.weight']
    torch.save({**weights, 'extra.weight': torch.zeros(1)}, demo / 'wrong.pt')
    with pytest.raises(CheckpointError, match=r'missing \(1\): ln_final.weight; unexpected \(1\): extra.weight'):
        build_encoder(tiny_architecture, clip_path=demo / 'wrong.pt')
    torch.save({'fc.weight': torch.zeros(3, 3)}, demo / 'resnet.pt')
    with pytest.raises(CheckpointError, match='no checkpoint of .*none of its 1 names'):
        build_encoder('Demo', clip_path=demo / 'resnet.pt')


def test_another_patch_size_is_reported_by_shape(demo, tiny_architecture):
    other = CLIP(**{**TINY, 'vision_cfg': {**TINY['vision_cfg'], 'patch_size': 16}})
    torch.save(other.state_dict(), demo / 'p16.pt')
    with pytest.raises(CheckpointError, match='visual.conv1.weight is 32x3x16x16, expected 32x3x8x8'):
        build_encoder(tiny_architecture, clip_path=demo / 'p16.pt')


def test_a_model_config_beside_the_file_wins(demo, weights):
    folder = demo.parent / 'mine'
    folder.mkdir()
    config = {**TINY, 'vision_cfg': {**TINY['vision_cfg'], 'layers': 1}}
    save_file(CLIP(**config).state_dict(), folder / 'small.safetensors')
    (folder / 'small.json').write_text(json.dumps(config))
    encoder = build_encoder('Demo', clip_path=folder / 'small.safetensors')
    assert len(encoder.visual.visual.transformer.resblocks) == 1


@pytest.mark.parametrize(
    ('content', 'message'),
    [('{', 'no JSON'), ('{"embed_dim": 3}', 'lacks vision_cfg, text_cfg'), ('strange', 'is not one of open_clip')],
)
def test_broken_model_configs(demo, content, message):
    if content == 'strange':
        content = json.dumps({**TINY, 'vision_cfg': {**TINY['vision_cfg'], 'colour': 1}})
    (demo / 'demo_clip.json').write_text(content)
    with pytest.raises(ConfigError, match=message):
        build_encoder('Demo')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'clip_type': 'Demo', 'precision': 'int8'}, "precision 'int8'; known: fp32, bf16, fp16, auto"),
        ({'clip_type': 'Demo', 'attention': 'sharp'}, "attention 'sharp'"),
        ({'clip_type': 'RN50', 'clip_path': 'rn50.pt'}, 'ModifiedResNet'),
        ({'clip_type': 'ViT-B-16-SigLIP', 'clip_path': 'siglip.pt'}, 'ViT'),
        ({'clip_type': 'convnext_base', 'clip_path': 'convnext.pt'}, 'ViT'),
        ({'clip_type': 'coca_ViT-B-32', 'clip_path': 'coca.pt'}, 'ViT'),
        ({'clip_type': 'RemoteCLIP', 'vit_type': 'ViT-B/16'}, 'ViT-B/32'),
        ({'clip_type': 'Remote'}, 'RemoteCLIP'),
    ],
)
def test_settings_that_cannot_be(demo, arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_encoder(**arguments)


def test_fingerprints_follow_weights_and_activation(demo, weights):
    first = build_encoder('Demo').fingerprint
    assert build_encoder('Demo', precision='bf16', attention='vanilla').fingerprint == first
    (demo / 'demo_clip.json').write_text(json.dumps({**TINY, 'quick_gelu': True}))
    assert build_encoder('Demo').fingerprint != first
    (demo / 'demo_clip.json').write_text(json.dumps(TINY))
    weights['text_projection'][0, 0] += 1e-3
    save_file(weights, demo / 'demo_clip.safetensors')
    assert build_encoder('Demo').fingerprint != first


def test_a_smaller_token_table_is_refused(demo):
    config = {**TINY, 'text_cfg': {**TINY['text_cfg'], 'vocab_size': 1000}}
    save_file(CLIP(**config).state_dict(), demo / 'demo_clip.safetensors')
    (demo / 'demo_clip.json').write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match='1000 token embeddings, its tokenizer 49408'):
        build_encoder('Demo')


def test_a_folder_in_place_of_a_weight_file(tmp_path):
    (tmp_path / 'open_clip_model.safetensors').write_bytes(b'')
    with pytest.raises(MissingFileError, match='is a folder; give the file in it .open_clip_model.safetensors'):
        build_encoder('Demo', clip_path=str(tmp_path))
