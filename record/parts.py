"""Parts: every process of the gateway says now and then that it is here, and what it alone knows.

Knows how a process tells while PostgreSQL comes and goes. Does not know what the facts mean, nor who is missed
(`presence`). Workers have rows of their own (`readings.report_worker`). A part that stops takes its row with it; one that
dies leaves it, and is silent.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from sqlalchemy import Engine, delete, func, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from record.db import is_away, transaction
from record.models import Part, Worker
from record.owner import new_owner, own_version

_logger = structlog.get_logger()
_TRY_AGAIN_S = 0.5
"""A process whose word did not reach the database repeats it this soon, so that it is not called silent for it."""


def report(session: Session, owner: str, kind: str, facts: Mapping[str, Any]) -> None:
    """Say that a part is here; rows of parts that were not seen for a day go.

    `facts` are counts, ages and codes: never patient data. `every_s` among them is how often this part tells.
    """
    told = {**facts, "clock": time.time()}
    row = insert(Part).values(owner=owner, kind=kind, host=socket.gethostname(), version=own_version(), facts=told)
    session.execute(
        row.on_conflict_do_update(
            index_elements=[Part.owner], set_={"facts": row.excluded.facts, "seen_at": func.now()}
        )
    )
    session.execute(text("DELETE FROM parts WHERE seen_at < now() - interval '1 day'"))


def forget(session: Session, owner: str) -> None:
    """A part, or a worker, stops in good order: it is not missed."""
    session.execute(delete(Part).where(Part.owner == owner))
    session.execute(delete(Worker).where(Worker.owner == owner))


class Beat:
    """One process's word that it is here, for the loop it already has: nothing it does raises."""

    def __init__(self, engine: Engine, kind: str, every_s: float) -> None:
        self._engine, self._kind, self._every_s = engine, kind, every_s
        self._owner = new_owner()
        self._due = 0.0

    def tell(self, facts: Callable[[], Mapping[str, Any]] = dict) -> None:
        """Say it when it is time to; while PostgreSQL is away nothing is said and nothing is waited for twice."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + self._every_s
        try:
            told = {**facts(), "every_s": self._every_s}
            with transaction(self._engine) as session:
                report(session, self._owner, self._kind, told)
        except SQLAlchemyError as error:
            if is_away(error):
                self._due = now + min(self._every_s, _TRY_AGAIN_S)  # who else lives here says that it is away
            else:
                _logger.exception("part_untold")
        except OSError:  # a folder that cannot be looked into is no reason to stop
            _logger.exception("part_untold")

    def stop(self) -> None:
        """Take the row away, if PostgreSQL is there."""
        with contextlib.suppress(SQLAlchemyError), transaction(self._engine) as session:
            forget(session, self._owner)


class Pulse:
    """A `Beat` with a thread of its own, for a process without a loop."""

    def __init__(self, beat: Beat, every_s: float, facts: Callable[[], Mapping[str, Any]] = dict) -> None:
        self._beat, self._facts = beat, facts
        self._every_s = min(every_s, _TRY_AGAIN_S)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Tell from now on."""
        self._thread.start()

    def stop(self, within_s: float = 5.0) -> None:
        """Tell no more, and take the row away."""
        self._stop.set()
        self._thread.join(within_s)
        if not self._thread.is_alive():
            self._beat.stop()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._beat.tell(self._facts)
            self._stop.wait(self._every_s)
