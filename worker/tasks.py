"""The queue's door: two bells, `wake.cpu` (prefork: prepare) and `wake.gpu` (threads around one engine: draft).

Knows Celery's processes and signals, which of them holds what, and one table from errors to what becomes of a reading.
Does not know how a reading is done (`reading`) or kept alive (`desk`). No thread, engine or socket exists in the prefork
parent before it forks: desks are made in `worker_process_init`.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import structlog
from celery import Celery, signals
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from record import claims, drafts, log, reports
from record.claims import Claim
from record.db import is_away
from record.errors import (
    Abstained,
    Conflict,
    CountersignError,
    EngineRejected,
    EngineUnavailable,
    IllegalMove,
    InvalidInstance,
    Misconfigured,
    NewImages,
    NotFound,
    NotPermitted,
    StaleRevision,
    StoreFull,
    UnusableFindings,
)
from record.models import Reading
from record.queue import CPU, GPU, TASKS, celery_app
from record.settings import WorkerSettings
from record.states import ReasonCode
from record.store import Store
from worker import reading
from worker.cases import load_case
from worker.desk import EXIT_WEDGED, Desk, Held
from worker.engines import Engine, open_engine

_logger = structlog.get_logger()
AWAY_S, REFUSED_S = 1.0, 30.0
"""Pauses between two tries to open an engine that is away, or that cannot be opened as it is configured."""
_DROPPED = (IllegalMove, StaleRevision, NewImages, Conflict, CancelledError)
_FOR_GOOD: dict[type[CountersignError], ReasonCode] = {
    EngineRejected: ReasonCode.ENGINE_REJECTED,
    UnusableFindings: ReasonCode.UNUSABLE_FINDINGS,
    NotFound: ReasonCode.NOT_FOUND,
    NotPermitted: ReasonCode.NOT_PERMITTED,
}


class Preparing:
    """`wake.cpu`: pixels become pictures in the store."""

    kind = "cpu"
    queue = CPU
    slots = 1

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._room = reading.PreparingRoom(Store(settings.store), settings)

    def ready(self) -> bool:
        """Nothing here can be away."""
        return True

    def describe(self) -> dict[str, Any]:
        """What works here."""
        return {}

    def model(self) -> str | None:
        """The model that readings are bound to here."""
        return self._settings.model

    def claim(self, session: Session, owner: str, *, clean_only: bool) -> Claim | None:
        """The best queued reading."""
        return claims.claim_prepare(
            session,
            owner,
            self._settings.lease_s,
            max_prepared=self._settings.max_prepared,
            model=self._settings.model,
            clean_only=clean_only,
        )

    def do(self, desk: Desk, held: Held) -> None:
        """Prepare one reading."""
        claim = held.claim

        def work() -> None:
            with desk.reading() as session:
                case = load_case(session, claim)
            prepared = self._room.prepare(case, held.lost)

            def write(session: Session) -> None:
                claims.finish_prepare(
                    session,
                    claim,
                    protocol=prepared.protocol.name,
                    protocol_version=str(prepared.protocol.version),
                    protocol_digest=prepared.protocol.digest,
                    model=prepared.model,
                    pictures=prepared.pictures,
                    omitted=prepared.omitted,
                )

            if desk.store(held, write):
                desk.ring(GPU)
            _logger.info("reading_prepared", reading_id=str(claim.reading_id), pictures=len(prepared.pictures))

        _to_an_end(desk, held, work)


class Drafting:
    """`wake.gpu`: pictures become a draft. One engine, shared by as many threads as it has slots."""

    kind = "gpu"
    queue = GPU

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._store = Store(settings.store)
        self._engine: Engine | None = None
        self._opening = threading.Lock()
        self._open_again_at = 0.0
        self._told: str | None = None
        self.slots = settings.slots

    def ready(self) -> bool:
        """Open the engine when it is not there yet; False while it is away or cannot be opened."""
        if self._engine is not None:
            return True
        with self._opening:
            if self._engine is None and time.monotonic() >= self._open_again_at:
                self._open()
        return self._engine is not None

    def _open(self) -> None:
        try:
            self._engine = open_engine(
                self._settings.model,
                engine_url=self._settings.engine_url,
                api_key=engine_key(self._settings),
                slots=self.slots,
            )
        except EngineUnavailable as error:
            self._open_again_at = time.monotonic() + AWAY_S
            if self._told != error.code:
                _logger.warning("engine_away", code=error.code, hint="waiting for the engine's server")
            self._told = error.code
            return
        except (EngineRejected, Misconfigured) as error:
            self._open_again_at = time.monotonic() + REFUSED_S
            setting = "COUNTERSIGN_MODEL" if isinstance(error, EngineRejected) else "COUNTERSIGN_ENGINE_KEY_FILE"
            if self._told != error.code:
                _logger.critical("engine_refused", code=error.code, hint=f"see {setting}; tried again now and then")
            self._told = error.code
            return
        self._told = None
        _logger.info(
            "engine_opened",
            model=self._settings.model,
            weights_digest=self._engine.identity.weights_digest,
            device=self._engine.identity.where,
            slots=self.slots,
        )

    def describe(self) -> dict[str, Any]:
        """The engine's identity, once it is open."""
        return self._engine.identity.as_dict() if self._engine else {}

    def model(self) -> str | None:
        """The model served here, once its engine is open."""
        return self._settings.model if self._engine else None

    def claim(self, session: Session, owner: str, *, clean_only: bool) -> Claim | None:
        """The best reading prepared for this model."""
        settings = self._settings
        return claims.claim_draft(session, owner, settings.lease_s, model=settings.model, clean_only=clean_only)

    def do(self, desk: Desk, held: Held) -> None:
        """Draft one reading."""
        claim, engine = held.claim, self._engine
        if engine is None:
            return

        def work() -> None:
            with desk.reading() as session:
                case = load_case(session, claim)
            drafted = reading.draft(case, engine, self._store, held.lost, alone=claim.failures > 0)
            if desk.store(held, lambda session: _write_draft(session, claim, drafted)):
                _logger.info("draft_written", reading_id=str(claim.reading_id), tokens=drafted.tokens)

        _to_an_end(desk, held, work)


