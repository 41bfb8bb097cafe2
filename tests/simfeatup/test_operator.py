from __future__ import annotations

import os
import signal
import sys
import threading

import pytest
import torch

from simfeatup import UpsamplerError, build_upsampler
from simfeatup.ops import operator
from simfeatup.ops.operator import choose_backend, use_backend

CPU = torch.device('cpu')


def test_choice(monkeypatch):
    monkeypatch.delenv(operator.VARIABLE, raising=False)
    assert choose_backend(CPU) == 'cpu'
    assert choose_backend(torch.device('mps')) not in operator.PATHS  # so plain torch
    monkeypatch.setenv(operator.VARIABLE, 'reference')
    assert choose_backend(CPU) == 'reference'
    with use_backend('cpu'):
        assert choose_backend(CPU) == 'cpu'
        with use_backend(None):
            assert choose_backend(CPU) == 'cpu'
    assert choose_backend(CPU) == 'reference'


def test_missing_package_falls_back(monkeypatch, caplog):
    for path in operator.PATHS.values():
        monkeypatch.setattr(path, '_verdicts', {})
        monkeypatch.setattr(path, '_said', set())
    for name in [name for name in sys.modules if name.startswith('simfeatup.ops.cpu')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'numba', None)  # as if it were not installed
    result = upsample()
    with use_backend('reference'):
        assert torch.equal(result, upsample())
    (message,) = [record.getMessage() for record in caplog.records]
    assert 'numba' in message and 'Instead: plain torch' in message
    monkeypatch.setitem(operator.BACKENDS, 'cpu', 'no_such_package')
    with use_backend('cpu'), pytest.raises(UpsamplerError, match='pip install no_such_package'):
        choose_backend(CPU)


def test_errors(monkeypatch):
    known = "no back end 'fast'.*Known: auto, reference, cpu, cuda"
    with use_backend('fast'), pytest.raises(UpsamplerError, match=known):
        choose_backend(CPU)
    monkeypatch.setenv(operator.VARIABLE, 'tpu')
    with pytest.raises(UpsamplerError, match="'tpu'"):
        build_upsampler('jbu_one', 2)(torch.zeros(1, 2, 2, 2), torch.zeros(1, 3, 4, 4))
    monkeypatch.undo()
    with use_backend('cpu'), pytest.raises(UpsamplerError, match='not for tensors on mps'):
        choose_backend(torch.device('mps'))


def traced(name):
    torch.manual_seed(0)
    upsampler = build_upsampler(name, 2, radius=1).eval().requires_grad_(False)
    return upsampler, [(torch.randn(1, 2, 3, 3), torch.randn(1, 3, 6, 6)) for _ in range(2)]


@pytest.mark.parametrize('name', ['jbu_one', 'joint_bilateral'])
def test_export_takes_operators_as_nodes(name):
    upsampler, (inputs, others) = traced(name)
    program = torch.export.export(upsampler, inputs, strict=False)
    assert sum('simfeatup' in str(node.target) for node in program.graph.nodes) == 2
    torch.testing.assert_close(program.module()(*others), upsampler(*others))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['jbu_one', 'joint_bilateral', 'carafe'])
def test_compilation(name):
    upsampler, (inputs, others) = traced(name)
    compiled = torch.compile(upsampler, backend='aot_eager')
    for arguments in (inputs, others):
        torch.testing.assert_close(compiled(*arguments), upsampler(*arguments))


def test_operators_keep_the_rules_of_torch_library():
    from simfeatup.ops import adaptive_conv, axis_product, folding, joint_kernel, stages

    checks = 'test_schema', 'test_autograd_registration', 'test_faketensor'
    differentiable = adaptive_conv._CONV, joint_kernel.joint_kernel, folding._FOLD, axis_product._PRODUCT
    for op in (*differentiable, adaptive_conv._NORM, stages.colour_kernels, stages.learned_kernels):
        arguments = op.example(op.sizes, torch.float32, CPU)
        if op in differentiable:
            arguments[0].requires_grad_()
        torch.library.opcheck(op._registered, arguments, test_utils=checks)


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
        from simfeatup.ops.cpu import parallel

        parallel.torch.get_num_threads = lambda: 2
        os.write(write, b'1' if torch.allclose(upsample(), expected, atol=1e-6) else b'0')
        os._exit(0)
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 1) == b'1'
    os.close(read)
    assert torch.get_num_threads() == torch_threads


def test_compiles_without_a_place_for_its_cache():
    from simfeatup.ops.cpu.parallel import compiled

    names = {}
    exec('def double(value):\n    return 2 * value', names)  # a function without a file has no place
    assert compiled(names['double'])(4) == 8
