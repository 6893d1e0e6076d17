"""The sweep: what has to happen although nobody asks.

`run_once` closes stable studies, takes back leases, seals events, removes what may go, marks what is settled, and rings.
It is called by `countersign gateway sweep` and by a thread in each worker; an advisory lock lets one of them work at a
time, and a study is closed in a transaction of its own. Does not know who calls it.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from record import announcements, associations, audit, commitments, leases, log, readings, sessions, studies, work
from record.db import connect, is_away, transaction
from record.models import Reading, StoreDeletion
from record.parts import Beat
from record.queue import CPU, GPU, Bell
from record.settings import Sweeping, SweepSettings
from record.states import ReadingState
from record.store import Kind, Store

_LOCK = 4_711_001
_HEAD_EVERY_S = 60.0
_SESSIONS_EVERY_S = 60.0
_SOONEST_S = 0.02
_SETTLE_EVERY_S = 20.0
_SETTLED_AT_ONCE = 2000
_DELETED_AT_ONCE = 200
_FIRST = uuid.UUID(int=0)
_logger = structlog.get_logger()


@dataclass(slots=True)
class Sweep:
    """What a process that sweeps holds: its engine, its bell, and when it last kept a seal head."""

    engine: Engine
    bell: Bell
    settings: Sweeping
    seal_key: bytes | None
    store: Store
    heads_file: Path | None
    last_head_at: float = field(default=0.0)
    depths: dict[str, int | None] = field(default_factory=dict)
    beat: Beat | None = None
    deleted_to: uuid.UUID = _FIRST
    settle_at: float = field(default=0.0)
    sessions_at: float = field(default=0.0)
    held_up: bool = False
    """Whether a study that was due could not be closed: the next round is soon enough for it."""

    @classmethod
    def of(cls, engine: Engine, settings: Sweeping) -> Sweep:
        """Everything from one program's settings."""
        return cls(
            engine,
            Bell(settings.redis_url),
            settings,
            audit.read_key(settings.secrets),
            Store(settings.store),
            settings.heads_file,
        )

    def tell(self) -> None:
        """Say that this sweep is here, where it is a process of its own (a worker says so itself)."""
        if self.beat is not None:
            self.beat.tell(lambda: {"seals": self.seal_key is not None, "max_wait_s": self.settings.max_wait_s})


def run_once(sweep: Sweep) -> bool:
    """One round. False when another process is at it, which is as good.

    The lock belongs to a transaction that the server ends when it idles for longer than a lease: a process that froze
    while it swept must not keep everybody else from taking its own leases back.
    """
    with sweep.engine.begin() as guard:
        idle_ms = int(max(1.0, sweep.settings.lease_s) * 1000)
        guard.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = {idle_ms}"))
        locked = bool(guard.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK}).scalar())
        if locked:
            for step in (_close_studies, _take_back, _seal, _delete, _settle, _let_old_go):
                guard.execute(text("SELECT 1"))  # still here
                with _apart(step.__name__.strip("_")):
                    step(sweep)
    ring(sweep)
    return locked


@contextlib.contextmanager
def _apart(step: str, study_id: uuid.UUID | None = None) -> Iterator[None]:
    """What goes wrong in one step, or with one study, keeps no other from its turn; an absent PostgreSQL is everybody's."""
    try:
        yield
    except Exception as error:
        if is_away(error):
            raise
        _logger.exception("sweep_stumbled", code=step, study_id=study_id and str(study_id))


def _take_back(sweep: Sweep) -> None:
    with transaction(sweep.engine) as session:
        taken = leases.take_back(session, max_failures=sweep.settings.max_failures, backoff_s=sweep.settings.backoff_s)
        readings.rebind(session)
    if taken:
        _logger.warning("leases_taken_back", count=taken)


def ring(sweep: Sweep) -> None:
    """Top the bells up to what is claimable."""
    with transaction(sweep.engine) as session:
        queued = readings.claimable(session)
        prepared = sum(readings.claimable(session, model=m) for m in _models(session))
    sweep.depths = {CPU: sweep.bell.top_up(CPU, queued), GPU: sweep.bell.top_up(GPU, prepared)}


