from __future__ import annotations

import pickle

import pytest
import safetensors.torch
import torch

from simfeatup import UpsamplerError, build_upsampler, load_upsampler

DIM = 4


@pytest.fixture
def upsampler():
    torch.manual_seed(0)
    return build_upsampler('jbu_one', DIM).eval()


def lightning(state):
    others = {'model.weight': torch.zeros(2)}
    return {'epoch': 1, 'state_dict': {**{f'upsampler.{key}': value for key, value in state.items()}, **others}}


def module_prefixed(state):
    return {f'module.{key}': value for key, value in state.items()}


@pytest.mark.parametrize('wrap', [dict, lightning, module_prefixed])
def test_formats(upsampler, tmp_path, wrap):
    path = tmp_path / 'weights.ckpt'
    torch.save(wrap(upsampler.state_dict()), path)
    check_equal(load_upsampler('jbu_one', DIM, str(path)), upsampler)


def test_safetensors(upsampler, tmp_path):
    path = tmp_path / 'weights.safetensors'
    safetensors.torch.save_file({f'upsampler.{key}': value for key, value in upsampler.state_dict().items()}, path)
    check_equal(load_upsampler('jbu_one', DIM, path), upsampler)


def check_equal(loaded, expected):
    assert not loaded.training
    for key, value in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_released_checkpoint(shared):
    upsampler = load_upsampler('jbu_stack', 512, shared / 'weights' / 'clip_jbu_stack_cocostuff.ckpt')
    with torch.no_grad():
        out = upsampler(torch.randn(1, 512, 3, 2), torch.randn(1, 3, 48, 32))
    assert out.shape == (1, 512, 48, 32)
    assert out.isfinite().all()


def test_released_checkpoint_for_other_channels(shared):
    with pytest.raises(UpsamplerError, match='512 channels, not 768. Use dim=512'):
        load_upsampler('jbu_stack', 768, shared / 'weights' / 'clip_jbu_stack_cocostuff.ckpt')


def test_bilinear_needs_no_file():
    assert load_upsampler('bilinear', DIM, None) is not None


class RunsCode:
    def __reduce__(self):
        return (print, ('code was run',))


def test_unusable_files(upsampler, tmp_path, capsys):
    path = tmp_path / 'weights.ckpt'

    def fails(message, content=None, name='jbu_one'):
        if content is not None:
            torch.save(content, path)
        with pytest.raises(UpsamplerError, match=message) as caught:
            load_upsampler(name, DIM, path)
        assert str(path) in str(caught.value)

    fails('no weight file at')
    path.write_bytes(pickle.dumps({'state_dict': RunsCode()}))
    fails('could run code')
    fails('could run code', {'state_dict': RunsCode()})
    assert 'code was run' not in capsys.readouterr().out
    path.write_bytes(b'')
    fails('is empty|is damaged')
    fails('no state dict of tensors', {'state_dict': {'a': 'text'}})
    fails('no state dict but a list', [torch.zeros(1)])
    state = upsampler.state_dict()
    fails("Missing: up1.*Unexpected: up.fixup.*Its keys are those of 'jbu_one'", state, 'jbu_stack')
    fails('Missing: up.range_temp. Unexpected: none', {k: v for k, v in state.items() if k != 'up.range_temp'})
    wrong = {**state, 'up.range_proj.0.weight': torch.zeros(16, 3, 1, 1)}
    fails(r'Wrong shapes: up.range_proj.0.weight \(16, 3, 1, 1\) instead of \(32, 3, 1, 1\)', wrong)
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:500])
    fails('is empty|is damaged')
    path = tmp_path / 'weights.safetensors'
    path.write_bytes(b'{}')
    fails('is damaged')


def test_weights_without_a_path():
    with pytest.raises(UpsamplerError, match="'jbu_one' needs a weight file"):
        load_upsampler('jbu_one', DIM, None)
