"""Files that would run something, and damaged ones."""

from __future__ import annotations

import pathlib
import zipfile

import numpy as np
import pytest
import torch

from simfeatup.errors import WeightFileError
from simfeatup.weight_files import read_state_dict
from tests.simfeatup.conftest import check


class Bomb:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def touch(path):
    pathlib.Path(path).touch()


class Quiet(dict):
    """Called as a class, as data would be."""

    def __init__(self, marker=None):
        super().__init__()
        if marker:
            touch(marker)

    def __reduce__(self):
        return Quiet, (self['marker'],)


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('place', ['beside', 'in', 'instead'])
@pytest.mark.parametrize('kind', ['eval', 'exec', 'touch', 'getattr', 'system', 'Popen', 'load'])
def test_a_file_that_would_run_something_is_refused(tmp_path, weights, kind, place, legacy):
    import os
    import subprocess

    marker = str(tmp_path / 'ran')
    bomb = {
        'eval': Bomb(eval, f'open({marker!r}, "w")'),
        'exec': Bomb(exec, f'open({marker!r}, "w")'),
        'touch': Bomb(touch, marker),
        'getattr': Bomb(pathlib.Path(marker).touch),
        'system': Bomb(os.system, f'touch {marker}'),
        'Popen': Bomb(subprocess.Popen, ['touch', marker]),
        'load': Bomb(torch.load, marker),
    }[kind]
    content = {'beside': {'state_dict': weights, 'x': bomb}, 'in': {**weights, 'x': bomb}, 'instead': bomb}[place]
    path = tmp_path / 'evil.pt'
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightFileError, match='evil.pt was refused: it holds more than tensors'):
        read_state_dict(path)
    assert not (tmp_path / 'ran').exists()


def test_a_class_of_the_writer_is_never_made(tmp_path, weights):
    bomb = Quiet()
    bomb['marker'] = str(tmp_path / 'ran')
    torch.save({'state_dict': weights, 'x': bomb}, tmp_path / 'a.pt')
    check(tmp_path / 'a.pt', weights)
    assert not (tmp_path / 'ran').exists()


def test_a_file_cannot_change_what_reads_it(tmp_path, weights):
    # BUILD with a pair sets attributes of what lies on the stack, here of the function that rebuilds tensors
    evil = b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}U\x0c__defaults__K\x01s\x86b.'
    path = tmp_path / 'a.pt'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a/data.pkl', evil)
    with pytest.raises(WeightFileError):
        read_state_dict(path)
    torch.save({'state_dict': weights, 'lr': np.float64(1)}, path)
    check(path, weights)


@pytest.mark.parametrize('keep', [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize('legacy', [False, True])
def test_cut_files_with_foreign_values(tmp_path, keep, legacy):
    path = tmp_path / 'a.pt'
    torch.save(
        {'state_dict': {'a': torch.zeros(90, 90)}, 'lr': np.float64(1)}, path, _use_new_zipfile_serialization=not legacy
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(WeightFileError, match='a.pt is (damaged|empty).*get it again'):
        read_state_dict(path)


def test_bytes_that_were_changed_give_weights_or_a_message(tmp_path, weights):
    """Whatever is damaged: never another kind of error, never code."""
    path = tmp_path / 'a.pt'
    torch.save({'state_dict': weights, 'lr': np.float64(1)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(150):
        changed = bytearray(data)
        for place in random.integers(0, len(data), 3):
            changed[place] = random.integers(256)
        path.write_bytes(changed)
        try:
            assert all(isinstance(value, torch.Tensor) for value in read_state_dict(path).values())
        except WeightFileError as error:
            assert str(path) in str(error)
