"""`countersign gateway listener`: one or several receiving processes on one listening socket.

Knows forking, signals and that a process which died gets a successor. Does not know associations (`listener`). Each process
has a spool of its own, so that nothing is shared but the socket and the number of associations.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

import structlog

from gateway.dicom.listener import Listener, claim, listen_at
from gateway.dicom.seats import Seats
from gateway.dicom.server import Door
from gateway.launcher.processes import die_with_parent
from record import log
from record.settings import ListenerSettings

MOST_BY_ITSELF = 4
"""Receiving processes that are started where nobody says how many, and there are as many processors."""
_SUCCESSOR_AFTER_S = 0.5
_logger = structlog.get_logger()


def main(settings: ListenerSettings) -> int:
    """Run until SIGTERM or SIGINT.

    Raises
    ------
    Misconfigured
        Nothing can listen there, or the spool cannot be used.
    """
    log.configure("listener")
    count = settings.receivers or min(MOST_BY_ITSELF, os.cpu_count() or 1)
    seats = Seats(count, settings.max_associations)
    doors = listen_at(settings)
    claim(settings).release()  # what no process could use is told once, and not by each that would be started
    if count == 1:
        return _receive(settings, doors, seats.of(0))
    return _Receivers(settings, doors, seats, count).run()


def _receive(settings: ListenerSettings, doors: Sequence[Door], seats: Seats) -> int:
    """Be the one process, or one of several."""
    threading.excepthook = _log_thread_failure
    stop = threading.Event()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    listener = Listener(settings, doors, seats)
    listener.start()
    stop.wait()
    listener.stop()
    return 0


class _Receivers:
    """The parent: it takes no connection itself."""

    def __init__(self, settings: ListenerSettings, doors: Sequence[Door], seats: Seats, count: int) -> None:
        self._settings, self._doors, self._seats, self._count = settings, doors, seats, count
        self._places: dict[int, int] = {}
        self._stopping = False

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        for place in range(self._count):
            self._start(place)
        while self._places:
            try:
                pid, status = os.wait()
            except ChildProcessError:
                break
            place = self._places.pop(pid)
            if not self._stopping:
                _logger.error("receiver_died", exit_status=os.waitstatus_to_exitcode(status))
                self._seats.of(place)
                time.sleep(_SUCCESSOR_AFTER_S)  # else one that cannot live would be started without end
                if not self._stopping:
                    self._start(place)
        return 0

    def _start(self, place: int) -> None:
        arrange = die_with_parent(signal.SIGKILL)
        pid = os.fork()
        if pid:
            self._places[pid] = place
            return
        status = 1
        try:
            if arrange is not None:
                arrange()
            status = _receive(self._settings, self._doors, self._seats.of(place))
        except BaseException:
            _logger.exception("receiver_failed")
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        for pid in list(self._places):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def _log_thread_failure(failure: threading.ExceptHookArgs) -> None:
    _logger.error("thread_failed", exc_info=failure.exc_value)
