import errno
import hashlib
import logging
import pathlib
import shutil
import threading
from collections import namedtuple

import huggingface_hub.constants
import pytest

from segearth.errors import CheckpointError
from segearth.weights import transfer
from segearth.weights.records import Checksum
from segearth.weights.transfer import (
    ATTEMPTS,
    DownloadError,
    digest,
    fetch,
    note_path,
    read_note,
    verify,
    write_note,
)

CONTENT = bytes(range(256)) * 4000  # about one megabyte
SHA256 = Checksum('sha256', hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def url(server):
    server.files['/weights.pt'] = CONTENT
    return f'{server.url}/weights.pt'


@pytest.fixture
def target(tmp_path):
    return tmp_path / 'weights' / 'weights.pt'


def left_over(target):
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def test_fetch(url, target):
    told = []
    assert fetch(url, target, SHA256, lambda *state: told.append(state)) == target
    assert target.read_bytes() == CONTENT
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert left_over(target) == []


def test_nothing_is_fetched_twice(server, url, target):
    fetch(url, target)
    fetch(url, target)
    assert len(server.requests) == 1


def test_a_broken_connection_is_resumed(server, url, target, caplog):
    server.cut['/weights.pt'] = [300_000, 200_000]
    with caplog.at_level(logging.WARNING):
        fetch(url, target, SHA256)
    assert target.read_bytes() == CONTENT
    assert server.ranges('/weights.pt') == [None, 'bytes=300000-', 'bytes=500000-']
    assert 'closed after 300000 of 1024000 bytes' in caplog.text


def test_many_interruptions_do_not_matter_while_bytes_arrive(server, url, target):
    server.cut['/weights.pt'] = [50_000] * 15
    fetch(url, target, SHA256)
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 16


def test_an_interrupted_program_continues_where_it_stopped(server, url, target):
    class Interrupt:
        def __call__(self, there, _):
            if there:
                raise KeyboardInterrupt

    server.cut['/weights.pt'] = [400_000]
    with pytest.raises(KeyboardInterrupt):
        fetch(url, target, None, Interrupt())
    assert not target.exists()
    arrived = target.with_name('weights.pt.part').stat().st_size
    assert arrived
    fetch(url, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges('/weights.pt')[-1] == f'bytes={arrived}-'
    assert server.requests[-1][2]['If-Range'] == server.etag('/weights.pt')
    assert left_over(target) == []


def test_a_file_that_changed_meanwhile_is_fetched_from_the_start(server, url, target):
    server.cut['/weights.pt'] = [200_000] + [0] * (ATTEMPTS - 1)
    with pytest.raises(DownloadError, match='0.2 MB have arrived.*run the same command again'):
        fetch(url, target)
    server.files['/weights.pt'] = CONTENT[::-1]
    fetch(url, target)
    assert target.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize('checksum', [None, SHA256])
def test_without_a_validator_only_a_checksum_allows_resuming(server, url, target, checksum):
    server.with_etag = False
    server.cut['/weights.pt'] = [300_000]
    fetch(url, target, checksum)
    assert target.read_bytes() == CONTENT
    assert server.ranges('/weights.pt') == [None, 'bytes=300000-' if checksum else None]


def test_a_weak_etag_is_no_validator_but_a_date_is(server, url, target):
    server.weak_etag = server.with_last_modified = True
    server.cut['/weights.pt'] = [300_000]
    fetch(url, target)
    assert server.requests[-1][2]['If-Range'] == 'yesterday'
    assert target.read_bytes() == CONTENT


def test_a_server_without_ranges(server, url, target):
    server.with_range = False
    server.cut['/weights.pt'] = [300_000]
    fetch(url, target, SHA256)
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_already_complete(url, target, server):
    target.parent.mkdir()
    target.with_name('weights.pt.part').write_bytes(CONTENT)
    fetch(url, target, SHA256)
    assert target.read_bytes() == CONTENT
    assert server.ranges('/weights.pt') == [f'bytes={len(CONTENT)}-']


def test_a_part_that_is_too_long_is_thrown_away(url, target):
    target.parent.mkdir()
    target.with_name('weights.pt.part').write_bytes(CONTENT + b'more')
    fetch(url, target, SHA256)
    assert target.read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(url, target):
    with pytest.raises(CheckpointError, match='thrown away.*sha256 is .* expected 0000'):
        fetch(url, target, Checksum('sha256', '0' * 64))
    assert not target.exists()
    assert not target.with_name('weights.pt.part').exists()


@pytest.mark.parametrize('code', [404, 403, 410])
def test_an_address_that_does_not_exist_is_not_tried_again(server, url, target, code):
    server.status['/weights.pt'] = [code]
    with pytest.raises(DownloadError, match=f'weights.pt could not be fetched: the server answered {code}'):
        fetch(url, target)
    assert len(server.requests) == 1
    assert not target.exists()


def test_a_busy_server_is_tried_again(server, url, target):
    server.status['/weights.pt'] = [503, 429]
    fetch(url, target)
    assert len(server.requests) == 3
    server.status['/other.pt'] = [503] * 10
    with pytest.raises(DownloadError, match='answered 503'):
        fetch(f'{server.url}/other.pt', target.with_name('other.pt'))
    assert len(server.requests) == 3 + ATTEMPTS


def test_a_server_that_is_not_there(server, target):
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(DownloadError, match='[Rr]efused.*Check the network and the proxy'):
        fetch(f'{server.url}/weights.pt', target)


def test_too_little_space_is_said_before_anything_is_written(url, target, monkeypatch):
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage(1e6, 9e5, 100_000))
    with pytest.raises(DownloadError, match='no space left.*1.0 MB are needed, 0.1 MB are free'):
        fetch(url, target)
    assert not target.with_name('weights.pt.part').exists()


def test_a_disk_that_fills_up_keeps_what_arrived(server, url, target, monkeypatch):
    server.cut['/weights.pt'] = [500_000]
    monkeypatch.setattr(transfer, 'CHUNK', 100_000)
    opened = pathlib.Path.open
    space = [250_000]

    def open_small(path, mode='r', *args, **kwargs):
        file = opened(path, mode, *args, **kwargs)
        if not path.name.endswith('.part') or mode == 'rb':
            return file
        write = file.write

        class Small:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def __getattr__(self, name):
                return getattr(file, name)

            def write(self, chunk):
                space[0] -= len(chunk)
                if space[0] < 0:
                    raise OSError(errno.ENOSPC, 'No space left on device')
                return write(chunk)

        return Small()

    monkeypatch.setattr(pathlib.Path, 'open', open_small)
    with pytest.raises(DownloadError, match='no space left on the disk.*make space and run again'):
        fetch(url, target, SHA256)
    assert not target.exists()
    assert target.with_name('weights.pt.part').stat().st_size == 200_000
    space[0] = 10_000_000
    fetch(url, target, SHA256)
    assert target.read_bytes() == CONTENT
    assert server.ranges('/weights.pt')[-1] == 'bytes=200000-'


def test_offline_mode_and_strange_addresses(url, target, monkeypatch):
    with pytest.raises(DownloadError, match='no http or https address'):
        fetch('file:///etc/hostname', target)
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(DownloadError, match='offline mode is on'):
        fetch(url, target)


def test_a_proxy_is_used(server, target, monkeypatch):
    server.files['http://weights.example/a.pt'] = CONTENT
    monkeypatch.setenv('http_proxy', server.url)
    monkeypatch.setenv('no_proxy', '')
    fetch('http://weights.example/a.pt', target)
    assert target.read_bytes() == CONTENT


def test_two_at_once_fetch_once(server, url, target):
    threads = [threading.Thread(target=fetch, args=(url, target, SHA256)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_git_blob_ids_are_those_of_git(tmp_path):
    path = tmp_path / 'hello.txt'
    path.write_bytes(b'hello\n')  # echo hello | git hash-object --stdin
    assert digest(path, 'git blob') == 'ce013625030ba8dba906f756967f9e9ca394464a'
    verify(path, Checksum('git blob', 'ce013625030ba8dba906f756967f9e9ca394464a'))
    with pytest.raises(CheckpointError, match='git blob is ce0136.*expected 0000'):
        verify(path, Checksum('git blob', '0' * 40))


def test_notes_are_in_the_format_of_sha256sum(tmp_path):
    path = tmp_path / 'weights.pt'
    path.write_bytes(CONTENT)
    assert read_note(path) is None
    write_note(path)
    assert note_path(path).read_text() == f'{SHA256.value}  weights.pt\n'
    assert read_note(path) == SHA256
    note_path(path).write_text('nonsense')
    assert read_note(path) is None
