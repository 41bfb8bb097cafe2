import argparse
import io
import os
import pickle
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segearth.errors import CheckpointError, MissingFileError
from segearth.models.checkpoints import load_state_dict, read_state_dict, shorten
from simfeatup.archives import Unpickler


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 4)

    def forward(self, x):
        return self.inner(x)


class Tree(nn.Module):
    """Nested as CLIP is, with the numbers that OpenAI's archives hold."""

    def __init__(self):
        super().__init__()
        self.visual = Branch()
        self.logit_scale = nn.Parameter(torch.tensor(2.5))
        self.register_buffer('input_resolution', torch.tensor(224))
        self.register_buffer('context_length', torch.tensor(77))
        self.register_buffer('vocab_size', torch.tensor(49408))

    def forward(self, x):
        return self.visual(x) * self.logit_scale


EXPECTED_NAMES = {'visual.inner.weight', 'visual.inner.bias', 'logit_scale'}


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return {'visual.weight': torch.randn(4, 3), 'visual.bias': torch.randn(4), 'logit_scale': torch.tensor(2.0)}


def assert_equal(found, expected):
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize('nest', [None, 'state_dict', 'model', 'model_state_dict'])
@pytest.mark.parametrize('prefix', ['', 'module.', '_orig_mod.', 'module._orig_mod.'])
def test_pytorch_files(tmp_path, weights, nest, prefix):
    content = {prefix + name: value for name, value in weights.items()}
    if nest:
        content = {nest: content, 'epoch': 20, 'args': argparse.Namespace(lr=1e-3), 'optimizer': {'state': {}}}
    torch.save(content, tmp_path / 'weights.pt')
    assert_equal(read_state_dict(tmp_path / 'weights.pt'), weights)


def test_old_pytorch_format_and_misleading_suffixes(tmp_path, weights):
    torch.save(weights, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    save_file(weights, tmp_path / 'weights.safetensors')
    save_file(weights, tmp_path / 'weights.bin')
    for name in ('old.pth', 'weights.safetensors', 'weights.bin'):
        assert_equal(read_state_dict(tmp_path / name), weights)


@pytest.fixture(params=['script', 'trace'])
def archive(request, tmp_path):
    torch.manual_seed(0)
    model = Tree().eval()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        scripted = torch.jit.script(model) if request.param == 'script' else torch.jit.trace(model, torch.zeros(2, 3))
        scripted.save(str(tmp_path / 'archive.pt'))
    return tmp_path / 'archive.pt', model


def test_torchscript_archives_are_read_without_running_them(archive, monkeypatch):
    path, model = archive
    monkeypatch.setattr(torch.jit, 'load', lambda *_, **__: pytest.fail('torch.jit.load was called'))
    found = read_state_dict(path)
    assert_equal(found, {name: value for name, value in model.state_dict().items() if name in EXPECTED_NAMES})


def test_torchscript_keeps_half_precision_and_views(tmp_path):
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            base = torch.arange(12.0).half().reshape(3, 4)
            self.register_buffer('transposed', base.t())
            self.register_buffer('row', base[1])
            self.register_buffer('empty', torch.zeros(0, 4))

        def forward(self, x):
            return x + self.row

    model = Views()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.trace(model, torch.zeros(4).half()).save(str(tmp_path / 'views.pt'))
    assert_equal(read_state_dict(tmp_path / 'views.pt'), model.state_dict())


def repack(path, replace):
    """Rewrites an archive with some of its members replaced (or dropped, where the content is None)."""
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, 'w') as target:
        for name, content in members.items():
            content = replace.get(name.split('/', 1)[1], content)
            if content is not None:
                target.writestr(name, content)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'touch {self.marker}',)


@pytest.mark.parametrize('kind', ['torch', 'old torch', 'bare pickle', 'torchscript', 'constants of torchscript'])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, kind, request):
    marker, path = tmp_path / 'ran', tmp_path / 'evil.pt'
    evil = Evil(marker)
    if kind == 'torch':
        torch.save({'state_dict': {'a': evil}}, path)
    elif kind == 'old torch':
        torch.save({'a': evil}, path, _use_new_zipfile_serialization=False)
    elif kind == 'bare pickle':
        path.write_bytes(pickle.dumps(evil, protocol=2))
    else:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            torch.jit.script(Tree()).save(str(path))
        repack(path, {'data.pkl' if kind == 'torchscript' else 'constants.pkl': pickle.dumps(evil, protocol=2)})
    if kind == 'constants of torchscript':
        assert set(read_state_dict(path)) == EXPECTED_NAMES  # that part is never read
    else:
        with pytest.raises(CheckpointError, match='refused.*system.*could run code'):
            read_state_dict(path)
    assert not marker.exists()


