"""The sides of a study's conflicts, undecided and decided, as the API and the study page show them.

Knows what two instances are compared by. Does not know what deciding does (`record.conflicts`), nor pixels.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.web import frames
from gateway.web.schemas import ConflictShown, DecidedShown, DecisionShown, SideShown
from record import conflicts
from record.conflicts import Decided
from record.models import Instance, Study
from record.models.studies import KEEPS_A_FILE
from record.states import ConflictKind, InstanceKind

_WHOSE = ("patient_id", "patient_name")
_COMPARED = (*_WHOSE, "transfer_syntax_uid", "size_bytes", "rows", "columns", "number_of_frames")
"""What two files under one UID are compared by; of one that names another patient, only whose it is."""


@dataclass(frozen=True, slots=True)
class _Sides:
    """The rows that stand in the study beside those that are shown, and what of them may be told."""

    study: Study
    standing: Mapping[uuid.UUID, Instance]
    first: Instance | None
    identified: bool
    seen: bool

    def conflict(self, row: Instance) -> dict[str, Any]:
        """The fields of a `ConflictShown`."""
        standing = self.standing.get(row.conflict_of_id) if row.conflict_of_id else self.first
        if standing is row:
            standing = None
        compared = _COMPARED if row.conflict_of_id else _WHOSE
        here, there = _facts(row), _facts(standing) if standing else {}
        return {
            **self.side(row).model_dump(),
            "kind": row.conflict_kind or "",
            "beside": row.conflict_of_id,
            "standing": self.side(standing) if standing else None,
            "differs": [name for name in compared if there and here[name] != there[name]],
        }

    def side(self, row: Instance) -> SideShown:
        """One instance."""
        facts = _facts(row)
        if not self.identified:
            facts |= dict.fromkeys(_WHOSE)
        can_be_seen = self.seen and row.kind == InstanceKind.IMAGE and row.erased_at is None
        return SideShown(
            instance_id=row.id,
            sop_class_uid=row.sop_class_uid,
            received_at=row.received_at,
            href=frames.address(self.study.study_instance_uid, row.id, 1) if can_be_seen else None,
            **facts,
        )


def undecided_shown(session: Session, study: Study, *, identified: bool, seen: bool) -> list[ConflictShown]:
    """What waits for a decision, the oldest first.

    Parameters
    ----------
    identified
        With the patients that the instances name.
    seen
        With where pictures of them are.
    """
    rows = conflicts.undecided(session, study.id)
    sides = _sides(session, study, rows, identified=identified, seen=seen)
    return [ConflictShown(**sides.conflict(row)) for row in rows]


def decided_shown(session: Session, study: Study, *, identified: bool, seen: bool) -> list[DecidedShown]:
    """What was decided, the last decision first; who may not see whose a study is reads no reasons."""
    found = conflicts.decided(session, study.id)
    sides = _sides(session, study, [one.side for one in found], identified=identified, seen=seen)
    return [
        DecidedShown(
            **sides.conflict(one.side),
            kept=one.kept,
            decided_at=one.side.conflict_decided_at,
            came_again=one.came_again,
            decisions=list(_decisions(one, identified=identified)),
        )
        for one in found
        if one.side.conflict_decided_at is not None
    ]


def _sides(session: Session, study: Study, rows: Iterable[Instance], *, identified: bool, seen: bool) -> _Sides:
    rows = list(rows)
    beside = {row.conflict_of_id for row in rows} - {None}
    standing = session.scalars(select(Instance).where(Instance.id.in_(beside))).all() if beside else []
    first = None
    if any(row.conflict_of_id is None for row in rows):
        first = session.scalar(
            select(Instance)
            .where(
                Instance.study_id == study.id,
                Instance.kind == InstanceKind.IMAGE,
                KEEPS_A_FILE,
                Instance.conflict_of_id.is_(None),
                Instance.conflict_kind.is_distinct_from(ConflictKind.IDENTITY),
                ~Instance.rejected,
            )
            .order_by(Instance.id)
            .limit(1)
        )
    return _Sides(study, {row.id: row for row in standing}, first, identified, seen)


def _facts(row: Instance) -> dict[str, Any]:
    header = row.header
    return {
        "patient_id": str(header.get("patient_id", "")),
        "patient_name": str(header.get("patient_name", "")),
        "transfer_syntax_uid": row.transfer_syntax_uid,
        "size_bytes": row.size_bytes,
        "rows": int(header.get("rows") or 0),
        "columns": int(header.get("columns") or 0),
        "number_of_frames": frames.frames_in(row),
    }


def _decisions(one: Decided, *, identified: bool) -> Iterable[DecisionShown]:
    for ruling in one.rulings:
        decision = ruling.decision
        yield DecisionShown(
            instance_id=decision.instance_id,
            instead_of_id=decision.instead_of_id,
            kept=decision.kept,
            reason=decision.reason if identified else None,
            decided_by=ruling.decided_by,
            decided_at=decision.decided_at,
        )
