"""In whose hands an unsigned report is: who saved it last. A draft that nobody has touched is in nobody's.

Knows the rows. Does not know pages.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from record.access import Action, Principal, may
from record.models import Report, ReportRevision, User
from record.states import OPEN_REPORT


def in_hands_of(session: Session, reports: Iterable[Report | None], by: Principal) -> dict[uuid.UUID, str]:
    """The printed name of who saved each open report last, by the report's id, for those who may read reports."""
    if not may(by, Action.READ_REPORT):
        return {}
    touched = [one.id for one in reports if one is not None and one.state in OPEN_REPORT and one.touched_at is not None]
    rows = session.execute(
        select(ReportRevision.report_id, User.printed_name)
        .join(Report, (Report.id == ReportRevision.report_id) & (Report.revision == ReportRevision.number))
        .join(User, User.id == ReportRevision.author_id)
        .where(ReportRevision.report_id.in_(touched))
    )
    return {row[0]: row[1] for row in rows}
