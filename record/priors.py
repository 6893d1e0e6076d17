"""What was signed of a patient before: the text that a new reading may be compared with.

Knows whose report counts (the same patient of the same site, the same modality, signed and not withdrawn). Does not know
what becomes of the words.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from record.body import Body
from record.models import Report, ReportRevision, Study
from record.states import ReportState

_STANDS = (ReportState.FINAL, ReportState.APPENDED, ReportState.CORRECTED)


@dataclass(frozen=True, slots=True)
class PriorReport:
    """A signed report of an earlier study."""

    report_id: uuid.UUID
    study_date: str
    text: str = field(repr=False)


def last_signed(session: Session, study: Study) -> PriorReport | None:
    """The last signed text of the patient's earlier studies of this modality, as it was signed; None where there is none.

    A study without a date has no earlier ones: it cannot be said what came before it.
    """
    if study.patient_id_key is None or not study.study_date or not study.modality:
        return None
    found = session.execute(
        select(Report.id, Study.study_date, ReportRevision.body)
        .join(Study, Study.id == Report.study_id)
        .join(
            ReportRevision,
            (ReportRevision.report_id == Report.id) & (ReportRevision.number == Report.signed_revision),
        )
        .where(
            Study.patient_id_key == study.patient_id_key,
            Study.site_id == study.site_id,
            Study.id != study.id,
            Study.modality == study.modality,
            Study.study_date != "",
            (Study.study_date < study.study_date)
            | ((Study.study_date == study.study_date) & (Study.study_time < study.study_time)),
            Report.state.in_(_STANDS),
            ReportRevision.erased_at.is_(None),
        )
        .order_by(Study.study_date.desc(), Study.study_time.desc(), Report.id.desc())
        .limit(1)
    ).first()
    if found is None:
        return None
    report_id, study_date, body = found
    return PriorReport(report_id, study_date, Body.from_canonical(body).plain())
