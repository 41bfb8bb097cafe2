import open_clip
import pytest
import torch
from open_clip.model import CLIP
from open_clip.transformer import QuickGELU

from segearth.errors import ConfigError
from segearth.weights.encoders import ANY_SIZE, ENCODERS, clip_types, get_record

OPEN_CLIP_RECORDS = [record for record in ENCODERS if record.architecture]
TAGGED = [record for record in ENCODERS if record.tag]

# What the original effectively ran: QuickGELU for OpenAI's and Meta's weights, GELU for every weight file.
QUICK_GELU = {'CLIP', 'MetaCLIP'}
SIZES = {
    'CLIP': ['ViT-B/16', 'ViT-L/14'],
    'OpenCLIP': ['ViT-B/16', 'ViT-L/14'],
    'MetaCLIP': ['ViT-B/16', 'ViT-L/14'],
    'CLIPSelf': ['ViT-B/16'],
    'AlignEarth': ['ViT-B/16'],
    'RemoteCLIP': ['ViT-B/32', 'ViT-L/14'],
    'GeoRSCLIP': ['ViT-B/32', 'ViT-L/14', 'ViT-H/14'],
    'SkyCLIP': ['ViT-B/32', 'ViT-L/14'],
    'ALIP': ['ViT-B/32'],
    'BLIP': ['base', 'large'],
    'Demo': [ANY_SIZE],
    'DemoSAR': [ANY_SIZE],
    'Mini': [ANY_SIZE],
    'MiniSAR': [ANY_SIZE],
}


def test_the_table_holds_every_encoder_in_its_sizes():
    found = {}
    for record in ENCODERS:
        found.setdefault(record.group, []).append(record.vit_type)
    assert found == SIZES
    assert clip_types() == list(SIZES)
    assert len({record.name for record in ENCODERS}) == len(ENCODERS)


@pytest.mark.parametrize('record', ENCODERS, ids=lambda record: record.name)
def test_every_record_is_complete(record):
    assert record.licence and record.paper and record.home and record.remedy
    assert bool(record.tag) != bool(record.file), 'either a pretrained tag or a file'
    checksum = record.checksum
    assert checksum is None or len(checksum.value) == {'sha256': 64, 'git blob': 40}[checksum.kind]


@pytest.mark.parametrize('record', OPEN_CLIP_RECORDS, ids=lambda record: record.name)
def test_activation_and_patch_size_of_the_built_tower(record):
    config = open_clip.get_model_config(record.architecture)
    with torch.device('meta'):
        model = CLIP(**{**config, 'quick_gelu': record.quick_gelu})
    expected = QuickGELU if record.group in QUICK_GELU else torch.nn.GELU
    blocks = [*model.visual.transformer.resblocks, *model.transformer.resblocks]
    assert all(type(block.mlp.gelu) is expected for block in blocks)
    assert tuple(model.visual.patch_size) == (record.patch_size, record.patch_size)


@pytest.mark.parametrize('record', TAGGED, ids=lambda record: record.name)
def test_tags_exist_in_open_clip_with_the_same_activation(record):
    tag = open_clip.get_pretrained_cfg(record.architecture, record.tag)
    assert tag, 'tag unknown to open_clip'
    assert tag.get('quick_gelu', False) == record.quick_gelu


@pytest.mark.parametrize(
    ('clip_type', 'vit_type', 'name'),
    [
        ('CLIP', 'ViT-B/16', 'CLIP-ViT-B-16'),
        ('CLIP', 'ViT-L-14', 'CLIP-ViT-L-14'),
        ('CLIP', 'vit_b_16', 'CLIP-ViT-B-16'),
        ('CLIP', 'B/16', 'CLIP-ViT-B-16'),
        ('GeoRSCLIP', 'ViT-H/14', 'GeoRSCLIP-ViT-H-14'),
        ('GeoRSCLIP', None, 'GeoRSCLIP-ViT-B-32'),
        ('BLIP', 'large', 'BLIP-large'),
        ('BLIP', None, 'BLIP-base'),
        ('Demo', 'ViT-B/16', 'Demo'),
        ('DemoSAR', None, 'DemoSAR'),
        ('ViT-L-14-quickgelu', None, 'ViT-L-14-quickgelu'),
        ('ViT-L-14-quickgelu', 'ViT-L/14', 'ViT-L-14-quickgelu'),
    ],
)
def test_lookup(clip_type, vit_type, name):
    assert get_record(clip_type, vit_type).name == name


def test_an_architecture_name_brings_its_own_activation():
    assert get_record('ViT-B-16-quickgelu').quick_gelu
    assert not get_record('ViT-B-16').quick_gelu
    assert 'clip_path' in get_record('ViT-B-16').remedy


@pytest.mark.parametrize(
    ('clip_type', 'vit_type', 'parts'),
    [
        ('RemoteClip', None, ["unknown clip_type 'RemoteClip'", 'RemoteCLIP', 'GeoRSCLIP', 'clip_path']),
        ('ViT-B-17', None, ['ViT-B-16', 'Known: CLIP']),
        ('nonsense!', None, ['Known: CLIP', 'BLIP']),
        # the original silently gave ViT-B/32 here
        ('RemoteCLIP', 'ViT-B/16', ['RemoteCLIP', "'ViT-B/16'", 'ViT-B/32, ViT-L/14']),
        ('BLIP', 'ViT-B/16', ['base, large']),
        ('ViT-B-16', 'ViT-L/14', ['ViT-B-16', "'ViT-L/14'", 'vit_type=None']),
    ],
)
def test_unknown_names_and_sizes_say_what_exists(clip_type, vit_type, parts):
    with pytest.raises(ConfigError) as error:
        get_record(clip_type, vit_type)
    assert all(part in str(error.value) for part in parts), str(error.value)


def test_remedies_name_a_command_or_an_address():
    assert 'tools/download_weights.py RemoteCLIP-ViT-B-32' in get_record('RemoteCLIP').remedy
    assert 'https://github.com/deepglint/ALIP' in get_record('ALIP').remedy
    assert 'weights/ALIP_YFCC15M_B32.pt' in get_record('ALIP').remedy
    assert 'git checkout' in get_record('Demo').remedy
