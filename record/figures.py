"""Figures of the line: each a query that stays cheap however much is on record.

Knows partial indexes where there are some, ids that begin with a time where there are none, and estimates where counting
would read a whole table. Does not know what the figures are for. Every function narrows what belongs to a site to that of
`by`; None sees all sites.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Row, Select, func, literal, select, text, union_all
from sqlalchemy.orm import Session

from record.access import Principal, visible
from record.models import (
    Association,
    Commitment,
    Delivery,
    Instance,
    Part,
    Peer,
    Reading,
    Report,
    Site,
    Study,
    StudyRevision,
)
from record.models.studies import UNDECIDED
from record.settings import Sweeping
from record.states import (
    ENDED_REPORT,
    OPEN_REPORT,
    CommitmentState,
    DeliveryState,
    Lane,
    Purpose,
    ReadingState,
    StudyState,
)

LATELY = timedelta(days=7)
"""How far back failed and abstained readings, and outdated reports, are looked for."""
COUNTED_BYTES = 2 << 20
"""A table up to this size is counted; a larger one's rows are estimated."""
_MANY = 10_001
"""Where a number only says that much waits, counting stops here."""
_OVERDUE_S = 600.0
HABIT = timedelta(days=14)
"""How far back a peer's silences tell what is usual."""
_KNOWN_S = 3 * 86_400.0
_T = TypeVar("_T", bound=Select[*tuple[Any, ...]])


@dataclass(frozen=True, slots=True)
class Waiting:
    """Readings of one lane in one open state; `oldest_s` is how long the oldest that can be claimed has been waiting."""

    lane: Lane
    state: ReadingState
    count: int
    stumbled: int
    oldest_s: float | None


@dataclass(frozen=True, slots=True)
class Ended:
    """A reading that ended without a draft. Its study is named by UID, modality and time alone."""

    reading_id: uuid.UUID
    study_instance_uid: str
    modality: str
    site: str
    received_at: datetime | None
    state: ReadingState
    reason_code: str | None
    failures: int
    ended_at: datetime | None
    reported: bool


@dataclass(frozen=True, slots=True)
class Reason:
    """How many readings ended for a reason lately, and of how many studies nobody has begun a report yet."""

    state: ReadingState
    reason_code: str | None
    count: int
    unattended: int


@dataclass(frozen=True, slots=True)
class StudyShown:
    """A study that waits for something; `count` is of images, or of those in conflict."""

    study_instance_uid: str
    modality: str
    site: str
    received_at: datetime | None
    since: datetime | None
    count: int


@dataclass(frozen=True, slots=True)
class Receiving:
    """Studies that are receiving; `overdue_s` is the age of one that has been for longer than it may."""

    count: int = 0
    oldest_s: float | None = None
    overdue_s: float | None = None
    studies: tuple[StudyShown, ...] = ()


@dataclass(frozen=True, slots=True)
class Sender:
    """A peer: how long it has been silent, and how long it has been at most lately; None while too little is known of it."""

    ae_title: str
    address: str
    site: str
    silent_s: float
    usual_s: float | None


_BASE = text(
    """
    SELECT clock_timestamp() AS at, pg_database_size(current_database()) AS database_bytes,
      (SELECT max(version_num) FROM alembic_version) AS revision,
      (SELECT position FROM seals ORDER BY position DESC LIMIT 1) AS seal_position,
      (SELECT count(*) FROM (SELECT FROM unsealed_events LIMIT :many) few) AS unsealed,
      (SELECT extract(epoch FROM now() - e.at) FROM unsealed_events u JOIN events e ON e.id = u.event_id
       ORDER BY u.event_id LIMIT 1) AS unsealed_oldest_s,
      (SELECT count(*) FROM (SELECT FROM store_deletions LIMIT :many) few) AS deletions,
      (SELECT extract(epoch FROM now() - min(created_at)) FROM (SELECT created_at FROM store_deletions LIMIT :many) few)
       AS deletions_oldest_s,
      (SELECT count(*) FROM events WHERE id > :hour AND kind = 'lease_lost') AS lease_losses
    """
)


