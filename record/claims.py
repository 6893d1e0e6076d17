"""Claims: who may work on a reading, for how long, and how it leaves their hands.

Knows how a reading is claimed, kept, finished and given back, each one short statement that asks the transition table
first. Does not know Celery or models. A claim takes the best waiting reading (lane, then a fair rank per site) and raises
its `token`; every later statement names that token, so whoever lost the reading writes nothing. Whatever also touches
the study locks the study first, as everybody does who locks both.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.orm import Session

from record import audit
from record.errors import IllegalMove, LeaseLost
from record.models import Reading, ReadingPicture, Study
from record.states import LANE_ORDER, Lane, ReadingState, ReasonCode, allows, move

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


def _claim(
    session: Session,
    waiting: ReadingState,
    phase: ReadingState,
    owner: str,
    lease_s: float,
    condition: Any,  # a SQL condition
    clean_only: bool,
) -> Claim | None:
    require_allowed(waiting, phase)
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
            lease_until=func.now() + seconds(lease_s),
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


def heartbeat(session: Session, claims: Sequence[Claim], lease_s: float) -> set[uuid.UUID]:
    """Extend leases; returns the readings that are still ours. The others were fenced: abandon them."""
    if not claims:
        return set()
    ours = or_(
        *((Reading.id == c.reading_id) & (Reading.token == c.token) & (Reading.state == c.phase) for c in claims)
    )
    return set(
        session.scalars(
            update(Reading).where(ours).values(lease_until=func.now() + seconds(lease_s)).returning(Reading.id)
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
    _leave(session, claim, ReadingState.DONE, ended_at=func.now(), reason_code=None, reason=None)


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
    touch_study(session, claim.study_id)


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
        values["not_before"] = func.now() + seconds(backoff_s * failures)
    _leave(session, claim, to, **values)
    audit.write(
        session,
        "reading_failed" if spent else "reading_stumbled",
        study_id=claim.study_id,
        reading_id=claim.reading_id,
        reason_code=reason_code,
        failures=failures,
    )
    touch_study(session, claim.study_id)
    return to


def release(session: Session, claim: Claim, *, after_s: float = 0.0) -> None:
    """Shutdown, or the engine is away: back to the phase before, no failure counted.

    Raises
    ------
    LeaseLost
        The reading belongs to a newer claim; nothing was written.
    """
    _leave(session, claim, _phase_before(claim.phase), not_before=func.now() + seconds(after_s))


def send_back(session: Session, claim: Claim, *, after_s: float = 0.0) -> None:
    """Drafting → prepared → queued: what was prepared is of another release, so it is prepared anew; no failure.

    While both releases are at work it may come back as it was: `after_s` keeps the two from tossing it to and fro.

    Raises
    ------
    LeaseLost
        The reading belongs to a newer claim; nothing was written.
    """
    _leave(session, claim, ReadingState.PREPARED, not_before=func.now() + seconds(after_s))
    require_allowed(ReadingState.PREPARED, ReadingState.QUEUED)
    session.execute(update(Reading).where(Reading.id == claim.reading_id).values(state=ReadingState.QUEUED, model=None))
    audit.write(session, "reading_sent_back", study_id=claim.study_id, reading_id=claim.reading_id)


def take_back_leases(session: Session, *, max_failures: int, backoff_s: float) -> int:
    """Leases that ran out: each counts as a failure. Returns how many were taken back."""
    expired = Reading.state.in_([ReadingState.PREPARING, ReadingState.DRAFTING]) & (Reading.lease_until < func.now())
    studies = select(Reading.study_id).where(expired)
    locked = session.scalars(
        select(Study.id).where(Study.id.in_(studies)).order_by(Study.id).with_for_update(skip_locked=True)
    ).all()
    rows = session.scalars(
        select(Reading)
        .where(expired, Reading.study_id.in_(locked))
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
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
            reading.not_before = func.now() + seconds(backoff_s * reading.failures)
        audit.write(
            session,
            "reading_failed" if spent else "lease_lost",
            site_id=reading.site_id,
            study_id=reading.study_id,
            reading_id=reading.id,
            failures=reading.failures,
        )
        touch_study(session, reading.study_id)
    return len(rows)


def _leave(session: Session, claim: Claim, to: ReadingState, **values: Any) -> None:  # column values
    lock_study(session, claim.study_id)
    require_allowed(claim.phase, to)
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


def require_allowed(former: ReadingState, to: ReadingState) -> None:
    """Refuse a move in SQL that the table of readings does not have."""
    if not allows(former, to):
        message = f"A reading that is {former} cannot become {to}."
        raise IllegalMove(message)


def lock_study(session: Session, study_id: uuid.UUID) -> None:
    """Lock a study before any of its readings, as everybody does who locks both."""
    session.execute(select(Study.id).where(Study.id == study_id).with_for_update())


def touch_study(session: Session, study_id: uuid.UUID) -> None:
    """Mark a study as changed, so that lists and polls see it."""
    session.execute(update(Study).where(Study.id == study_id).values(updated_at=func.now()))


def seconds(count: float) -> Any:  # a SQL expression
    """Seconds as an SQL interval."""
    return func.make_interval(0, 0, 0, 0, 0, 0, count)
