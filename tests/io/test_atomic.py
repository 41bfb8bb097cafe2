from __future__ import annotations

import errno
import multiprocessing
import os
import stat
import time

import pytest

from segearth.io.atomic import remove_left_over, replacing, write_bytes


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    old = os.umask(0o027)
    yield
    os.umask(old)


def test_a_new_file_has_what_the_umask_leaves(tmp_path, umask):
    write_bytes(tmp_path / 'new' / 'a.txt', b'one')
    assert mode(tmp_path / 'new' / 'a.txt') == 0o640
    assert os.listdir(tmp_path / 'new') == ['a.txt']


@pytest.mark.parametrize('wanted', [0o664, 0o600, 0o666, 0o2660, 0o755])
def test_a_file_keeps_its_mode(tmp_path, umask, wanted):
    path = tmp_path / 'a.txt'
    path.write_bytes(b'one')
    path.chmod(wanted)
    write_bytes(path, b'two')
    assert (path.read_bytes(), mode(path)) == (b'two', wanted)


@pytest.mark.skipif(os.geteuid() != 0, reason='only root may give files away')
def test_a_file_keeps_its_owner_and_group(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_bytes(b'one')
    os.chown(path, 12345, 23456)
    write_bytes(path, b'two')
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


@pytest.mark.parametrize('absolute', [False, True])
@pytest.mark.parametrize('chain', [1, 3])
@pytest.mark.parametrize('dangling', [False, True])
def test_links_are_followed_and_stay(tmp_path, absolute, chain, dangling, monkeypatch):
    (tmp_path / 'shared').mkdir()
    target = tmp_path / 'shared' / 'a.txt'
    if not dangling:
        target.write_bytes(b'one')
    aim = target if absolute else os.path.join('shared', 'a.txt')
    for number in range(chain):
        link = tmp_path / f'link{number}'
        link.symlink_to(aim)
        aim = link if absolute else link.name
    monkeypatch.chdir(tmp_path)
    write_bytes(link.name, b'two')
    assert target.read_bytes() == b'two'
    assert not target.is_symlink()
    assert all((tmp_path / f'link{number}').is_symlink() for number in range(chain))
    assert os.listdir(tmp_path / 'shared') == ['a.txt']


def test_what_cannot_be_written(tmp_path):
    (tmp_path / 'nowhere').symlink_to(tmp_path / 'unmounted' / 'a.txt')
    (tmp_path / 'loop').symlink_to('loop')
    (tmp_path / 'folder').mkdir()
    before = sorted(os.listdir(tmp_path))
    for name in ('nowhere', 'loop', 'folder'):
        with pytest.raises(OSError):  # noqa: PT011 - the kinds differ
            write_bytes(tmp_path / name, b'two')
    assert sorted(os.listdir(tmp_path)) == before


def test_a_write_protected_file_stays(tmp_path, monkeypatch):
    path = tmp_path / 'a.txt'
    path.write_bytes(b'one')
    monkeypatch.setattr(os, 'access', lambda file, _: str(file) != str(path))  # root may write everything
    with pytest.raises(PermissionError, match='write-protected'):
        write_bytes(path, b'two')
    assert path.read_bytes() == b'one'


@pytest.mark.parametrize('error', [OSError(errno.ENOSPC, 'No space left'), KeyboardInterrupt(), SystemExit(3)])
def test_an_error_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / 'a.txt'
    path.write_bytes(b'one')
    with pytest.raises(type(error)), replacing(path) as part:  # noqa: PT012
        part.write_bytes(b'half')
        raise error
    assert path.read_bytes() == b'one'
    assert os.listdir(tmp_path) == ['a.txt']


def test_names_as_long_as_file_systems_allow(tmp_path):
    path = tmp_path / ('ä' * 127)
    write_bytes(path, b'one')
    assert path.read_bytes() == b'one'


def _write_forever(path):
    number = 0
    while True:
        number += 1
        write_bytes(path, bytes([number % 256]) * 300_000)


def test_killed_at_any_moment_it_is_whole(tmp_path):
    """Of a writer that is killed: the file is one of those that it wrote, all of it."""
    path = tmp_path / 'a.txt'
    for wait in (0.0, 0.003, 0.007, 0.011, 0.02, 0.031):
        path.unlink(missing_ok=True)
        process = multiprocessing.get_context('fork').Process(target=_write_forever, args=(path,))
        process.start()
        limit = time.monotonic() + 60
        while not path.exists() and time.monotonic() < limit:
            time.sleep(0.001)
        time.sleep(wait)
        process.kill()
        process.join()
        data = path.read_bytes()
        assert len(data) == 300_000
        assert len(set(data)) == 1


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    write_bytes(tmp_path / 'whole.png', b'whole')
    (tmp_path / '.mine.tmp').write_bytes(b'mine')
    with replacing(tmp_path / 'cut.png') as part:
        left = part.name
    (tmp_path / 'cut.png').rename(tmp_path / left)  # as a kill within the block leaves it
    remove_left_over(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.mine.tmp', 'whole.png']


def test_a_new_file_has_what_the_umask_leaves_whoever_wrote_it(tmp_path):
    import torch
    from safetensors.torch import save_file

    before = os.umask(0o027)
    try:
        with replacing(tmp_path / 'a.safetensors') as part:
            save_file({'a': torch.zeros(1)}, part)
    finally:
        os.umask(before)
    assert (tmp_path / 'a.safetensors').stat().st_mode & 0o777 == 0o640