def base(session: Session) -> Row[Any]:
    """What belongs to the whole installation: time, size, schema, seals, deletions, leases lost within the hour."""
    hour = floor(_now(session) - timedelta(hours=1))
    return session.execute(_BASE, {"hour": hour, "many": _MANY}).one()


def floor(at: datetime) -> uuid.UUID:
    """The smallest id that could have been made then: our ids begin with the milliseconds (RFC 9562, 5.7).

    So rows younger than a moment are a range of the primary key, in any table.
    """
    return uuid.UUID(int=int(at.timestamp() * 1000) << 80)


def _now(session: Session) -> datetime:
    at: datetime = session.execute(select(func.now())).scalar_one()
    return at


def _seen(statement: _T, by: Principal | None) -> _T:
    return statement if by is None else visible(statement, by)


def queue(session: Session, by: Principal | None) -> tuple[tuple[Waiting, ...], dict[str, int]]:
    """One branch a partial index: the planner does not find them behind a single list of states."""
    branches = []
    for states in (["queued"], ["prepared"], ["preparing", "drafting"]):
        claimable = func.min(Reading.not_before).filter(
            Reading.not_before <= func.now(), Reading.state.in_(["queued", "prepared"])
        )
        of_states = Reading.state == literal(states[0]) if len(states) == 1 else Reading.state.in_(states)
        branches.append(
            _seen(
                select(
                    Reading.lane,
                    Reading.state,
                    Reading.model,
                    func.count().label("found"),
                    func.count().filter(Reading.failures > 0).label("stumbled"),
                    _age(claimable).label("oldest_s"),
                )
                .where(of_states)
                .group_by(Reading.lane, Reading.state, Reading.model),
                by,
            )
        )
    found: dict[tuple[Lane, ReadingState], Waiting] = {}
    by_model: dict[str, int] = {}
    for row in session.execute(union_all(*branches)):
        lane, state = Lane(row.lane), ReadingState(row.state)
        former = found.get((lane, state), Waiting(lane, state, 0, 0, None))
        ages = [float(each) for each in (former.oldest_s, row.oldest_s) if each is not None]
        found[lane, state] = Waiting(
            lane, state, former.count + row.found, former.stumbled + row.stumbled, max(ages, default=None)
        )
        if state is ReadingState.PREPARED and row.model:
            by_model[row.model] = by_model.get(row.model, 0) + row.found
    order = [ReadingState.QUEUED, ReadingState.PREPARING, ReadingState.PREPARED, ReadingState.DRAFTING]
    return tuple(found[lane, state] for lane in Lane for state in order if (lane, state) in found), by_model


def studies(session: Session, by: Principal | None) -> tuple[dict[str, int], bool]:
    """Studies by state: counted while the table is small; then estimated, for all sites together or not at all."""
    bytes_, rows = session.execute(
        text("SELECT pg_relation_size(oid), reltuples FROM pg_class WHERE oid = 'studies'::regclass")
    ).one()
    if bytes_ <= COUNTED_BYTES:
        counted = session.execute(_seen(select(Study.state, func.count()).group_by(Study.state), by))
        return {str(state): int(count) for state, count in counted}, False
    several = session.scalar(select(func.count()).select_from(Site)) or 0
    if by is not None and several > 1:
        return {}, True
    shares = session.execute(
        text(
            "SELECT unnest(most_common_vals::text::text[]) AS state, unnest(most_common_freqs) AS share FROM pg_stats"
            " WHERE schemaname = current_schema() AND tablename = 'studies' AND attname = 'state'"
        )
    )
    return {row.state: round(row.share * rows) for row in shares}, True


