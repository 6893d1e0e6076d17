"""The courier: every call that we make to somebody else's server, and keep at until it is made.

Knows which errands there are: a peer is asked for its count of a study, and told what became of a storage commitment. Does not
know what an errand means: a verb of the record claims it, and takes the answer. No transaction is open while somebody is called,
and a peer that does not answer has all its errands put off: it keeps nobody else waiting for longer than one time-out of each kind. Several couriers may
run; an errand that one of them left unfinished is claimed anew. DICOM is imported with the first call: most couriers never make one.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

import structlog
from sqlalchemy import Engine

from record import commitments, counts, log
from record.db import connect, is_away, transaction
from record.errors import Misconfigured, PeerUnavailable
from record.parts import Beat
from record.settings import CourierSettings
from record.store import Store

if TYPE_CHECKING:
    from gateway.dicom.calling import Destination

LEASE_TIMEOUTS = 6
"""A call waits for a connection, an association, its answer and the release: each for a time-out at most."""
_logger = structlog.get_logger()
_Answer = TypeVar("_Answer")


@dataclass(slots=True)
class Courier:
    """What a courier holds, and how many calls it made and failed to make."""

    engine: Engine
    store: Store
    settings: CourierSettings
    made: int = field(default=0)
    failed: int = field(default=0)

    def run_once(self) -> bool:
        """One errand of each kind; whether there was any."""
        asked, told = self._count(), self._commitment()
        return asked or told

    def _count(self) -> bool:
        with transaction(self.engine) as session:
            question = counts.claim(session, self.settings.count_after_s)
        if question is None:
            return False
        from gateway.dicom import find

        answer = self._call(question, lambda to: find.count_of(to, question.study_instance_uid))
        with transaction(self.engine) as session:
            if isinstance(answer, PeerUnavailable):
                counts.unanswered(session, question)
            else:
                counts.answered(session, question, answer)
        return True

    def _commitment(self) -> bool:
        with transaction(self.engine) as session:
            errand = commitments.claim(session, self.store, LEASE_TIMEOUTS * self.settings.call_timeout_s)
        if not isinstance(errand, commitments.Errand):
            return errand is not None
        from gateway.dicom import commit

        kept, failed = errand.verdict.kept, errand.verdict.failed
        answer = self._call(errand, lambda to: commit.report(to, errand.transaction_uid, kept, failed))
        with transaction(self.engine) as session:
            if isinstance(answer, PeerUnavailable):
                commitments.not_reported(session, errand, str(answer.facts.get("reason_code", answer.code)))
            else:
                commitments.reported(session, errand)
        return True

    def _call(
        self, peer: counts.Question | commitments.Errand, call: Callable[[Destination], _Answer]
    ) -> _Answer | PeerUnavailable:
        try:
            answer = call(self._destination(peer))
        except PeerUnavailable as error:
            self.failed += 1
            code = str(error.facts.get("reason_code", ""))
            _logger.warning("peer_unavailable", reason_code=code, called_ae_title=peer.ae_title)
            return error
        except Exception:  # what a stranger answered went through parsers: it is that peer's errand that fails
            self.failed += 1
            _logger.exception("errand_failed", called_ae_title=peer.ae_title)
            return PeerUnavailable("The call failed.", reason_code="error")
        self.made += 1
        return answer

    def _destination(self, peer: counts.Question | commitments.Errand) -> Destination:
        from gateway.dicom import tls
        from gateway.dicom.calling import Destination

        try:
            secure = tls.calling(self.settings) if peer.speaks_tls else None
        except Misconfigured as error:
            raise PeerUnavailable(error.message, reason_code="tls_misconfigured") from None
        title, timeout_s = self.settings.ae_title, self.settings.call_timeout_s
        return Destination(peer.host, peer.port, peer.ae_title, title, timeout_s, secure)


def main(settings: CourierSettings) -> int:
    """Run errands until SIGTERM or SIGINT; PostgreSQL may come and go."""
    log.configure("courier")
    stop = threading.Event()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    engine = connect(settings.database_url, pool=1)
    courier = Courier(engine, Store(settings.store), settings)
    beat = Beat(engine, "courier", settings.report_s)
    _logger.info("courier_started")
    away = False
    while not stop.is_set():
        beat.tell(lambda: {"calls_made": courier.made, "calls_failed": courier.failed})
        pause_s = settings.courier_s
        try:
            if courier.run_once():
                pause_s = 0.0
            if away:
                _logger.info("database_back")
            away = False
        except Exception as error:  # the door of this program: it must outlive whatever goes wrong with one errand
            if not is_away(error):
                _logger.exception("courier_stumbled")
            elif not away:
                _logger.warning("database_away", hint="waiting for PostgreSQL")
                away = True
        stop.wait(pause_s)
    beat.stop()
    engine.dispose()
    _logger.info("courier_stopped")
    return 0
