"""Claims: who may work on a reading, and how it leaves their hands.

Knows how a reading is claimed, finished and given back, each one short statement that asks the transition table first.
Does not know Celery or models, nor how a claim is kept alive (`leases`). A claim takes the best waiting reading (lane,
then a fair rank per site) and raises its `token`; every later statement names that token, so whoever lost the reading
writes nothing. Whatever also touches the study locks the study first, as everybody does who locks both.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from sqlalchemy import Float, Update, bindparam, cast, delete, func, insert, select, update
from sqlalchemy.orm import Session

from record import audit
from record.errors import IllegalMove, LeaseLost
from record.ids import new_id
from record.models import Reading, ReadingPicture, Study
from record.states import LANE_ORDER, Lane, ReadingState, allows

MAX_REASON = 500
# Every reading passes here several times: statements on the bare tables, made once, cost a third of those of the mapped
# classes (docs/performance.md).
_READINGS, _PICTURES, _STUDIES = (
    Reading.metadata.tables["readings"],
    ReadingPicture.metadata.tables["reading_pictures"],
    Study.metadata.tables["studies"],
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A reading that this process may work on while its lease lasts. `token` fences everything it writes."""

    reading_id: uuid.UUID
    token: int
    phase: ReadingState
    study_id: uuid.UUID
    site_id: uuid.UUID
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
    waiting = session.execute(_WAITING, {"model": model, "most": max_prepared, "stat": LANE_ORDER[Lane.STAT]}).scalar()
    lane = LANE_ORDER[Lane.STAT] if (waiting or 0) >= max_prepared else max(LANE_ORDER.values())
    return _claim(session, ReadingState.PREPARING, owner, lease_s, clean_only, {"at_most": lane})


def claim_draft(session: Session, owner: str, lease_s: float, *, model: str, clean_only: bool = False) -> Claim | None:
    """Claim the best prepared reading that is bound to the model this engine serves; `clean_only` as above."""
    return _claim(session, ReadingState.DRAFTING, owner, lease_s, clean_only, {"served": model})


def _claim(
    session: Session,
    phase: ReadingState,
    owner: str,
    lease_s: float,
    clean_only: bool,
    which: dict[str, Any],
) -> Claim | None:
    require_allowed(phase_before(phase), phase)
    row = session.execute(_taking(phase, clean_only), {"owner": owner, "lease_s": lease_s, **which}).first()
    if row is None:
        return None
    return Claim(
        row.id, row.token, phase, row.study_id, row.site_id, row.revision_id, row.failures, row.protocol, row.model
    )


