"""Readings: Postgres is the queue's truth.

Knows how a reading is opened, claimed, kept, finished and given back, each one short statement that asks the transition
table first. Does not know Celery or models. A claim takes the best waiting reading (lane, then a fair rank per site) and
raises its `token`; every later statement names that token, so whoever lost the reading writes nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.orm import Session

from record import audit
from record.access import Action, Principal, require
from record.errors import IllegalMove, LeaseLost, NotFound
from record.models import (
    Instance,
    Reading,
    ReadingPicture,
    RevisionInstance,
    Study,
    StudyRevision,
    Worker,
)
from record.states import LANE_ORDER, Lane, Purpose, ReadingState, ReasonCode, allows, move

MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class Claim:
    """A reading that this process may work on while its lease lasts. `token` fences everything it writes."""

    reading_id: uuid.UUID
    token: int
    phase: ReadingState
    study_id: uuid.UUID
    revision_id: uuid.UUID
    failures: int
    protocol: str | None
    model: str | None


@dataclass(frozen=True, slots=True)
class PreparedPicture:
    """A picture that lies in the store, and where it came from."""

    instance_id: uuid.UUID
    frame: int
    sha256: str
    height: int
    width: int
    caption: str
    reason: str
    rendering: dict[str, Any]


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


def claim_prepare(
    session: Session, owner: str, lease_s: float, *, max_prepared: int, model: str, clean_only: bool = False
) -> Claim | None:
    """Claim the best queued reading; only urgent ones while `max_prepared` readings wait for the model already.

    With `clean_only`, readings that failed before are left: they run where nobody else can be harmed.
    """
    waiting = session.scalar(
        select(func.count()).select_from(
            select(Reading.id)
            .where(
                Reading.state == ReadingState.PREPARED,
                Reading.model == model,
                Reading.lane_order > LANE_ORDER[Lane.STAT],
            )
            .limit(max_prepared)
            .subquery()
        )
    )
    lane = LANE_ORDER[Lane.STAT] if (waiting or 0) >= max_prepared else max(LANE_ORDER.values())
    condition = Reading.lane_order <= lane
    return _claim(session, ReadingState.QUEUED, ReadingState.PREPARING, owner, lease_s, condition, clean_only)


def claim_draft(session: Session, owner: str, lease_s: float, *, model: str, clean_only: bool = False) -> Claim | None:
    """Claim the best prepared reading that is bound to the model this engine serves; `clean_only` as above."""
    condition = Reading.model == model
    return _claim(session, ReadingState.PREPARED, ReadingState.DRAFTING, owner, lease_s, condition, clean_only)


def suspects_wait(session: Session) -> bool:
    """Whether a reading that failed before could be claimed now."""
    return bool(
        session.scalar(
            select(Reading.id)
            .where(
                Reading.state.in_([ReadingState.QUEUED, ReadingState.PREPARED]),
                Reading.failures > 0,
                Reading.not_before <= func.now(),
            )
            .limit(1)
        )
    )


def _claim(
    session: Session,
    waiting: ReadingState,
    phase: ReadingState,
    owner: str,
    lease_s: float,
    condition: Any,  # a SQL condition
    clean_only: bool,
) -> Claim | None:
    _ask(waiting, phase)
    if clean_only:
        condition = condition & (Reading.failures == 0)
    best = (
        select(Reading.id)
        .where(Reading.state == waiting, Reading.not_before <= func.now(), condition)
        .order_by(Reading.lane_order, Reading.rank, Reading.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .cte("best")
    )
    row = session.execute(
        update(Reading)
        .where(Reading.id == select(best.c.id).scalar_subquery())
        .values(
            state=phase,
            token=Reading.token + 1,
            lease_until=func.now() + _seconds(lease_s),
            lease_owner=owner,
            updated_at=func.now(),
        )
        .returning(
            Reading.id,
            Reading.token,
            Reading.study_id,
            Reading.revision_id,
            Reading.failures,
            Reading.protocol,
            Reading.model,
        )
    ).first()
    if row is None:
        return None
    return Claim(row.id, row.token, phase, row.study_id, row.revision_id, row.failures, row.protocol, row.model)


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


def heartbeat(session: Session, claims: Sequence[Claim], lease_s: float) -> set[uuid.UUID]:
    """Extend leases; returns the readings that are still ours. The others were fenced: abandon them."""
    if not claims:
        return set()
    ours = or_(
        *((Reading.id == c.reading_id) & (Reading.token == c.token) & (Reading.state == c.phase) for c in claims)
    )
    return set(
        session.scalars(
            update(Reading).where(ours).values(lease_until=func.now() + _seconds(lease_s)).returning(Reading.id)
        )
    )


def finish_prepare(
    session: Session,
    claim: Claim,
    *,
    protocol: str,
    protocol_version: str,
    protocol_digest: str,
    model: str,
    pictures: Sequence[PreparedPicture],
    omitted: Sequence[dict[str, Any]],
) -> None:
    """Preparing → prepared: protocol and model bound, pictures listed with reasons.

    Raises
    ------
    LeaseLost
        The reading belongs to a newer claim; nothing was written.
    """
    _leave(
        session,
        claim,
        ReadingState.PREPARED,
        protocol=protocol,
        protocol_version=protocol_version,
        protocol_digest=protocol_digest,
        model=model,
        omitted=list(omitted),
        prepared_at=func.now(),
        not_before=func.now(),
    )
    session.execute(text("DELETE FROM reading_pictures WHERE reading_id = :id"), {"id": claim.reading_id})
    for position, picture in enumerate(pictures):
        session.add(
            ReadingPicture(
                reading_id=claim.reading_id,
                position=position,
                instance_id=picture.instance_id,
                frame=picture.frame,
                sha256=picture.sha256,
                height=picture.height,
                width=picture.width,
                caption=picture.caption,
                reason=picture.reason,
                rendering=picture.rendering,
            )
        )
    audit.write(
        session,
        "reading_prepared",
        study_id=claim.study_id,
        reading_id=claim.reading_id,
        protocol=protocol,
        digest=protocol_digest,
        pictures=[p.sha256 for p in pictures],
        omitted=len(omitted),
    )


def finish_done(session: Session, claim: Claim) -> None:
    """Drafting → done. The draft and the report are written by the caller, in this transaction.

    Raises
    ------
    LeaseLost
        The reading belongs to a newer claim; nothing was written.
    """
    _leave(session, claim, ReadingState.DONE, ended_at=func.now())


def abstain(
    session: Session,
    claim: Claim,
    reason_code: str,
    reason: str,
    *,
    protocol: str | None = None,
    omitted: Sequence[dict[str, Any]] | None = None,
) -> None:
    """The reading says "not analysed", with a reason; the study waits for a physician.

    Raises
    ------
    LeaseLost
        The reading belongs to a newer claim; nothing was written.
    """
    values: dict[str, Any] = {"reason_code": reason_code, "reason": reason[:MAX_REASON], "ended_at": func.now()}
    if protocol is not None:
        values["protocol"] = protocol
    if omitted is not None:
        values["omitted"] = list(omitted)
    _leave(session, claim, ReadingState.ABSTAINED, **values)
    audit.write(
        session, "reading_abstained", study_id=claim.study_id, reading_id=claim.reading_id, reason_code=reason_code
    )
    _touch_study(session, claim.study_id)


def fail(
    session: Session,
    claim: Claim,
    reason_code: str,
    reason: str,
    *,
    max_failures: int,
    backoff_s: float,
    for_good: bool = False,
) -> ReadingState:
    """An error: back to the phase before, or failed when no retry cures it or the failures are spent.

    Raises
    ------
    LeaseLost
        The reading belongs to a newer claim; nothing was written.
    """
    failures = claim.failures + 1
    spent = for_good or failures >= max_failures
    to = ReadingState.FAILED if spent else _phase_before(claim.phase)
    values: dict[str, Any] = {"failures": failures, "reason_code": reason_code, "reason": reason[:MAX_REASON]}
    if spent:
        values["ended_at"] = func.now()
    else:
        values["not_before"] = func.now() + _seconds(backoff_s * failures)
    _leave(session, claim, to, **values)
    audit.write(
        session,
        "reading_failed" if spent else "reading_stumbled",
        study_id=claim.study_id,
        reading_id=claim.reading_id,
        reason_code=reason_code,
        failures=failures,
    )
    _touch_study(session, claim.study_id)
    return to


def release(session: Session, claim: Claim, *, after_s: float = 0.0) -> None:
    """Shutdown, or the engine is away: back to the phase before, no failure counted.

    Raises
    ------
    LeaseLost
        The reading belongs to a newer claim; nothing was written.
    """
    _leave(session, claim, _phase_before(claim.phase), not_before=func.now() + _seconds(after_s))


def take_back_leases(session: Session, *, max_failures: int, backoff_s: float) -> int:
    """Leases that ran out: each counts as a failure. Returns how many were taken back."""
    rows = session.scalars(
        select(Reading)
        .where(
            Reading.state.in_([ReadingState.PREPARING, ReadingState.DRAFTING]),
            Reading.lease_until < func.now(),
        )
        .with_for_update(skip_locked=True)
    ).all()
    for reading in rows:
        reading.failures += 1
        spent = reading.failures >= max_failures
        move(reading, ReadingState.FAILED if spent else _phase_before(ReadingState(reading.state)))
        reading.lease_until = reading.lease_owner = None
        reading.updated_at = func.now()
        reading.reason_code = ReasonCode.LEASE_LOST
        reading.reason = "The process that worked on it died or froze."
        if spent:
            reading.ended_at = func.now()
        else:
            reading.not_before = func.now() + _seconds(backoff_s * reading.failures)
        audit.write(
            session,
            "reading_failed" if spent else "lease_lost",
            site_id=reading.site_id,
            study_id=reading.study_id,
            reading_id=reading.id,
            failures=reading.failures,
        )
        _touch_study(session, reading.study_id)
    return len(rows)


def retry(session: Session, reading_id: uuid.UUID, *, by: Principal) -> None:
    """An operator wants a failed or abstained reading done again."""
    require(by, Action.RETRY_READING)
    reading = session.scalar(
        select(Reading).where(Reading.id == reading_id, Reading.site_id == by.site_id).with_for_update()
    )
    if reading is None:
        message = "There is no such reading."
        raise NotFound(message)
    move(reading, ReadingState.QUEUED)
    reading.failures = 0
    reading.reason_code = reading.reason = None
    reading.ended_at = None
    reading.not_before = reading.updated_at = func.now()
    audit.write(session, "reading_retried", by, study_id=reading.study_id, reading_id=reading.id)
    _touch_study(session, reading.study_id)


def rebind(session: Session, *, after_s: float = 60.0) -> int:
    """Prepared readings bound to a model that no living worker serves or binds to go back, to be bound anew.

    Nothing happens while no cpu worker is seen: then nobody could bind them.
    """
    _ask(ReadingState.PREPARED, ReadingState.QUEUED)
    lately = Worker.seen_at > func.now() - _seconds(after_s)
    models = select(Worker.model).where(lately, Worker.model.is_not(None))
    binders = select(Worker.owner).where(lately, Worker.kind == "cpu").exists()
    return len(
        session.scalars(
            update(Reading)
            .where(
                Reading.state == ReadingState.PREPARED,
                Reading.prepared_at < func.now() - _seconds(after_s),
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


def pictures_of(session: Session, reading_id: uuid.UUID) -> Sequence[ReadingPicture]:
    """The pictures of a reading, in order."""
    return session.scalars(
        select(ReadingPicture).where(ReadingPicture.reading_id == reading_id).order_by(ReadingPicture.position)
    ).all()


def report_worker(
    session: Session, owner: str, kind: str, *, model: str | None, slots: int, identity: dict[str, Any]
) -> None:
    """Say that a worker is here; old rows go after a day."""
    row = session.get(Worker, owner)
    if row is None:
        row = Worker(owner=owner, kind=kind, model=model, slots=slots, identity=identity)
        session.add(row)
    row.seen_at = func.now()
    session.execute(text("DELETE FROM workers WHERE seen_at < now() - interval '1 day'"))


def _leave(session: Session, claim: Claim, to: ReadingState, **values: Any) -> None:  # column values
    _ask(claim.phase, to)
    left = session.execute(
        update(Reading)
        .where(Reading.id == claim.reading_id, Reading.token == claim.token, Reading.state == claim.phase)
        .values(state=to, lease_until=None, lease_owner=None, updated_at=func.now(), **values)
        .returning(Reading.id)
    ).first()
    if left is None:
        message = "The reading belongs to a newer claim."
        raise LeaseLost(message, reading_id=str(claim.reading_id), token=claim.token)


def _phase_before(phase: ReadingState) -> ReadingState:
    return {ReadingState.PREPARING: ReadingState.QUEUED, ReadingState.DRAFTING: ReadingState.PREPARED}[phase]


def _ask(former: ReadingState, to: ReadingState) -> None:
    if not allows(former, to):
        message = f"A reading that is {former} cannot become {to}."
        raise IllegalMove(message)


def _touch_study(session: Session, study_id: uuid.UUID) -> None:
    session.execute(update(Study).where(Study.id == study_id).values(updated_at=func.now()))


def _seconds(seconds: float) -> Any:  # a SQL expression
    return func.make_interval(0, 0, 0, 0, 0, 0, seconds)