@pytest.mark.parametrize('missing', ['data/0', 'data.pkl'])
def test_damaged_torchscript_archives(archive, missing):
    path, _ = archive
    repack(path, {missing: None})
    with pytest.raises(CheckpointError, match='damaged'):
        read_state_dict(path)


def test_a_torchscript_tensor_outside_its_storage_is_refused(archive):
    path, _ = archive
    repack(path, {f'data/{key}': b'\0\0' for key in range(8)})
    with pytest.raises(CheckpointError, match='damaged.*shorter'):
        read_state_dict(path)


@pytest.mark.parametrize('keep', [2000, 700, 100, 9])
@pytest.mark.parametrize('form', ['pytorch', 'old pytorch', 'safetensors'])
def test_truncated_files(tmp_path, form, keep):
    path = tmp_path / f'cut.{"safetensors" if form == "safetensors" else "pt"}'
    weights = {'visual.weight': torch.zeros(30, 30)}
    if form == 'safetensors':
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=form == 'pytorch')
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=f'{path.name} is damaged.*get it again'):
        read_state_dict(path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'empty'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n', 'git-lfs'),
        (b'\n<!DOCTYPE html><html>Quota exceeded</html>', 'web page'),
        (b'hello world, this is no checkpoint', 'damaged or no weight file'),
        (bytes(range(256)) * 20, 'damaged or no weight file'),
    ],
)
@pytest.mark.filterwarnings('ignore::UserWarning')
def test_files_that_are_no_weights(tmp_path, content, message):
    path = tmp_path / 'strange.pt'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_state_dict(path)


@pytest.mark.parametrize(
    'content', [torch.zeros(3), [torch.zeros(3)], {}, {'epoch': 3, 'loss': 0.5}, {'state_dict': {}}]
)
def test_files_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / 'other.pt')
    with pytest.raises(CheckpointError, match='holds no state dict'):
        read_state_dict(tmp_path / 'other.pt')


def test_missing_file(tmp_path):
    with pytest.raises(MissingFileError, match='nothing.pt'):
        read_state_dict(tmp_path / 'nothing.pt')


def test_load_lists_what_does_not_fit_and_loads_nothing():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.LayerNorm(2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {**before, '0.weight': torch.zeros(5, 3), 'head.weight': torch.zeros(1)}
    del state['1.bias'], state['1.weight']
    with pytest.raises(CheckpointError) as error:
        load_state_dict(model, state, 'some.pt', 'a tiny model')
    message = str(error.value)
    for part in (
        'some.pt does not fit a tiny model; nothing was loaded',
        'missing (2): 1.weight, 1.bias',
        'unexpected (1): head.weight',
        'other shapes (1): 0.weight is 5x3, expected 4x3',
    ):
        assert part in message
    assert_equal(model.state_dict(), before)


def test_load_says_when_nothing_fits_at_all():
    state = {f'layer{index}.weight': torch.zeros(1) for index in range(50)}
    with pytest.raises(CheckpointError, match=r'no checkpoint of x: none of its 50 names.*layer0.*and 44 more'):
        load_state_dict(nn.Linear(2, 2), state, 'resnet.pt', 'x')


def test_load_converts_to_the_model_precision():
    model = nn.Linear(3, 4)
    state = {'weight': torch.ones(4, 3).half(), 'bias': torch.zeros(4).bfloat16()}
    load_state_dict(model, state, 'half.pt', 'x')
    assert model.weight.dtype == torch.float32
    assert torch.equal(model.weight, torch.ones(4, 3))


@pytest.mark.parametrize('dtype', [torch.int8, torch.uint8, torch.int64])
def test_integers_are_no_weights(dtype):
    state = {'weight': torch.ones(4, 3, dtype=dtype), 'bias': torch.zeros(4)}
    with pytest.raises(CheckpointError, match=r'no floats \(1\): weight is u?int'):
        load_state_dict(nn.Linear(3, 4), state, 'quantised.pt', 'x')


def test_shorten():
    assert shorten(['a', 'b']) == 'a, b'
    assert shorten('abcdefgh', limit=2) == 'a, b and 6 more'


@pytest.mark.parametrize(
    'name', ['builtins eval', 'builtins getattr', 'torch.hub load', 'tests.x function', 'shutil rmtree']
)
def test_the_restricted_unpickler_refuses_calls(name):
    module, function = name.split()
    calls = f'c{module}\n{function}\n(tR.'.encode()
    with pytest.raises(pickle.UnpicklingError, match=f'refers to {module}.{function}'):
        Unpickler(io.BytesIO(calls), None).load()
