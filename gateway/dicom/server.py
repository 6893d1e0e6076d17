"""Connections taken from one listening socket, a thread each, and how many there are.

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

import structlog

from gateway.dicom.association import Asked, Association, Doors, Receiving, Rejection, Terms
from gateway.dicom.seats import Seats
from gateway.dicom.wire import Command

MAX_PENDING = 64
"""Connections without an association; one more pushes the oldest out, so that silent ones never keep others out."""
_STACK_BYTES = 1 << 20
_LEAVE_S = 0.001
"""So long a busier process leaves a new connection to a less busy one."""
_BREATH_S = 0.05
TOO_MANY = Rejection(2, 3, 2, "too_many_associations")
_logger = structlog.get_logger()


class Server:
    """Takes connections until it is stopped. `doors` decides and receives; `seats` are shared with other processes."""

    def __init__(self, listening: socket.socket, terms: Terms, doors: Doors, seats: Seats) -> None:
        self._listening, self._terms, self._doors, self._seats = listening, terms, doors, seats
        self._counting = threading.Lock()
        self._pending: OrderedDict[int, Association] = OrderedDict()
        self._established: dict[int, Association] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._waking, self._woken = socket.socketpair()
        self._stopping = False

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listening.getsockname()[1])

    @property
    def associations(self) -> int:
        """How many associations stand in this process."""
        with self._counting:
            return len(self._established)

    def serve_forever(self) -> None:
        """Take connections, each into a thread of its own, until `stop`."""
        threading.stack_size(_STACK_BYTES)
        self._listening.setblocking(False)
        with selectors.DefaultSelector() as ready:
            ready.register(self._listening, selectors.EVENT_READ)
            ready.register(self._woken, selectors.EVENT_READ)
            while not self._stopping:
                ready.select()
                if self._seats.is_busier():
                    time.sleep(_LEAVE_S)
                self._accept()

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
        self._listening.close()

    def decide(self, association: Association, asked: Asked) -> Rejection | None:
        """Ask the doors, and count in who may come."""
        rejection = self._doors.decide(association, asked)
        if rejection is not None:
            return rejection
        with self._counting:
            if not self._seats.take():
                return TOO_MANY
            self._pending.pop(id(association), None)
            self._established[id(association)] = association
        return None

    def rejected(self, association: Association, asked: Asked, rejection: Rejection) -> None:
        """Pass on."""
        self._doors.rejected(association, asked, rejection)

    def begin(self, association: Association, command: Command, transfer_syntax_uid: str) -> Receiving:
        """Pass on."""
        return self._doors.begin(association, command, transfer_syntax_uid)

    def ended(self, association: Association) -> None:
        """Count it out."""
        with self._counting:
            self._pending.pop(id(association), None)
            if self._established.pop(id(association), None) is not None:
                self._seats.leave()
            self._threads.pop(id(association), None)
        self._doors.ended(association)

    def _accept(self) -> None:
        try:
            connection, (peer, *_) = self._listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # no descriptor is left: those that are open will end
            if not self._stopping:
                _logger.exception("connection_failed")
                time.sleep(_BREATH_S)
            return
        connection.setblocking(True)
        association = Association(connection, str(peer), str(connection.getsockname()[0]), self._terms, self)
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
