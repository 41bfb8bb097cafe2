"""Layouts of weight files as training programs write them; their packages are imitated and gone when files are read."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import functools
import logging
import pathlib
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from simfeatup.errors import WeightFileError
from simfeatup.weight_files import read_state_dict
from tests.simfeatup.conftest import check


@pytest.fixture
def foreign():
    """Makes classes of packages that are not installed; they cannot be imported when the file is read."""
    made = []

    def make(full_name, *bases, **content):
        module, name = full_name.rsplit('.', 1)
        parts = module.split('.')
        for package in ('.'.join(parts[:count]) for count in range(1, len(parts) + 1)):
            if package not in sys.modules:
                sys.modules[package] = types.ModuleType(package)
                made.append(package)
        kind = type(name, bases, {'__module__': module, '__qualname__': name, **content})
        setattr(sys.modules[module], name, kind)
        return kind

    def forget():
        for module in made:
            sys.modules.pop(module, None)

    make.forget = forget
    yield make
    forget()


def open_clip(state):
    lr = 0.5 * (1 + np.cos(np.pi * 3 / 20)) * 1e-3
    groups = [{'lr': lr, 'betas': (0.9, 0.98), 'params': [0]}]
    optimizer = {'state': {0: {'step': torch.tensor(3.0), 'exp_avg': torch.zeros(4, 3)}}, 'param_groups': groups}
    state = {f'module.{name}': value for name, value in state.items()}
    return {'epoch': 20, 'name': 'run', 'state_dict': state, 'optimizer': optimizer, 'scaler': {'scale': 65536.0}}


def numpy_beside(state):
    values = [np.float32(1), np.int64(3), np.bool_(True), np.str_('x'), np.dtype('f4'), np.array(['a', None], object)]
    return {
        'model': state,
        'metrics': np.arange(6.0).reshape(2, 3).T,
        'values': values,
        'random': np.random.get_state(),
    }


def standard_library(state):
    return {
        'state_dict': state,
        'args': argparse.Namespace(out=pathlib.PurePosixPath('a/b'), names=types.SimpleNamespace(a=1)),
        'losses': collections.deque([1.0, 2.0], maxlen=5),
        'by_name': collections.defaultdict(list, {'a': [1]}),
        'counts': collections.Counter('aab'),
        'date': datetime.datetime(2024, 5, 1, tzinfo=datetime.timezone.utc),
        'took': datetime.timedelta(seconds=3),
        'make': functools.partial(dict, a=1),
        'kinds': {1, 2}, 'frozen': frozenset({3}), 'number': 3 + 2j, 'slice': slice(1, 2), 'raw': b'bytes',
        'large': 1 << 3000, 'device': torch.device('cuda:0'), 'dtype': torch.bfloat16, 'size': torch.Size([2, 3]),
    }  # fmt: skip


def deepspeed(state):
    return {'module': state, 'global_steps': 3, 'ds_version': '0.1'}


def averaged(state):
    return {'model_ema': {f'module.{name}': value for name, value in state.items()}, 'epoch': 1}


def both(state):
    return {'state_dict_ema': {name: value + 1 for name, value in state.items()}, 'state_dict': state}


def nested(state):
    return {'checkpoint': 1, 'model': {'state_dict': {f'module.model.{name}': value for name, value in state.items()}}}


def parameters(state):
    return {name: torch.nn.Parameter(value) for name, value in state.items()}


def marked_tensors(state):
    marked = {name: value.clone() for name, value in state.items()}
    marked['visual.weight'].is_shared = True  # torch then saves the attributes too
    return {'state_dict': marked, 'loss': np.float64(1)}


LAYOUTS = [
    open_clip, numpy_beside, standard_library, deepspeed, averaged, both, nested, parameters, marked_tensors, dict,
]  # fmt: skip


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('form', ['zip', 'legacy', 'protocol 4'])
@pytest.mark.parametrize('layout', LAYOUTS, ids=lambda layout: layout.__name__)
def test_layouts(tmp_path, weights, layout, form):
    path = tmp_path / 'epoch.pt'
    settings = {'legacy': {'_use_new_zipfile_serialization': False}, 'protocol 4': {'pickle_protocol': 4}}
    torch.save(layout(weights), path, **settings.get(form, {}))
    check(path, weights)


@pytest.mark.parametrize('legacy', [False, True])
def test_objects_of_packages_that_are_not_here(tmp_path, weights, foreign, legacy):
    attributes = foreign('pytorch_lightning.utilities.parsing.AttributeDict', dict)
    container = foreign('omegaconf.dictconfig.DictConfig', object)
    config = foreign('mmengine_fork.config.ConfigDict', dict, __reduce_ex__=lambda self, _: (type(self), (dict(self),)))
    history = foreign('mmengine_fork.logging.HistoryBuffer', object)
    mode = enum.Enum('Mode', 'FAST SLOW', module='own_program.settings')
    foreign('own_program.settings.x', object)
    sys.modules['own_program.settings'].Mode = mode
    settings, buffer = container(), history()
    settings._content = {'a': [1, {'b': 2}]}
    buffer._log = np.arange(3)
    content = {
        'state_dict': attributes({f'model.clip.{name}': value for name, value in weights.items()}),
        'hyper_parameters': attributes(lr=np.float64(1e-3), mode=mode.SLOW, settings=settings),
        'message_hub': {'log_scalars': {'loss': buffer}},
        'meta': config(cfg='model = dict()', dataset_meta=config(classes=('a', 'b'))),
        'callbacks': {"EarlyStopping{'monitor': 'val'}": {'best': torch.tensor(1.0)}},
    }
    torch.save(content, tmp_path / 'last.ckpt', _use_new_zipfile_serialization=not legacy)
    foreign.forget()
    check(tmp_path / 'last.ckpt', weights)


@pytest.mark.parametrize('numpy_beside_it', [False, True], ids=['plain', 'numpy'])
@pytest.mark.parametrize(
    'rename',
    [
        lambda name: f'module._orig_mod.{name}',
        lambda name: f'_orig_mod.module.{name}',
        lambda name: f'model._orig_mod.{name}',
        lambda name: name.replace('visual.', 'visual._orig_mod.'),
        lambda name: f'_fsdp_wrapped_module.{name}'.replace('visual.', 'visual._fsdp_wrapped_module.'),
        lambda name: name.replace('visual.', 'visual._checkpoint_wrapped_module.'),
        lambda name: f'net.clip.{name}',
        lambda name: f'my_own_field.{name}',
    ],
)
def test_prefixes(tmp_path, weights, rename, numpy_beside_it):
    renamed = {rename(name): value for name, value in weights.items()}
    if numpy_beside_it:
        renamed = {'model': renamed, 'lr': np.float64(1)}
    torch.save(renamed, tmp_path / 'a.pt')
    check(tmp_path / 'a.pt', weights)


def test_the_rest_of_a_lightning_module_is_left_out(tmp_path, weights, caplog):
    state = {f'teacher.{name}': value + 1 for name, value in weights.items()}
    state |= {f'model.{name}': value for name, value in weights.items()}
    state |= {'criterion.weight': torch.ones(3), 'metric.total': torch.tensor(3)}
    save_file(state, tmp_path / 'model.safetensors')
    with caplog.at_level(logging.WARNING):
        check(tmp_path / 'model.safetensors', weights)
    assert 'model., teacher.' in caplog.text


@pytest.mark.parametrize('beside', [{}, {'lr': np.float64(1)}], ids=['plain', 'numpy'])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_precisions_views_and_shared_tensors(tmp_path, dtype, beside):
    base = torch.arange(24.0).to(dtype).reshape(4, 6)
    state = {
        'a': base,
        'b': base,
        't': base.t(),
        'row': base[1:3, 2:],
        'empty': torch.zeros(0, 3),
        'flag': torch.tensor(True),
    }
    torch.save({'state_dict': state, **beside}, tmp_path / 'a.pt')
    found = read_state_dict(tmp_path / 'a.pt')
    assert all(torch.equal(found[name].float(), value.float()) for name, value in state.items())
    assert {name: value.dtype for name, value in found.items()} == {name: value.dtype for name, value in state.items()}


def test_a_zip_that_was_packed_again_with_compression(tmp_path, weights):
    torch.save({'state_dict': weights, 'lr': np.float64(1)}, tmp_path / 'a.pt')
    with zipfile.ZipFile(tmp_path / 'a.pt') as source, zipfile.ZipFile(tmp_path / 'b.pt', 'w', 8) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    check(tmp_path / 'b.pt', weights)


class Plain:
    """Of a program that is not here."""


@pytest.mark.parametrize('nest', [False, True])
def test_whole_modules_are_refused_with_the_remedy(tmp_path, nest):
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    torch.save({'model': module, 'epoch': 1} if nest else module, tmp_path / 'whole.pt')
    with pytest.raises(WeightFileError, match=r'whole.pt holds a whole module \(Sequential\).*model.state_dict\(\)'):
        read_state_dict(tmp_path / 'whole.pt')


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    'value',
    [
        torch.eye(3).to_sparse(),
        torch.eye(3).to_sparse_csr(),
        torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8),
        torch.empty(3, device='meta'),
    ],
    ids=['sparse', 'csr', 'quantised', 'meta'],
)
@pytest.mark.parametrize('beside', [{}, {'lr': np.float64(1)}], ids=['plain', 'numpy'])
def test_special_tensors_are_refused(tmp_path, value, beside):
    torch.save({'state_dict': {'a': torch.ones(2), 'visual.strange': value}, **beside}, tmp_path / 'a.pt')
    with pytest.raises(WeightFileError, match='a.pt .*visual.strange'):
        read_state_dict(tmp_path / 'a.pt')


def test_arrays_are_no_tensors(tmp_path):
    torch.save({'state_dict': {'a': np.ones(3)}}, tmp_path / 'a.pt')
    with pytest.raises(WeightFileError, match='a are no tensors'):
        read_state_dict(tmp_path / 'a.pt')


def test_a_folder_is_named_with_its_files(tmp_path):
    (tmp_path / 'model.safetensors').write_bytes(b'')
    with pytest.raises(WeightFileError, match='is a folder; give the weight file in it .model.safetensors'):
        read_state_dict(tmp_path)


@pytest.mark.parametrize('content', [b'\xef\xbb\xbf<html><head>', b'\n\n<!DOCTYPE HTML>', pickle.dumps({'a': 1})])
@pytest.mark.filterwarnings('ignore')
def test_other_files(tmp_path, content):
    (tmp_path / 'a.pt').write_bytes(content)
    with pytest.raises(WeightFileError, match='web page|holds no state dict|damaged'):
        read_state_dict(tmp_path / 'a.pt')


@pytest.mark.parametrize('beside', [{}, {'object': Plain()}], ids=['plain', 'object'])
def test_signs_that_torch_writes_apart(tmp_path, beside):
    torch.save({'state_dict': {'a': torch.tensor([1 + 2j]).conj().imag}, **beside}, tmp_path / 'a.pt')
    assert read_state_dict(tmp_path / 'a.pt')['a'].tolist() == [-2.0]


def test_the_content_decides_not_the_name(tmp_path):
    torch.save({'a': torch.ones(2)}, tmp_path / 'a.safetensors')
    assert read_state_dict(tmp_path / 'a.safetensors')['a'].tolist() == [1.0, 1.0]
