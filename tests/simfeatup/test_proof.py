"""Fast paths are used after a proof only, and never after a refusal; refusals are imitated."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from simfeatup import UpsamplerError, build_upsampler
from simfeatup.ops import adaptive_conv, axis_product, folding, operator, stages
from simfeatup.proof import FastPath, pattern

ROOT = Path(__file__).resolve().parents[2]
RIGHT = torch.ones(2)


@pytest.fixture
def path(monkeypatch):
    monkeypatch.delenv('A_PATH', raising=False)
    return FastPath('a path', 'A_PATH', 'the plain one')


def broken():
    raise RuntimeError('could not create a primitive\nand more')
    yield


@pytest.mark.parametrize(
    ('proof', 'reason'),
    [
        (lambda: [(RIGHT, RIGHT)], None),
        (lambda: [(RIGHT + 1e-6, RIGHT)], None),
        (lambda: [(RIGHT, RIGHT), (RIGHT + 0.1, RIGHT)], 'its result is wrong (by 0.1'),
        (lambda: [(RIGHT * torch.nan, RIGHT)], 'its result is wrong'),
        (lambda: [(torch.ones(3), RIGHT)], 'the shape (3,) instead of (2,)'),
        (broken, 'RuntimeError: could not create a primitive.'),
    ],
)
def test_a_proof_decides_once(path, proof, reason, caplog):
    calls = []

    def counted():
        calls.append(threading.current_thread())
        return proof()

    answers = {path.works(('case', torch.float32), counted) for _ in range(3)}
    assert answers == {reason is None}
    assert len(calls) == 1
    messages = [record.getMessage() for record in caplog.records]
    if reason is None:
        assert messages == [] and path.verdicts() == {('case', torch.float32): None}
    else:
        (message,) = messages
        for part in ('a path (case, float32)', reason, 'Instead: the plain one', 'A_PATH=0'):
            assert part in message


def test_the_variable_turns_it_off(path, monkeypatch):
    for value in ('0', 'off', 'No', 'false', '1', '', 'on'):
        monkeypatch.setenv('A_PATH', value)
        assert path.works((), lambda: [(RIGHT, RIGHT)]) is (value in ('1', '', 'on'))
    monkeypatch.setenv('A_PATH', 'perhaps')
    with pytest.raises(UpsamplerError, match="A_PATH is 'perhaps'; allowed: 0"):
        path.works((), lambda: [])


def test_an_error_in_use_refuses(path, caplog):
    def fast():
        raise RuntimeError('this shape is too much')

    for _ in range(2):
        assert path.run((), lambda: [(RIGHT, RIGHT)], fast, lambda: 'plain', 1e-4) == 'plain'
    assert [record.getMessage().count('this shape is too much') for record in caplog.records] == [1]


def test_an_error_of_both_paths_is_not_its_fault(path):
    def wrong_shapes():
        raise ValueError('shapes')

    with pytest.raises(ValueError, match='shapes'):
        path.run((), lambda: [], wrong_shapes, wrong_shapes, 1e-4)
    assert path.verdicts() == {(): None}


def test_many_threads_one_proof(path):
    calls, answers, begun = [], [], threading.Event()

    def proof():
        calls.append(1)
        begun.wait(5)
        return [(RIGHT, RIGHT)]

    threads = [threading.Thread(target=lambda: answers.append(path.works((), proof))) for _ in range(6)]
    for thread in threads:
        thread.start()
    begun.set()
    for thread in threads:
        thread.join(20)
    assert answers == [True] * 6 and calls == [1]


def test_the_callers_modes_stay_outside(path):
    seen = []

    def proof():
        seen.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled('cpu')))
        seen.append((torch.ones(1) * 1).device.type)
        return []

    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16), torch.device('meta'):
        path.works((), proof)
    assert seen == [(True, False, False), 'cpu']


def test_the_pattern_leaves_random_numbers_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    values = pattern(3, 500, dtype=torch.float32)
    assert torch.equal(torch.rand(1), expected)
    assert values.abs().max() <= 1 and values.std() > 0.5


def test_sizes_to_prove():
    assert [*map(operator._size_to_prove, (1, 95, 96, 224, 4097))] == [1, 95, 96, 96, 97]


# The operations: each with proofs anew, one of which goes wrong.


@pytest.fixture
def unproved(monkeypatch):
    monkeypatch.delenv(operator.VARIABLE, raising=False)
    for path in operator.PATHS.values():
        monkeypatch.delenv(path.variable, raising=False)
        monkeypatch.setattr(path, '_verdicts', {})
        monkeypatch.setattr(path, '_said', set())


def upsample(name='jbu_one', gradients=False, dtype=torch.float32):
    torch.manual_seed(0)
    upsampler = build_upsampler(name, 4, radius=2).eval().to(dtype)
    features = pattern(1, 4, 3, 3, dtype=dtype).requires_grad_(gradients)
    guidance = pattern(1, 3, 24, 24, dtype=dtype)
    with torch.set_grad_enabled(gradients):
        result = upsampler(features, guidance)
    if not gradients:
        return (result,)
    parameters = [parameter for parameter in upsampler.parameters() if parameter.requires_grad]
    return (result.detach(), *torch.autograd.grad(result.square().sum(), [features, *parameters], allow_unused=True))


def assert_same(results, expected):
    for one, other in zip(results, expected, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, atol=2e-4, rtol=2e-4)


LOOPS = {
    'simfeatup.ops.cpu.conv._forward': 'adaptive_conv',
    'simfeatup.ops.cpu.conv._backward_kernels': 'adaptive_conv_backward',
    'simfeatup.ops.cpu.conv._backward_features': 'adaptive_conv_backward',
    'simfeatup.ops.cpu.joint._joint_kernel_rows': 'joint_kernel',
    'simfeatup.ops.cpu.joint._grad_similarity_rows': 'joint_kernel_backward',
    'simfeatup.ops.cpu.joint._grad_key_rows': 'joint_kernel_backward',
    'simfeatup.ops.cpu.joint._fold_rows': 'fold',
    'simfeatup.ops.cpu.joint._unfold_rows': 'fold_backward',
    'simfeatup.ops.cpu.stages._learned_rows': 'learned_kernels',
    'simfeatup.ops.cpu.rows.key_rows': 'learned_kernels',
    'simfeatup.ops.cpu.stages._colour_rows': 'colour_kernels',
}


@pytest.mark.parametrize('fault', ['exception', 'wrong'])
@pytest.mark.parametrize('loop', LOOPS)
def test_a_broken_loop_is_not_used(loop, fault, unproved, monkeypatch, caplog):
    name = 'joint_bilateral' if 'colour' in loop else 'jbu_one'
    gradients = LOOPS[loop] not in ('learned_kernels', 'colour_kernels')
    with operator.use_backend('reference'):
        expected = upsample(name, gradients)
    module, _, function = loop.rpartition('.')
    __import__(module)
    compiled = getattr(sys.modules[module], function)

    def broken(*arguments):
        if fault == 'exception':
            raise SystemError('LLVM is not amused')
        # What it writes: other numbers do not stay. Fresh memory may hold the very result of the call before.
        others = [one + 1 if getattr(one, 'ndim', 0) and one.dtype.kind == 'f' else one for one in arguments]
        kept = [one.copy() if getattr(one, 'ndim', 0) else one for one in others]
        compiled(*others)
        compiled(*arguments)
        for argument, other, before in zip(arguments, others, kept, strict=True):
            if getattr(argument, 'ndim', 0) and not np.array_equal(other, before, equal_nan=other.dtype.kind == 'f'):
                argument[...] = 0.25

    monkeypatch.setattr(sys.modules[module], function, broken)
    results = upsample(name, gradients)
    monkeypatch.setattr(sys.modules[module], function, compiled)
    assert_same(results, expected)
    refused = [str(case[0]) for case, reason in operator.PATHS['cpu'].verdicts().items() if reason]
    assert LOOPS[loop] in refused, refused
    assert 'SIMFEATUP_NUMBA=0' in caplog.text and 'numba' in caplog.text


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('name', ['jbu_one', 'joint_bilateral'])
def test_loops_that_work_are_used(name, dtype, unproved, caplog):
    results = upsample(name, gradients=True, dtype=dtype)
    verdicts = operator.PATHS['cpu'].verdicts()
    assert len(verdicts) > 1 and set(verdicts.values()) == {None}
    assert caplog.text == ''
    with operator.use_backend('reference'):
        assert_same(results, upsample(name, gradients=True, dtype=dtype))


def test_the_length_proves_itself(unproved, monkeypatch):
    from simfeatup.ops.cpu import conv

    arguments = pattern(1, 6, 4, 4, dtype=torch.float32), [(pattern(1, 2, 2, 3, 3, dtype=torch.float32), None, None)], 2
    with operator.use_backend('reference'):
        expected = adaptive_conv.adaptive_conv_norm(*arguments)
    monkeypatch.setattr(conv, 'adaptive_conv_norm', lambda *_: (torch.zeros(1), torch.zeros(1)))
    assert_same(adaptive_conv.adaptive_conv_norm(*arguments), expected)
    assert any('shape' in (reason or '') for reason in operator.PATHS['cpu'].verdicts().values())


def test_numba_turned_off(unproved, monkeypatch, caplog):
    monkeypatch.setenv('SIMFEATUP_NUMBA', '0')
    monkeypatch.setattr(operator.Operator, '_fast', lambda *_: 1 / 0)
    for backend in ('auto', 'cpu'):
        with operator.use_backend(backend):
            assert_same(upsample(), upsample())
    assert operator.PATHS['cpu'].verdicts() == {} and caplog.text == ''


def test_proofs_inside_of_a_checkpoint(unproved):
    """Checkpoints count the tensors that are saved, so a proof's own must not be among them."""
    kernels = pattern(1, 3, 3, 4, 4, dtype=torch.float32).requires_grad_()
    folded = checkpoint(lambda kernels: folding.fold_weights(kernels, (2, 2)), kernels, use_reentrant=False)
    keys = pattern(1, 2, 6, 6, dtype=torch.float32).requires_grad_()
    arguments = torch.tensor(1.0), torch.ones(3, 3)
    joint = checkpoint(stages.joint_kernel, keys, *arguments, use_reentrant=False)
    (folded.sum() + joint.square().sum()).backward()
    assert kernels.grad is not None and keys.grad is not None