@cache
def _taking(phase: ReadingState, clean_only: bool) -> Update:
    """The statement of a claim, with the parameters ``owner``, ``lease_s``, and ``at_most`` (a lane) or ``served`` (a model)."""
    c = _READINGS.c
    which = c.lane_order <= bindparam("at_most") if phase is ReadingState.PREPARING else c.model == bindparam("served")
    best = (
        select(c.id)
        .where(c.state == phase_before(phase), c.not_before <= func.now(), which)
        .order_by(c.lane_order, c.rank, c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if clean_only:
        best = best.where(c.failures == 0)
    best_id = select(best.cte("best").c.id).scalar_subquery()
    return (
        update(_READINGS)
        .where(c.id == best_id)
        .values(
            state=phase,
            token=c.token + 1,
            lease_until=_after("lease_s"),
            lease_owner=bindparam("owner"),
            updated_at=func.now(),
        )
        .returning(c.id, c.token, c.study_id, c.site_id, c.revision_id, c.failures, c.protocol, c.model)
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
        not_before_s=0.0,
        now=("prepared_at",),
    )
    session.execute(_WITHOUT_PICTURES, {"reading": claim.reading_id})
    if pictures:
        rows = [
            {"id": new_id(), "reading_id": claim.reading_id, "position": position, **asdict(picture)}
            for position, picture in enumerate(pictures)
        ]
        session.execute(insert(_PICTURES), rows)
    _tell(
        session,
        claim,
        "reading_prepared",
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
    _leave(session, claim, ReadingState.DONE, now=("ended_at",), reason_code=None, reason=None)


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
    values: dict[str, Any] = {"reason_code": reason_code, "reason": reason[:MAX_REASON]}
    if protocol is not None:
        values["protocol"] = protocol
    if omitted is not None:
        values["omitted"] = list(omitted)
    _leave(session, claim, ReadingState.ABSTAINED, now=("ended_at",), **values)
    _tell(session, claim, "reading_abstained", reason_code=reason_code)
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
    to = ReadingState.FAILED if spent else phase_before(claim.phase)
    _leave(
        session,
        claim,
        to,
        now=("ended_at",) if spent else (),
        not_before_s=None if spent else backoff_s * failures,
        failures=failures,
        reason_code=reason_code,
        reason=reason[:MAX_REASON],
    )
    kind = "reading_failed" if spent else "reading_stumbled"
    _tell(session, claim, kind, reason_code=reason_code, failures=failures)
    touch_study(session, claim.study_id)
    return to


def release(session: Session, claim: Claim, *, after_s: float = 0.0) -> None:
    """Shutdown, or the engine is away: back to the phase before, no failure counted.

    Raises
    ------
    LeaseLost
        The reading belongs to a newer claim; nothing was written.
    """
    _leave(session, claim, phase_before(claim.phase), not_before_s=after_s)


def send_back(session: Session, claim: Claim, *, after_s: float = 0.0) -> None:
    """Drafting → prepared → queued: what was prepared is of another release, so it is prepared anew; no failure.

    While both releases are at work it may come back as it was: `after_s` keeps the two from tossing it to and fro.

    Raises
    ------
    LeaseLost
        The reading belongs to a newer claim; nothing was written.
    """
    _leave(session, claim, ReadingState.PREPARED, not_before_s=after_s)
    require_allowed(ReadingState.PREPARED, ReadingState.QUEUED)
    session.execute(update(Reading).where(Reading.id == claim.reading_id).values(state=ReadingState.QUEUED, model=None))
    _tell(session, claim, "reading_sent_back")


def _leave(
    session: Session,
    claim: Claim,
    to: ReadingState,
    *,
    now: tuple[str, ...] = (),
    not_before_s: float | None = None,
    **values: Any,
) -> None:
    """End a claim: `now` names columns of time, `values` others, `not_before_s` counts from now."""
    lock_study(session, claim.study_id)
    require_allowed(claim.phase, to)
    waits = {} if not_before_s is None else {"not_before_s": not_before_s}
    ours = {"reading": claim.reading_id, "held": claim.token, "phase": claim.phase, "to": to}
    new = {f"new_{name}": value for name, value in values.items()}
    left = session.execute(_leaving(tuple(values), now, bool(waits)), {**ours, **waits, **new}).first()
    if left is None:
        message = "The reading belongs to a newer claim."
        raise LeaseLost(message, reading_id=str(claim.reading_id), token=claim.token)


@cache
def _leaving(columns: tuple[str, ...], now: tuple[str, ...], waits: bool) -> Update:
    """The statement of an end, with the parameters ``reading``, ``held``, ``phase``, ``to`` and ``new_…`` for its columns."""
    c = _READINGS.c
    values = {name: bindparam(f"new_{name}", type_=c[name].type) for name in columns} | dict.fromkeys(now, func.now())
    if waits:
        values["not_before"] = _after("not_before_s")
    return (
        update(_READINGS)
        .where(c.id == bindparam("reading"), c.token == bindparam("held"), c.state == bindparam("phase"))
        .values(state=bindparam("to"), lease_until=None, lease_owner=None, updated_at=func.now(), **values)
        .returning(c.id)
    )


def phase_before(phase: ReadingState) -> ReadingState:
    """Where a reading is that nobody works on."""
    return {ReadingState.PREPARING: ReadingState.QUEUED, ReadingState.DRAFTING: ReadingState.PREPARED}[phase]


def require_allowed(former: ReadingState, to: ReadingState) -> None:
    """Refuse a move in SQL that the table of readings does not have."""
    if not allows(former, to):
        message = f"A reading that is {former} cannot become {to}."
        raise IllegalMove(message)


def _tell(session: Session, claim: Claim, kind: str, **facts: Any) -> None:
    audit.write(session, kind, site_id=claim.site_id, study_id=claim.study_id, reading_id=claim.reading_id, **facts)


def lock_study(session: Session, study_id: uuid.UUID) -> None:
    """Lock a study before any of its readings, as everybody does who locks both."""
    session.execute(_LOCK_STUDY, {"study": study_id})


def touch_study(session: Session, study_id: uuid.UUID) -> None:
    """Mark a study as changed, so that lists and polls see it."""
    session.execute(_TOUCH_STUDY, {"study": study_id})


def seconds(count: Any) -> Any:  # a SQL expression
    """Seconds as an SQL interval."""
    return func.make_interval(0, 0, 0, 0, 0, 0, count)


def _after(parameter: str) -> Any:  # a SQL expression
    """So many seconds from now."""
    return func.now() + seconds(cast(bindparam(parameter), Float))


_WAITING = select(func.count()).select_from(
    select(_READINGS.c.id)
    .where(
        _READINGS.c.state == ReadingState.PREPARED,
        _READINGS.c.model == bindparam("model"),
        _READINGS.c.lane_order > bindparam("stat"),
    )
    .limit(bindparam("most"))
    .subquery()
)
_LOCK_STUDY = select(_STUDIES.c.id).where(_STUDIES.c.id == bindparam("study")).with_for_update()
_TOUCH_STUDY = update(_STUDIES).where(_STUDIES.c.id == bindparam("study")).values(updated_at=func.now())
_WITHOUT_PICTURES = delete(_PICTURES).where(_PICTURES.c.reading_id == bindparam("reading"))
