"""The warm children that decode and render for people: a few for each process, none before the first is needed.

Knows how many there are, who waits for one and for how long, and how a child's refusal is told. Does not know studies, views
or addresses. Nothing of a stored instance is ever decoded in this process: its bytes are hostile.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import structlog
from starlette.exceptions import HTTPException

from record.errors import InvalidInstance, Misconfigured, UnsupportedInstance
from record.pipes import DecodingChild
from record.settings import ApiSettings
from record.states import ReasonCode

_logger = structlog.get_logger()
WAITING = 12
"""Requests that may wait for a child: each holds one of the process's 40 threads."""


class Decoders:
    """A few decoding children, lent one request at a time. Safe to use from many threads."""

    def __init__(self, settings: ApiSettings) -> None:
        self._free: queue.LifoQueue[DecodingChild] = queue.LifoQueue()  # the warm one first
        for _ in range(settings.decode_children):
            self._free.put(DecodingChild(settings.decode_memory_bytes, settings.decode_cpu_s))
        self._places = threading.BoundedSemaphore(settings.decode_children + WAITING)
        self._timeout_s = settings.decode_timeout_s
        self._wait_s = settings.decode_wait_s

    def ask(self, operation: str, path: Path, frame: int, **request: Any) -> tuple[Mapping[str, Any], bytes]:
        """Ask a child about one frame of a file.

        Parameters
        ----------
        operation
            ``show`` or ``describe``.
        frame
            Counted from 1, as in addresses.

        Raises
        ------
        InvalidInstance
            The frame cannot be shown: `reason_code` says whether it is broken or of a kind that nothing here reads.
        HTTPException
            503: all children are busy and enough requests wait already, or no child can be started.
        """
        with self._lent() as child:
            try:
                return child.call({"op": operation, "path": str(path), "frame": frame - 1, **request}, self._timeout_s)
            except UnsupportedInstance as error:
                message = "This frame cannot be shown: nothing here reads its kind of pixels."
                raise InvalidInstance(message, reason_code=ReasonCode.UNSUPPORTED, **_cause(error)) from error
            except InvalidInstance as error:
                message = "This frame cannot be shown: its pixels cannot be decoded."
                raise InvalidInstance(message, reason_code=ReasonCode.UNDECODABLE, **_cause(error)) from error
            except Misconfigured as error:
                _logger.exception("decoder_not_started", exit_status=error.facts.get("exit_status"))
                raise HTTPException(503) from error

    def close(self) -> None:
        """End the children that are at rest; one at work ends with this process."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._free.get_nowait().close()

    @contextlib.contextmanager
    def _lent(self) -> Iterator[DecodingChild]:
        if not self._places.acquire(blocking=False):
            raise HTTPException(503)
        try:
            try:
                child = self._free.get(timeout=self._wait_s)
            except queue.Empty:
                raise HTTPException(503) from None
            try:
                yield child
            finally:
                self._free.put(child)
        finally:
            self._places.release()


def _cause(error: InvalidInstance) -> dict[str, object]:
    return {"cause": error.facts.get("cause", "")}
