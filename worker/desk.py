"""One process's readings in flight: claimed, kept alive, given back.

Knows leases, heartbeats, shutdown and what to do when Redis or PostgreSQL is away. Does not know how a reading is done:
it is given `claim` and `work`. PostgreSQL is the queue's truth; a wake-up only says "look there".

Three watchdogs end the process for its supervisor to restart: wake-ups wait but none arrive (a deaf consumer), a reading
runs longer than its deadline (a wedged engine: threads have no time limit), and the grace at shutdown is over.

A reading that failed before may be what killed a process. It runs with nobody beside it, so that it takes no neighbour
down twice: it is only claimed where nothing is held, and nothing is claimed beside it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from sqlalchemy import Engine as Database
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from record import claims, leases, parts, readings, sweep
from record.claims import Claim
from record.db import connect, is_away, transaction
from record.errors import LeaseLost
from record.settings import WorkerSettings

EXIT_WEDGED = 70
EXIT_DEAF = 75
SUSPECTS_EVERY_S = 10.0
"""With a backlog that never ends, readings that failed before still get a turn this often."""
_logger = structlog.get_logger()


@dataclass(eq=False, slots=True)
class Held:
    """A claim that this process works on. `lost` is set when it is not ours any more: stop early, write nothing."""

    claim: Claim
    lost: threading.Event = field(default_factory=threading.Event)
    since: float = field(default_factory=time.monotonic)


class Work(Protocol):
    """What is done at a desk."""

    kind: str
    queue: str
    slots: int

    def ready(self) -> bool:
        """Whether work can be taken now; may open what was away."""

    def describe(self) -> dict[str, Any]:
        """Identity of what works here, for the table of workers."""

    def model(self) -> str | None:
        """The model that is served here, or that readings are bound to here."""

    def claim(self, session: Session, owner: str, *, clean_only: bool) -> Claim | None:
        """Claim the best reading, or None; with `clean_only`, none that failed before."""

    def do(self, desk: Desk, held: Held) -> None:
        """Do one reading to its end, whatever the end is; never raises."""


class Desk:
    """One per process. Starts one thread that beats, sweeps and watches."""

    def __init__(
        self, work: Work, settings: WorkerSettings, stopping: Callable[[], bool], *, parent: int | None = None
    ) -> None:
        self.settings = settings
        self.database: Database = connect(settings.database_url, pool=work.slots + 2)
        self._work = work
        self._stopping = stopping
        self._parent = parent
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._held: dict[int, Held] = {}
        self._lock = threading.Lock()
        self._paused_until = 0.0
        self._last_look = time.monotonic()
        self._direct = 0
        self._stopped_at: float | None = None
        self._left = threading.Event()
        self._claiming = threading.Lock()
        self._suspects_wait = False
        self._suspects_at = time.monotonic()
        self._sweep = sweep.Sweep.of(self.database, settings)
        threading.Thread(target=self._tend, daemon=True, name="tend").start()

    def drain(self) -> int:
        """Do readings until none can be claimed; with a backlog nobody waits for the broker. Returns how many."""
        done = 0
        while not self._stopping() and time.monotonic() >= self._paused_until:
            self._last_look = time.monotonic()
            held = self._claim()
            if held is None:
                break
            try:
                self._work.do(self, held)
            finally:
                with self._lock:
                    self._held.pop(id(held), None)
            done += 1
        return done

    def pause(self, seconds: float) -> None:
        """Claim nothing for a while: the engine is away, or the disk is full."""
        self._paused_until = time.monotonic() + seconds

    def store(self, held: Held, write: Callable[[Session], object]) -> bool:
        """Write the end of a reading, fenced, in one transaction; False when the lease was lost.

        A finished answer is worth a wait: while PostgreSQL is away it is offered again for half a lease.
        """
        patience = time.monotonic() + self.settings.lease_s / 2
        while True:
            try:
                with transaction(self.database) as session:
                    write(session)
            except LeaseLost:
                _logger.warning("reading_fenced", reading_id=str(held.claim.reading_id), token=held.claim.token)
                return False
            except SQLAlchemyError as error:
                if not is_away(error) or time.monotonic() > patience:
                    raise
                held.lost.wait(0.2)
            else:
                return True

    def ring(self, queue: str) -> None:
        """Say that there is work for others, after its commit."""
        self._sweep.bell.ring(queue)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads."""
        with transaction(self.database) as session:
            yield session

    def _claim(self) -> Held | None:
        with self._claiming:
            return self._claim_alone_or_beside()

    def _claim_alone_or_beside(self) -> Held | None:
        with self._lock:
            beside = list(self._held.values())
        now = time.monotonic()
        if any(h.claim.failures for h in beside):
            return None  # a suspect is at work: nobody beside it; the bell rings again
        if beside and self._suspects_wait and now - self._suspects_at > SUSPECTS_EVERY_S:
            return None  # let the desk run empty, so that a suspect gets its turn
        try:
            if not self._work.ready():
                return None
            with transaction(self.database) as session:
                claim = self._work.claim(session, self._owner, clean_only=bool(beside))
        except SQLAlchemyError as error:
            if not is_away(error):
                raise
            self.pause(min(1.0, self.settings.sweep_s))
            return None
        if claim is None:
            return None
        if not beside:
            self._suspects_at = now
        held = Held(claim)
        with self._lock:
            self._held[id(held)] = held
        return held

    def _tend(self) -> None:
        every_s = max(0.05, min(self.settings.sweep_s, self.settings.lease_s / 3))
        away = False
        while True:
            time.sleep(every_s)
            try:
                self._watch()
                self._beat()
                if self._stopping():
                    continue
                self._work.ready()
                sweep.run_once(self._sweep)
                self._report()
                self._serve()
                away = False
            except SQLAlchemyError as error:
                if not is_away(error):
                    _logger.exception("desk_stumbled")
                elif not away:
                    _logger.warning("database_away", hint="waiting for PostgreSQL")
                    away = True
            except Exception:  # the door of this thread: it must outlive whatever goes wrong in one round
                _logger.exception("desk_stumbled")

    def _beat(self) -> None:
        with self._lock:
            held = list(self._held.values())
        if not held:
            return
        with transaction(self.database) as session:
            ours = leases.extend(session, [h.claim for h in held], self.settings.lease_s)
        for one in held:
            if one.claim.reading_id not in ours:
                one.lost.set()

    def _watch(self) -> None:
        with self._lock:
            held = list(self._held.values())
        now = time.monotonic()
        if any(now - h.since > self.settings.deadline_s for h in held):
            _logger.critical("reading_wedged", hint="exit for a restart; leases run out by themselves")
            os._exit(EXIT_WEDGED)
        if self._stopping():
            self._stopped_at = self._stopped_at or now
            if now - self._stopped_at > self.settings.grace_s:
                self.hand_back()
                os._exit(0)

    def _serve(self) -> None:
        """Serve the table directly while Redis is away; leave when it rings but nobody here hears it."""
        depth = self._sweep.depths.get(self._work.queue)
        with self._lock:
            busy = len(self._held)
        if depth is None or self._sweep.settings.redis_url is None:
            with self._lock:
                free = max(0, self._work.slots - busy - self._direct)
                self._direct += free
            for _ in range(free):
                threading.Thread(target=self._drain_direct, daemon=True, name="direct").start()
            return
        idle_s = time.monotonic() - self._last_look
        if depth and not busy and idle_s > self.settings.stall_s and time.monotonic() > self._paused_until:
            _logger.critical("consumer_deaf", wait_s=round(idle_s), depth=depth, hint="exit for a restart")
            if self._parent and os.getppid() == self._parent:  # prefork: the consumer that does not hear is the parent
                os.kill(self._parent, signal.SIGKILL)
            os._exit(EXIT_DEAF)

    def _drain_direct(self) -> None:
        try:
            self.drain()
        except Exception:  # the door of this thread
            _logger.exception("desk_stumbled")
        finally:
            with self._lock:
                self._direct -= 1

    def _report(self) -> None:
        with self._lock:
            busy = len(self._held)
        # the digests of an engine's many files stand in each draft's provenance; this row is written every second
        told = {name: value for name, value in self._work.describe().items() if name not in {"files", "software"}}
        with transaction(self.database) as session:
            self._suspects_wait = readings.suspects_wait(session)
            readings.report_worker(
                session,
                self._owner,
                self._work.kind,
                model=self._work.model(),
                slots=self._work.slots,
                identity={**told, "busy": busy},
            )
        if self._left.is_set():
            self._leave()

    def _leave(self) -> None:
        """Stop in good order: this worker is not missed."""
        with contextlib.suppress(SQLAlchemyError), transaction(self.database) as session:
            parts.forget(session, self._owner)

    def hand_back(self) -> None:
        """Give unfinished readings back now instead of after their lease; no failure is counted."""
        self._left.set()
        with self._lock:
            held = list(self._held.values())
        for one in held:
            one.lost.set()
            try:
                with transaction(self.database) as session:
                    claims.release(session, one.claim)
            except (LeaseLost, SQLAlchemyError):  # finished meanwhile, or the lease will run out by itself
                continue
            _logger.info("reading_handed_back", reading_id=str(one.claim.reading_id))
        self._leave()
