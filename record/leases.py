"""Leases: how long a claim lasts, and what becomes of one whose holder died or froze.

Knows the clock of the database. Does not know how a reading is claimed or ended: that is `claims`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from record import audit
from record.claims import Claim, phase_before, seconds, touch_study
from record.models import Reading, Study
from record.states import ReadingState, ReasonCode, move

_BEAT = text(
    """
    UPDATE readings r SET lease_until = now() + make_interval(secs => :lease_s)
    FROM unnest(CAST(:ids AS uuid[]), CAST(:tokens AS bigint[]), CAST(:phases AS text[])) AS ours (id, token, phase)
    WHERE r.id = ours.id AND r.token = ours.token AND r.state = ours.phase RETURNING r.id
    """
)


def extend(session: Session, claims: Sequence[Claim], lease_s: float) -> set[uuid.UUID]:
    """Extend leases; returns the readings that are still ours. The others were fenced: abandon them."""
    if not claims:
        return set()
    ours = {
        "ids": [claim.reading_id for claim in claims],
        "tokens": [claim.token for claim in claims],
        "phases": [str(claim.phase) for claim in claims],
    }
    return set(session.execute(_BEAT, {"lease_s": lease_s, **ours}).scalars())


def take_back(session: Session, *, max_failures: int, backoff_s: float) -> int:
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
        move(reading, ReadingState.FAILED if spent else phase_before(ReadingState(reading.state)))
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
