"""The worklist: studies of a site, newest change first, page by page.

Knows the query, its filters, the cursor, the tag that moves with every visible change, and what is written of a list that
was shown. A study that changes while somebody turns pages moves to the front; who must miss nothing asks again with
`updated_since`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any, Self

from sqlalchemy import ColumnElement, Select, false, func, literal_column, select, tuple_
from sqlalchemy.orm import Session

from gateway.web import tabs
from gateway.web.schemas import StudyItem
from record import audit, work
from record.access import Action, Principal, may, require, visible
from record.errors import InvalidRequest
from record.models import Draft, Reading, Report, Site, Study
from record.models.studies import NAME_WORDS
from record.states import OPEN_REPORT, SIGNED_REPORT, Lane, ReadingState, ReportState, Role, StudyState

_Rows = Select[Study, uuid.UUID, str, str | None, int, Report, list[str], str, bool]
_SIMPLE: ColumnElement[Any] = literal_column("'simple'::regconfig")
_LONGEST_FAMILY = 3
"""Ideographs in a family name: one or two in Chinese and Korean, up to three in Japanese, with few exceptions."""
_WITH_A_STROKE = str.maketrans("øØłŁđĐ", "oOlLdD")
"""Letters that are no base letter and an accent, and are searched as if they were."""
_BETWEEN_WORDS = dict.fromkeys(map(ord, "^=.,_/'-\\&|!():<>\x00"), " ")
_IDENTIFYING = (
    "patient_name",
    "patient_id",
    "patient_sex",
    "patient_age",
    "accession_number",
    "study_description",
    "study_date",
)
_CONFLICT = work.conflicting()


@dataclass(frozen=True, slots=True)
class Search:
    """Whose studies are asked for, by what belongs to a patient; None asks for all.

    A name is words: each must begin a word of the patient's name, in any order and case, with or without accents;
    ideographs may stand without spaces. An identifier is compared as it stands; one that ends with ``*`` as a beginning (PS3.4, C.2.2.2.4). Dates are
    inclusive.
    """

    patient_name: str | None = None
    patient_id: str | None = None
    accession_number: str | None = None
    study_date_from: date | None = None
    study_date_to: date | None = None

    def asked(self) -> list[str]:
        """The names of the fields that are asked for; those that are blank, or a lone ``*``, ask for nothing."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return [name for name, value in given.items() if (value.strip(" *") if isinstance(value, str) else value)]

    def words(self) -> dict[str, str]:
        """What is asked for as text, by field; `of_words` reads it back."""
        return {name: str(getattr(self, name)) for name in self.asked()}

    @classmethod
    def of_words(cls, words: Mapping[str, str]) -> Self:
        """The search that `words` told of."""
        since, until = words.get("study_date_from"), words.get("study_date_to")
        return cls(
            words.get("patient_name"),
            words.get("patient_id"),
            words.get("accession_number"),
            date.fromisoformat(since) if since else None,
            date.fromisoformat(until) if until else None,
        )


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
    tab: tabs.Tab | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A study with its current primary reading and its live report, as somebody may see it.

    `flags` are codes: what anybody may know of the study, then, for who may read drafts, those of the current draft.
    """

    study: Study
    reading_id: uuid.UUID | None
    reading_state: str | None
    reading_reason: str | None
    report: Report | None
    site: str
    flags: tuple[str, ...]
    identified: bool

    @property
    def reason_code(self) -> str | None:
        """Why there is no draft: the study was skipped, or its reading ended without one."""
        return self.study.skipped_code if self.study.state == StudyState.SKIPPED else self.reading_reason

    def item(self) -> StudyItem:
        """The line as the API shows it."""
        study = self.study
        identity = {name: getattr(study, name) if self.identified else None for name in _IDENTIFYING}
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
            site=self.site,
            flags=list(self.flags),
            created_at=study.created_at,
            first_image_at=study.first_image_at,
            last_image_at=study.last_image_at,
            updated_at=study.updated_at,
            **identity,
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
    found = session.execute(_page(by, filters, limit, cursor)).all()
    rows = [_row(each, by) for each in found]
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1].study
    return rows[:limit], tabs.place_of(last) if filters.tab in tabs.WORK else _write(last)


def count_up_to(session: Session, by: Principal, filters: Filters, most: int) -> int:
    """How many studies there are, counted no further than `most`."""
    found = _narrow(_rows(by), filters).with_only_columns(Study.id, maintain_column_froms=True).limit(most).subquery()
    return session.scalar(select(func.count()).select_from(found)) or 0


def tag_of(session: Session, by: Principal, filters: Filters, *, limit: int, cursor: str | None) -> str:
    """The entity tag of a page as `by` sees it: another one after every visible change, found without making the page.

    Ask before the page is read: what changes in between is then sent under the older tag, and sent again.
    """
    page = _page(by, filters, limit, cursor).with_only_columns(
        func.concat_ws(
            "|",
            Study.id,
            literal_column("studies.xmin::text"),  # another one after every change of the row
            Site.name,
            Reading.id,
            Reading.state,  # a lease that is kept is no visible change
            Reading.reason_code,
            Reading.failures > 0,
            Report.id,
            literal_column("reports.xmin::text"),
            Draft.id,
            _CONFLICT,
        ).label("line"),
        maintain_column_froms=True,
    )
    lines = session.scalar(select(func.string_agg(page.subquery().c.line, "\n")))
    seen_by = [str(by.role), *sorted(by.scopes), *StudyItem.model_fields]
    return f'"{hashlib.sha256(json.dumps([seen_by, limit, lines]).encode()).hexdigest()[:32]}"'


def note_shown(session: Session, by: Principal, rows: Sequence[Row]) -> None:
    """A list that names patients goes out: one event. Without patients, or without lines, it is none."""
    if any(row.identified for row in rows):
        audit.write(session, "worklist_shown", by, count=len(rows), studies=[str(row.study.id) for row in rows])


def search(
    session: Session, by: Principal, filters: Filters, *, limit: int, cursor: str | None
) -> tuple[list[Row], str | None]:
    """Studies by what belongs to a patient, as `list_studies`; searching is an event, which never holds the words.

    Raises
    ------
    NotPermitted
        The role does not search.
    InvalidRequest
        Nothing is asked for, the days are in the wrong order, or the cursor is none of ours.
    """
    require(by, Action.SEARCH_STUDIES)
    asked = filters.search.asked() if filters.search else []
    if filters.search is None or not asked:
        message = "A search names a patient, an accession number or a study date. Without one, ask for the list."
        raise InvalidRequest(message)
    first, last = filters.search.study_date_from, filters.search.study_date_to
    if first and last and first > last:
        message = "The first day of the study date is after the last one."
        raise InvalidRequest(message)
    rows, after = list_studies(session, by, filters, limit=limit, cursor=cursor)
    studies = [str(row.study.id) for row in rows]
    audit.write(session, "studies_searched", by, fields=asked, count=len(rows), studies=studies)
    return rows, after


def row_of(session: Session, study: Study, by: Principal) -> Row:
    """The line of one study."""
    return _row(session.execute(_rows(by).where(Study.id == study.id)).one(), by)


def _page(by: Principal, filters: Filters, limit: int, cursor: str | None) -> _Rows:
    statement = _narrow(_rows(by), filters).limit(limit + 1)
    if filters.tab in tabs.WORK:
        return tabs.ordered(statement, cursor)
    if cursor is not None:
        statement = statement.where(tuple_(Study.updated_at, Study.id) < tuple_(*_read(cursor)))
    return statement.order_by(Study.updated_at.desc(), Study.id.desc())


def _rows(by: Principal) -> _Rows:
    columns = (Study, Reading.id, Reading.state, Reading.reason_code, Reading.failures, Report, Draft.flags, Site.name)
    statement = visible(select(*columns, _CONFLICT), by)
    if by.role == Role.INTAKE:  # sees its own; no door takes instances from a token or a person yet
        statement = statement.where(false())
    return work.joined(statement.join(Site, Site.id == Study.site_id)).outerjoin(
        Draft, (Draft.reading_id == Reading.id) & Draft.erased_at.is_(None)
    )


def _row(found: Sequence[Any], by: Principal) -> Row:
    study, reading_id, state, reason_code, failures, report, draft_flags, site, conflict = found
    flags = [code for code, stands in _standing(study, state, failures or 0, report, conflict=conflict) if stands]
    if may(by, Action.READ_DRAFT):
        flags += draft_flags or []
    return Row(
        study,
        reading_id,
        state,
        reason_code if state in {ReadingState.ABSTAINED, ReadingState.FAILED} else None,
        report,
        site,
        tuple(dict.fromkeys(flags)),
        may(by, Action.READ_IDENTITY),
    )


def _standing(
    study: Study, reading_state: str | None, failures: int, report: Report | None, *, conflict: bool
) -> list[tuple[str, bool]]:
    """What anybody may know of a study, and whether it is so."""
    open_report = report is not None and report.state not in SIGNED_REPORT
    return [
        ("conflict", conflict),
        ("outdated", open_report and report is not None and report.study_revision < study.revision),
        ("receiving_late", study.state == StudyState.RECEIVING and study.revision > 0),
        ("retrying", failures > 0 and reading_state not in {None, *work.ENDED}),
        ("erased", study.erased_at is not None),
    ]


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
    if filters.report_state in OPEN_REPORT:
        statement = statement.where(work.unsettled())  # they always are; there are few of them
    if filters.tab is not None and (holds := tabs.condition(filters.tab)) is not None:
        statement = statement.where(holds)
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
    words = _folded(search.patient_name or "").translate(_BETWEEN_WORDS).replace("*", " ").split()
    if words:
        asked = " & ".join(map(_beginning, words))
        statement = statement.where(literal_column(NAME_WORDS).op("@@")(func.to_tsquery(_SIMPLE, asked)))
    elif search.patient_name and search.patient_name.strip(" *"):
        statement = statement.where(false())  # nothing but punctuation
    if search.study_date_from:
        statement = statement.where(Study.study_date >= f"{search.study_date_from:%Y%m%d}")
    if search.study_date_to:
        statement = statement.where(Study.study_date.between("0", f"{search.study_date_to:%Y%m%d}"))
    return statement


def _folded(name: str) -> str:
    """A name as the index has it: letters without their accents (`record.models.studies.NAME_WORDS`)."""
    bare = "".join(letter for letter in unicodedata.normalize("NFD", name) if not "\u0300" <= letter <= "\u036f")
    return unicodedata.normalize("NFC", bare).translate(_WITH_A_STROKE)


def _beginning(word: str) -> str:
    """A word of a name as a query; without spaces between them, ideographs may be a family and a given name."""
    ways = [f"'{word}':*"]
    if all(unicodedata.east_asian_width(letter) == "W" for letter in word):
        ways += [f"'{word[:at]}' & '{word[at:]}':*" for at in range(1, min(len(word), _LONGEST_FAMILY + 1))]
    return f"({' | '.join(ways)})"


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
