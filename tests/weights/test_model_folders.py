"""Models of a folder or of the Hub, in both layouts: what they compute, and what is refused in words."""

import copy
import json
import math
import re

import huggingface_hub.constants
import open_clip
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from PIL import Image
from safetensors.torch import save_file

from segearth import Segmenter
from segearth.errors import ConfigError, MissingFileError, UserError
from segearth.models.build import build_encoder
from segearth.models.dense_clip import CLIP_MEAN, CLIP_STD
from segearth.weights.encoders import get_record
from tests.conftest import TINY

PHRASES = ['a photo of a road', 'a satellite image of the water.']
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
WHOLE = {'attention': 'vanilla', 'ignore_residual': False}  # what an image encoder computes by itself


def state_of(model):
    return {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}


@pytest.fixture
def folder(tmp_path, monkeypatch, tiny_clip_model):
    """A folder in open_clip's layout, with a normalisation of its own."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'my model'
    path.mkdir()
    save_file(state_of(tiny_clip_model), path / 'open_clip_model.safetensors')
    write(path, {'model_cfg': TINY, 'preprocess_cfg': {'mean': MEAN, 'std': STD, 'size': 32}})
    return path


def write(folder, config, name='open_clip_config.json'):
    (folder / name).write_text(config if isinstance(config, str) else json.dumps(config))


WIDE = {  # head widths, sizes of MLPs and a projection that no table lists
    'embed_dim': 20,
    'vision_cfg': {'image_size': 32, 'patch_size': 8, 'width': 60, 'head_width': 12, 'layers': 2, 'mlp_ratio': 1.75},
    'text_cfg': {'context_length': 16, 'vocab_size': 49408, 'width': 24, 'heads': 3, 'layers': 1, 'mlp_ratio': 2.0},
}
NAMES = (
    (r'^visual\.proj$', 'visual_projection.weight'),
    (r'^text_projection$', 'text_projection.weight'),
    (r'^visual\.conv1', 'vision_model.embeddings.patch_embedding'),
    (r'^visual\.class_embedding', 'vision_model.embeddings.class_embedding'),
    (r'^visual\.positional_embedding', 'vision_model.embeddings.position_embedding.weight'),
    (r'^visual\.ln_pre', 'vision_model.pre_layrnorm'),
    (r'^visual\.ln_post', 'vision_model.post_layernorm'),
    (r'^visual\.transformer\.resblocks', 'vision_model.encoder.layers'),
    (r'^token_embedding', 'text_model.embeddings.token_embedding'),
    (r'^positional_embedding', 'text_model.embeddings.position_embedding.weight'),
    (r'^ln_final', 'text_model.final_layer_norm'),
    (r'^transformer\.resblocks', 'text_model.encoder.layers'),
    (r'\.attn\.', '.self_attn.'),
    (r'\.ln_([12])\.', r'.layer_norm\1.'),
    (r'\.mlp\.c_fc\.', '.mlp.fc1.'),
    (r'\.mlp\.c_proj\.', '.mlp.fc2.'),
)


def transformers_state(model):
    """A model's weights as transformers' CLIP names and shapes them."""
    renamed = {'vision_model.embeddings.position_ids': torch.arange(17)[None]}
    for name, value in state_of(model).items():
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        if 'in_proj_' in name:
            for letter, part in zip('qkv', value.chunk(3), strict=True):
                renamed[name.replace('in_proj_', f'{letter}_proj.')] = part.clone()
        else:
            renamed[name] = value.T.contiguous() if 'projection' in name else value
    return renamed


def transformers_config(act='quick_gelu'):
    text = {'hidden_size': 24, 'intermediate_size': 48, 'num_hidden_layers': 1, 'num_attention_heads': 3,
            'max_position_embeddings': 16, 'hidden_act': act}  # fmt: skip
    vision = {'hidden_size': 60, 'intermediate_size': 105, 'num_hidden_layers': 2, 'num_attention_heads': 5,
              'image_size': 32, 'patch_size': 8, 'hidden_act': act}  # fmt: skip
    return {'model_type': 'clip', 'projection_dim': 20, 'text_config': text, 'vision_config': vision}


@pytest.fixture
def converted(tmp_path):
    """A folder in transformers' layout, by activation."""

    def make(act='quick_gelu', form='safetensors'):
        torch.manual_seed(0)
        model = CLIP(**WIDE, quick_gelu=act == 'quick_gelu').eval()
        path = tmp_path / f'converted_{act}_{form}'
        path.mkdir()
        weights = transformers_state(model)
        if form == 'bin':
            torch.save(weights, path / 'pytorch_model.bin')
        elif form == 'shards':
            names = sorted(weights)
            shards = {'model-1.safetensors': names[::2], 'model-2.safetensors': names[1::2]}
            for shard, held in shards.items():
                save_file({name: weights[name] for name in held}, path / shard)
            index = {'weight_map': {name: shard for shard, held in shards.items() for name in held}}
            write(path, index, 'model.safetensors.index.json')
        else:
            save_file(weights, path / 'model.safetensors')
        write(path, transformers_config(act), 'config.json')
        return path, model

    return make


