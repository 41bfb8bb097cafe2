"""A web server of the tests' own on 127.0.0.1: files, ranges, validators, broken connections, errors, a small hub."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest

from segearth.weights import transfer

COMMIT = 'c0ffee' + '0' * 34


class Server:
    """Serves ``files`` (path -> bytes) and keeps the requests.

    Attributes:
        files: Path -> content.
        status: Path -> status codes to answer with first, one a request.
        cut: Path -> byte counts after which the connection is closed, one a request.
        with_range, with_etag, weak_etag, with_last_modified: What the server can do.
        hub_etag: Path -> ETag to state instead of the content's sha256 (as Hugging Face does).
        repositories: ORG/NAME -> whether it is private; made by uploads, and known to those only who upload.
        refused: Status of the answer to all uploads, if not 200.
    """

    def __init__(self):
        self.files, self.status, self.cut, self.hub_etag = {}, {}, {}, {}
        self.with_range = self.with_etag = True
        self.weak_etag = self.with_last_modified = False
        self.requests, self.repositories, self.refused = [], {}, None
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def end_headers(self):
                self.send_header('Connection', 'close')
                super().end_headers()

            def do_GET(self):
                server.answer(self, with_body=True)

            def do_HEAD(self):
                server.answer(self, with_body=False)

            def do_POST(self):
                server.take(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.http.daemon_threads = True
        self.url = f'http://127.0.0.1:{self.http.server_port}'
        threading.Thread(target=self.http.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True).start()

    def etag(self, path):
        return f'"{hashlib.sha256(self.files[path]).hexdigest()}"'

    def answer(self, handler, with_body):
        path = handler.path
        self.requests.append((handler.command, path, dict(handler.headers)))
        codes = self.status.get(path, [])
        code = codes.pop(0) if codes else (200 if path in self.files else 404)
        if code != 200:
            handler.send_response(code)
            if code == 404 and '/resolve/' in path:
                handler.send_header('X-Error-Code', 'EntryNotFound')
                handler.send_header('X-Repo-Commit', COMMIT)
            elif code == 403:
                handler.send_header('X-Error-Code', 'GatedRepo')
            handler.send_header('Content-Length', '0')
            handler.end_headers()
            return
        content, start = self.files[path], 0
        wanted = re.match(r'bytes=(\d+)-', handler.headers.get('Range', ''))
        condition = handler.headers.get('If-Range')
        if wanted and self.with_range and condition in (None, self.etag(path), 'yesterday'):
            start = int(wanted[1])
        if start >= len(content) > 0 and wanted and start:
            handler.send_response(416)
            handler.send_header('Content-Range', f'bytes */{len(content)}')
            handler.send_header('Content-Length', '0')
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        if self.with_etag:
            etag = self.hub_etag.get(path, self.etag(path))
            handler.send_header('ETag', f'W/{etag}' if self.weak_etag else etag)
        if self.with_last_modified:
            handler.send_header('Last-Modified', 'yesterday')
        if '/resolve/' in path:
            handler.send_header('X-Repo-Commit', COMMIT)
        handler.send_header('Content-Length', str(len(content) - start))
        handler.end_headers()
        if with_body:
            cuts = self.cut.get(path, [])
            handler.wfile.write(content[start : start + cuts.pop(0)] if cuts else content[start:])

    def take(self, handler):
        """The calls of an upload to the Hub: make a repository or branch, ask how to send each file, send them all."""
        path, body = handler.path, handler.rfile.read(int(handler.headers['Content-Length'] or 0))
        self.requests.append(('POST', path, dict(handler.headers)))
        answer, code = {}, self.refused or 200
        if path == '/api/repos/create' and not self.refused:
            wanted = json.loads(body)
            repository = f'{wanted["organization"]}/{wanted["name"]}'
            code = 409 if repository in self.repositories else 200
            self.repositories.setdefault(repository, wanted.get('visibility') == 'private' or wanted.get('private'))
            private = bool(self.repositories[repository])
            info = {'id': repository, 'private': private, 'tags': [], 'siblings': []}
            self.files[f'/api/models/{repository}'] = json.dumps(info).encode()
            answer = {'url': f'{self.url}/{repository}'}
        elif '/preupload/' in path:
            files = json.loads(body)['files']
            answer = {'files': [{'path': one['path'], 'uploadMode': 'regular', 'shouldIgnore': False} for one in files]}
        elif '/commit/' in path:
            repository, revision = re.fullmatch(r'/api/models/(.+)/commit/(.+)', path).groups()
            for line in map(json.loads, body.splitlines()):
                if line['key'] == 'file':
                    content = base64.b64decode(line['value']['content'])
                    self.files[f'/{repository}/resolve/{revision}/{line["value"]["path"]}'] = content
            answer = {'commitUrl': f'{self.url}/{repository}/commit/{COMMIT}', 'commitOid': COMMIT}
        data = json.dumps(answer).encode()
        handler.send_response(code)
        handler.send_header('Content-Type', 'application/json')
        handler.send_header('Content-Length', str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def ranges(self, path):
        """The Range header of each GET of a path."""
        return [headers.get('Range') for method, asked, headers in self.requests if (method, asked) == ('GET', path)]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(transfer, 'FIRST_PAUSE', 0)
    for name in ('http_proxy', 'https_proxy', 'all_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    started = Server()
    yield started
    started.http.shutdown()
    started.http.server_close()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Empty weights folder of the test."""
    path = tmp_path / 'weights'
    monkeypatch.setenv('SEGEARTH_WEIGHTS', str(path))
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def hub(server, folder, monkeypatch, tmp_path):
    """The test server as a mirror of Hugging Face, with a cache of its own."""
    template = huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE
    template = template.replace(huggingface_hub.constants.ENDPOINT, server.url)
    monkeypatch.setattr(huggingface_hub.constants, 'HUGGINGFACE_CO_URL_TEMPLATE', template)
    monkeypatch.setattr(huggingface_hub.constants, 'ENDPOINT', server.url)
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_DISABLE_XET', True)
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_DISABLE_TELEMETRY', True)
    return server
