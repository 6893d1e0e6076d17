"""Presence: which parts are up, which are silent, which are missing, and what they tell of spools and disks.

Knows the rows of `parts` and `workers` and the facts in them: what an indexer tells of its spools and of the listener
beside them, what a worker tells of its engine. Does not know how they come to be written (`parts`, `readings`), nor what
gives cause for an alarm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from record.models import Part, Worker

KINDS = ("listener", "indexer", "api", "sweep", "cpu", "gpu", "courier")
"""Every kind of part, in the order in which a study meets them."""
EVERY_S = 5.0
"""How often a part tells that does not say so."""
SILENT_AFTER = 3.0
"""A part is silent after this many times its own interval."""
WORKER_SILENT_S = 15.0
"""A worker tells every second, in a thread that may be held up by its sweep."""


class Verdict(StrEnum):
    """What is to be thought of a part. A listener whose indexer is silent is not heard of."""

    UP = "up"
    SILENT = "silent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PartShown:
    """A process that was here, and when it was last seen. `clock_s` is how far its clock is ahead of the database's."""

    kind: str
    host: str
    owner: str
    version: str
    verdict: Verdict
    seen_s: float
    up_s: float
    clock_s: float = 0.0
    failing: str | None = None
    model: str | None = None
    device: str | None = None
    slots: int | None = None
    busy: int | None = None
    port: int | None = None
    tls_port: int | None = None
    associations: int | None = None


@dataclass(frozen=True, slots=True)
class SpoolShown:
    """A spool, as its indexer last told: files without a row, and those kept aside."""

    host: str
    spool: str
    files: int
    oldest_s: float
    bytes: int
    quarantine_files: int
    quarantine_bytes: int
    failed_notices: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """The room on a disk, and below how much new instances are refused."""

    place: str
    host: str
    free_bytes: int
    refused_below_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Row:
    kind: str
    host: str
    owner: str
    version: str
    facts: Mapping[str, Any]
    seen_s: float
    up_s: float
    clock_s: float
    silent_s: float


def look(
    session: Session,
) -> tuple[tuple[PartShown, ...], tuple[str, ...], tuple[SpoolShown, ...], tuple[Place, ...]]:
    """Parts, the kinds of which none is up, spools, and disks."""
    rows = _without_replaced([*_parts(session), *_workers(session)])
    shown = [_shown(row) for row in rows]
    listeners = [part for row in rows if row.kind == "indexer" for part in _listeners(row)]
    parts = sorted([*listeners, *shown], key=lambda part: (KINDS.index(part.kind), part.host, part.seen_s))
    indexers = [row for row in rows if row.kind == "indexer"]
    return tuple(parts), _missing(parts), tuple(_spools(indexers)), tuple(_places(indexers))


def _parts(session: Session) -> Iterator[_Row]:
    seen_s, up_s = _seconds_since(Part.seen_at), _seconds_since(Part.started_at)
    ahead_s = func.coalesce(Part.facts["clock"].as_float() - func.extract("epoch", Part.seen_at), 0)
    for part, seen, up, ahead in session.execute(select(Part, seen_s, up_s, ahead_s)):
        every_s = float(part.facts.get("every_s") or EVERY_S)
        if part.kind in KINDS:
            yield _Row(
                part.kind, part.host, part.owner, part.version, part.facts, float(seen), float(up), float(ahead),
                SILENT_AFTER * every_s,
            )  # fmt: skip


def _workers(session: Session) -> Iterator[_Row]:
    rows = session.execute(select(Worker, _seconds_since(Worker.seen_at), _seconds_since(Worker.started_at)))
    for worker, seen, up in rows:
        facts = {**worker.identity, "model": worker.model, "slots": worker.slots}
        host = worker.owner.rpartition(":")[0]
        if worker.kind in KINDS:
            yield _Row(worker.kind, host, worker.owner, "", facts, float(seen), float(up), 0.0, WORKER_SILENT_S)