def pixels(size=32):
    return torch.randint(0, 256, (1, 3, size, size), generator=torch.Generator().manual_seed(1)).float()


def test_a_folder_of_open_clip_computes_what_open_clip_does(folder):
    encoder = build_encoder(f'local-dir:{folder}', **WHOLE)
    expected, _, preprocess = open_clip.create_model_and_transforms(f'local-dir:{folder}')
    image = Image.fromarray(pixels()[0].permute(1, 2, 0).byte().numpy())
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    with torch.no_grad():
        reference = expected.eval().encode_image(preprocess(image)[None])
        torch.testing.assert_close(encoder.visual((pixels() - mean) / std)[0], reference, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(encoder.text(PHRASES), expected.encode_text(open_clip.tokenize(PHRASES, 32)))


def test_a_folder_segments(folder):
    image = pixels()[0].permute(1, 2, 0).byte().numpy()
    result = Segmenter(['road', 'water'], f'local-dir:{folder.name}', vit_type='ViT-B/16', feature_up=False)(image)
    assert result.labels.shape == (32, 32)
    write(folder, {'model_cfg': TINY})
    other = Segmenter(['road', 'water'], f'local-dir:{folder}', feature_up=False)(image)
    assert not (result.scores == other.scores).all(), 'images are normalised as the folder says'


@pytest.mark.parametrize(('act', 'form'), [('quick_gelu', 'safetensors'), ('gelu', 'bin'), ('quick_gelu', 'shards')])
def test_the_layout_of_transformers(converted, act, form):
    path, model = converted(act, form)
    encoder = build_encoder(f'local-dir:{path}', **WHOLE)
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder.visual(images)[0], model.encode_image(images))
        torch.testing.assert_close(encoder.text(PHRASES), model.encode_text(open_clip.tokenize(PHRASES, 16)))
    assert encoder.record.quick_gelu == (act == 'quick_gelu')
    assert encoder.visual.visual.transformer.resblocks[0].attn.num_heads == 5


@pytest.mark.parametrize(
    'images',
    [
        {'preprocessor_config.json': {'image_mean': MEAN, 'image_std': STD}},
        {'processor_config.json': {'image_processor': {'image_mean': MEAN, 'image_std': STD}}},
        {'preprocessor_config.json': {'do_normalize': False}},
    ],
)
def test_the_normalisation_of_transformers(converted, images):
    path, _ = converted()
    for name, content in images.items():
        write(path, content, name)
    found = get_record(f'local-dir:{path}').description['preprocess_cfg']
    normalises = 'do_normalize' not in str(images)
    assert found == ({'mean': MEAN, 'std': STD} if normalises else {'mean': [0] * 3, 'std': [1] * 3})


@pytest.mark.parametrize(('factor', 'said'), [(1 / 127.5, {'rescale_factor': 1 / 127.5}), (1, {'do_rescale': False})])
@pytest.mark.parametrize('normal', [{}, {'image_mean': MEAN, 'image_std': STD}, {'do_normalize': False}])
def test_the_scale_of_transformers(converted, factor, said, normal):
    path, _ = converted()
    write(path, normal | said, 'preprocessor_config.json')
    found = get_record(f'local-dir:{path}').description['preprocess_cfg']
    plain = normal.get('do_normalize') is False
    mean = [0] * 3 if plain else normal.get('image_mean', open_clip.OPENAI_DATASET_MEAN)
    std = [1] * 3 if plain else normal.get('image_std', open_clip.OPENAI_DATASET_STD)
    images = torch.rand(5, 3) * 255
    wanted = (images * factor - torch.tensor(mean)) / torch.tensor(std)
    ours = (images / 255 - torch.tensor(found['mean'])) / torch.tensor(found['std'])
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('vision', 'text'), [({'image_size': [16, 64]}, {}), ({'patch_size': [8, 8]}, {}), ({}, {'embed_cls': True})]
)
def test_other_grids_and_contexts_of_open_clip(folder, vision, text):
    config = {**TINY, 'vision_cfg': TINY['vision_cfg'] | vision, 'text_cfg': TINY['text_cfg'] | text}
    torch.manual_seed(0)
    model = (CustomTextCLIP if text else CLIP)(**config).eval()
    save_file(state_of(model), folder / 'open_clip_model.safetensors')
    write(folder, {'model_cfg': config | ({'custom_text': True} if text else {})})
    encoder = build_encoder(f'local-dir:{folder}', **WHOLE)
    images = torch.randn(1, 3, *(vision.get('image_size') or (32, 32)))
    with torch.no_grad():
        torch.testing.assert_close(encoder.visual(images)[0], model.encode_image(images), rtol=1e-4, atol=1e-4)


