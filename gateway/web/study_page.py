"""The study page and the page to sign on: what they show, put together from one opening.

Knows which reading, draft and report a page shows. Does not know forms (`report_pages`) nor tables (`opened`). Opening is an
event, written in the transaction that reads.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException

from gateway.web import problems
from gateway.web.auth import Visitor
from gateway.web.comparison import Compared, compare
from gateway.web.context import Web
from gateway.web.frames import THUMBNAIL, View
from gateway.web.image_counts import count_images
from gateway.web.languages import english
from gateway.web.opened import report_history, show_report, show_study
from gateway.web.schemas import DraftShown, PictureShown, ReadingShown, ReportRevisionShown, ReportShown, StudyShown
from gateway.web.shown_series import ShownSeries, series_shown
from gateway.web.studies_api import note_opening
from gateway.web.templating import page
from gateway.web.ways_on import WayOn, way_on
from gateway.web.worklist import row_of
from record import reports, studies
from record.access import Action, Principal, may
from record.body import BANNER_UNSIGNED, Origin, SectionCode
from record.db import transaction
from record.errors import CountersignError, InvalidInstance
from record.models import Report, Study
from record.states import LIVE_REPORT, OPEN_REPORT, SIGNED_REPORT, Purpose, ReadingState, ReportState, StudyState
from record.store import Kind

DONE = {
    "saved": english("Saved."),
    "begun": english("The report is begun. Nothing is in it yet."),
    "preliminary": english("Declared preliminary."),
    "cancelled": english("The report is cancelled."),
    "signed": english("Signed. The report is final."),
    "decided": english("The conflict is decided."),
    "retried": english("The reading is queued again."),
    "closed": english("The study is closed; its reading is queued."),
    "taken_up": english("The study will be read."),
}
"""What a page says after a form; only these codes are taken from an address."""
_MOST_DECODED = 6
"""Undecided conflicts whose images are tried out while the page is made."""
OTHER_WORDS = english(
    "Other words than those you were shown stand in the report now. Nothing is signed: read what stands here first."
)


@dataclass(frozen=True, slots=True)
class Kept:
    """What somebody typed and could not be done: the problem, their own words, and the revision of the report they had seen."""

    problem: dict[str, Any]
    text: str | None = None
    reason: str = ""
    report_id: uuid.UUID | None = None
    seen: int | None = None


@dataclass(frozen=True, slots=True)
class Former:
    """A report that a physician ended, with every text it had, the newest first."""

    report: ReportShown
    history: list[ReportRevisionShown]


@dataclass(frozen=True, slots=True)
class Opening:
    """A study as one page shows it."""

    study: StudyShown
    report: ReportShown | None
    history: list[ReportRevisionShown]
    current: ReadingShown | None
    images: int
    series: Sequence[ShownSeries] = ()
    draft_id: uuid.UUID | None = None
    """The draft that the report builds on; None if it was begun by hand."""
    former: Sequence[Former] = ()
    """The reports that physicians cancelled or withdrew, the newest first."""
    undecodable: Collection[uuid.UUID] = ()
    """The images in conflict that cannot be shown."""

    @property
    def reason_code(self) -> str | None:
        """Why there is no draft, if there is none and none will come by itself."""
        ended = self.current is not None and self.current.state in {ReadingState.ABSTAINED, ReadingState.FAILED}
        return self.study.reason_code if self.study.state == StudyState.SKIPPED or ended else None

    @property
    def way_on(self) -> WayOn | None:
        """What that means, and what can be done about it."""
        return way_on(self.reason_code)

    @property
    def offered(self) -> bool:
        """Whether the newest draft is only offered beside the report."""
        newest = next(iter(self.study.drafts or ()), None)
        return newest is not None and newest.offered

    @property
    def is_empty(self) -> bool:
        """Whether the report has no words."""
        body = self.report.body if self.report else None
        return not any(sentence["text"].strip() for sentence in _sentences(body))

    @property
    def is_only_the_machines(self) -> bool:
        """Whether somebody saved or declared the report, and every word in it is as the machine wrote it."""
        origins = {sentence["origin"] for sentence in _sentences(self.report.body if self.report else None)}
        return (
            self.is_open
            and origins == {Origin.MACHINE}
            and self.report is not None
            and self.report.banner == BANNER_UNSIGNED
        )

    @property
    def compared(self) -> list[Compared]:
        """What differs between the draft that the report builds on and the report."""
        body = self.report.body if self.report else None
        return compare(self.draft.body, body) if self.draft and body else []

    @property
    def headings(self) -> str:
        """The headings that begin a section, as the editor takes them."""
        return ", ".join(code.title for code in SectionCode)

    @property
    def draft(self) -> DraftShown | None:
        """The draft that the report builds on, which it is compared with."""
        return next((draft for draft in self.study.drafts or () if draft.id == self.draft_id), None)

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
        return self.report is not None and self.report.state in OPEN_REPORT

    @property
    def is_signed(self) -> bool:
        """Whether the report is signed."""
        return self.report is not None and self.report.state in SIGNED_REPORT

    @property
    def needs_reason(self) -> bool:
        """Whether the images are other ones than the report rests on."""
        study, report = self.study, self.report
        return study.state == StudyState.RECEIVING or (report is not None and report.study_revision != study.revision)

    def holds(self, kept: Kept | None) -> bool:
        """Whether words that could not be saved belong into this report's editor."""
        if kept is None or kept.text is None or self.report is None:
            return False
        return self.is_open and kept.report_id == self.report.id

    def moved_on(self, kept: Kept | None) -> bool:
        """Whether the report holds other words than those that somebody had seen."""
        return kept is not None and self.report is not None and kept.seen not in {None, self.report.revision}

    @property
    def can_begin(self) -> bool:
        """Whether a physician may begin by hand now."""
        return self.study.revision > 0 and self.report is None and not self.study.erased_at


