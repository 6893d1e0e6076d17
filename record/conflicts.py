"""Conflicts: several instances under one UID, or one that names another patient, until a person decides.

Knows what deciding does to the set of a study's images, and that a decision can be taken back. Does not know how a conflict
came about (`admission`).
"""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from record import audit, studies
from record.access import Action, Principal, require
from record.admission import contradicts, counts, named_by, reject, rejected_uids, stands
from record.body import sha256
from record.claims import touch_study
from record.errors import IllegalMove, InvalidRequest, NotFound, NotPermitted
from record.instances import InstanceHeader
from record.models import ConflictDecision, Instance, Study, User
from record.models.studies import KEEPS_A_FILE, UNDECIDED
from record.states import ConflictKind, StudyState

MAX_REASON = 2000


@dataclass(frozen=True, slots=True)
class Ruling:
    """One decision and the name of who made it."""

    decision: ConflictDecision
    decided_by: str


@dataclass(frozen=True, slots=True)
class Decided:
    """An instance about which somebody decided; `rulings` on it, the newest first, and how often it has come again since."""

    side: Instance
    rulings: Sequence[Ruling]
    came_again: int

    @property
    def kept(self) -> bool:
        """Whether it is one of the study's now."""
        return self.side.conflict_of_id is None and not self.side.rejected


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


def decided(session: Session, study_id: uuid.UUID) -> list[Decided]:
    """The sides of a study about which somebody decided and may decide anew, the last decided first.

    An instance that took another one's place is not among them: that other one is.
    """
    took_a_place = (Instance.conflict_kind == ConflictKind.BYTES) & Instance.conflict_of_id.is_(None)
    sides = session.scalars(
        select(Instance)
        .where(Instance.study_id == study_id, Instance.conflict_decided_at.is_not(None), KEEPS_A_FILE, ~took_a_place)
        .order_by(Instance.conflict_decided_at.desc(), Instance.id)
    ).all()
    if not sides:
        return []
    rulings: dict[uuid.UUID, list[Ruling]] = defaultdict(list)
    for decision, name in session.execute(
        select(ConflictDecision, User.printed_name)
        .join(User, User.id == ConflictDecision.decided_by_id)
        .where(ConflictDecision.study_id == study_id)
        .order_by(ConflictDecision.decided_at.desc(), ConflictDecision.id.desc())
    ):
        for instance_id in filter(None, (decision.instance_id, decision.instead_of_id)):
            rulings[instance_id].append(Ruling(decision, name))
    copies = session.scalars(
        select(Instance.duplicate_of_id).where(
            Instance.study_id == study_id, Instance.duplicate_of_id.in_([side.id for side in sides])
        )
    )
    again = Counter(copies)
    return [Decided(side, rulings[side.id], again[side.id]) for side in sides]


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


def decide(
    session: Session,
    instance_id: uuid.UUID,
    *,
    keep: bool,
    by: Principal,
    reason: str,
    overrules: datetime | None = None,
) -> None:
    """Decide about one side, with a written reason; or decide anew, and so take a decision back.

    Kept, a side of other bytes takes the place of the first one (and waits again if it names another patient), and an
    instance that names another patient counts as the study's. Not kept, it stays out, or goes out if it had been kept.

    Parameters
    ----------
    overrules
        When the decision was made that whoever decides has seen and overrules; None where none is made yet.

    Raises
    ------
    NotFound
        There is no such instance, or another site's.
    IllegalMove
        There is nothing to decide about it, somebody has decided meanwhile, the decision asked for stands already, or its
        bytes are erased and cannot be kept.
    """
    require(by, Action.DECIDE_CONFLICT)
    if by.kind != "user" or by.id is None:
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
    _require_open(side, keep=keep, overrules=overrules)
    kind, changed, instead_of_id = side.conflict_kind or "", False, None
    if side.conflict_of_id is None:  # it names another patient
        changed = _belongs(session, study, side, keep=keep)
    elif keep:
        instead_of_id = side.conflict_of_id
        changed = _change_sides(session, study, side)
    else:
        side.conflict_decided_at = func.now()
    session.flush()
    if keep and stands(side):
        changed |= reject(session, side)
    if changed and study.state != StudyState.RECEIVING:
        studies.reopen(study)
    touch_study(session, study.id)
    decision = ConflictDecision(
        study_id=study.id,
        instance_id=side.id,
        instead_of_id=instead_of_id,
        conflict=kind,
        kept=keep,
        reason="" if study.erased_at else reason.strip(),  # no word comes back to a study that is erased
        reason_sha256=sha256(reason.strip()),
        decided_by_id=by.id,
    )
    session.add(decision)
    session.flush()
    audit.write(
        session,
        "conflict_decided",
        by,
        study_id=study.id,
        instance_id=side.id,
        decision_id=decision.id,
        conflict=kind,
        kept=keep,
        again=overrules is not None or None,
        reason_sha256=decision.reason_sha256,
    )


