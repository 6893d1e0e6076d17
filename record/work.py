"""Work: what is left to do for a study, and for whom nothing is left.

Knows SQL conditions over a study, its current primary reading and its live report. Does not know who asks, nor in which
order anybody works. Most studies of an archive are over and done with; `settle` says so on their rows, so that a worklist
looks at the others alone, however many there are. A study is *settled* for as long as its row says that nothing has
touched it since: `settled_at` is then the `updated_at` it had, and whoever changes anything visible changes the latter.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Boolean, ColumnElement, Select, literal_column, or_, select, text
from sqlalchemy.orm import Session, aliased

from record.models import Instance, Reading, Report, Study, StudyRevision
from record.models.studies import UNDECIDED, UNSETTLED
from record.states import ENDED_REPORT, Purpose, ReadingState, ReportState, StudyState

_Rows = TypeVar("_Rows", bound=Select[*tuple[Any, ...]])
ENDED = (ReadingState.DONE, ReadingState.ABSTAINED, ReadingState.FAILED)
"""States of a reading that nobody works on any more."""


def joined(statement: _Rows) -> _Rows:
    """A statement over studies, with the current primary reading and the live report of each beside it."""
    return (
        statement.outerjoin(
            StudyRevision, (StudyRevision.study_id == Study.id) & (StudyRevision.number == Study.revision)
        )
        .outerjoin(
            Reading,
            (Reading.revision_id == StudyRevision.id)
            & (Reading.purpose == Purpose.PRIMARY)
            & (Reading.state != ReadingState.SUPERSEDED),
        )
        .outerjoin(Report, (Report.study_id == Study.id) & Report.state.not_in(ENDED_REPORT))
    )


def to_read() -> ColumnElement[bool]:
    """A draft waits for a physician; or the reading brought none, and nobody has reported the study."""
    by_hand = _nobody_reported() & Reading.state.in_(ENDED) & ~_cancelled()
    return (Report.state == ReportState.DRAFT) | by_hand


def not_ready() -> ColumnElement[bool]:
    """Images still come, or the machine is at work."""
    return _nobody_reported() & ((Study.state == StudyState.RECEIVING) | Reading.state.not_in(ENDED))


def preliminary() -> ColumnElement[bool]:
    """A preliminary report waits for its signature."""
    return Report.state == ReportState.PRELIMINARY


def needs_attention() -> ColumnElement[bool]:
    """Something went wrong that a person has to look at: the reading failed, the images are others, or copies conflict."""
    failed = _nobody_reported() & (Reading.state == ReadingState.FAILED)
    return failed | (Report.study_revision < Study.revision) | conflicting()


def unsettled() -> ColumnElement[bool]:
    """Studies for which something may be left to do: every condition above holds for none but these."""
    named = UNSETTLED.replace("settled_at", "studies.settled_at").replace("updated_at", "studies.updated_at")
    return literal_column(f"({named}) = 1", Boolean)


def conflicting() -> ColumnElement[bool]:
    """Whether bytes or identity of an instance conflict and nobody has decided."""
    return select(Instance.id).where(Instance.study_id == Study.id, UNDECIDED).exists()


def settle(session: Session, most: int) -> int:
    """Write on the rows of studies for which nothing is left to do that it is so; returns how many, `most` at a time."""
    left = or_(to_read(), not_ready(), preliminary(), needs_attention())
    found = joined(select(Study.id, Study.updated_at)).where(unsettled(), left.is_not(True)).limit(most)
    over: list[tuple[uuid.UUID, datetime]] = [(row[0], row[1]) for row in session.execute(found)]
    if over:
        ids, moments = zip(*over, strict=True)
        session.execute(_SETTLE, {"ids": list(ids), "moments": list(moments)})
    return len(over)


def _nobody_reported() -> ColumnElement[bool]:
    return Report.id.is_(None) & Study.erased_at.is_(None)


def _cancelled() -> ColumnElement[bool]:
    """Whether a physician has cancelled the report on these very images: nobody waits for another."""
    ended = aliased(Report)
    return (
        select(ended.id)
        .where(
            ended.study_id == Study.id,
            ended.state == ReportState.CANCELLED,
            ended.study_revision == Study.revision,
        )
        .exists()
    )


# Only a row that nobody has touched since it was looked at (a change that commits in between changes `updated_at`), and
# only one that is free: the next round does the others, and no lock is ever waited for.
_SETTLE = text(
    """
    WITH free AS (
      SELECT s.id FROM studies s
      JOIN unnest(CAST(:ids AS uuid[]), CAST(:moments AS timestamptz[])) AS over (id, moment)
        ON s.id = over.id AND s.updated_at = over.moment
      FOR UPDATE OF s SKIP LOCKED)
    UPDATE studies s SET settled_at = s.updated_at FROM free WHERE s.id = free.id
    """
)
