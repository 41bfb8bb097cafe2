"""The page's server: who gets in, what is open, where it listens, how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from PIL import Image

from segearth.app import server
from segearth.app.page import build_page
from segearth.app.server import launch, set_environment
from segearth.app.session import Session
from segearth.app.uploads import Limits
from segearth.cli import TOLD_TO_END, interrupt_when_told_to_end
from segearth.commands import main
from segearth.errors import ConfigError
from tests.app.conftest import CHANGED, TinySegmenter

PASSWORD = 'a word & ü'


@pytest.fixture(scope='module', params=[None, PASSWORD], ids=['open', 'password'])
def served(request):
    """Address and session of a page, and its password."""
    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGED:
            patch.setenv(name, '')
        session = Session(Limits(upload_bytes=2**20, kept_uploads=2), make_segmenter=TinySegmenter)
        set_environment(session, '127.0.0.1')
        page = build_page(session)
        url = launch(page, session, '127.0.0.1', None, request.param)
        yield url.rstrip('/'), session, request.param
        page.close(verbose=False)
        session.close()


@pytest.fixture
def client(served):
    """Somebody who has given the password, if there is one."""
    url, _, password = served
    with httpx.Client(base_url=url, trust_env=False) as client:
        if password:
            assert client.post('/login', data={'username': 'me', 'password': 'guessed'}).status_code == 400
            assert client.post('/login', data={'username': 'me', 'password': password}).status_code == 200
        yield client


def test_without_the_password_nothing_is_open(served):
    url, session, password = served
    if password is None:
        pytest.skip('this page has none')
    file = next(session.storage.folder.rglob('*.tif'))
    body = {'data': [], 'fn_index': 0, 'session_hash': 'a'}
    with httpx.Client(base_url=url, trust_env=False) as stranger:
        for path in ('/config', '/gradio_api/info', f'/gradio_api/file={file}', '/gradio_api/queue/data'):
            assert stranger.get(path).status_code == 401, path
        for path in ('/gradio_api/queue/join', '/gradio_api/run/segment', '/gradio_api/call/segment'):
            assert stranger.post(path, json=body).status_code == 401, path
        assert stranger.post('/gradio_api/upload', files={'files': ('a.tif', b'II*\0')}).status_code == 401
        assert 'sentinel2' not in stranger.get('/').text


def test_only_what_the_page_needs_is_open(served, client):
    assert client.get('/config').status_code == 200
    closed = ['/gradio_api/proxy=http://127.0.0.1:9/a', '/gradio_api/file=http://127.0.0.1:9/a']
    for path in (*closed, '/gradio_api/vibe-code', '/gradio_api/custom_component/a/server/b/c', '/monitoring/summary'):
        assert client.get(path).status_code == 404, path
    for path in ('/gradio_api/process_recording', '/gradio_api/vibe-edit', '/gradio_api/component_server'):
        assert client.post(path, json={}).status_code == 404, path
    for path in ('/etc/hostname', f'{os.getcwd()}/pyproject.toml', f'{served[1].storage.folder}/../a'):
        assert client.get(f'/gradio_api/file={path}').status_code in (403, 404), path


def run(client, data, name='segment', session_hash='s'):
    """Calls a function of the page as its browser side does; the server's answer."""
    numbers = [one['id'] for one in client.get('/config').json()['dependencies'] if one['api_name'] == name]
    body = {'data': data, 'fn_index': numbers[0], 'session_hash': session_hash}
    assert client.post('/gradio_api/queue/join', json=body).status_code == 200
    with client.stream('GET', f'/gradio_api/queue/data?session_hash={session_hash}', timeout=60) as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix('data:')) if line.startswith('data:') else {}
            if message.get('msg') == 'process_completed':
                return message


SETTINGS = ['a\nb', 'Demo', 'SegEarth', -0.3, 0, True, 'optical', '']


def test_a_request_names_no_address_and_no_file_of_the_server(served, client, tmp_path):
    secret = tmp_path / 'secret.tif'
    secret.write_bytes(b'II*\0')
    with socket.create_server(('127.0.0.1', 0)) as listening:
        listening.settimeout(0.2)
        here = f'http://127.0.0.1:{listening.getsockname()[1]}/a.tif'
        for path in (here, 'http://example.invalid/a.tif', str(secret)):
            file = {'path': path, 'meta': {'_type': 'gradio.FileData'}}
            for data in ([file, *SETTINGS], [None, file, *SETTINGS[1:]]):
                answer = json.dumps(run(client, data))
                assert '"success": false' in answer or 'The map was not made' in answer
                assert str(tmp_path) not in answer
        with pytest.raises(TimeoutError):
            listening.accept()