def engine_key(settings: WorkerSettings) -> str | None:
    """Read the key of the engine's server, if it has one.

    Raises
    ------
    Misconfigured
        The file cannot be read.
    """
    path = settings.engine_key_file
    try:
        return path.read_text(encoding="utf-8").strip() if path else None
    except (OSError, UnicodeDecodeError) as error:
        message = "The file that COUNTERSIGN_ENGINE_KEY_FILE names cannot be read."
        raise Misconfigured(message) from error


def _write_draft(session: Session, claim: Claim, drafted: reading.Drafted) -> None:
    claims.finish_done(session, claim)
    draft = drafts.write(
        session,
        reading_id=claim.reading_id,
        study_id=claim.study_id,
        site_id=claim.site_id,
        body=drafted.body,
        flags=drafted.flags,
        provenance=drafted.provenance,
        steps=drafted.steps,
    )
    row = session.scalars(select(Reading).where(Reading.id == claim.reading_id)).one()
    reports.open_draft(session, row, draft)
    claims.touch_study(session, claim.study_id)


def _to_an_end(desk: Desk, held: Held, work: Callable[[], None]) -> None:
    """Run `work`; whatever it raises becomes the reading's end, by the house's table."""
    try:
        work()
        return
    except Exception as error:  # noqa: BLE001  # the door of a reading: a poison study must fail alone, and be seen
        cause, end = error, _end_for(desk, held, error)
    if end is None:
        return
    try:
        desk.store(held, end)
    except SQLAlchemyError:
        _logger.exception("reading_end_unwritten", reading_id=str(held.claim.reading_id))
        # nothing can be written: the lease runs out by itself, and the sweep takes the reading back
    if isinstance(cause, EngineUnavailable) and cause.facts.get("reason") == "broken":
        _logger.critical("engine_broken", hint="exit for a restart")
        os._exit(EXIT_WEDGED)


