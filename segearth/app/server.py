"""Serves the page: address, password, what of Gradio's interface is open, and an end that leaves nothing behind.

Gradio serves more than this page uses: it fetches addresses for its visitors, and cuts videos. So a layer before it
lets through what the page needs, and uploads for which there is room. Files in a request have to be uploads, so that
neither an address nor another file of the server can be named in their place.
"""

import hmac
import ipaddress
import logging
import os
import re
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

import anyio
import gradio as gr
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from segearth.app.page import CSS, FONT, MONO_FONT, SCRIPT, build_page
from segearth.app.session import Session
from segearth.app.storage import Storage
from segearth.app.uploads import Limits
from segearth.errors import ConfigError

logger = logging.getLogger(__name__)

OPEN = re.compile(
    r'/|/(config|login|logout|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon.*|(static|assets|svelte)/.+)'
    r'|/gradio_api/(startup-events|app_id|login_check|info|openapi\.json|theme\.css|upload|upload_progress|queue/(join|data)'
    r'|(run|api|call)/.+|heartbeat/.+|reset|cancel|file(=|/)(?!\w+:/).+)/?'
)
UPLOAD = re.compile(r'/gradio_api/upload/?')
FORM_BYTES = 2**20  # of a request that is no upload, and of what surrounds the file in one
MOST_WAITING = 20  # presses of all users together
LOGIN = 'Any user name, and the password that you were given.'


class Guard:
    """A layer in front of Gradio's application that lets through what the page needs."""

    def __init__(self, app: ASGIApp, storage: Storage, upload_bytes: int) -> None:
        self._app = app
        self._storage = storage
        self._upload_bytes = upload_bytes
        self._coming = 0  # bytes of uploads that are on their way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers why not."""
        if scope['type'] != 'http':
            return await self._app(scope, receive, send)
        if not OPEN.fullmatch(scope['path']):
            return await PlainTextResponse('not a part of this page', 404)(scope, receive, send)
        if scope['method'] not in ('POST', 'PUT', 'PATCH'):
            return await self._app(scope, receive, send)
        length = dict(scope['headers']).get(b'content-length', b'')
        if not length.isdigit():
            return await PlainTextResponse('the length of the request is missing', 411)(scope, receive, send)
        is_upload = UPLOAD.fullmatch(scope['path']) is not None
        allowed = FORM_BYTES + (self._upload_bytes if is_upload else 0)
        if int(length) > allowed:
            text = f'the request has {int(length)} bytes, allowed are {allowed}'
            return await PlainTextResponse(text, 413)(scope, receive, send)
        if not is_upload:
            return await self._app(scope, receive, send)
        coming = self._coming = self._coming + int(length)
        try:
            if not await anyio.to_thread.run_sync(self._storage.make_room, coming):
                text = 'too many uploads are on their way: try again in a minute'
                return await PlainTextResponse(text, 503)(scope, receive, send)
            return await self._app(scope, receive, send)
        finally:
            self._coming -= int(length)


def launch(
    page: gr.Blocks, session: Session, host: str, port: int | None, password: str | None = None, is_opened: bool = False
) -> str:
    """Serves a page until it is closed; returns its address at once.

    Without a port it takes the first free one, without a password everybody may come; ``is_opened`` opens the browser.
    """
    _keep_files_inside(page, session.storage)
    session.storage.keep_present()
    guard = Middleware(Guard, storage=session.storage, upload_bytes=session.limits.upload_bytes)
    page.queue(max_size=MOST_WAITING)
    try:
        _, url, _ = page.launch(
            server_name=f'[{host}]' if ':' in host else host,
            server_port=port,
            auth=(lambda _, given: hmac.compare_digest(given.encode(), password.encode())) if password else None,
            auth_message=LOGIN,
            app_kwargs={'middleware': [guard]},
            max_file_size=session.limits.upload_bytes,
            theme=gr.themes.Default(font=FONT, font_mono=MONO_FONT),
            css=CSS,
            head=f'<script>{SCRIPT}</script>',
            share=False,
            ssr_mode=False,
            footer_links=[],
            quiet=True,
            show_error=False,
            inbrowser=is_opened,
            prevent_thread_lock=True,
        )
    except (OSError, ValueError) as error:
        raise _no_address(host, port, error) from error
    return url


def serve(
    host: str, port: int | None, limits: Limits, device: str | None, is_opened: bool, password: str | None = None
) -> None:
    """Serves the page until an interruption, as a program whose environment is its own."""
    host = host.strip('[]')  # around an address of IPv6 they are Gradio's
    address = _address(host, port)
    if password is None and not ipaddress.ip_address(address).is_loopback:
        logger.warning(
            'warning: whoever reaches this machine may use the page at %s, for it has no password: set one with '
            '--password or $SEGEARTH_PASSWORD',
            host,
        )
    session = Session(limits, device)
    try:
        set_environment(session, host)
        url = launch(build_page(session), session, host, port, password, is_opened)
        logger.info('%s is ready for the browser; Ctrl-C ends it', url)
        threading.Event().wait()
    except KeyboardInterrupt:
        logger.info('the page has ended; uploads and results are deleted')
    finally:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        session.close()
        signal.signal(signal.SIGINT, before)


def set_environment(session: Session, host: str) -> None:
    """Tells Gradio by this process's environment where files go, and to ask nobody but its own page, without proxy."""
    os.environ |= {'GRADIO_TEMP_DIR': str(session.storage.folder), 'GRADIO_ANALYTICS_ENABLED': 'False'}
    around = [os.environ.get('NO_PROXY'), os.environ.get('no_proxy'), 'localhost', '127.0.0.1', host]
    os.environ['NO_PROXY'] = os.environ['no_proxy'] = ','.join(filter(None, around))


def serve_and_exit(*arguments: Any) -> NoReturn:
    """Serves the page as :func:`serve` does, then ends the process without waiting for threads.

    Those of Gradio and torch may be in the middle of something, and Python's own end would make a crash of that.
    """
    serve(*arguments)
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _keep_files_inside(page: gr.Blocks, storage: Storage) -> None:
    """Has a page take files of the storage only, where they lie: Gradio would fetch addresses, and copy results."""

    def stay(path: Any) -> str:
        if storage.folder not in storage.folder.joinpath(str(path)).resolve().parents:
            raise ValueError(f'{path} is no upload and no result')
        return str(path)

    async def stay_async(path: Any) -> str:
        return stay(path)

    for block in page.blocks.values():
        vars(block).update(move_resource_to_block_cache=stay, async_move_resource_to_block_cache=stay_async)


def _address(host: str, port: int | None) -> str:
    """The numbers of an address; refuses those, and ports, where nobody can listen."""
    if port is not None and not 1 <= port <= 65535:
        raise ConfigError(f'--port is {port}; allowed: 1 to 65535')
    try:
        family, kind, _, _, address = socket.getaddrinfo(host or '?', port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
        return str(address[0])
    except (OSError, UnicodeError) as error:
        raise _no_address(host, port, error) from error


def _no_address(host: str, port: int | None, error: Exception) -> ConfigError:
    where = f'port {port}' if port else 'the ports from 7860'
    reason = getattr(error, 'strerror', None) or error
    return ConfigError(
        f'cannot listen on {host or "no host"}, {where}: {reason}; give another --port, or as --host an address of '
        'this machine: 127.0.0.1, or 0.0.0.0 for all'
    )
