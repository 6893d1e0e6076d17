"""The worklist: studies of a site, newest change first, page by page.

Knows the query, its filters and the cursor. Does not know who may ask, nor how a line is shown. A study that changes while
somebody turns pages moves to the front; who must miss nothing asks again with `updated_since`.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, false, func, literal_column, select, tuple_
from sqlalchemy.orm import Session

from gateway.web.schemas import StudyItem
from record.access import Principal, visible
from record.errors import InvalidRequest
from record.models import Reading, Report, Study, StudyRevision
from record.models.studies import NAME_WORDS
from record.states import LIVE_REPORT, Lane, Purpose, ReadingState, ReportState, StudyState

MAX_LIMIT = 200
_Rows = Select[Study, uuid.UUID, str, str | None, Report]
_SIMPLE: ColumnElement[Any] = literal_column("'simple'::regconfig")
_BETWEEN_WORDS = dict.fromkeys(map(ord, "^=.,_/'-\\&|!():<>\x00"), " ")
_ENDED = sorted(set(ReportState) - LIVE_REPORT)


@dataclass(frozen=True, slots=True)
class Search:
    """Whose studies are asked for, by what belongs to a patient; None asks for all.

    A name is words: each must begin a word of the patient's name, in any order and case. An identifier is compared as it
    stands; one that ends with ``*`` as a beginning (PS3.4, C.2.2.2.4). Dates are inclusive.
    """

    patient_name: str | None = None
    patient_id: str | None = None
    accession_number: str | None = None
    study_date_from: date | None = None
    study_date_to: date | None = None


@dataclass(frozen=True, slots=True)
class Filters:
    """Which studies are asked for; None asks for all."""

    state: StudyState | None = None
    reading_state: ReadingState | None = None
    report_state: ReportState | None = None
    modality: str | None = None
    lane: Lane | None = None
    updated_since: datetime | None = None
    search: Search | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A study with its current primary reading and its live report."""

    study: Study
    reading_id: uuid.UUID | None
    reading_state: str | None
    reading_reason: str | None
    report: Report | None

    @property
    def reason_code(self) -> str | None:
        """Why there is no draft: the study was skipped, or its reading ended without one."""
        return self.study.skipped_code if self.study.state == StudyState.SKIPPED else self.reading_reason

    def item(self) -> StudyItem:
        """The line as the API shows it: no patient data."""
        study = self.study
        return StudyItem(
            study_instance_uid=study.study_instance_uid,
            state=study.state,
            revision=study.revision,
            instances=study.instances,
            modality=study.modality,
            lane=study.lane,
            reading_state=self.reading_state,
            reason_code=self.reason_code,
            report_state=self.report.state if self.report else None,
            report_id=self.report.id if self.report else None,
            updated_at=study.updated_at,
        )


def list_studies(
    session: Session, by: Principal, filters: Filters, *, limit: int, cursor: str | None
) -> tuple[list[Row], str | None]:
    """One page of rows, and the cursor of the next page if there is one.

    Raises
    ------
    InvalidRequest
        The cursor is none of ours.
    """
    statement = _narrow(_rows(by), filters).order_by(Study.updated_at.desc(), Study.id.desc()).limit(limit + 1)
    if cursor is not None:
        statement = statement.where(tuple_(Study.updated_at, Study.id) < tuple_(*_read(cursor)))
    rows = [_row(found) for found in session.execute(statement).all()]
    more = len(rows) > limit
    return rows[:limit], _write(rows[limit - 1].study) if more else None


def row_of(session: Session, study: Study, by: Principal) -> Row:
    """The line of one study."""
    return _row(session.execute(_rows(by).where(Study.id == study.id)).one())


def _rows(by: Principal) -> _Rows:
    statement = visible(select(Study, Reading.id, Reading.state, Reading.reason_code, Report), by)
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
        .outerjoin(Report, (Report.study_id == Study.id) & Report.state.not_in(_ENDED))
    )


def _row(found: Sequence[Any]) -> Row:
    study, reading_id, state, reason_code, report = found
    return Row(study, reading_id, state, reason_code if state in {"abstained", "failed"} else None, report)


def _narrow(statement: _Rows, filters: Filters) -> _Rows:
    wanted = (
        (Study.state, filters.state),
        (Reading.state, filters.reading_state),
        (Report.state, filters.report_state),
        (Study.modality, filters.modality.upper() if filters.modality else None),
        (Study.lane, filters.lane),
    )
    for column, value in wanted:
        if value is not None:
            statement = statement.where(column == value)
    if filters.updated_since is not None:
        statement = statement.where(Study.updated_at >= filters.updated_since)
    return _find(statement, filters.search) if filters.search else statement


def _find(statement: _Rows, search: Search) -> _Rows:
    for column, wanted in ((Study.patient_id, search.patient_id), (Study.accession_number, search.accession_number)):
        asked = (wanted or "").strip()
        if asked.endswith("*"):
            statement = statement.where(column.startswith(asked.rstrip("*"), autoescape=True))
        elif asked:
            statement = statement.where(column == asked)
    words = (search.patient_name or "").translate(_BETWEEN_WORDS).replace("*", " ").split()
    if words:
        asked = " & ".join(f"'{word}':*" for word in words)
        statement = statement.where(literal_column(NAME_WORDS).op("@@")(func.to_tsquery(_SIMPLE, asked)))
    elif search.patient_name and search.patient_name.strip(" *"):
        statement = statement.where(false())  # nothing but punctuation
    if search.study_date_from:
        statement = statement.where(Study.study_date >= f"{search.study_date_from:%Y%m%d}")
    if search.study_date_to:
        statement = statement.where(Study.study_date.between("0", f"{search.study_date_to:%Y%m%d}"))
    return statement


def _write(study: Study) -> str:
    place = json.dumps([study.updated_at.isoformat(timespec="microseconds"), study.id.hex])
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _read(cursor: str) -> tuple[datetime, uuid.UUID]:
    try:
        at, key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise ValueError
        return moment, uuid.UUID(key)
    except (ValueError, TypeError, AttributeError):
        message = "The cursor is none of ours: take the value of `next` from the page before."
        raise InvalidRequest(message) from None
