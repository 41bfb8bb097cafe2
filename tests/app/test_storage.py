"""The folder of a page: who owns what, what goes when, and what a killed page leaves behind."""

import os
import subprocess
import sys
import tempfile
import time

import pytest

from segearth.app import storage as module
from segearth.app.storage import PREFIX, Storage, remove_leftovers

KILLED = """
import os, runpy, sys
storage = runpy.run_path(sys.argv[1])['Storage'](1000, 100)
print(storage.folder, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    monkeypatch.setattr(tempfile, 'tempdir', None)
    return tmp_path


@pytest.fixture
def storage(temporary):
    storage = Storage(100_000, 100)
    yield storage
    storage.close()


def upload(storage, name, num_bytes=10):
    path = storage.folder / name / 'scene.tif'
    path.parent.mkdir()
    path.write_bytes(bytes(num_bytes))
    return path


def test_an_entry_goes_with_the_last_session_that_needs_it(storage):
    kept = upload(storage, 'example')
    storage.keep_present()
    shared, alone = upload(storage, 'shared'), upload(storage, 'alone')
    for owner, path in (('a', shared), ('b', shared), ('a', alone), ('a', kept)):
        storage.claim(path, owner)
    result = storage.new_folder('a')
    storage.end('a')
    assert not alone.exists() and not result.exists() and shared.exists() and kept.exists()
    assert storage.has_ended('a') and not storage.has_ended('b')
    storage.end('b')
    assert not shared.exists() and kept.exists()
    storage.claim(upload(storage, 'again'), 'a')  # a lost connection came back
    assert not storage.has_ended('a')


def test_a_new_result_replaces_the_old_one_of_its_kind(storage):
    first, comparison, second, others = (storage.new_folder(owner) for owner in 'aaab')
    for path, owner, kind in ((first, 'a', 'map'), (comparison, 'a', 'comparison'), (others, 'b', 'map')):
        storage.replace(path, owner, kind)
    storage.replace(second, 'a', 'map')
    assert [path.exists() for path in (first, comparison, second, others)] == [False, True, True, True]


def test_old_entries_go_and_the_oldest_make_room(storage):
    paths = [upload(storage, name, 20_000) for name in 'abc']
    now = time.time()
    for path, age in zip(paths, (200, 50, 10), strict=True):
        for each in (path, path.parent):
            os.utime(each, (now - age, now - age))
    for num_bytes, fits, left in ((0, True, 'bc'), (200_000, False, 'bc'), (60_000, True, 'c')):
        assert storage.make_room(num_bytes) == fits
        assert ''.join(path.parent.name for path in paths if path.exists()) == left


def test_files_elsewhere_are_never_removed(storage, temporary):
    mine = temporary / 'mine.tif'
    mine.touch()
    storage.claim(mine, 'a')
    (storage.folder / 'link').symlink_to(temporary)
    storage.claim(storage.folder / 'link' / 'mine.tif', 'a')
    storage.end('a')
    assert mine.exists() and not (storage.folder / 'link').exists()


def test_what_a_killed_page_left_goes_and_nothing_else(storage, temporary):
    run = subprocess.run([sys.executable, '-c', KILLED, module.__file__], capture_output=True, text=True)
    left = run.stdout.strip()
    assert run.returncode == -9 and os.path.isdir(left)
    strange = temporary / f'{PREFIX}strange'  # without a lock
    strange.mkdir()
    valuable = temporary / 'valuable'
    valuable.mkdir()
    (valuable / 'lock').touch()
    (temporary / f'{PREFIX}link').symlink_to(valuable)
    linked = temporary / f'{PREFIX}linked'  # its lock is a link
    linked.mkdir()
    (linked / 'lock').symlink_to(valuable / 'lock')
    remove_leftovers()
    assert not os.path.exists(left)
    assert all(path.exists() for path in (storage.folder, strange, valuable / 'lock', linked))


def test_closing_removes_the_folder(temporary):
    storage = Storage(1000, 100)
    upload(storage, 'a')
    storage.close()
    assert not storage.folder.exists() and storage.has_ended('anyone')
