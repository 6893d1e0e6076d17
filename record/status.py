"""The state of the line, for whoever looks after it: parts, queue, failures, disks, and what needs a person.

Knows which figures belong to it and which of them give cause for an alarm. Does not know how one is found (`figures`), how
it is shown, nor what an alarm says (`alarms`). What belongs to a site is narrowed to the asker's; the parts, the disks and
the seals are everybody's. Nothing here names a patient.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from record import associations, figures
from record.access import Principal
from record.alarms import FAILING, SILENT_S, SILENT_TIMES, STARTING_S, Alarm, Severity, age, alarm, of_places
from record.figures import Ended, Reason, Receiving, Sender, StudyShown, Waiting
from record.models import Site
from record.presence import PartShown, Place, SpoolShown, look
from record.queue import Bell
from record.states import Lane, ReadingState

OLDEST_S: Mapping[Lane, float] = {Lane.STAT: 120.0, Lane.ROUTINE: 1800.0, Lane.BACKFILL: 7 * 86_400.0}
"""How long the oldest reading that could be claimed may wait, by lane."""
UNSEALED_OLDEST_S = 120.0
DELETION_OLDEST_S = 3600.0
CLOCK_S = 5.0
LEASE_LOSSES = 3
"""Leases lost within an hour from which on it is no accident."""


@dataclass(frozen=True, slots=True)
class Status:
    """Everything at once. `site` is None where all sites are in view; a number with `_estimated` is about right."""

    at: datetime
    host: str
    site: str | None
    clock_s: float
    revision: str | None
    own_revision: str | None
    database_bytes: int
    parts: tuple[PartShown, ...]
    missing: tuple[str, ...]
    spools: tuple[SpoolShown, ...]
    disks: tuple[Place, ...]
    queue: tuple[Waiting, ...]
    prepared_by_model: Mapping[str, int]
    studies: Mapping[str, int]
    studies_estimated: bool
    receiving: Receiving
    reasons: tuple[Reason, ...]
    ended: tuple[Ended, ...]
    senders: tuple[Sender, ...]
    conflicts: int
    conflicting: tuple[StudyShown, ...]
    outdated: int
    lease_losses: int
    unsealed: int
    unsealed_oldest_s: float
    seal_position: int
    deliveries: Mapping[str, int]
    commitments: Mapping[str, int]
    turned_away: int
    deletions: int
    deletions_oldest_s: float
    redis: bool | None
    wakeups: Mapping[str, int]
    alarms: tuple[Alarm, ...] = ()

    @property
    def is_well(self) -> bool:
        """Whether nothing needs a person; a notice does not."""
        return all(one.severity == "notice" for one in self.alarms)

    def as_dict(self) -> dict[str, Any]:
        """As plain values, with each alarm's sentence."""
        told = asdict(self)
        told["well"] = self.is_well
        told["alarms"] = [{**asdict(one), "sentence": one.sentence} for one in self.alarms]
        return told


def read(session: Session, by: Principal | None = None, *, bell: Bell | None = None, most: int = 20) -> Status:
    """Look at everything, in a transaction that only reads.

    Parameters
    ----------
    by
        Who asks; None is whoever holds the database's key, who sees all sites.
    bell
        Redis, where this process has one.
    most
        Rows of each list.
    """
    depths = bell.depths() if bell is not None and bell.is_configured else {}  # before a transaction is open
    base = figures.base(session)
    clock_s = time.time() - base.at.timestamp()
    parts, missing, spools, disks = look(session)
    queue, by_model = figures.queue(session, by)
    studies, estimated = figures.studies(session, by)
    conflicts, conflicting = figures.conflicts(session, by, most)
    status = Status(
        at=base.at,
        host=socket.gethostname(),
        site=None if by is None else session.scalar(select(Site.name).where(Site.id == by.site_id)),
        clock_s=clock_s,
        revision=base.revision,
        own_revision=own_revision(),
        database_bytes=base.database_bytes,
        parts=parts,
        missing=missing,
        spools=spools,
        disks=disks,
        queue=queue,
        prepared_by_model=by_model,
        studies=studies,
        studies_estimated=estimated,
        receiving=figures.receiving(session, by, most),
        reasons=figures.reasons(session, by, base.at),
        ended=figures.ended(session, by, base.at, most),
        senders=figures.senders(session, by),
        conflicts=conflicts,
        conflicting=conflicting,
        outdated=figures.outdated(session, by, base.at),
        lease_losses=base.lease_losses,
        unsealed=base.unsealed,
        unsealed_oldest_s=float(base.unsealed_oldest_s or 0),
        seal_position=base.seal_position or 0,
        deliveries=figures.deliveries(session, by),
        commitments=figures.commitments(session, by),
        turned_away=associations.troubled_lately(session, site_id=by.site_id if by else None),
        deletions=base.deletions,
        deletions_oldest_s=float(base.deletions_oldest_s or 0),
        redis=None if bell is None or not bell.is_configured else depths is not None,
        wakeups=depths or {},
    )
    return replace(status, alarms=_raised_by(status))


