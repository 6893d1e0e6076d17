"""Passwords at the web door: how many are looked at, who may wait, who has tried too often, what becomes an event.

Knows places, addresses and clocks. Does not know accounts, sessions or routes. All of it is this process's own and bounded:
a stranger may use up neither the threads, nor the memory that argon2 takes, nor the table of events.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import threading
import time
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from record.errors import Busy, TooManyTries

WAITING = 6
"""Requests that may wait to have a password looked at: each holds one of the process's 40 threads."""
TRIES = 30
"""Wrong passwords that one address may send at once."""
_TRY_S = 2.0
"""Seconds after which it may send another one."""
_WAIT_S = 5.0
_EVENT_S = 60.0
_MOST = 4096
_MOST_EVENTS = 256
_OTHERS = "others"


class Room:
    """So many passwords at once (argon2 takes 64 MiB for each), so many requests that wait; the others are refused at once."""

    def __init__(self, at_once: int, waiting: int = WAITING) -> None:
        self._places = threading.BoundedSemaphore(at_once + waiting)
        self._working = threading.BoundedSemaphore(at_once)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Wait for a turn.

        Raises
        ------
        Busy
            Enough wait already, or the turn did not come.
        """
        message = "Too much is asked for at once. Try again in a moment."
        if not self._places.acquire(blocking=False):
            raise Busy(message)
        try:
            if not self._working.acquire(timeout=_WAIT_S):
                raise Busy(message)
            try:
                yield
            finally:
                self._working.release()
        finally:
            self._places.release()


class Tries:
    """Wrong passwords by the address they came from: so many at once, then one every few seconds."""

    def __init__(self, most: int = TRIES, every_s: float = _TRY_S) -> None:
        self._most, self._every_s = most, every_s
        self._lock = threading.Lock()
        self._spent: dict[str, tuple[float, float]] = {}  # how many, as of when; the address used longest ago first

    def require(self, address: str) -> None:
        """Refuse an address that has tried too often, before anything is looked at.

        Raises
        ------
        TooManyTries
            `retry_after_s` says when one more is taken.
        """
        with self._lock:
            over = self._now_spent(_neighbourhood(address)) - (self._most - 1)
        if over > 0:
            message = "Too many wrong passwords came from your address. Try again in a moment."
            raise TooManyTries(message, retry_after_s=max(1, math.ceil(over * self._every_s)))

    def failed(self, address: str) -> None:
        """Count a wrong password."""
        key = _neighbourhood(address)
        with self._lock:
            spent = self._now_spent(key) + 1
            self._spent.pop(key, None)
            while len(self._spent) >= _MOST:
                del self._spent[next(iter(self._spent))]
            self._spent[key] = (spent, time.monotonic())

    def _now_spent(self, key: str) -> float:
        spent, at = self._spent.get(key, (0.0, 0.0))
        return max(0.0, spent - (time.monotonic() - at) / self._every_s)


@dataclass(slots=True)
class _Note:
    facts: Mapping[str, Any]
    at: float
    untold: int = 0


class Notes:
    """Which refusals are written: for each account or address one event a minute, with the count of those it stands for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Hashable, _Note] = {}

    def due(self, key: Hashable, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The facts of every event to write now that `key` was refused: often none, sometimes older ones too."""
        now, told = time.monotonic(), []
        with self._lock:
            if key not in self._known and len(self._known) >= _MOST_EVENTS:
                key, facts = _OTHERS, {"refusal": facts["refusal"], "client_address": _OTHERS}
            note = self._known.setdefault(key, _Note(facts, -math.inf))
            note.facts, note.untold = facts, note.untold + 1
            for each, known in list(self._known.items()):
                if now - known.at < _EVENT_S:
                    continue
                if known.untold:
                    told.append({**known.facts, "count": known.untold})
                    known.at, known.untold = now, 0
                else:
                    del self._known[each]
        return told


@dataclass(frozen=True, slots=True)
class Proving:
    """What one process holds of this. Who signs in an open session is not kept waiting by those at the public door."""

    strangers: Room = field(default_factory=lambda: Room(2))
    signers: Room = field(default_factory=lambda: Room(1))
    tries: Tries = field(default_factory=Tries)
    notes: Notes = field(default_factory=Notes)


def plain_address(address: str) -> str:
    """An address as it may stand in an event: a proxy's word for it could be anything."""
    try:
        return str(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return "unknown"


def _neighbourhood(address: str) -> str:
    """What counts as one address: an IPv6 network of 64 bits belongs to one household."""
    plain = plain_address(address)
    return str(ipaddress.ip_network(f"{plain}/64", strict=False)) if ":" in plain else plain
