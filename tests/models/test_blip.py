import re

import pytest
import torch
from transformers import BlipConfig, BlipForImageTextRetrieval

from segearth.errors import CheckpointError, ConfigError, MissingFileError
from segearth.models import blip
from segearth.models.blip import BlipTextTower, BlipTowers, DenseBLIP, convert_blip_names, load_tokenizer
from segearth.models.build import build_encoder
from segearth.models.checkpoints import load_state_dict

VISION = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=64)
WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'photo', 'of', 'road', 'water', 'the', '##s', '.']
TEXT = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, vocab_size=len(WORDS))
TEXT['max_position_embeddings'] = 40


@pytest.fixture(scope='module')
def reference():
    """transformers' own BLIP for comparing images with texts, random and tiny."""
    torch.manual_seed(0)
    config = BlipConfig(
        vision_config={**VISION, 'patch_size': 16, 'layer_norm_eps': 1e-6},
        text_config={**TEXT, 'layer_norm_eps': 1e-12},
        image_text_hidden_size=10,
    )
    model = BlipForImageTextRetrieval(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def to_salesforce_names(state_dict):
    """The original's names, and what its files hold beside the weights that are needed."""
    renamed = {}
    for name, value in state_dict.items():
        name = name.replace('vision_model.embeddings.class_embedding', 'visual_encoder.cls_token')
        name = name.replace('vision_model.embeddings.position_embedding', 'visual_encoder.pos_embed')
        name = name.replace('vision_model.embeddings.patch_embedding', 'visual_encoder.patch_embed.proj')
        name = name.replace('vision_model.post_layernorm', 'visual_encoder.norm')
        name = re.sub(r'^vision_model\.encoder\.layers\.', 'visual_encoder.blocks.', name)
        if name.startswith('visual_encoder'):
            name = name.replace('layer_norm', 'norm').replace('self_attn.qkv', 'attn.qkv')
            name = name.replace('self_attn.projection', 'attn.proj')
        renamed[name] = value
    momentum = {
        re.sub(r'^(visual_encoder|text_encoder|vision_proj|text_proj)', r'\1_m', name): value + 1
        for name, value in renamed.items()
        if not name.startswith('itm_head')
    }
    extras = {name: torch.zeros(2) for name in ('image_queue', 'text_queue', 'ptr_queue', 'temp')}
    extras['text_decoder.bert.embeddings.word_embeddings.weight'] = torch.zeros(2)
    extras['text_encoder.embeddings.position_ids'] = torch.arange(4)[None]
    return {**renamed, **momentum, **extras}


@pytest.fixture
def towers(reference):
    model = BlipTowers(VISION, TEXT, projection_dim=10).eval()
    load_state_dict(model, convert_blip_names(reference.state_dict()), 'huggingface', 'tiny BLIP')
    return model


@pytest.fixture
def vocabulary(weights_folder):
    folder = weights_folder / blip.TOKENIZER_FOLDER
    folder.mkdir()
    (folder / 'vocab.txt').write_text('\n'.join(WORDS) + '\n')
    return folder


def test_every_parameter_comes_through_the_table_of_names(reference, towers):
    model = BlipTowers(VISION, TEXT, projection_dim=10)
    converted = convert_blip_names(to_salesforce_names(reference.state_dict()))
    assert set(converted) == set(model.state_dict())
    load_state_dict(model, converted, 'salesforce', 'tiny BLIP')  # strict
    for name, value in towers.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@torch.no_grad()
def test_text_and_ordinary_image_embeddings_equal_those_of_transformers(reference, towers, vocabulary):
    tower = BlipTextTower(towers.text_encoder, towers.text_proj, load_tokenizer()).eval()
    phrases = ['a photo of roads.', 'water']
    batch = tower.tokenizer(phrases, padding=True, return_tensors='pt')
    assert batch['input_ids'].tolist()[0] == [2, 5, 6, 7, 8, 11, 12, 3]
    images = torch.randn(2, 3, 64, 64)
    expected = reference(batch['input_ids'], images, use_itm_head=False, attention_mask=batch['attention_mask'])
    text = tower(phrases)
    assert text.shape == (2, 10)
    image = towers.vision_proj(towers.vision_model(images).last_hidden_state[:, 0])
    similarity = torch.nn.functional.normalize(image, dim=-1) @ torch.nn.functional.normalize(text, dim=-1).T
    torch.testing.assert_close(similarity, expected.itm_score)


@torch.no_grad()
def test_padding_does_not_change_a_text(towers, vocabulary):
    tower = BlipTextTower(towers.text_encoder, towers.text_proj, load_tokenizer()).eval()
    torch.testing.assert_close(tower(['water', 'a photo of the water of the road'])[:1], tower(['water']))
    assert tower(['road ' * 100]).shape == (1, 10), 'long texts are cut'


@torch.no_grad()
def test_dense_readout_is_query_query_attention_without_residual(towers):
    encoder = DenseBLIP(towers.vision_model, towers.vision_proj)
    images = torch.randn(2, 3, 64, 64)
    cls_token, patch_tokens = encoder(images)
    layers = towers.vision_model.encoder.layers
    tokens = layers[0](towers.vision_model.embeddings(images))
    normed = layers[1].layer_norm1(tokens)
    qkv = layers[1].self_attn.qkv(normed).reshape(2, 17, 3, 2, 16)
    query, value = qkv[:, :, 0].transpose(1, 2), qkv[:, :, 2].transpose(1, 2)
    weights = (query @ query.transpose(-1, -2) * 16**-0.5).softmax(-1)
    output = layers[1].self_attn.projection((weights @ value).transpose(1, 2).reshape(2, 17, 32))
    expected = towers.vision_proj(towers.vision_model.post_layernorm(output))
    torch.testing.assert_close(cls_token, expected[:, 0])
    torch.testing.assert_close(patch_tokens, expected[:, 1:])


@torch.no_grad()
def test_other_sizes_and_the_interface_of_dense_clip(towers):
    encoder = DenseBLIP(towers.vision_model, towers.vision_proj)
    assert encoder.patch_size == (16, 16)
    assert encoder.embed_dim == 10
    for height, width in ((48, 80), (32, 32), (64, 96)):
        assert encoder.grid_size(height, width) == (height // 16, width // 16)
        cls_token, patch_tokens = encoder(torch.randn(2, 3, height, width))
        assert cls_token.shape == (2, 10)
        assert patch_tokens.shape == (2, height // 16 * (width // 16), 10)
    with pytest.raises(ConfigError, match='50 x 64.*multiple of the patch size'):
        encoder(torch.randn(1, 3, 50, 64))


@pytest.fixture
def tiny_sizes(monkeypatch):
    monkeypatch.setattr(blip, 'VISION_SIZES', {'base': {key: VISION[key] for key in VISION if key != 'image_size'}})
    monkeypatch.setattr(blip, 'TEXT_SIZE', TEXT)
    monkeypatch.setattr(blip.BlipTowers.__init__, '__defaults__', (None, 10))


@pytest.mark.parametrize('names', ['salesforce', 'transformers'])
def test_build_encoder(reference, vocabulary, weights_folder, tiny_sizes, names, caplog):
    state = reference.state_dict()
    content = {'model': to_salesforce_names(state)} if names == 'salesforce' else state
    torch.save(content, weights_folder / 'model_base_14M.pth')
    encoder = build_encoder('BLIP', 'base', precision='bf16', attention='vanilla')
    assert 'BLIP has one dense read-out' in caplog.text
    assert isinstance(encoder.visual, DenseBLIP)
    assert encoder.record.name == 'BLIP-base'
    cls_token, patch_tokens = encoder.visual(torch.randn(1, 3, 64, 64))
    assert cls_token.dtype == patch_tokens.dtype == torch.bfloat16
    text = encoder.text(['road', 'water'])
    assert text.shape == (2, 10)
    assert text.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in encoder.visual.parameters())
    assert len(encoder.fingerprint) == 64


def test_files_that_are_no_blip(vocabulary, weights_folder, tiny_sizes, reference):
    torch.save({'visual.conv1.weight': torch.zeros(1)}, weights_folder / 'model_base_14M.pth')
    with pytest.raises(CheckpointError, match='no BLIP checkpoint'):
        build_encoder('BLIP', 'base')
    state = to_salesforce_names(reference.state_dict())
    del state['text_proj.bias']
    torch.save({'model': state}, weights_folder / 'model_base_14M.pth')
    with pytest.raises(CheckpointError, match=r'does not fit BLIP-base.*missing \(1\): text_proj.bias'):
        build_encoder('BLIP', 'base')


def test_missing_weights_and_tokenizer(weights_folder, monkeypatch):
    with pytest.raises(MissingFileError, match='model_large.pth.*download_weights.py BLIP-large'):
        build_encoder('BLIP', 'large')

    def offline(*_, **__):
        raise OSError('offline')

    monkeypatch.setattr(blip.BertTokenizer, 'from_pretrained', offline)
    with pytest.raises(MissingFileError, match=r'bert-base-uncased.*vocab.txt.*download_weights.py BLIP-base'):
        load_tokenizer()


@pytest.mark.parametrize('size', ['base', 'large'])
def test_the_real_sizes(size):
    """Parameter counts of the vision towers as published for ViT-B/16 and ViT-L/16 at 224 pixels."""
    with torch.device('meta'):
        towers = BlipTowers({**blip.VISION_SIZES[size], 'image_size': 224})
    millions = sum(parameter.numel() for parameter in towers.vision_model.parameters()) / 1e6
    assert millions == pytest.approx({'base': 85.8, 'large': 303.3}[size], abs=0.1)
    assert towers.text_encoder.config.num_attention_heads == 12
