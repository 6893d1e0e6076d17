"""What became of a study, in the order in which it happened: from the first byte to the last delivery.

Knows which tables tell of it. Does not know words: a moment has a code and facts that are ids, counts, codes and senders'
names, never a patient's. Nothing here is kept: it is put together from what is on record anyway.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from record import associations
from record.models import Association, Delivery, Event, Instance, Reading, Receiver, Report, Study, StudyRevision
from record.states import Purpose, ReadingState

EVENTS = (
    *("study_reopened", "reading_retried", "lease_lost", "reading_stumbled", "conflict_decided", "draft_offered"),
    *("count_unanswered", "count_unknown", "study_committed"),
    *(
        "report_opened",
        "report_saved",
        "report_preliminary",
        "report_signed",
        "report_cancelled",
        "report_entered_in_error",
    ),
)
"""Kinds of events that are moments of their own; the others are told by tables, or are somebody's looking."""
_TOLD = ("reason_code", "count", "ae_title")
"""Facts of an event that its moment repeats."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened, and until when, where it took a while."""

    at: datetime
    code: str
    until: datetime | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def of_study(session: Session, study: Study) -> list[Moment]:
    """Everything that is known of a study's way, the first moment first."""
    found = [
        *_arrivals(session, study.id),
        *_refusals(session, study),
        *_closings(session, study.id),
        *_readings(session, study.id),
        *_events(session, study.id),
        *_deliveries(session, study.id),
    ]
    return sorted(found, key=lambda moment: moment.at)


def _arrivals(session: Session, study_id: uuid.UUID) -> Iterator[Moment]:
    """What came, by the association that brought it, or by the sender where that is not known."""
    rows = session.execute(
        select(
            Instance.association_id,
            Instance.source,
            Instance.peer_ae_title,
            Instance.peer_address,
            func.min(Instance.received_at).label("first"),
            func.max(Instance.received_at).label("last"),
            func.count().label("instances"),
            func.sum(Instance.size_bytes).label("bytes"),
            func.count(Instance.duplicate_of_id).label("again"),
            func.count(Instance.conflict_kind).label("conflicts"),
            func.max(Instance.created_at).label("indexed"),
        )
        .where(Instance.study_id == study_id)
        .group_by(Instance.association_id, Instance.source, Instance.peer_ae_title, Instance.peer_address)
    ).all()
    ids = [row.association_id for row in rows if row.association_id]
    ended = {one.id: one for one in session.scalars(select(Association).where(Association.id.in_(ids)))} if ids else {}
    for row in rows:
        association = ended.get(row.association_id)
        yield Moment(
            at=row.first,
            code="arrived",
            until=row.last,
            facts={
                "instances": row.instances,
                "bytes": int(row.bytes or 0),
                "source": row.source,
                "peer_ae_title": row.peer_ae_title,
                "peer_address": row.peer_address,
                "again": row.again,
                "conflicts": row.conflicts,
                "indexed_at": row.indexed,
                "association_id": row.association_id,
                "outcome": association.outcome if association else None,
                "reason_code": association.reason_code if association else None,
                "refused": _refused_nowhere(association) if association else None,
            },
        )


def _refusals(session: Session, study: Study) -> Iterator[Moment]:
    """What its site's senders were refused, by association and status."""
    for one in associations.that_refused(session, study.study_instance_uid, [study.site_id]):
        those = Counter(
            (each["status"], each["why"]) for each in one.refused if each["study"] == study.study_instance_uid
        )
        for (status, why), count in those.items():
            reason = why.replace(" ", "_") or "error"
            facts = {"count": count, "status": status, "reason_code": reason, "association_id": one.id}
            sender = {"peer_ae_title": one.calling_ae_title, "peer_address": one.peer_address}
            yield Moment(one.ended_at, "refused", facts=facts | sender)


def _refused_nowhere(association: Association) -> int:
    """How many instances of unknown study were refused; those of a known one are told there."""
    return int(sum(association.refusals.values())) - sum(1 for each in association.refused if each["study"])


def _closings(session: Session, study_id: uuid.UUID) -> Iterator[Moment]:
    for row in session.scalars(select(StudyRevision).where(StudyRevision.study_id == study_id)):
        facts = {"revision": row.number, "images": row.images, "evidence_kind": row.evidence_kind}
        yield Moment(row.created_at, "closed" if row.images else "skipped", facts=facts | {"evidence": row.evidence})


def _readings(session: Session, study_id: uuid.UUID) -> Iterator[Moment]:
    rows = session.execute(
        select(Reading, StudyRevision.number)
        .join(StudyRevision, StudyRevision.id == Reading.revision_id)
        .where(Reading.study_id == study_id, Reading.purpose != Purpose.SHADOW)
    )
    for reading, number in rows:
        facts = {"reading_id": reading.id, "revision": number}
        if reading.prepared_at:
            yield Moment(reading.prepared_at, "prepared", facts=facts | {"protocol": reading.protocol})
        if reading.ended_at and reading.state in {ReadingState.DONE, ReadingState.ABSTAINED, ReadingState.FAILED}:
            told = {"reason_code": reading.reason_code} if reading.reason_code else {"model": reading.model}
            yield Moment(reading.ended_at, f"reading_{reading.state}", facts=facts | told)


def _events(session: Session, study_id: uuid.UUID) -> Iterator[Moment]:
    rows = session.scalars(
        select(Event).where(Event.study_id == study_id, Event.kind.in_(EVENTS)).order_by(Event.at, Event.id)
    )
    former: Moment | None = None
    for event in rows:
        saves = event.kind == "report_saved"
        if former is not None and not (saves and former.code == "report_saved"):
            yield former
            former = None
        count = (former.facts["count"] if former else 0) + 1
        at = former.at if former else event.at
        told = {name: event.facts[name] for name in _TOLD if name in event.facts}
        facts = {"count": count} if saves else {"reason_code": None} | told
        former = Moment(at, event.kind, event.at if saves and count > 1 else None, facts)
    if former is not None:
        yield former


def _deliveries(session: Session, study_id: uuid.UUID) -> Iterator[Moment]:
    rows = session.execute(
        select(Delivery, Receiver.name)
        .join(Report, Report.id == Delivery.report_id)
        .join(Receiver, Receiver.id == Delivery.receiver_id)
        .where(Report.study_id == study_id)
    )
    for delivery, receiver in rows:
        facts = {"receiver": receiver, "form": delivery.form, "state": delivery.state}
        yield Moment(delivery.created_at, "delivery_queued", facts=facts)
        if delivery.acknowledged_at:
            yield Moment(delivery.acknowledged_at, "delivery_acknowledged", facts=facts)