def _end_for(desk: Desk, held: Held, error: Exception) -> Callable[[Session], object] | None:
    """What is written for an error, or None where nothing may be."""
    claim, settings, reading_id = held.claim, desk.settings, str(held.claim.reading_id)

    def fail(code: ReasonCode, reason: str, *, for_good: bool) -> Callable[[Session], object]:
        return lambda session: claims.fail(
            session,
            claim,
            code,
            reason,
            max_failures=settings.max_failures,
            backoff_s=settings.backoff_s,
            for_good=for_good,
        )

    if isinstance(error, _DROPPED) and held.lost.is_set():
        _logger.info("reading_dropped", reading_id=reading_id)
        return None
    if isinstance(error, SQLAlchemyError) and is_away(error):
        _logger.warning("database_away", reading_id=reading_id, hint="the lease will run out by itself")
        return None
    if isinstance(error, reading.OutdatedPreparation):
        _logger.info("reading_sent_back", reading_id=reading_id)
        return lambda session: claims.send_back(session, claim, after_s=settings.backoff_s)
    if isinstance(error, Abstained):
        code, reason, facts = error.reason_code, error.message, error.facts
        _logger.info("reading_abstained", reading_id=reading_id, reason_code=code)
        omitted, protocol = facts.get("omitted"), facts.get("protocol")
        return lambda session: claims.abstain(
            session,
            claim,
            code,
            reason,
            protocol=protocol if isinstance(protocol, str) else None,
            omitted=omitted if isinstance(omitted, list) else None,
        )
    if isinstance(error, InvalidInstance):
        reason = error.message
        _logger.info("reading_abstained", reading_id=reading_id, reason_code=ReasonCode.UNDECODABLE)
        return lambda session: claims.abstain(session, claim, ReasonCode.UNDECODABLE, reason)
    if isinstance(error, EngineUnavailable) and _failed_on_this_prompt(error):
        _logger.warning("reading_stumbled", reading_id=reading_id, code=error.code)
        return fail(ReasonCode.ERROR, "The engine's server failed on this prompt.", for_good=False)
    if isinstance(error, EngineUnavailable | StoreFull):
        _logger.warning("reading_waits", reading_id=reading_id, code=error.code)
        desk.pause(settings.backoff_s)  # nobody's fault: nothing here would fare better now
        return lambda session: claims.release(session, claim, after_s=settings.backoff_s)
    if isinstance(error, CountersignError) and type(error) in _FOR_GOOD:
        _logger.warning("reading_failed", reading_id=reading_id, error_type=type(error).__name__)
        return fail(_FOR_GOOD[type(error)], error.message, for_good=True)
    if isinstance(error, TimeoutError):
        _logger.warning("reading_timed_out", reading_id=reading_id)
        return fail(ReasonCode.TIMED_OUT, "The engine did not answer in time.", for_good=False)
    _logger.error("reading_stumbled", reading_id=reading_id, exc_info=error)
    return fail(ReasonCode.ERROR, "The reading raised an error; the worker's log says where.", for_good=False)


def _failed_on_this_prompt(error: EngineUnavailable) -> bool:
    """A server that is there and fails on one prompt (see `worker.engines.remote`): that must end some day."""
    return error.facts.get("prompt") is True


def run(kind: str, settings: WorkerSettings) -> int:
    """Run one worker in this process until it is told to stop.

    Parameters
    ----------
    kind
        ``cpu``: a prefork pool that prepares; ``gpu``: a threads pool around one engine that drafts.
    """
    log.configure(f"worker-{kind}")
    app = celery_app(settings.redis_url)
    stopping = multiprocessing.get_context("fork").Event()  # made before the fork: children see it too
    desks: list[Desk] = []

    @app.task(name=TASKS[CPU if kind == "cpu" else GPU])
    def wake() -> int:
        return sum(desk.drain() for desk in desks)

    def in_prefork_child(**_: object) -> None:
        log.configure(f"worker-{kind}")
        desks.append(Desk(Preparing(settings), settings, stopping.is_set, parent=os.getppid()))

    def in_threads(**_: object) -> None:
        desks.append(Desk(Drafting(settings), settings, stopping.is_set))

    def hand_back(**_: object) -> None:
        for desk in desks:
            desk.hand_back()

    def on_shutdown(**_: object) -> None:
        stopping.set()

    signals.worker_shutting_down.connect(on_shutdown, weak=False)
    if kind == "cpu":
        signals.worker_process_init.connect(in_prefork_child, weak=False)
        signals.worker_process_shutdown.connect(hand_back, weak=False)
    else:
        signals.worker_init.connect(in_threads, weak=False)
        signals.worker_shutdown.connect(hand_back, weak=False)
    pool, slots = ("prefork", settings.cpu_processes) if kind == "cpu" else ("threads", settings.slots)
    return _start(app, kind, pool, slots)


def _start(app: Celery, kind: str, pool: str, slots: int) -> int:
    queue = CPU if kind == "cpu" else GPU
    app.worker_main(
        [
            "--quiet",
            "worker",
            f"--pool={pool}",
            f"--concurrency={slots}",
            f"--queues={queue}",
            f"--hostname={kind}@%h",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            "--loglevel=WARNING",
        ]
    )
    return 0
