from __future__ import annotations

import logging
import os
import signal
import threading

import pytest
import torch

from simfeatup import UpsamplerError, backends, build_upsampler
from simfeatup.backends import choose_backend, use_backend

TENSOR = torch.zeros(1)


def test_choice(monkeypatch):
    monkeypatch.delenv(backends.VARIABLE, raising=False)
    assert choose_backend(TENSOR) == 'cpu'
    assert choose_backend(torch.zeros(1, device='meta')) == 'reference'
    monkeypatch.setenv(backends.VARIABLE, 'reference')
    assert choose_backend(TENSOR) == 'reference'
    with use_backend('cpu'):
        assert choose_backend(TENSOR) == 'cpu'
        with use_backend(None):
            assert choose_backend(TENSOR) == 'cpu'
    assert choose_backend(TENSOR) == 'reference'
    assert choose_backend(TENSOR, 'cpu') == 'cpu'


def test_missing_package_falls_back(monkeypatch, caplog):
    monkeypatch.setitem(backends.BACKENDS, 'cpu', 'no_such_package')
    backends._is_installed.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert choose_backend(TENSOR) == 'reference'
    assert 'no_such_package cannot be used' in caplog.text
    with pytest.raises(UpsamplerError, match='pip install no_such_package'):
        choose_backend(TENSOR, 'cpu')
    backends._is_installed.cache_clear()


def test_errors(monkeypatch):
    with pytest.raises(UpsamplerError, match="no back end 'fast'.*Known: auto, reference, cpu, cuda"):
        choose_backend(TENSOR, 'fast')
    monkeypatch.setenv(backends.VARIABLE, 'tpu')
    with pytest.raises(UpsamplerError, match="'tpu'"):
        build_upsampler('jbu_one', 2)(torch.zeros(1, 2, 2, 2), torch.zeros(1, 3, 4, 4))
    monkeypatch.undo()
    with pytest.raises(UpsamplerError, match='not for tensors on meta'):
        choose_backend(torch.zeros(1, device='meta'), 'cpu')


def upsample():
    torch.manual_seed(0)
    upsampler = build_upsampler('jbu_one', 4, radius=2).eval()
    with torch.inference_mode():
        return upsampler(torch.randn(1, 4, 3, 3), torch.randn(1, 3, 24, 24))


def test_several_threads_at_once():
    expected = upsample().clone()
    results = []
    generator = torch.Generator().manual_seed(0)
    features, guidance = (torch.randn(*shape, generator=generator) for shape in ((1, 4, 3, 3), (1, 3, 24, 24)))
    torch.manual_seed(0)
    upsampler = build_upsampler('jbu_one', 4, radius=2).eval()

    def work():
        with torch.inference_mode():
            results.append(upsampler(features, guidance))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(results) == 4
    assert all(torch.equal(result, results[0]) for result in results)
    assert expected.shape == results[0].shape


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
@pytest.mark.filterwarnings('ignore')
def test_works_after_a_fork():
    torch_threads = torch.get_num_threads()
    expected = upsample()  # the parent has threads of its own now
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        torch.set_num_threads(1)  # torch's own OpenMP threads do not survive a fork; ours are made anew
        from simfeatup.cpu import parallel

        parallel.torch.get_num_threads = lambda: 2
        os.write(write, b'1' if torch.allclose(upsample(), expected, atol=1e-6) else b'0')
        os._exit(0)
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 1) == b'1'
    os.close(read)
    assert torch.get_num_threads() == torch_threads


def test_compiles_without_a_place_for_its_cache():
    from simfeatup.cpu.parallel import compiled

    names = {}
    exec('def double(value):\n    return 2 * value', names)  # a function without a file has no place
    assert compiled(names['double'])(4) == 8
