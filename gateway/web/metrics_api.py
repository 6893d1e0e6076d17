"""`GET /metrics`: the state of the line for Prometheus, from the record at scrape time, and this process's own figures.

Knows the text format 0.0.4, a cache of some seconds for each site, and that a scraper must learn that the database is
away, which is when nobody can look up its token: a token that this process recognised before then still gets the process's
own figures. Does not know how a figure is found (`record.status`). Labels are lanes, states, kinds, reasons and codes.
"""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from gateway.web.auth import Allow, Visitor
from gateway.web.context import Door, web_of
from gateway.web.problems import answers, is_database_away
from record import status
from record.access import Action, Principal
from record.alarms import KINDS as ALARMS
from record.db import transaction
from record.errors import CountersignError
from record.owner import own_version
from record.presence import KINDS, Verdict
from record.states import Lane, ReadingState
from record.status import Status

router = APIRouter()
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
CACHED_S = 10.0
_MOST_KNOWN = 64
_SOMEBODY_KNOWN = Principal(kind="token", id=None, site_id=None, role=None)
_OPEN = (ReadingState.QUEUED, ReadingState.PREPARING, ReadingState.PREPARED, ReadingState.DRAFTING)


@dataclass(slots=True)
class Shelf:
    """The last figures of each site, and the tokens that were recognised, by their sha256."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    figures: dict[uuid.UUID | None, tuple[float, Status]] = field(default_factory=dict)
    tokens: dict[bytes, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scrape(Allow):
    """Those who may read metrics; a known token gets in while the database is away, as nobody in particular."""

    action: Action | None = Action.READ_METRICS

    def __call__(self, request: Request) -> Visitor:
        """Recognise the visitor and ask the table."""
        known = _shelf(request).tokens
        secret = request.headers.get("authorization", "")
        key = hashlib.sha256(secret.encode()).digest()
        try:
            visitor = Allow.__call__(self, request)
        except SQLAlchemyError as error:
            if secret and key in known and is_database_away(error):
                return Visitor(_SOMEBODY_KNOWN)
            raise
        except CountersignError:
            known.pop(key, None)
            raise
        if secret:
            if len(known) >= _MOST_KNOWN:
                known.clear()
            known[key] = None
        return visitor


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        **answers(403),
        200: {"description": "Text format 0.0.4.", "content": {"text/plain": {"schema": {"type": "string"}}}},
    },
    summary="Metrics for Prometheus",
    tags=["health"],
)
def metrics(request: Request, web: Door, visitor: Annotated[Visitor, Depends(Scrape())]) -> Response:
    """The state of the line, at most ten seconds old, and of this process; while the database is away, of this process alone."""
    found = _figures(request, visitor.principal)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Line(found))
    return Response(generate_latest(registry) + generate_latest(web.meter.registry), media_type=MEDIA_TYPE)


def _figures(request: Request, by: Principal) -> Status | None:
    """What the record says, at most some seconds old; None while PostgreSQL is away. One scrape at a time asks."""
    if by == _SOMEBODY_KNOWN:
        return None
    shelf, web = _shelf(request), web_of(request)
    with shelf.lock:
        at, found = shelf.figures.get(by.site_id, (-CACHED_S, None))
        if found is not None and time.monotonic() - at < CACHED_S:
            return found
        try:
            with transaction(web.engine) as session:
                found = status.read(session, by, bell=web.bell, most=0)
        except SQLAlchemyError as error:
            if not is_database_away(error):
                raise
            return None
        shelf.figures[by.site_id] = time.monotonic(), found
        return found


def _shelf(request: Request) -> Shelf:
    state = request.app.state
    if not hasattr(state, "metrics"):
        state.metrics = Shelf()
    shelf: Shelf = state.metrics
    return shelf


class _Line(Collector):
    """The figures of one look at the record."""

    def __init__(self, found: Status | None) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        """Every family, in the order of a study's way."""
        found = self._found
        yield _gauge("database_up", "Whether PostgreSQL answers.", [((), found is not None)])
        yield _gauge("build_info", "The release that answers.", [((own_version(),), 1)], "version")
        if found is not None:
            yield from _parts(found)
            yield from _spools(found)
            yield from _work(found)
            yield from _record(found)


def _parts(found: Status) -> Iterator[Metric]:
    up = [(kind, verdict, [p for p in found.parts if (p.kind, p.verdict) == (kind, verdict)]) for kind in KINDS for verdict in Verdict]  # fmt: skip
    yield _gauge("parts", "Processes by kind and what is to be thought of them.", [((k, v), len(p)) for k, v, p in up], "kind", "verdict")  # fmt: skip
    for name, doc, attribute in (
        ("worker_slots", "Readings that the workers which are up can have in hand.", "slots"),
        ("worker_slots_busy", "Readings that they have in hand.", "busy"),
    ):
        sums = [((k,), sum(getattr(p, attribute) or 0 for p in ps)) for k, v, ps in up if v is Verdict.UP and k in {"cpu", "gpu"}]  # fmt: skip
        yield _gauge(name, doc, sums, "kind")
    open_ = sum(part.associations or 0 for part in found.parts if part.verdict is Verdict.UP)
    yield _gauge("associations_open", "DICOM associations that stand now.", [((), open_)])
    raised = dict.fromkeys(ALARMS, 0)
    for one in found.alarms:
        raised[one.code] += 1
    yield _gauge(
        "alarms", "What needs a person, by code (docs/operations.md).",
        [((ALARMS[code].severity, code), count) for code, count in raised.items()], "severity", "code",
    )  # fmt: skip


