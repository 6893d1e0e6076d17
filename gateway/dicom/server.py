"""Connections taken from the listening sockets, a thread each, and how many there are.

Knows which connections wait and which are associations, and that silent ones must never keep others out. Does not know what
is said on them (`association`), nor who may say it.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from gateway.dicom.association import Accepted, Asked, Association, Doors, Receiving, Rejection, Terms
from gateway.dicom.seats import Full, Seats
from gateway.dicom.tls import Tls
from gateway.dicom.wire import Command

MAX_PENDING = 64
"""Connections without an association; one more pushes the oldest out, so that silent ones never keep others out."""
_STACK_BYTES = 1 << 20
_LEAVE_S = 0.001
"""So long a busier process leaves a new connection to a less busy one."""
_BREATH_S = 0.05
TOO_MANY = Rejection(2, 3, 2, "too_many_associations")
TOO_MANY_OF_PEER = Rejection(2, 3, 2, "too_many_of_peer")
_logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Door:
    """A socket that listens, and the certificates that TLS needs, where it is spoken there."""

    listening: socket.socket
    secure: Tls | None = None


class Server:
    """Takes connections until it is stopped. `doors` decides and receives; `seats` are shared with other processes."""

    def __init__(self, sockets: Sequence[Door], terms: Terms, doors: Doors, seats: Seats) -> None:
        self._sockets, self._terms, self._doors, self._seats = sockets, terms, doors, seats
        self._counting = threading.Lock()
        self._pending: OrderedDict[int, Association] = OrderedDict()
        self._established: dict[int, Association] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._waking, self._woken = socket.socketpair()
        self._stopping = False

    @property
    def port(self) -> int:
        """Where it listens, without TLS."""
        return int(self._sockets[0].listening.getsockname()[1])

    @property
    def tls_port(self) -> int | None:
        """Where it listens for TLS; None where it does not."""
        return next((int(door.listening.getsockname()[1]) for door in self._sockets if door.secure), None)

    @property
    def associations(self) -> int:
        """How many associations stand in this process."""
        with self._counting:
            return len(self._established)

    def serve_forever(self) -> None:
        """Take connections, each into a thread of its own, until `stop`."""
        threading.stack_size(_STACK_BYTES)
        with selectors.DefaultSelector() as ready:
            for door in self._sockets:
                door.listening.setblocking(False)
                ready.register(door.listening, selectors.EVENT_READ, door)
            ready.register(self._woken, selectors.EVENT_READ)
            while not self._stopping:
                found = ready.select()
                if self._seats.is_busier():
                    time.sleep(_LEAVE_S)
                for door in [key.data for key, _ in found if key.data is not None]:
                    self._accept(door)

    def stop(self, grace_s: float = 3.0) -> None:
        """Take no more connections, abort what is open, and wait until what was complete has been answered."""
        self._stopping = True
        self._waking.send(b".")
        with self._counting:
            open_now = [*self._pending.values(), *self._established.values()]
            threads = list(self._threads.values())
        for association in open_now:
            association.cut("stopped")
        until = time.monotonic() + grace_s
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        for door in self._sockets:
            door.listening.close()

    def decide(self, association: Association, asked: Asked) -> Rejection | None:
        """Ask the doors, and count in who may come."""
        rejection = self._doors.decide(association, asked)
        if rejection is not None:
            return rejection
        peer = association.peer
        with self._counting:
            try:
                if not association.is_own_probe:  # our own question is answered however many there are
                    association.seat = self._seats.take(*((peer.peer_id, peer.max_associations) if peer else ()))
            except Full as full:
                return TOO_MANY_OF_PEER if full.of_peer else TOO_MANY
            self._pending.pop(id(association), None)
            self._established[id(association)] = association
        return None

    def rejected(self, association: Association, asked: Asked, rejection: Rejection) -> None:
        """Pass on."""
        self._doors.rejected(association, asked, rejection)

    def begin(self, association: Association, command: Command, accepted: Accepted) -> Receiving | None:
        """Pass on."""
        return self._doors.begin(association, command, accepted)

    def ended(self, association: Association) -> None:
        """Count it out."""
        with self._counting:
            self._pending.pop(id(association), None)
            if self._established.pop(id(association), None) is not None and association.seat is not None:
                self._seats.leave(association.seat)
            self._threads.pop(id(association), None)
        self._doors.ended(association)

    def _accept(self, door: Door) -> None:
        try:
            connection, (peer, *_) = door.listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # no descriptor is left: those that are open will end
            if not self._stopping:
                _logger.exception("connection_failed")
                time.sleep(_BREATH_S)
            return
        connection.setblocking(True)
        own = str(connection.getsockname()[0])
        association = Association(connection, str(peer), own, self._terms, self, door.secure)
        thread = threading.Thread(target=association.serve, name="association", daemon=True)
        with self._counting:
            oldest = self._pending.popitem(last=False)[1] if len(self._pending) >= MAX_PENDING else None
            self._pending[id(association)] = association
            self._threads[id(association)] = thread
        if oldest is not None:
            oldest.cut("pushed_out")
        try:
            thread.start()
        except RuntimeError:  # no thread can be started
            _logger.exception("connection_failed")
            with contextlib.suppress(OSError):
                connection.close()
            self.ended(association)
