"""What every route of one process shares: settings, database engine, store, bell, decoders, remembered tokens, passwords.

Knows how it is made. Does not know routes.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine

from gateway.web.decoders import Decoders
from gateway.web.meter import Meter
from gateway.web.proving import Proving
from record.access import Principal
from record.queue import Bell
from record.settings import ApiSettings
from record.store import Store

_REMEMBER_S = 5.0
_MAX_REMEMBERED = 4096


class TokenCache:
    """Recognised tokens, for five seconds: a dashboard that polls costs no query each time. Holds only their sha256."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[bytes, tuple[float, Principal]] = {}

    def get(self, secret: str, recognise: Callable[[str], Principal]) -> Principal:
        """Whom the token stands for; asks `recognise` when that was not known five seconds ago."""
        key, now = hashlib.sha256(secret.encode()).digest(), time.monotonic()
        with self._lock:
            known = self._known.get(key)
        if known and known[0] > now:
            return known[1]
        principal = recognise(secret)
        with self._lock:
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            self._known[key] = (now + _REMEMBER_S, principal)
        return principal


@dataclass(frozen=True, slots=True)
class Web:
    """One process's web door."""

    settings: ApiSettings
    engine: Engine
    store: Store
    bell: Bell
    decoders: Decoders
    tokens: TokenCache = field(default_factory=TokenCache)
    meter: Meter = field(default_factory=Meter)
    proving: Proving = field(default_factory=Proving)


def web_of(request: Request) -> Web:
    """The door behind a request."""
    web: Web = request.app.state.web
    return web


Door = Annotated[Web, Depends(web_of)]