def _next_due_s(sweep: Sweep) -> float:
    """Seconds until the next study is stable: it shall not wait for the next round besides."""
    with transaction(sweep.engine) as session:
        waits_s = studies.next_due_s(session, sweep.settings.stable_after_s)
    return math.inf if waits_s is None else max(_SOONEST_S, waits_s)


def _models(session: Session) -> list[str]:
    return [
        m
        for m in session.scalars(select(Reading.model).where(Reading.state == ReadingState.PREPARED).distinct())
        if m is not None
    ]


def _close_studies(sweep: Sweep) -> None:
    times = (sweep.settings.stable_after_s, sweep.settings.max_wait_s)
    with transaction(sweep.engine) as session:
        due = studies.due_now(session, *times)
    sweep.held_up = False
    for study_id in due:
        sweep.tell()
        closed = False
        with _apart("close_studies", study_id), transaction(sweep.engine) as session:
            closed = studies.close_if_due(session, study_id, *times)
        if closed:
            _logger.info("study_closed", study_id=str(study_id))
        else:
            sweep.held_up = True


def _seal(sweep: Sweep) -> None:
    if sweep.seal_key is None:
        return
    while True:
        sweep.tell()
        with transaction(sweep.engine) as session:
            last = audit.seal(session, sweep.seal_key)
        if last is None:
            return
        if time.monotonic() - sweep.last_head_at >= _HEAD_EVERY_S or not sweep.last_head_at:
            sweep.last_head_at = time.monotonic()
            _logger.info("seal_head", position=last.position, head=last.hash)
            if sweep.heads_file is not None:
                audit.keep_head(sweep.heads_file, last)


def _delete(sweep: Sweep) -> None:
    for _ in range(_DELETED_AT_ONCE):  # one by one: a file that cannot be deleted keeps no other from going
        with transaction(sweep.engine) as session:
            row = session.scalar(
                select(StoreDeletion)
                .where(StoreDeletion.id > sweep.deleted_to)
                .order_by(StoreDeletion.id)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            sweep.deleted_to = row.id if row else _FIRST
            if row is None:
                return
            with _apart("delete"):
                sweep.store.delete(Kind(row.kind), row.key)
                session.delete(row)


def _settle(sweep: Sweep) -> None:
    if time.monotonic() < sweep.settle_at:
        return
    with transaction(sweep.engine) as session:
        found = work.settle(session, _SETTLED_AT_ONCE)
    if found < _SETTLED_AT_ONCE:
        sweep.settle_at = time.monotonic() + _SETTLE_EVERY_S


def _let_old_go(sweep: Sweep) -> None:
    if time.monotonic() < sweep.sessions_at:
        return
    with transaction(sweep.engine) as session:
        sessions.forget_searches(session)
        sessions.delete_old_sessions(session)
        associations.forget_old(session)
        commitments.forget_old(session)
        announcements.forget_old(session)
    sweep.sessions_at = time.monotonic() + _SESSIONS_EVERY_S


def main(settings: SweepSettings) -> int:
    """`countersign gateway sweep`: sweep until told to stop; PostgreSQL may come and go."""
    log.configure("sweep")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    sweep = Sweep.of(connect(settings.database_url, pool=2), settings)
    sweep.beat = Beat(sweep.engine, "sweep", settings.report_s)
    away = False
    pause_s = 0.0
    while not stop.wait(pause_s):
        pause_s = settings.sweep_s
        sweep.tell()
        try:
            run_once(sweep)
            if not sweep.held_up:
                pause_s = min(pause_s, _next_due_s(sweep))
            if away:
                _logger.info("database_back")
            away = False
        except Exception as error:  # the door of this process: it must outlive whatever goes wrong in one round
            if not is_away(error):
                _logger.exception("sweep_stumbled")
            elif not away:
                _logger.warning("database_away", hint="waiting for PostgreSQL")
                away = True
    sweep.beat.stop()
    sweep.engine.dispose()
    return 0
