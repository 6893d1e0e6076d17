"""The study page and the page to sign on: what they show, put together from one opening.

Knows which reading, draft and report a page shows. Does not know forms (`report_pages`) nor tables (`opened`). Opening is an
event, written in the transaction that reads.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.web.auth import Visitor
from gateway.web.context import Web
from gateway.web.opened import report_history, show_report, show_study
from gateway.web.schemas import DraftShown, PictureShown, ReadingShown, ReportRevisionShown, ReportShown, StudyShown
from gateway.web.studies_api import note_opening
from gateway.web.templating import page
from record import reports, studies
from record.access import Action, Principal, may
from record.db import transaction
from record.models import Report, Study
from record.states import LIVE_REPORT, SIGNED_REPORT, Purpose, ReadingState, ReportState, StudyState

DONE = {
    "saved": "Saved.",
    "begun": "The report is begun. Nothing is in it yet.",
    "preliminary": "Declared preliminary.",
    "cancelled": "The report is cancelled.",
    "signed": "Signed. The report is final.",
    "decided": "The conflict is decided.",
    "retried": "The reading is queued again.",
    "unchanged": "Nothing has changed.",
}
"""What a page says after a form; only these codes are taken from an address."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What somebody typed and could not be done: the problem, and their own words."""

    problem: dict[str, Any]
    text: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Opening:
    """A study as one page shows it."""

    study: StudyShown
    report: ReportShown | None
    history: list[ReportRevisionShown]
    current: ReadingShown | None

    @property
    def draft(self) -> DraftShown | None:
        """The newest draft, which the report is compared with."""
        return self.study.drafts[0] if self.study.drafts else None

    @property
    def pictured(self) -> ReadingShown | None:
        """The reading whose pictures are shown: the current one, else the newest that has any."""
        with_pictures = [r for r in self.study.readings if r.pictures]
        if self.current in with_pictures:
            return self.current
        return max(with_pictures, key=lambda r: r.revision, default=None)

    @property
    def pictures(self) -> list[PictureShown]:
        """What the model saw."""
        return (self.pictured.pictures or []) if self.pictured else []

    @property
    def is_behind(self) -> bool:
        """Whether the pictures are those of a former revision of the images."""
        return self.pictured is not None and self.pictured.revision != self.study.revision

    @property
    def is_open(self) -> bool:
        """Whether the report can be edited."""
        return self.report is not None and self.report.state in {ReportState.DRAFT, ReportState.PRELIMINARY}

    @property
    def is_signed(self) -> bool:
        """Whether the report is signed."""
        return self.report is not None and self.report.state in SIGNED_REPORT

    @property
    def needs_reason(self) -> bool:
        """Whether the images are other ones than the report rests on."""
        study, report = self.study, self.report
        return study.state == StudyState.RECEIVING or (report is not None and report.study_revision != study.revision)

    @property
    def can_begin(self) -> bool:
        """Whether a physician may begin by hand now."""
        return self.study.revision > 0 and self.report is None


def open_study(session: Session, study: Study, by: Principal) -> Opening:
    """All that the pages show of a study, and the event that it was opened."""
    shown = show_study(session, study, by)
    row = session.scalar(select(Report).where(Report.study_id == study.id, Report.state.in_(LIVE_REPORT)))
    report = show_report(session, row, by) if row and may(by, Action.READ_SIGNED) else None
    history = report_history(session, row) if row and may(by, Action.READ_REPORT) else []
    live = (r for r in shown.readings if r.purpose == Purpose.PRIMARY and r.state != ReadingState.SUPERSEDED)
    current = next((r for r in live if r.revision == shown.revision), None)
    opening = Opening(shown, report, history, current)
    note_opening(
        session,
        study,
        by,
        report_id=row.id if row else None,
        pictures=[picture.sha256 for picture in opening.pictures],
        drafts=[str(draft.id) for draft in shown.drafts or []],
    )
    return opening


def study_page(
    web: Web, visitor: Visitor, study_instance_uid: str, *, done: str | None = None, kept: Kept | None = None
) -> HTMLResponse:
    """The study page."""
    with transaction(web.engine) as session:
        study = studies.find(session, study_instance_uid, visitor.principal)
        opening = open_study(session, study, visitor.principal)
    return page(
        "study.html",
        status=kept.problem["status"] if kept else 200,
        visitor=visitor,
        opening=opening,
        study=opening.study,
        report=opening.report,
        done=DONE.get(done or ""),
        kept=kept,
    )


def page_of_report(web: Web, visitor: Visitor, report_id: uuid.UUID, kept: Kept) -> HTMLResponse:
    """The study page of a report, with what could not be done."""
    return study_page(web, visitor, study_of(web, visitor, report_id), kept=kept)


def study_of(web: Web, visitor: Visitor, report_id: uuid.UUID) -> str:
    """The Study Instance UID of a report's study."""
    with transaction(web.engine) as session:
        report = reports.find(session, report_id, visitor.principal)
        return session.get_one(Study, report.study_id).study_instance_uid


def signing_page(web: Web, visitor: Visitor, report_id: uuid.UUID, *, kept: Kept | None = None) -> Response:
    """The page to sign on: the images, exactly the text that will be signed, and the password."""
    with transaction(web.engine) as session:
        report = reports.find(session, report_id, visitor.principal)
        study = session.get_one(Study, report.study_id)
        if report.state not in {ReportState.DRAFT, ReportState.PRELIMINARY}:
            return RedirectResponse(f"/studies/{study.study_instance_uid}", 303)
        opening = open_study(session, study, visitor.principal)
    if opening.report is None or opening.report.body is None:
        return RedirectResponse(f"/studies/{study.study_instance_uid}", 303)
    return page(
        "sign.html",
        status=kept.problem["status"] if kept else 200,
        visitor=visitor,
        opening=opening,
        study=opening.study,
        report=opening.report,
        kept=kept,
    )
