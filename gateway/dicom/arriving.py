"""One C-STORE's data set: pushed into `Incoming`, made durable, answered.

Knows which status tells what went wrong. Does not know associations, nor what is inside a data set (`gateway.intake` checks
that).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import structlog

from gateway.dicom.association import CANNOT_UNDERSTAND, SUCCESS, Answer, Association
from gateway.dicom.strict import Strict
from gateway.dicom.wire import MAX_COMMENT
from gateway.intake import Incoming, Intake, SopIdentity, Source
from record.errors import (
    Busy,
    Conflict,
    CountersignError,
    InvalidInstance,
    MismatchedInstance,
    NotPermitted,
    StoreFull,
    UnsupportedInstance,
)

_logger = structlog.get_logger()
PROCESSING_FAILURE = 0x0110
_OWN_FAULT = "error"
STATUS: tuple[tuple[type[CountersignError], int], ...] = (
    (UnsupportedInstance, 0x0122),  # Refused: SOP Class not supported
    (MismatchedInstance, 0xA900),  # Error: Data Set does not match SOP Class
    (InvalidInstance, CANNOT_UNDERSTAND),
    (StoreFull, 0xA700),  # Refused: Out of resources; a sender tries again
    (Busy, 0xA700),  # the same: a strict peer's image, while PostgreSQL is away
    (Conflict, 0x0111),  # Duplicate SOP Instance: a strict peer sent other bytes under a UID that is taken
    (NotPermitted, 0x0124),  # Refused: Not authorized
)
"""C-STORE response status by error, the first that fits (PS3.4 table B.2-1, PS3.7 annex C)."""

WHEN: Mapping[type[CountersignError], str] = {
    UnsupportedInstance: "its data set is deflated, which is not taken",
    MismatchedInstance: "class or instance differ between the request and the data set",
    InvalidInstance: "the data set cannot be read as far as its UIDs, or lacks one; it is kept aside, with the reason",
    StoreFull: "the disk has too little room, or fails; send it again later",
    Busy: "of a strict peer, while the database is away; send it again later",
    Conflict: "of a strict peer: other bytes are stored under this UID",
    NotPermitted: "this sender may not send this",
}
"""What each of these comes to, for the conformance statement."""


class Arriving:
    """What a C-STORE brings. No call raises; after a failure the rest is read and dropped, so that the answer reaches the peer."""

    def __init__(
        self, intake: Intake, association: Association, source: Source, sop: SopIdentity, strict: Strict | None = None
    ) -> None:
        self._association, self._source, self._sop, self._strict = association, source, sop, strict
        self._refusal: Exception | None = None
        self._incoming: Incoming | None = None
        try:
            self._incoming = intake.begin(source, sop)
        except (CountersignError, OSError) as error:
            self._refusal = error

    def _admitting(self) -> AbstractContextManager[None] | None:
        if self._strict is None or self._incoming is None:
            return None
        return self._strict.admitting(self._incoming, self._sop, self._source.site_name or "")

    def take(self, views: Sequence[memoryview]) -> None:
        """Bytes of the data set."""
        if self._incoming is None or self._refusal:
            return
        try:
            self._incoming.write(*views)
        except (CountersignError, OSError) as error:
            self._refusal = error

    def drop(self) -> None:
        """Leave nothing behind."""
        if self._incoming:
            self._incoming.close()

    def finish(self) -> Answer:
        """Make it durable; what to answer."""
        try:
            if self._refusal:
                raise self._refusal
            if self._incoming is None:
                return self._answer(PROCESSING_FAILURE, _OWN_FAULT)
            receipt = self._incoming.commit(self._admitting())
            self._association.instances += 1
            self._association.bytes += receipt.size_bytes
            return Answer(SUCCESS)
        except InvalidInstance as error:
            reason = str(error.facts.get("reason_code", error.code))
            if self._incoming and self._incoming.size_bytes:
                self._incoming.quarantine(reason)
            return self._refused(error, reason)
        except CountersignError as error:
            return self._refused(error, str(error.facts.get("reason_code", error.code)))
        except Exception:  # the door: the peer is told, the association goes on
            _logger.exception("instance_failed")
            return self._answer(PROCESSING_FAILURE, _OWN_FAULT)
        finally:
            self.drop()

    def _refused(self, error: CountersignError, reason: str) -> Answer:
        """The answer to what cannot be taken, which the log tells as well."""
        _logger.warning("instance_refused", code=error.code, reason_code=reason)
        status = next((status for kind, status in STATUS if isinstance(error, kind)), PROCESSING_FAILURE)
        return self._answer(status, reason.replace("_", " ")[:MAX_COMMENT])

    def _answer(self, status: int, why: str) -> Answer:
        return Answer(status, why, self._incoming.study_instance_uid if self._incoming else "")