def _without_replaced(rows: Sequence[_Row]) -> list[_Row]:
    """Leave out who is silent where another of the same kind has started on the same machine since."""

    def replaced(row: _Row) -> bool:
        others = (other for other in rows if other.kind == row.kind and other.host == row.host and other is not row)
        return row.seen_s > row.silent_s and any(other.up_s < row.seen_s for other in others)

    return [row for row in rows if not replaced(row)]


def _shown(row: _Row) -> PartShown:
    facts = row.facts
    return PartShown(
        kind=row.kind,
        host=row.host,
        owner=row.owner,
        version=row.version,
        verdict=Verdict.SILENT if row.seen_s > row.silent_s else Verdict.UP,
        seen_s=max(0.0, row.seen_s),
        up_s=row.up_s,
        clock_s=row.clock_s,
        failing=facts.get("failing"),
        model=facts.get("model"),
        device=facts.get("where"),
        slots=facts.get("slots"),
        busy=facts.get("busy"),
        port=facts.get("port"),
    )


def _listeners(indexer: _Row) -> Iterator[PartShown]:
    """The listeners that an indexer tells of: each was seen at most one interval before the indexer was."""
    for spool in indexer.facts.get("spools", []):
        told = spool.get("listener")
        if not told:
            continue
        since_s = max(0.0, indexer.seen_s)
        verdict = listener_verdict(told, since_s, indexer.silent_s / SILENT_AFTER)
        yield PartShown(
            kind="listener",
            host=indexer.host,
            owner=str(told.get("owner", "")),
            version=str(told.get("version", "")),
            verdict=Verdict.UNKNOWN if indexer.seen_s > indexer.silent_s else verdict,
            seen_s=told["seen_s"] + since_s,
            up_s=float(told.get("up_s", 0.0)),
            port=told.get("port"),
            tls_port=told.get("tls_port"),
            associations=told.get("associations"),
        )


def listener_verdict(told: Mapping[str, Any], since_s: float = 0.0, late_s: float = 0.0) -> Verdict:
    """What is to be thought of a listener that said this `since_s` ago, through somebody who may be `late_s` late."""
    silent_s = SILENT_AFTER * float(told.get("every_s") or EVERY_S) + late_s
    return Verdict.SILENT if told["seen_s"] + since_s > silent_s else Verdict.UP


def _missing(parts: Sequence[PartShown]) -> tuple[str, ...]:
    """Kinds that must be there and are not: workers sweep as well, and who is silent has an alarm of their own."""
    there = {part.kind for part in parts}
    if any(part.kind in {"cpu", "gpu"} and part.verdict is Verdict.UP for part in parts):
        there.add("sweep")
    if "indexer" not in there:
        there.add("listener")  # nobody could tell of it: the missing indexer says so
    return tuple(kind for kind in KINDS if kind not in there)


def _spools(indexers: Sequence[_Row]) -> Iterator[SpoolShown]:
    for row in indexers:
        for told in row.facts.get("spools", []):
            yield SpoolShown(
                host=row.host,
                spool=str(told["spool"]),
                files=told["files"],
                oldest_s=told["oldest_s"] + max(0.0, row.seen_s) if told["files"] else 0.0,
                bytes=told["bytes"],
                quarantine_files=told["quarantine_files"],
                quarantine_bytes=told["quarantine_bytes"],
                failed_notices=told.get("failed_notices", 0),  # an indexer of the former release counts none
            )


def _places(indexers: Sequence[_Row]) -> Iterator[Place]:
    """One line a machine's spools, and one for the store, which all machines share."""
    stores = []
    for row in indexers:
        spools = row.facts.get("spools", [])
        if spools:
            refused = max((spool.get("listener") or {}).get("min_free_bytes", 0) for spool in spools)
            yield Place("spool", row.host, min(spool["free_bytes"] for spool in spools), refused)
        if "store_free_bytes" in row.facts:
            stores.append(Place("store", row.host, row.facts["store_free_bytes"]))
    if stores:
        yield min(stores, key=lambda place: place.free_bytes)


def _seconds_since(at: Any) -> Any:  # SQL expressions
    return func.extract("epoch", func.now() - at)
