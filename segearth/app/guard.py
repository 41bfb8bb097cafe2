"""What of Gradio's web interface is open: what the page needs, and uploads for which there is room.

Gradio serves more than this page uses: it fetches addresses for its visitors, and cuts videos. Files in a request have
to be uploads, so that neither an address nor another file of the server can be named in their place.
"""

from __future__ import annotations

import re
from typing import Any

import anyio
from gradio.blocks import Blocks
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from segearth.app.storage import Storage

OPEN = re.compile(
    r'/|/(config|login|logout|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon.*|(static|assets|svelte)/.+)'
    r'|/gradio_api/(startup-events|app_id|login_check|info|openapi\.json|theme\.css|upload|upload_progress|queue/(join|data)'
    r'|(run|api|call)/.+|heartbeat/.+|reset|cancel|file(=|/)(?!\w+:/).+)/?'
)
UPLOAD = re.compile(r'/gradio_api/upload/?')
FORM_BYTES = 2**20  # of a request that is no upload, and of what surrounds the file in one


class Guard:
    """A layer in front of Gradio.

    Args:
        app: Gradio's.
        storage: Where uploads go.
        upload_bytes: Largest file.
    """

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


def keep_files_inside(page: Blocks, storage: Storage) -> None:
    """Has the components of a page take files of the storage only, and leave them where they are.

    Gradio would fetch an address that a request names as a file, and copies each result once more.
    """

    def stay(path: Any) -> str:
        if storage.folder not in storage.folder.joinpath(str(path)).resolve().parents:
            raise ValueError(f'{path} is no upload and no result')
        return str(path)

    async def stay_async(path: Any) -> str:
        return stay(path)

    for block in page.blocks.values():
        vars(block).update(move_resource_to_block_cache=stay, async_move_resource_to_block_cache=stay_async)