def receiving(session: Session, by: Principal | None, most: int) -> Receiving:
    """Studies that are receiving, those longest at it first."""
    receiving = Study.state == StudyState.RECEIVING
    swept_after_s = select(func.max(Part.facts["max_wait_s"].as_float())).where(Part.kind == "sweep").scalar_subquery()
    longest_s = func.coalesce(Study.max_wait_s, swept_after_s, Sweeping.model_fields["max_wait_s"].default)
    longest = func.make_interval(0, 0, 0, 0, 0, 0, longest_s + _OVERDUE_S)
    overdue = func.min(Study.receiving_since).filter(Study.receiving_since + longest < func.now())
    row = session.execute(
        _seen(
            select(
                func.count(Study.id).label("found"),
                _age(func.min(Study.receiving_since)).label("oldest_s"),
                _age(overdue).label("overdue_s"),
            ).where(receiving),
            by,
        )
    ).one()
    if not row.found:
        return Receiving()
    oldest = session.execute(
        _seen(
            select(
                Study.study_instance_uid, Study.modality, Site.name, Study.first_image_at, Study.receiving_since,
                Study.instances,
            )
            .join(Site, Site.id == Study.site_id)
            .where(receiving)
            .order_by(Study.receiving_since)
            .limit(most),
            by,
        )
    )  # fmt: skip
    return Receiving(
        row.found, _float(row.oldest_s), _float(row.overdue_s), tuple(StudyShown(*each) for each in oldest)
    )


def _lately(at: datetime) -> tuple[Any, ...]:
    """Readings that ended without a draft within `LATELY`; the range of ids bounds what is read to find them."""
    return (
        Reading.id > floor(at - 2 * LATELY),
        Reading.state.in_([ReadingState.FAILED, ReadingState.ABSTAINED]),
        Reading.ended_at > at - LATELY,
        Reading.purpose == Purpose.PRIMARY,
    )


_REPORTED = (
    select(Report.id)
    .where(
        Report.study_id == Reading.study_id,
        Report.state.not_in(ENDED_REPORT),
    )
    .exists()
)
"""Whether somebody has begun a report on the reading's study."""


def reasons(session: Session, by: Principal | None, at: datetime) -> tuple[Reason, ...]:
    """Why readings failed or abstained lately; failed ones first, the most frequent first."""
    rows = session.execute(
        _seen(
            select(
                Reading.state, Reading.reason_code, func.count().label("found"), func.count().filter(~_REPORTED)
            )
            .where(*_lately(at))
            .group_by(Reading.state, Reading.reason_code)
            .order_by(Reading.state.desc(), func.count().desc(), Reading.reason_code),
            by,
        )
    )  # fmt: skip
    return tuple(Reason(ReadingState(state), code, count, unattended) for state, code, count, unattended in rows)


def ended(session: Session, by: Principal | None, at: datetime, most: int) -> tuple[Ended, ...]:
    """Readings that failed or abstained lately; those that nobody reports first, failed ones first, the newest first."""
    rows = session.execute(
        _seen(
            select(
                Reading.id, Study.study_instance_uid, Study.modality, Site.name, Study.first_image_at, Reading.state,
                Reading.reason_code, Reading.failures, Reading.ended_at, _REPORTED,
            )
            .join(Study, Study.id == Reading.study_id)
            .join(Site, Site.id == Reading.site_id)
            .where(*_lately(at))
            .order_by(_REPORTED, Reading.state.desc(), Reading.ended_at.desc())
            .limit(most),
            by,
        )
    )  # fmt: skip
    return tuple(
        Ended(
            reading_id=row[0],
            study_instance_uid=row[1],
            modality=row[2],
            site=row[3],
            received_at=row[4],
            state=ReadingState(row[5]),
            reason_code=row[6],
            failures=row[7],
            ended_at=row[8],
            reported=row[9],
        )
        for row in rows
    )


def retriable(
    session: Session, by: Principal, state: ReadingState, reason_code: str | None, most: int
) -> Sequence[uuid.UUID]:
    """Readings that ended lately in a state for a reason, of studies that nobody reports, the oldest first."""
    return session.scalars(
        visible(
            select(Reading.id)
            .where(
                *_lately(_now(session)),
                Reading.state == state,
                Reading.reason_code.is_not_distinct_from(reason_code),
                ~_REPORTED,
            )
            .order_by(Reading.ended_at)
            .limit(most),
            by,
        )
    ).all()


