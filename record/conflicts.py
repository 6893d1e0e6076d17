"""Conflicts: several instances under one UID, or one that names another patient, until a person decides.

Knows what deciding does to the set of a study's images. Does not know how a conflict came about (`admission`).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from record import audit, studies
from record.access import Action, Principal, require
from record.admission import contradicts, counts, reject, rejected_uids, stands
from record.body import sha256
from record.claims import touch_study
from record.errors import IllegalMove, InvalidRequest, NotFound, NotPermitted
from record.instances import InstanceHeader
from record.models import Instance, Study
from record.models.studies import UNDECIDED
from record.states import StudyState

MAX_REASON = 2000


def undecided(session: Session, study_id: uuid.UUID) -> Sequence[Instance]:
    """The sides of a study that wait for a decision, oldest first."""
    return session.scalars(
        select(Instance)
        .where(
            Instance.study_id == study_id,
            UNDECIDED,
        )
        .order_by(Instance.id)
    ).all()


def require_of(session: Session, study: Study, instance_id: uuid.UUID) -> None:
    """Refuse an instance that is not the study's.

    Raises
    ------
    NotFound
        The study has no such instance.
    """
    if session.scalar(select(Instance.study_id).where(Instance.id == instance_id)) != study.id:
        message = "The study has no such instance."
        raise NotFound(message)


def decide(session: Session, instance_id: uuid.UUID, *, keep: bool, by: Principal, reason: str) -> None:
    """Decide one undecided side, with a written reason of which the record keeps the hash.

    Kept, a side of other bytes takes the place of the first one (and waits again if it names another patient), and an
    instance that names another patient counts as the study's: the set of images changes. Not kept, it stays out, and
    nothing changes.

    Raises
    ------
    NotFound
        There is no such instance, or another site's.
    IllegalMove
        There is nothing to decide about it, or its bytes are erased and cannot be kept.
    """
    require(by, Action.DECIDE_CONFLICT)
    if by.kind != "user":
        message = "A person decides this, not a machine's token."
        raise NotPermitted(message)
    if not reason.strip() or len(reason) > MAX_REASON:
        message = "Say why, in 2000 characters at most."
        raise InvalidRequest(message)
    side = session.get(Instance, instance_id)
    if side is None:
        message = "There is no such instance."
        raise NotFound(message)
    study = studies.lock(session, side.study_id, by)
    session.refresh(side, with_for_update=True)
    if side.conflict_kind is None or side.conflict_decided_at is not None:
        message = "There is nothing to decide about this instance."
        raise IllegalMove(message)
    if keep and side.erased_at is not None:
        message = "This instance is erased; it can only be left out."
        raise IllegalMove(message)
    kind, changed = side.conflict_kind, False
    side.conflict_decided_at = func.now()
    if side.conflict_of_id is None:  # it names another patient
        side.rejected = side.rejected or not keep
        changed = counts(side)
    elif keep:
        changed = _change_sides(session, study, side)
    session.flush()
    if keep and stands(side):
        changed |= reject(session, side)
    if changed and study.state != StudyState.RECEIVING:
        studies.reopen(study)
    touch_study(session, study.id)
    audit.write(
        session,
        "conflict_decided",
        by,
        study_id=study.id,
        instance_id=side.id,
        conflict=kind,
        kept=keep,
        reason_sha256=sha256(reason.strip()),
    )


def _change_sides(session: Session, study: Study, side: Instance) -> bool:
    """Let a side take the place of the first one; whether the set of images changed."""
    first = session.get_one(Instance, side.conflict_of_id, with_for_update=True)
    changed = counts(first)
    first.conflict_kind, first.conflict_of_id = first.conflict_kind or "bytes", side.id
    first.conflict_decided_at = func.now()
    session.flush()  # the old first side steps back before the new one takes its place
    for other in session.scalars(select(Instance).where(Instance.conflict_of_id == first.id, Instance.id != side.id)):
        other.conflict_of_id = side.id
    side.conflict_of_id, side.prior = None, first.prior
    side.rejected = side.sop_instance_uid in rejected_uids(session, study.id)
    if contradicts(study, InstanceHeader.from_dict(side.header)):  # whose it is was not asked yet
        side.conflict_kind, side.conflict_decided_at = "identity", None
    session.flush()
    return changed or counts(side)
