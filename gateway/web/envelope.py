"""What goes around every answer: security headers, and one line in the log.

Plain functions around the ASGI application that await nothing. The line holds the route's template and the status, never
the path or the query, which carry UIDs.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.web.context import Web
from gateway.web.problems import route_of

_logger = structlog.get_logger()

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: under that a browser sends `Origin: null` with our own forms. Nothing goes to other sites either way.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
STRICT_TRANSPORT = "max-age=31536000"
"""A year, and only said over TLS (RFC 6797, 7.2): a browser that heard it comes back by TLS alone."""
_QUIET = frozenset({"/healthz", "/readyz"})


def envelope(app: ASGIApp) -> ASGIApp:
    """The application with headers on every answer, errors included, and its line in the log."""

    def around(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return app(scope, receive, send)

        begun = time.perf_counter()

        def sending(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
                if scope.get("scheme") == "https":
                    headers["Strict-Transport-Security"] = STRICT_TRANSPORT
                _note(scope, message["status"])
                web: Web = scope["app"].state.web
                web.meter.served(route_of(scope), scope["method"], message["status"], time.perf_counter() - begun)
            return send(message)

        return app(scope, receive, sending)

    return around


def _note(scope: Scope, status: int) -> None:
    route = route_of(scope)
    if route in _QUIET and status < 400:
        _logger.debug("request_served", route=route, method=scope["method"], status=status)
    else:
        _logger.info("request_served", route=route, method=scope["method"], status=status)