def test_an_upload_becomes_a_map_that_goes_with_its_session(served, client, tmp_path):
    Image.new('RGB', (80, 70), (10, 120, 30)).save(tmp_path / 'a.png')
    content = (tmp_path / 'a.png').read_bytes()
    path = client.post('/gradio_api/upload', files={'files': ('a.png', content)}).json()[0]
    answer = run(client, [{'path': path, 'meta': {'_type': 'gradio.FileData'}}, *SETTINGS], session_hash='mine')
    assert answer['success'] and 'Done: a.png' in json.dumps(answer)
    _, _, archive, _, files, _ = answer['output']['data']
    files = {one['orig_name']: f'/gradio_api/file={one["path"]}' for one in [archive['value'], *files]}
    assert client.get(files['a.zip']).content.startswith(b'PK')
    served[1].storage.end('mine')
    assert client.get(files['a.zip']).status_code == 403
    assert not os.path.exists(path)


def test_uploads_are_bounded(served, client):
    large = client.post('/gradio_api/upload', files={'files': ('a.tif', bytes(2**21))})
    assert large.status_code == 413
    for number in range(4):
        content = bytes([number]) * (2**20 - 1000)
        assert client.post('/gradio_api/upload', files={'files': (f'{number}.tif', content)}).status_code == 200
    folder = served[1].storage.folder
    assert sum(path.stat().st_size for path in folder.rglob('?.tif')) <= 2 * 2**20
    assert list(folder.rglob('sentinel2*.tif'))
    assert client.post('/gradio_api/queue/join', content=b'x' * (2**20 + 1)).status_code == 413
    assert client.post('/gradio_api/upload', content=iter([b'a', b'b'])).status_code == 411


@pytest.mark.parametrize(
    'arguments, match',
    [
        (['--port', '99999'], '--port is 99999; allowed: 1 to 65535'),
        (['--port', '0'], '--port is 0'),
        (['--host', 'no-such-host.invalid'], 'cannot listen on no-such-host.invalid'),
        (['--host', '192.0.2.1'], 'cannot listen on 192.0.2.1.*address of this machine'),
        (['--host', ''], 'cannot listen on no host'),
        (['--max-upload-mb', '0'], '--max-upload-mb is 0'),
        (['--max-megapixels', 'nan'], '--max-megapixels is nan'),
        (['--password', ' '], 'the password is empty'),
    ],
)
def test_addresses_and_limits_that_cannot_be_are_explained(arguments, match):
    with pytest.raises(ConfigError, match=match):
        main(['app', *arguments])


@pytest.mark.parametrize(
    'arguments, environment, expected',
    [([], None, None), ([], 'e', 'e'), (['--password', 'w'], 'e', 'w'), (['--password'], 'e', 'typed')],
)
def test_where_the_password_comes_from(arguments, environment, expected, monkeypatch):
    found = []
    monkeypatch.setattr(server, 'serve_and_exit', lambda *values: found.append(values[-1]))
    monkeypatch.setattr('getpass.getpass', lambda prompt: 'typed')
    monkeypatch.delenv('SEGEARTH_PASSWORD', raising=False)
    if environment:
        monkeypatch.setenv('SEGEARTH_PASSWORD', environment)
    main(['app', *arguments])
    assert found == [expected]


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_as_an_interruption_does(number, monkeypatch, tmp_path):
    def told(*arguments):
        assert list(tmp_path.iterdir())
        os.kill(os.getpid(), number)
        time.sleep(60)

    for name in CHANGED:
        monkeypatch.setenv(name, '')
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    monkeypatch.setattr(server, 'build_page', told)
    before = {each: signal.getsignal(each) for each in (*TOLD_TO_END, signal.SIGINT, signal.SIGCHLD)}
    hook = sys.excepthook
    try:
        for each in before:  # nohup and shells in the background have some ignored
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
        interrupt_when_told_to_end()  # as every program does
        server.serve('127.0.0.1', None, Limits(), None, False)
        assert not list(tmp_path.iterdir()) and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        sys.excepthook = hook
        for each, handler in before.items():
            signal.signal(each, handler)


def test_a_command_that_is_terminated_leaves_nothing(tmp_path):
    environment = os.environ | {'TMPDIR': str(tmp_path), 'SEGEARTH_CACHE': str(tmp_path / 'cache')}
    environment |= {'HTTP_PROXY': 'http://127.0.0.1:9'}
    command = [sys.executable, '-m', 'segearth.commands', 'app', '--host', '0.0.0.0']
    path = tmp_path / 'log'
    with open(path, 'w') as log, subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process:
        end = time.monotonic() + 120
        while 'ready' not in path.read_text() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        present = list(tmp_path.glob('segearth-app-*'))
        process.terminate()
        assert process.wait(60) == 0, path.read_text()
    assert 'it has no password' in path.read_text()
    assert len(present) == 1 and not list(tmp_path.glob('segearth-app-*'))
