"""Folders that go to a hub of the tests' own, and come back from it."""

import shutil

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from segearth.commands import main
from segearth.errors import UserError
from segearth.models.feature_upsampler import build_feature_upsampler
from simfeatup import build_upsampler

CARD = '---\nlicense: mit\n---\n\n# Mine\n'


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A folder with an upsampler of options of its own, and a token."""
    monkeypatch.setenv('HF_TOKEN', 'hf_of_the_tests')
    path = tmp_path / 'model_6'
    path.mkdir()
    torch.manual_seed(0)
    save_file(build_upsampler('jbu_one', 16, radius=1).state_dict(), path / 'upsampler.safetensors')
    (path / 'upsampler_config.json').write_text('{"model_name": "jbu_one", "options": {"radius": 1}}')
    (path / 'README.md').write_text(CARD)
    (path / '.secret').write_text('x')
    return path


@pytest.mark.parametrize('revision', [None, 'v2'])
def test_a_folder_is_uploaded_and_loads_from_there(hub, model, capsys, revision):
    flags = ['--private'] + (['--revision', revision] if revision else [])
    main(['push', str(model), 'org/name', *flags])
    name = f'hf-hub:org/name@{revision}' if revision else 'hf-hub:org/name'
    assert capsys.readouterr().out.split() == [f'{hub.url}/org/name', name]
    assert hub.repositories == {'org/name': True}
    sent = {path.rsplit('/', 1)[1] for path in hub.files if '/resolve/' in path}
    assert sent == {'README.md', 'upsampler.safetensors', 'upsampler_config.json'}
    assert all('hf_of_the_tests' in str(headers) for method, _, headers in hub.requests if method == 'POST')
    for place in (name, f'local-dir:{model}'):
        found = build_feature_upsampler({'model_path': place}, None, 16).state_dict()
        sent = load_file(model / 'upsampler.safetensors')
        assert found.keys() == sent.keys()
        assert all(torch.equal(value, sent[key]) for key, value in found.items())


def test_what_is_no_upsampler(model):
    place = {'model_path': f'local-dir:{model}'}
    for given, dim, message in (
        (place, 8, 'is for features of 16 channels'),
        (place | {'model_name': 'jbu_stack'}, 16, 'has no option|does not fit'),
        ({'model_path': f'local-dir:{model.parent}'}, 16, 'holds no upsampler'),
    ):
        with pytest.raises((UserError, ValueError), match=message):
            build_feature_upsampler(given, None, dim)
    for config, message in (
        ('{"options": {}}', 'must say model_name'),
        ('{"model_name": "x"}', "unknown upsampler 'x'"),
        ('{"model_name": "jbu_one", "options": {"radius": "wide"}}', 'options of .* that do not fit'),
    ):
        (model / 'upsampler_config.json').write_text(config)
        with pytest.raises(UserError, match=message):
            build_feature_upsampler(place, None, 16)


@pytest.mark.parametrize(
    ('card', 'message'),
    [
        ('---\nlicense: \'\'\n---\n', 'names no licence'),
        ('# No head\n', 'names no licence'),
        ('---\nlicense: [\n---\n', 'is none of a model card'),
        (None, 'wanted are weights .* and README.md'),
    ],
)
def test_a_card_that_is_not_ready(hub, model, card, message):
    (model / 'README.md').unlink() if card is None else (model / 'README.md').write_text(card)
    with pytest.raises(UserError, match=message):
        main(['push', str(model), 'org/name'])
    assert not hub.requests


def without(model, name, content=None):
    """A copy of a folder without a file, or with other content in it."""
    copy = shutil.copytree(model, model.parent / f'without_{name}')
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    return copy


def test_a_branch_that_no_name_can_hold(hub, model):
    with pytest.raises(UserError, match="--revision is 'bad branch!'"):
        main(['push', str(model), 'org/name', '--revision', 'bad branch!'])
    assert not hub.repositories


def test_folders_that_are_not_uploaded(hub, model):
    (model.parent / 'empty').mkdir()
    for folder, message in (
        (model.parent / 'empty', 'not empty: none.*WORK_DIR/model_STEP'),
        (model.parent, 'Do you mean .*/model_6'),
        (model.parent / 'nowhere', 'there is no folder'),
        (without(model, 'upsampler_config.json'), 'their config'),
        (without(model, 'upsampler.safetensors', b''), 'holds no model'),
    ):
        with pytest.raises(UserError, match=message):
            main(['push', str(folder), 'org/name'])
    with pytest.raises(UserError, match="'name' names no repository"):
        main(['push', str(model), 'name'])
    assert not hub.requests


def test_without_a_token_or_a_network(hub, model, monkeypatch):
    monkeypatch.setattr('segearth.weights.push.get_token', lambda: None)
    with pytest.raises(UserError, match='hf auth login'):
        main(['push', str(model), 'org/name'])
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(UserError, match='unset HF_HUB_OFFLINE'):
        main(['push', str(model), 'org/name'])
    assert not hub.requests


@pytest.mark.parametrize(
    ('code', 'message'), [(401, 'token is not accepted'), (403, 'not yours'), (404, 'no such user'), (400, 'Bad')]
)
def test_a_hub_that_refuses(hub, model, code, message):
    hub.refused = code
    with pytest.raises(UserError, match=f'was not uploaded to {hub.url}/org/name: .*{message}'):
        main(['push', str(model), 'org/name'])


def test_private_is_never_public(hub, model):
    main(['push', str(model), 'org/name'])
    hub.files.pop('/org/name/resolve/main/README.md')
    with pytest.raises(UserError, match='is there and public'):
        main(['push', str(model), 'org/name', '--private'])
    assert '/org/name/resolve/main/README.md' not in hub.files
    main(['push', str(model), 'org/name'])  # again, of one's own