def _require_open(side: Instance, *, keep: bool, overrules: datetime | None) -> None:
    if side.conflict_kind is None or side.duplicate_of_id is not None:
        message = "There is nothing to decide about this instance."
        raise IllegalMove(message)
    if side.conflict_decided_at != overrules:
        message = "Somebody has decided about this instance meanwhile. Look at what they decided, then decide anew."
        raise IllegalMove(message)
    if keep and side.erased_at is not None:
        message = "This instance is erased; it can only be left out."
        raise IllegalMove(message)
    if overrules is None:
        return
    is_in = side.conflict_of_id is None and not side.rejected
    if side.conflict_of_id is None and side.conflict_kind == ConflictKind.BYTES:
        message = "This instance stands in another one's place: take that one in its place instead."
        raise IllegalMove(message)
    if keep == is_in:
        message = "That is what was decided already."
        raise IllegalMove(message)


def _belongs(session: Session, study: Study, side: Instance, *, keep: bool) -> bool:
    """Let an instance that names another patient be the study's, or not; whether the set of images changed."""
    counted, had_its_say = counts(side), stands(side)
    side.conflict_decided_at = func.now()
    side.rejected = not keep or side.sop_instance_uid in rejected_uids(session, study.id)
    session.flush()
    changed = counted != counts(side)
    if had_its_say and not keep:
        changed |= _take_back(session, side)
    return changed


def _take_back(session: Session, note: Instance) -> bool:
    """Let back in what a rejection note took out that is none of the study's; whether the set of images changed."""
    rejected = rejected_uids(session, note.study_id)
    changed = False
    for row in named_by(session, note):
        another = row.conflict_kind == ConflictKind.IDENTITY and row.conflict_decided_at is not None
        row.rejected = row.sop_instance_uid in rejected or (another and _left_out(session, row))
        changed |= counts(row)
    return changed


def _left_out(session: Session, row: Instance) -> bool:
    """Whether the last decision about an instance leaves it out."""
    kept = session.scalar(
        select(ConflictDecision.kept)
        .where(ConflictDecision.instance_id == row.id)
        .order_by(ConflictDecision.decided_at.desc(), ConflictDecision.id.desc())
        .limit(1)
    )
    return not kept


def _change_sides(session: Session, study: Study, side: Instance) -> bool:
    """Let a side take the place of the first one; whether the set of images changed."""
    first = session.get_one(Instance, side.conflict_of_id, with_for_update=True)
    changed = counts(first)
    first.conflict_kind, first.conflict_of_id = ConflictKind.BYTES, side.id
    first.conflict_decided_at = func.now()
    session.flush()  # the old first side steps back before the new one takes its place
    for other in session.scalars(select(Instance).where(Instance.conflict_of_id == first.id, Instance.id != side.id)):
        other.conflict_of_id = side.id
    side.conflict_of_id, side.prior, side.conflict_decided_at = None, first.prior, func.now()
    side.rejected = side.sop_instance_uid in rejected_uids(session, study.id)
    if contradicts(study, InstanceHeader.from_dict(side.header)):  # whose it is was not asked yet
        side.conflict_kind, side.conflict_decided_at = ConflictKind.IDENTITY, None
    session.flush()
    return changed or counts(side)