def changed(config, **changes):
    config = copy.deepcopy(config)
    for keys, value in changes.items():
        *path, last = keys.split('__')
        part = config
        for key in path:
            part = part[key]
        part[last] = value
    return config


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (changed(transformers_config(), model_type='siglip'), "type 'siglip'.*only 'clip'"),
        (changed(transformers_config(), model_type=None), 'type None'),
        (changed(transformers_config(), text_config__hidden_act='gelu'), 'activation gelu and quick_gelu'),
        (transformers_config('silu'), 'activation silu; expected quick_gelu or gelu'),
        (changed(transformers_config(), text_config__vocab_size=50000), "another tokenizer than CLIP's"),
        (changed(transformers_config(), vision_config__num_channels=12), '12 channels'),
        (changed(transformers_config(), vision_config__num_attention_heads=7), 'hidden_size 60 for 7 heads'),
        (changed(transformers_config(), vision_config__patch_size='8'), "patch_size '8'"),
        ('{"model_type": ', 'no JSON file'),
        ('[1]', 'no JSON object'),
    ],
)
def test_models_of_transformers_that_are_refused(converted, config, message):
    path, _ = converted()
    write(path, config, 'config.json')
    with pytest.raises(ConfigError, match=message):
        get_record(f'local-dir:{path}')


def test_another_vocabulary_is_refused(converted):
    path, _ = converted()
    words = dict(open_clip.tokenizer.SimpleTokenizer().encoder)
    write(path, {'model': {'vocab': words}}, 'tokenizer.json')
    assert get_record(f'local-dir:{path}').quick_gelu
    words['a</w>'] = 5
    write(path, words, 'vocab.json')
    with pytest.raises(ConfigError, match='another tokenizer'):
        get_record(f'local-dir:{path}')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'vision_cfg__timm_model_name': 'convnext_base'}, 'cannot be read out densely'),
        ({'multimodal_cfg': {}}, 'cannot be read out densely'),
        ({'vision_cfg__layers': [1, 1, 1, 1]}, 'not ModifiedResNet'),
        ({'vision_cfg__pool_type': 'avg'}, 'CLS'),
        ({'vision_cfg__width': 'wide'}, 'not one of open_clip'),
        ({'vision_cfg__heads': 3}, 'not one of open_clip'),
        ({'vision_cfg__head_width': 10}, 'not one of open_clip'),
        ({'vision_cfg': 3}, 'lacks vision_cfg'),
        ({'text_cfg__hf_model_name': 'somebody/runs-code'}, "text tower 'somebody/runs-code'; those known here"),
    ],
)
def test_configs_of_open_clip_that_are_refused_before_any_weights(folder, changes, message):
    (folder / 'open_clip_model.safetensors').unlink()
    write(folder, {'model_cfg': changed(TINY, **changes)})
    with pytest.raises(ConfigError, match=message):
        build_encoder(f'local-dir:{folder}')


@pytest.mark.parametrize('mean', [[0.5], 'half', [0.5, 0.5, None], [math.nan] * 3])
def test_a_normalisation_that_is_none(folder, mean):
    write(folder, {'model_cfg': TINY, 'preprocess_cfg': {'mean': mean}})
    with pytest.raises(ConfigError, match='mean of the images'):
        get_record(f'local-dir:{folder}')


def test_a_tokenizer_of_transformers_never_runs_code(folder, monkeypatch):
    asked = {}

    def from_pretrained(name, **options):
        asked.update(options, name=name)
        raise OSError('not to be had')

    monkeypatch.setattr('transformers.AutoTokenizer.from_pretrained', from_pretrained)
    config = changed(TINY, text_cfg__hf_tokenizer_name='a/b', text_cfg__tokenizer_kwargs={'trust_remote_code': True})
    write(folder, {'model_cfg': config})
    with pytest.raises(MissingFileError, match=r'tokenizer of local-dir:.*\(a/b\).*not to be had'):
        build_encoder(f'local-dir:{folder}')
    assert asked['name'] == 'a/b'
    assert asked['trust_remote_code'] is False