def conflicts(session: Session, by: Principal | None, most: int) -> tuple[int, tuple[StudyShown, ...]]:
    """How many images conflict and wait for a decision, and their studies, the longest waiting first."""
    undecided = (UNDECIDED, Study.erased_at.is_(None))
    rows = session.execute(
        _seen(
            select(
                Study.study_instance_uid, Study.modality, Site.name, Study.first_image_at,
                func.min(Instance.created_at).label("since"), func.count(Instance.id),
            )
            .join(Instance, Instance.study_id == Study.id)
            .join(Site, Site.id == Study.site_id)
            .where(*undecided)
            .group_by(Study.id, Site.name)
            .order_by(text("since")),
            by,
        )
    ).all()  # fmt: skip
    return sum(row[-1] for row in rows), tuple(StudyShown(*row) for row in rows[:most])


def outdated(session: Session, by: Principal | None, at: datetime) -> int:
    """Open reports on older images; found from the revisions frozen lately, of which few are not a study's first."""
    return (
        session.scalar(
            _seen(
                select(func.count(Report.id.distinct()))
                .select_from(StudyRevision)
                .join(Study, Study.id == StudyRevision.study_id)
                .join(Report, Report.study_id == Study.id)
                .where(
                    StudyRevision.id > floor(at - LATELY),
                    StudyRevision.number > 1,
                    Report.state.in_(OPEN_REPORT),
                    Report.study_revision < Study.revision,
                ),
                by,
            )
        )
        or 0
    )


def senders(session: Session, by: Principal | None) -> tuple[Sender, ...]:
    """Peers that were here lately; what is usual is the longest silence of a fortnight, once three days of it are known."""
    of_peer = (Association.peer_id == Peer.id, Association.ended_at > func.now() - HABIT)
    last = select(func.max(Association.ended_at)).where(*of_peer).scalar_subquery()
    first = select(func.min(Association.ended_at)).where(*of_peer).scalar_subquery()
    longest = select(func.max(Association.gap_s)).where(*of_peer, Association.gap_s >= 600).scalar_subquery()
    rows = session.execute(
        _seen(
            select(
                Peer.ae_title, Peer.address, Site.name, _age(last).label("silent_s"), _age(first).label("known_s"),
                longest.label("longest_s"),
            )
            .join(Site, Site.id == Peer.site_id)
            .order_by(Site.name, Peer.ae_title, Peer.address),
            by,
        )
    )  # fmt: skip
    return tuple(
        Sender(
            row.ae_title,
            row.address,
            row.name,
            float(row.silent_s),
            float(row.longest_s or 600.0) if row.known_s > _KNOWN_S else None,
        )
        for row in rows
        if row.silent_s is not None
    )


def deliveries(session: Session, by: Principal | None) -> dict[str, int]:
    """Deliveries by state that are not acknowledged."""
    open_ = [DeliveryState.QUEUED, DeliveryState.SENT]
    counted: dict[str, int] = {}
    for states in (open_, [DeliveryState.DEAD]):
        rows = session.execute(
            _seen(select(Delivery.state, func.count()).where(Delivery.state.in_(states)).group_by(Delivery.state), by)
        )
        counted.update({str(state): int(count) for state, count in rows})
    return counted


def commitments(session: Session, by: Principal | None) -> dict[str, int]:
    """Storage commitments by state of which the sender was not told."""
    counted: dict[str, int] = {}
    for state in (CommitmentState.QUEUED, CommitmentState.DEAD):  # each has an index of its own
        of_state = select(Commitment.state, func.count()).where(Commitment.state == state).group_by(Commitment.state)
        counted |= {str(state): int(count) for state, count in session.execute(_seen(of_state, by))}
    return counted


def _age(since: Any) -> Any:  # SQL expressions
    return func.extract("epoch", func.now() - since)


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
