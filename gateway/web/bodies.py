"""Bodies that stream in: how large one may be, and in which characters.

One of the three files where `async def` stands, since a body is awaited. Opens no session. Does not know routes.
"""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 1024 * 1024
"""The longest report in its structured form is about a quarter of this."""

_UTF_8 = re.compile(rb'charset\s*=\s*"?(utf-?8|us-ascii)"?\s*(;|$)')


class LimitBody:
    """Refuse a body that says it is too large, one that turns out to be, and one in other characters than UTF-8."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what is received on behalf of the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        announced = int(told) if told.isdigit() else self._max_bytes + 1
        kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"").lower()
        foreign = b"charset" in kind and not _UTF_8.search(kind)
        received = 0

        async def counting() -> Message:
            nonlocal received
            if announced > self._max_bytes:
                raise HTTPException(413)
            if foreign:
                raise HTTPException(415)
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise HTTPException(413)
            return message

        await self._app(scope, counting, send)