def test_folders_that_are_none(folder, tmp_path):
    for name, message in {
        'local-dir:': 'no folder',
        f'local-dir:{tmp_path}/my modle': 'no folder.*Did you mean my model',
        f'local-dir:{folder}/open_clip_config.json': 'that is a file',
        'hf_hub:a/b': 'unknown clip_type.*hf-hub:ORG/NAME or local-dir:PATH',
        'hf-hub:name': 'write hf-hub:ORG/NAME',
        'hf-hub:org/a--b': 'that is no name of a repository',
        'hf-hub:org/name@../x': 'write hf-hub:ORG/NAME',
        'local-dir:~nobody_of_that_name/x': 'cannot be read',
        f'local-dir:{"x" * 5000}': 'cannot be read',
    }.items():
        with pytest.raises(UserError, match=message):
            get_record(name)
    for config, message in (
        ({'model_cfg': None}, 'no model config of open_clip'), ({'model_cfg': TINY, 'preprocess_cfg': [1]}, 'an object')
    ):  # fmt: skip
        write(folder, config)
        with pytest.raises(ConfigError, match=message):
            get_record(f'local-dir:{folder}')
    write(folder, {'model_cfg': TINY})
    (folder / 'open_clip_model.safetensors').rename(folder / 'epoch_3.safetensors')
    with pytest.raises(MissingFileError, match=r'no weights .*open_clip_model.safetensors.*it has epoch_3.safetensors'):
        build_encoder(f'local-dir:{folder}')
    (folder / 'open_clip_config.json').unlink()
    with pytest.raises(MissingFileError, match=r'no config of a CLIP \(open_clip_config.json, .*it has epoch'):
        get_record(f'local-dir:{folder}')


def serve(server, folder, repository, revision='main'):
    for path in folder.iterdir():
        server.files[f'/{repository}/resolve/{revision}/{path.name}'] = path.read_bytes()


def test_a_repository_is_fetched_once_and_serves_offline(hub, folder, converted, monkeypatch):
    serve(hub, folder, 'org/name')
    serve(hub, converted(form='shards')[0], 'org/theirs', 'v2')
    first = [build_encoder(name).fingerprint for name in ('hf-hub:org/name', 'hf-hub:org/theirs@v2')]
    assert first[0] == build_encoder(f'local-dir:{folder}').fingerprint
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    before = len(hub.requests)
    again = [build_encoder(name).fingerprint for name in ('hf-hub:org/name', 'hf-hub:org/theirs@v2')]
    assert again == first
    assert len(hub.requests) == before
    with pytest.raises(UserError, match='hf-hub:org/other .*not in the cache.*unset HF_HUB_OFFLINE'):
        get_record('hf-hub:org/other')


def test_without_a_network_the_cache_serves(hub, folder, monkeypatch):
    serve(hub, folder, 'org/name')
    record = get_record('hf-hub:org/name')
    for name in ('ENDPOINT', 'HUGGINGFACE_CO_URL_TEMPLATE'):
        value = getattr(huggingface_hub.constants, name).replace(hub.url, 'http://127.0.0.1:9')
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    assert get_record('hf-hub:org/name') == record
    monkeypatch.setattr('time.sleep', lambda _: None)
    with pytest.raises(UserError, match='org/other.*not in the cache.*check the network'):
        get_record('hf-hub:org/other')


@pytest.mark.parametrize(
    ('code', 'message'),
    [(401, 'does not exist, or is private.*hf auth login'), (403, 'those who ask.*hf auth login')],
)
def test_repositories_that_are_closed(hub, code, message):
    hub.status['/org/name/resolve/main/open_clip_config.json'] = [code] * 9
    with pytest.raises(MissingFileError, match=f'hf-hub:org/name cannot be had from {hub.url}/org/name: .*{message}'):
        get_record('hf-hub:org/name')


def test_a_repository_without_a_model(hub):
    hub.files['/org/name/resolve/main/README.md'] = b'nothing here'
    with pytest.raises(MissingFileError, match='hf-hub:org/name holds no config of a CLIP'):
        get_record('hf-hub:org/name')


def test_a_model_that_comes_into_a_repository_later_is_found(hub, folder):
    hub.files['/org/name/resolve/main/README.md'] = b'nothing here'
    with pytest.raises(MissingFileError, match='holds no config of a CLIP'):
        get_record('hf-hub:org/name')
    serve(hub, folder, 'org/name')
    assert get_record('hf-hub:org/name').description['model_cfg'] == TINY
