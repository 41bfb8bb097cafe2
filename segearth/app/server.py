"""Serves the page: address, password, and an end that leaves nothing behind."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import gradio as gr
from starlette.middleware import Middleware

from segearth.app.guard import Guard, keep_files_inside
from segearth.app.page import CSS, FONT, MONO_FONT, build_page
from segearth.app.session import Session
from segearth.app.uploads import Limits
from segearth.errors import ConfigError

logger = logging.getLogger(__name__)

ENDING = [getattr(signal, name) for name in ('SIGTERM', 'SIGHUP') if hasattr(signal, name)]
MOST_WAITING = 20  # presses of all users together
STATES = 200  # browser sessions whose last map can be faded
LOGIN = 'Any user name, and the password that you were given.'


def launch(
    page: gr.Blocks, session: Session, host: str, port: int | None, password: str | None = None, is_opened: bool = False
) -> str:
    """Serves a page until it is closed; returns its address at once.

    Args:
        page: Built by :func:`segearth.app.page.build_page`.
        session: Its session.
        host: Address to listen on.
        port: None for the first free one.
        password: Which visitors have to give; None for everybody.
        is_opened: Open the browser.

    Raises:
        ConfigError: The address is taken or not this machine's.
    """
    host = host.strip('[]')  # around an address of IPv6 they are Gradio's
    _check_address(host, port)
    keep_files_inside(page, session.storage)
    session.storage.keep_present()
    guard = Middleware(Guard, storage=session.storage, upload_bytes=session.limits.upload_bytes)
    page.queue(max_size=MOST_WAITING)
    try:
        with _without_proxy(host):
            _, url, _ = page.launch(
                server_name=f'[{host}]' if ':' in host else host,
                server_port=port,
                auth=(lambda _, given: hmac.compare_digest(given.encode(), password.encode())) if password else None,
                auth_message=LOGIN,
                app_kwargs={'middleware': [guard]},
                max_file_size=session.limits.upload_bytes,
                state_session_capacity=STATES,
                theme=gr.themes.Default(font=FONT, font_mono=MONO_FONT),
                css=CSS,
                share=False,
                ssr_mode=False,
                footer_links=[],
                quiet=True,
                show_error=False,
                inbrowser=is_opened,
                prevent_thread_lock=True,
            )
        return url
    except (OSError, ValueError) as error:
        raise _no_address(host, port, error) from error


def serve(
    host: str, port: int | None, limits: Limits, device: str | None, is_opened: bool, password: str | None = None
) -> None:
    """Serves the page until it is interrupted, or told to end by SIGTERM or SIGHUP; arguments as for :func:`launch`."""
    host = host.strip('[]')
    _check_address(host, port)
    if password is None and not _is_this_machine(host):
        logger.warning(
            'warning: whoever reaches this machine may use the page at %s, for it has no password: set one with '
            '--password or $SEGEARTH_PASSWORD',
            host,
        )
    with _signals_end():
        session = Session(limits, device)
        try:
            page = build_page(session)
            url = launch(page, session, host, port, password, is_opened)
            logger.info('%s is ready for the browser; Ctrl-C ends it', url)
            threading.Event().wait()
        except KeyboardInterrupt:
            logger.info('the page has ended; uploads and results are deleted')
        finally:
            for number in (signal.SIGINT, *ENDING):
                signal.signal(number, signal.SIG_IGN)
            session.close()


def serve_and_exit(*arguments: Any) -> NoReturn:
    """Serves the page as :func:`serve` does, then ends the process without waiting for threads.

    Those of Gradio and torch may be in the middle of something, and Python's own end would make a crash of that.
    """
    serve(*arguments)
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


@contextmanager
def _signals_end() -> Iterator[None]:
    """Has the signals of systemd, Slurm, Docker and closed terminals do what Ctrl-C does; nohup's choice stays."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
    for number in ENDING:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _without_proxy(host: str) -> Iterator[None]:
    """Gradio asks its own page whether it is there; a proxy of the environment would have no answer."""
    before = {name: os.environ.get(name) for name in ('NO_PROXY', 'no_proxy')}
    os.environ.update(dict.fromkeys(before, ','.join(filter(None, [*before.values(), 'localhost', '127.0.0.1', host]))))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _check_address(host: str, port: int | None) -> None:
    """Raises ConfigError where nobody can listen."""
    if port is not None and not 1 <= port <= 65535:
        raise ConfigError(f'--port is {port}; allowed: 1 to 65535')
    try:
        family, kind, _, _, address = socket.getaddrinfo(host or '?', port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        raise _no_address(host, port, error) from error


def _no_address(host: str, port: int | None, error: Exception) -> ConfigError:
    where = f'port {port}' if port else 'the ports from 7860'
    reason = getattr(error, 'strerror', None) or error
    return ConfigError(
        f'cannot listen on {host or "no host"}, {where}: {reason}; give another --port, or as --host an address of '
        'this machine: 127.0.0.1, or 0.0.0.0 for all'
    )


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'