@pytest.mark.parametrize('default', [torch.float64, torch.bfloat16])
def test_any_default_dtype(default, unproved):
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        for name in ('jbu_one', 'joint_bilateral'):
            upsample(name)
        assert set(operator.PATHS['cpu'].verdicts().values()) == {None}
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize('fault', ['exception', 'wrong', None])
def test_sparse_products(fault, unproved, monkeypatch, caplog):
    maps, rows, cols = (pattern(*shape, dtype=torch.float32) for shape in ((1, 2, 3, 4), (5, 3), (6, 4)))
    sparse = axis_product.sparse

    def broken(*arguments):
        if fault == 'exception':
            raise RuntimeError('Calling addmm on a sparse CPU tensor requires Linux platform')
        return sparse(*arguments) + (0.5 if fault else 0)

    monkeypatch.setattr(axis_product, 'sparse', broken)
    torch.testing.assert_close(axis_product.axis_product(maps, rows, cols), rows @ maps @ cols.T)
    assert ('SIMFEATUP_SPARSE=0' in caplog.text) is (fault is not None)
    monkeypatch.setenv('SIMFEATUP_SPARSE', '0')
    monkeypatch.setattr(axis_product, 'sparse', lambda *_: 1 / 0)
    torch.testing.assert_close(axis_product.axis_product(maps, rows, cols), rows @ maps @ cols.T)


def test_without_compilation():
    program = (
        'import torch, logging; from simfeatup import build_upsampler\n'
        'logging.basicConfig(format="LOG %(message)s")\n'
        'for name in ("jbu_one", "joint_bilateral"):\n'
        '    print(build_upsampler(name, 2, radius=1).eval()(torch.ones(1, 2, 2, 2), torch.ones(1, 3, 4, 4)).shape)\n'
    )
    environment = {**os.environ, 'NUMBA_DISABLE_JIT': '1', 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, '-W', 'ignore', '-c', program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('torch.Size([1, 2, 4, 4])') == 2
    assert [line for line in done.stderr.splitlines() if 'NUMBA_DISABLE_JIT' in line][0].startswith('LOG ')
    assert done.stderr.count('LOG ') == 1