@cache
def own_revision() -> str | None:
    """The schema revision that this release is made for."""
    from alembic.script import ScriptDirectory

    from record.migrate import config

    return ScriptDirectory.from_config(config()).get_current_head()


def _raised_by(status: Status) -> tuple[Alarm, ...]:
    """Every alarm that the figures give cause for, the gravest first."""
    places = of_places(status.spools, status.disks)
    found = [*_of_schema(status), *_of_parts(status), *places, *_of_work(status), *_of_record(status)]
    return tuple(sorted(found, key=lambda one: list(Severity).index(one.severity)))


def _of_schema(status: Status) -> Iterator[Alarm]:
    if status.revision is None:
        yield alarm("schema_missing")
    elif status.own_revision is not None and status.revision < status.own_revision:
        yield alarm("schema_old", there=status.revision, needed=status.own_revision)
    elif status.own_revision is not None and status.revision > status.own_revision:
        yield alarm("schema_new", there=status.revision, own=status.own_revision)


def _of_parts(status: Status) -> Iterator[Alarm]:
    begun_s = max((part.up_s for part in status.parts if part.verdict == "up"), default=STARTING_S)
    for kind in status.missing:
        is_starting = kind in {"cpu", "gpu"} and begun_s < STARTING_S  # the others tell within seconds
        yield alarm("part_starting", kind=kind) if is_starting else alarm(f"no_{kind}")
    for part in status.parts:
        if part.verdict == "silent":
            yield alarm("part_silent", kind=part.kind, host=part.host, age=age(part.seen_s))
        elif abs(part.clock_s) > CLOCK_S:
            yield alarm("clock", host=part.host, seconds=str(round(part.clock_s, 1)))
        if part.failing and part.verdict == "up":
            yield alarm("indexer_failing", host=part.host, reason=FAILING.get(part.failing, FAILING["error"]))
    gpu = [part for part in status.parts if part.kind == "gpu" and part.verdict == "up"]
    if gpu and not any(part.model for part in gpu):
        is_opening = any(part.up_s < STARTING_S for part in gpu)
        yield alarm("part_starting", kind="gpu") if is_opening else alarm("no_engine")
    versions = sorted({part.version for part in status.parts if part.version and part.verdict == "up"})
    if len(versions) > 1:
        yield alarm("versions", versions=", ".join(versions))
    if status.redis is False:
        yield alarm("redis_away")


def _of_work(status: Status) -> Iterator[Alarm]:
    oldest: dict[Lane, float] = {}
    for waiting in status.queue:
        oldest[waiting.lane] = max(oldest.get(waiting.lane, 0.0), waiting.oldest_s or 0.0)
    for lane, waited_s in oldest.items():
        if waited_s > OLDEST_S[lane]:
            yield alarm("waiting_long", lane=lane, age=age(waited_s))
    served = {part.model for part in status.parts if part.kind == "gpu" and part.verdict == "up"}
    if any(served):  # else no_gpu or no_engine says it
        for model, count in status.prepared_by_model.items():
            if model not in served:
                yield alarm("model_unserved", model=model, count=count)
    if status.receiving.overdue_s is not None:
        yield alarm("receiving_long", age=age(status.receiving.overdue_s))
    for sender in status.senders:
        if sender.usual_s is not None and sender.silent_s > max(SILENT_S, SILENT_TIMES * sender.usual_s):
            told = {"peer": sender.ae_title, "age": age(sender.silent_s), "usual": age(sender.usual_s)}
            yield alarm("peer_silent", **told)
    if status.turned_away:
        yield alarm("senders_refused", count=status.turned_away)
    failed = sum(one.unattended for one in status.reasons if one.state == ReadingState.FAILED)
    if failed:
        yield alarm("readings_failed", count=failed)
    if status.lease_losses >= LEASE_LOSSES:
        yield alarm("lease_losses", count=status.lease_losses)


def _of_record(status: Status) -> Iterator[Alarm]:
    if status.conflicts:
        yield alarm("conflicts", count=status.conflicts)
    if status.outdated:
        yield alarm("outdated", count=status.outdated)
    if status.unsealed and status.unsealed_oldest_s > UNSEALED_OLDEST_S:
        yield alarm("unsealed", count=status.unsealed, age=age(status.unsealed_oldest_s))
    if status.deliveries.get("dead"):
        yield alarm("deliveries_dead", count=status.deliveries["dead"])
    if status.commitments.get("dead"):
        yield alarm("commitments_dead", count=status.commitments["dead"])
    if status.deletions and status.deletions_oldest_s > DELETION_OLDEST_S:
        yield alarm("deletions_wait", count=status.deletions, age=age(status.deletions_oldest_s))
    if abs(status.clock_s) > CLOCK_S:
        yield alarm("clock", host=status.host, seconds=str(round(status.clock_s, 1)))