def _spools(found: Status) -> Iterator[Metric]:
    spools = found.spools
    for name, doc, value in (
        ("spool_files", "Durable files without a row, in all spools.", sum(s.files for s in spools)),
        ("spool_bytes", "Their bytes, about.", sum(s.bytes for s in spools)),
        ("spool_oldest_seconds", "Age of the oldest of them.", max((s.oldest_s for s in spools), default=0)),
        ("quarantine_files", "Files kept aside in all spools.", sum(s.quarantine_files for s in spools)),
        ("quarantine_bytes", "Their bytes, about.", sum(s.quarantine_bytes for s in spools)),
    ):
        yield _gauge(name, doc, [((), value)])
    known = [(sender.ae_title, sender.address, sender.site) for sender in found.senders]
    yield _gauge(
        "peer_silent_seconds", "How long each sender has been silent.",
        [(who, sender.silent_s) for who, sender in zip(known, found.senders, strict=True)], "peer", "address", "site",
    )  # fmt: skip
    yield _gauge(
        "peer_usual_silence_seconds", "The longest it was within a fortnight; absent for three days after it was first seen.",
        [(who, sender.usual_s) for who, sender in zip(known, found.senders, strict=True) if sender.usual_s is not None],
        "peer", "address", "site",
    )  # fmt: skip
    free: dict[str, int] = {}
    for disk in found.disks:
        free[disk.place] = min(disk.free_bytes, free.get(disk.place, disk.free_bytes))
    yield _gauge("disk_free_bytes", "Room on the fullest disk, by what lies on it.", _by(free), "place")


def _work(found: Status) -> Iterator[Metric]:
    waiting = {(one.lane, one.state): one for one in found.queue}
    counts = [((lane, state), waiting[lane, state].count if (lane, state) in waiting else 0) for lane in Lane for state in _OPEN]  # fmt: skip
    yield _gauge("readings", "Readings that are not at their end, by lane and state.", counts, "lane", "state")
    yield _gauge(
        "readings_stumbled", "Those among them that have failed before, by lane.",
        [((lane,), sum(one.stumbled for one in found.queue if one.lane == lane)) for lane in Lane], "lane",
    )  # fmt: skip
    yield _gauge(
        "reading_oldest_claimable_seconds", "How long the oldest reading that a worker could take has waited, by lane.",
        [((lane,), max((o.oldest_s or 0.0 for o in found.queue if o.lane == lane), default=0.0)) for lane in Lane], "lane",
    )  # fmt: skip
    ended = [((one.state, one.reason_code or "-"), one.count) for one in found.reasons]
    yield _gauge("readings_without_draft", "Readings that failed or abstained within 7 days, by state and reason.", ended, "state", "reason")  # fmt: skip
    unattended = [((one.state, one.reason_code or "-"), one.unattended) for one in found.reasons]
    yield _gauge("readings_unattended", "Those among them whose studies nobody has begun to report.", unattended, "state", "reason")  # fmt: skip
    yield _gauge("lease_losses_last_hour", "Leases that ran out within an hour.", [((), found.lease_losses)])
    yield _gauge("studies_receiving", "Studies that are receiving.", [((), found.receiving.count)])
    yield _gauge("study_receiving_oldest_seconds", "How long the one longest at it has been.", [((), found.receiving.oldest_s or 0.0)])  # fmt: skip
    yield _gauge("studies", "Studies on record, by state; estimated where there are many.", _by(found.studies), "state")
    if found.redis is not None:
        yield _gauge("redis_up", "Whether Redis answers.", [((), found.redis)])
        yield _gauge("wakeups", "Wake-ups that lie in Redis, by queue.", _by(found.wakeups), "queue")


def _record(found: Status) -> Iterator[Metric]:
    for name, doc, value in (
        ("conflicts_undecided", "Images that conflict in bytes or identity.", found.conflicts),
        ("reports_outdated", "Open reports on older images than their studies have.", found.outdated),
        ("events_unsealed", "Events without a seal yet.", found.unsealed),
        ("event_unsealed_oldest_seconds", "Age of the oldest of them.", found.unsealed_oldest_s),
        ("seal_position", "Position of the last seal.", found.seal_position),
        ("store_deletions", "Stored files that wait to be removed.", found.deletions),
        ("database_size_bytes", "Size of the database.", found.database_bytes),
        ("clock_ahead_seconds", "How far this machine's clock is ahead of the database's.", found.clock_s),
    ):
        yield _gauge(name, doc, [((), value)])
    yield _gauge(
        "commitments", "Storage commitments of which the sender was not told yet.", _by(found.commitments), "state"
    )
    yield _gauge("deliveries", "Deliveries that are not acknowledged, by state.", _by(found.deliveries), "state")


def _by(counts: Mapping[str, int]) -> list[tuple[tuple[str], float]]:
    return [((name,), count) for name, count in counts.items()]


def _gauge(name: str, doc: str, values: Iterable[tuple[tuple[str, ...], float]], *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"countersign_{name}", doc, labels=labels)
    for told, value in values:
        family.add_metric(told, value)
    return family
