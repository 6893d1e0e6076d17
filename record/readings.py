"""Readings: Postgres is the queue's truth.

Knows how a reading is opened, superseded, asked for again and bound anew, and what waits. Does not know who works on
one: that is `claims`. Nor Celery or models.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from record import audit
from record.access import Action, Principal, require
from record.claims import lock_study, require_allowed, seconds, touch_study
from record.errors import NotFound
from record.models import (
    Instance,
    Reading,
    ReadingPicture,
    RevisionInstance,
    Study,
    StudyRevision,
    Worker,
)
from record.models.studies import KEEPS_A_FILE, UNDECIDED
from record.states import LANE_ORDER, Lane, Purpose, ReadingState, allows, move

# Start-time fair queuing: a site's next reading ranks after its own last one, but never before the lane's present head.
_NEXT_RANK = text(
    """
    SELECT greatest(
      coalesce((SELECT rank + 1 FROM readings WHERE state = 'queued' AND lane_order = :lane AND site_id = :site
                ORDER BY rank DESC LIMIT 1), 0),
      coalesce((SELECT rank FROM readings WHERE state = 'queued' AND lane_order = :lane ORDER BY rank LIMIT 1), 0))
    """
)


def open_primary(session: Session, study: Study, revision: StudyRevision) -> Reading:
    """Open the primary reading of a frozen revision, in the transaction that freezes it."""
    return _open(session, study, revision.id, Purpose.PRIMARY)


def _open(session: Session, study: Study, revision_id: uuid.UUID, purpose: Purpose) -> Reading:
    order = LANE_ORDER[Lane(study.lane)]
    rank = session.scalar(_NEXT_RANK, {"lane": order, "site": study.site_id}) or 0
    reading = Reading(
        site_id=study.site_id,
        study_id=study.id,
        revision_id=revision_id,
        purpose=purpose,
        lane=study.lane,
        lane_order=order,
        rank=rank,
        state="",
    )
    move(reading, ReadingState.QUEUED)
    session.add(reading)
    session.flush()
    return reading


def supersede_older(session: Session, study_id: uuid.UUID) -> None:
    """A study has a newer revision: whatever is not done yet is superseded, claimed or not."""
    movable = [s for s in ReadingState if s is not ReadingState.DONE and allows(s, ReadingState.SUPERSEDED)]
    session.execute(
        update(Reading)
        .where(Reading.study_id == study_id, Reading.state.in_(movable))
        .values(
            state=ReadingState.SUPERSEDED,
            lease_until=None,
            lease_owner=None,
            ended_at=func.now(),
            updated_at=func.now(),
        )
    )


def suspects_wait(session: Session) -> bool:
    """Whether a reading that failed before could be claimed now."""
    waits = (  # each state has an index of its own
        select(Reading.id)
        .where(Reading.state == state, Reading.failures > 0, Reading.not_before <= func.now())
        .exists()
        for state in (ReadingState.QUEUED, ReadingState.PREPARED)
    )
    return bool(session.scalar(select(or_(*waits))))


def claimable(session: Session, *, model: str | None = None, limit: int = 256) -> int:
    """How many readings could be claimed now: queued ones, or those prepared for `model`."""
    state = ReadingState.PREPARED if model else ReadingState.QUEUED
    inner = (
        select(Reading.id)
        .where(Reading.state == state, Reading.not_before <= func.now())
        .order_by(Reading.lane_order, Reading.rank, Reading.id)  # the index's order: no scan of what is done
        .limit(limit)
    )
    if model:
        inner = inner.where(Reading.model == model)
    return session.scalar(select(func.count()).select_from(inner.subquery())) or 0


def retry(session: Session, reading_id: uuid.UUID, *, by: Principal) -> None:
    """An operator wants a failed or abstained reading done again."""
    require(by, Action.RETRY_READING)
    where = (Reading.id == reading_id) & (Reading.site_id == by.site_id)
    study_id = session.scalar(select(Reading.study_id).where(where))
    if study_id is not None:
        lock_study(session, study_id)
    reading = session.scalar(select(Reading).where(where).with_for_update())
    if reading is None:
        message = "There is no such reading."
        raise NotFound(message)
    move(reading, ReadingState.QUEUED)
    reading.failures = 0
    reading.reason_code = reading.reason = None
    reading.ended_at = None
    reading.not_before = reading.updated_at = func.now()
    audit.write(session, "reading_retried", by, study_id=reading.study_id, reading_id=reading.id)
    touch_study(session, reading.study_id)


def rebind(session: Session, *, after_s: float = 60.0) -> int:
    """Prepared readings bound to a model that no living worker serves or binds to go back, to be bound anew.

    Nothing happens while no cpu worker is seen: then nobody could bind them.
    """
    require_allowed(ReadingState.PREPARED, ReadingState.QUEUED)
    lately = Worker.seen_at > func.now() - seconds(after_s)
    models = select(Worker.model).where(lately, Worker.model.is_not(None))
    binders = select(Worker.owner).where(lately, Worker.kind == "cpu").exists()
    return len(
        session.scalars(
            update(Reading)
            .where(
                Reading.state == ReadingState.PREPARED,
                Reading.prepared_at < func.now() - seconds(after_s),
                Reading.model.not_in(models),
                binders,
            )
            .values(state=ReadingState.QUEUED, model=None, updated_at=func.now())
            .returning(Reading.id)
            .execution_options(synchronize_session=False)
        ).all()
    )


def instances_of(session: Session, revision_id: uuid.UUID) -> Sequence[Instance]:
    """The images of a frozen revision, in a stable order."""
    return session.scalars(
        select(Instance)
        .join(RevisionInstance, RevisionInstance.instance_id == Instance.id)
        .where(RevisionInstance.revision_id == revision_id)
        .order_by(Instance.series_id, Instance.instance_number.nulls_last(), Instance.id)
    ).all()


def beside(session: Session, study_id: uuid.UUID, sop_class_uids: Sequence[str]) -> Sequence[Instance]:
    """The study's objects of these classes that are no images, in a stable order; none that is in conflict or a prior."""
    return session.scalars(
        select(Instance)
        .where(
            Instance.study_id == study_id,
            Instance.sop_class_uid.in_(sop_class_uids),
            KEEPS_A_FILE,
            Instance.conflict_of_id.is_(None),
            ~UNDECIDED,
            ~Instance.prior,
            ~Instance.rejected,
        )
        .order_by(Instance.received_at, Instance.id)
    ).all()


def pictures_of(session: Session, reading_id: uuid.UUID) -> Sequence[ReadingPicture]:
    """The pictures of a reading, in order."""
    return session.scalars(
        select(ReadingPicture).where(ReadingPicture.reading_id == reading_id).order_by(ReadingPicture.position)
    ).all()


def report_worker(
    session: Session, owner: str, kind: str, *, model: str | None, slots: int, identity: dict[str, Any]
) -> None:
    """Say that a worker is here, and what its engine is once that is open; old rows go after a day."""
    row = insert(Worker).values(owner=owner, kind=kind, model=model, slots=slots, identity=identity)
    new = row.excluded
    session.execute(
        row.on_conflict_do_update(
            index_elements=[Worker.owner],
            set_={"model": new.model, "slots": new.slots, "identity": new.identity, "seen_at": func.now()},
        )
    )
    session.execute(text("DELETE FROM workers WHERE seen_at < now() - interval '1 day'"))