def open_study(session: Session, study: Study, by: Principal) -> Opening:
    """All that the pages show of a study, and the event that it was opened."""
    shown = show_study(session, study, by)
    row = session.scalar(select(Report).where(Report.study_id == study.id, Report.state.in_(LIVE_REPORT)))
    report = show_report(session, row, by) if row and may(by, Action.READ_SIGNED) else None
    history = report_history(session, row) if row and may(by, Action.READ_REPORT) else []
    former = _former(session, study, by) if may(by, Action.READ_REPORT) else []
    live = (r for r in shown.readings if r.purpose == Purpose.PRIMARY and r.state != ReadingState.SUPERSEDED)
    current = next((r for r in live if r.revision == shown.revision), None)
    images = count_images(session, [study]).get(study.id, 0)
    seen = may(by, Action.READ_PICTURE)
    series = series_shown(session, study, identified=may(by, Action.READ_IDENTITY)) if seen else []
    opening = Opening(shown, report, history, current, images, series, row.draft_id if row else None, former)
    note_opening(
        session,
        study,
        by,
        report_id=row.id if row else None,
        former_reports=[str(one.report.id) for one in former] or None,
        pictures=[picture.sha256 for picture in opening.pictures],
        drafts=[str(draft.id) for draft in shown.drafts or []],
    )
    return opening


def _former(session: Session, study: Study, by: Principal) -> list[Former]:
    ended = Report.state.in_({ReportState.CANCELLED, ReportState.ENTERED_IN_ERROR})
    rows = session.scalars(
        select(Report).where(Report.study_id == study.id, ended).order_by(Report.updated_at.desc(), Report.id.desc())
    )
    return [Former(show_report(session, row, by), report_history(session, row)) for row in rows]


def study_page(
    request: Request,
    web: Web,
    visitor: Visitor,
    study_instance_uid: str,
    *,
    done: str | None = None,
    kept: Kept | None = None,
) -> HTMLResponse:
    """The study page."""
    with transaction(web.engine) as session:
        study = studies.find(session, study_instance_uid, visitor.principal)
        tag = tag_of_study(session, study, visitor.principal)
        opening = open_study(session, study, visitor.principal)
    if visitor.may(Action.DECIDE_CONFLICT):
        opening = replace(opening, undecodable=_undecodable(web, opening.study))
    return page(
        "study.html",
        request=request,
        status=kept.problem["status"] if kept else 200,
        visitor=visitor,
        opening=opening,
        study=opening.study,
        report=opening.report,
        back=None if kept else f"/studies/{quote(study_instance_uid, safe='')}",
        tag=tag,
        done=DONE.get(done or ""),
        kept=kept,
    )


def _undecodable(web: Web, study: StudyShown) -> set[uuid.UUID]:
    """The images in undecided conflicts that cannot be decoded: whoever decides has to know, pictures or not."""
    sides = [side for one in study.conflicts[:_MOST_DECODED] for side in (one, one.standing) if side]
    found = set()
    for instance_id in {side.instance_id for side in sides if side.rows}:
        try:
            with web.store.local(Kind.INSTANCE, instance_id.hex) as path:
                web.decoders.ask("show", path, 1, **View(size=THUMBNAIL).request())
        except InvalidInstance:
            found.add(instance_id)
        except (HTTPException, CountersignError, OSError):  # busy, or its file is away: nothing is said about it
            continue
    return found


def tag_of_study(session: Session, study: Study, by: Principal) -> str:
    """Another one after every change of the study that its page would show."""
    seen = [row_of(session, study, by).item().model_dump_json(), study.revision]
    return f'"{hashlib.sha256(repr(seen).encode()).hexdigest()[:32]}"'


def page_of_report(request: Request, web: Web, visitor: Visitor, report_id: uuid.UUID, kept: Kept) -> HTMLResponse:
    """The study page of a report, with what could not be done."""
    return study_page(request, web, visitor, study_of(web, visitor, report_id), kept=kept)


def study_of(web: Web, visitor: Visitor, report_id: uuid.UUID) -> str:
    """The Study Instance UID of a report's study."""
    with transaction(web.engine) as session:
        report = reports.find(session, report_id, visitor.principal)
        return session.get_one(Study, report.study_id).study_instance_uid


def signing_page(
    request: Request, web: Web, visitor: Visitor, report_id: uuid.UUID, *, kept: Kept | None = None
) -> Response:
    """The page to sign on: the images, exactly the text that will be signed, and the password."""
    with transaction(web.engine) as session:
        report = reports.find(session, report_id, visitor.principal)
        study = session.get_one(Study, report.study_id)
        if report.state not in OPEN_REPORT:
            return RedirectResponse(f"/studies/{study.study_instance_uid}", 303)
        opening = open_study(session, study, visitor.principal)
    if opening.report is None or opening.report.body is None:
        return RedirectResponse(f"/studies/{study.study_instance_uid}", 303)
    if kept and opening.moved_on(kept):
        kept = replace(kept, problem=problems.describe(409, "stale_revision", OTHER_WORDS))
    return page(
        "sign.html",
        request=request,
        status=kept.problem["status"] if kept else 200,
        visitor=visitor,
        opening=opening,
        study=opening.study,
        report=opening.report,
        kept=kept,
    )


def _sentences(body: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    for section in body["sections"] if body else ():
        yield from section["sentences"]
