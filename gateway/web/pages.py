"""Pages: sign in, the worklist, a study, and what may be asked for there besides its report.

Knows forms and addresses. Does not know what a page is made of (`study_page`, `worklist`) nor any rule. Everything works
without a script.
"""

from __future__ import annotations

import uuid
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BeforeValidator

from gateway.web import auth, problems
from gateway.web.auth import Act, Look, Visitor
from gateway.web.context import Door
from gateway.web.report_pages import keep_after_sign_in
from gateway.web.studies_api import Short, Uid
from gateway.web.study_page import Kept, study_page
from gateway.web.templating import page
from gateway.web.worklist import Filters, list_studies
from record import audit, conflicts, readings, reports, studies
from record.access import Action, may
from record.conflicts import MAX_REASON
from record.db import transaction
from record.errors import CountersignError, NotAuthenticated, NotFound
from record.models import Reading, Study
from record.states import Lane, ReadingState, ReportState, StudyState

router = APIRouter(include_in_schema=False)
PAGE_ROWS = 50
_Any = BeforeValidator(lambda chosen: chosen or None)
"""A filter form sends what was left open as an empty string."""


@router.get("/sign-in", dependencies=[Depends(auth.public())])
def sign_in_page() -> HTMLResponse:
    """The page to sign in."""
    return page("sign_in.html", problem=None)


@router.post("/sign-in", dependencies=[Depends(auth.public())])
def signed_in(
    request: Request,
    web: Door,
    login: Annotated[str, Form(max_length=200)] = "",
    password: Annotated[str, Form(max_length=1000)] = "",
    report_id: Annotated[uuid.UUID | None, Form()] = None,
    text: Annotated[str, Form()] = "",
    seen: Annotated[int, Form(ge=0, le=1_000_000)] = 0,
) -> Response:
    """Sign in; a text that came with an expired session is back in the editor afterwards."""
    auth.require_own_origin(request)
    try:
        if "\x00" in login:
            message = "The login or the password is wrong, or the account is locked."
            raise NotAuthenticated(message)
        visitor, secret = auth.sign_in(web, login, password)
    except NotAuthenticated as error:
        problem = problems.of_error(error)
        if report_id is not None:
            return page("kept.html", status=401, problem=problem, report_id=report_id, text=text, seen=seen, csrf=None)
        return page("sign_in.html", status=401, problem=problem)
    answer: Response = (
        keep_after_sign_in(web, visitor, report_id, text, seen) if report_id else RedirectResponse("/", 303)
    )
    auth.set_cookie(answer, request, secret, web.settings)
    return answer


@router.post("/sign-out", dependencies=[Depends(Act(None))])
def signed_out(request: Request) -> Response:
    """Sign out."""
    answer = RedirectResponse("/sign-in", 303)
    auth.sign_out(request, answer)
    return answer


@router.get("/")
def worklist(
    web: Door,
    visitor: Annotated[Visitor, Depends(Look(Action.LIST_STUDIES))],
    state: Annotated[StudyState | None, _Any, Query()] = None,
    reading_state: Annotated[ReadingState | None, _Any, Query()] = None,
    report_state: Annotated[ReportState | None, _Any, Query()] = None,
    modality: Annotated[Short | None, Query()] = None,
    lane: Annotated[Lane | None, _Any, Query()] = None,
    cursor: Annotated[str | None, Query(max_length=300)] = None,
) -> HTMLResponse:
    """The worklist. A page that names patients is an event."""
    by = visitor.principal
    asked = {
        "state": state,
        "reading_state": reading_state,
        "report_state": report_state,
        "modality": (modality or "").strip() or None,
        "lane": lane,
    }
    identified = may(by, Action.READ_IDENTITY)
    with transaction(web.engine) as session:
        rows, after = list_studies(session, by, Filters(**asked), limit=PAGE_ROWS, cursor=cursor)  # type: ignore[arg-type]  # one type a key
        if identified and rows:
            audit.write(session, "worklist_shown", by, count=len(rows), studies=[str(row.study.id) for row in rows])
    chosen = {name: str(value) for name, value in asked.items() if value}
    return page(
        "worklist.html",
        visitor=visitor,
        rows=rows,
        identified=identified,
        chosen=chosen,
        choices={
            "state": [str(s) for s in StudyState],
            "reading_state": [str(s) for s in ReadingState],
            "report_state": [str(s) for s in ReportState],
            "lane": [str(s) for s in Lane],
        },
        first=cursor is None,
        query=urlencode(chosen),
        live=f"/api/v1/studies?{urlencode({**chosen, 'limit': PAGE_ROWS})}",
        older=f"/?{urlencode({**chosen, 'cursor': after})}" if after else None,
    )


@router.get("/studies/{study_instance_uid}")
def study_shown(
    study_instance_uid: Uid,
    web: Door,
    visitor: Annotated[Visitor, Depends(Look(Action.READ_STUDY))],
    done: Annotated[str | None, Query(max_length=32)] = None,
) -> HTMLResponse:
    """A study: pictures, draft, report."""
    return study_page(web, visitor, study_instance_uid, done=done)


@router.post("/studies/{study_instance_uid}/report")
def report_begun(
    study_instance_uid: Uid, web: Door, visitor: Annotated[Visitor, Depends(Act(Action.BEGIN_REPORT))]
) -> Response:
    """Begin a report by hand."""
    try:
        with transaction(web.engine) as session:
            study = studies.find(session, study_instance_uid, visitor.principal)
            reports.begin_by_hand(session, study.id, by=visitor.principal)
    except NotFound:
        raise
    except CountersignError as error:
        return study_page(web, visitor, study_instance_uid, kept=Kept(problems.of_error(error)))
    return RedirectResponse(f"/studies/{study_instance_uid}?done=begun", 303)


@router.post("/studies/{study_instance_uid}/conflicts/{instance_id}")
def conflict_decided(
    study_instance_uid: Uid,
    instance_id: uuid.UUID,
    web: Door,
    visitor: Annotated[Visitor, Depends(Act(Action.DECIDE_CONFLICT))],
    keep: Annotated[bool, Form()] = False,
    reason: Annotated[str, Form(max_length=MAX_REASON)] = "",
) -> Response:
    """Decide an instance that conflicts in bytes or identity."""
    try:
        with transaction(web.engine) as session:
            conflicts.require_of(session, studies.find(session, study_instance_uid, visitor.principal), instance_id)
            conflicts.decide(session, instance_id, keep=keep, by=visitor.principal, reason=reason)
    except NotFound:
        raise
    except CountersignError as error:
        return study_page(web, visitor, study_instance_uid, kept=Kept(problems.of_error(error)))
    return RedirectResponse(f"/studies/{study_instance_uid}?done=decided", 303)


@router.post("/readings/{reading_id}/retry")
def reading_retried(
    reading_id: uuid.UUID, web: Door, visitor: Annotated[Visitor, Depends(Act(Action.RETRY_READING))]
) -> Response:
    """An operator has a failed or abstained reading done again."""
    with transaction(web.engine) as session:
        readings.retry(session, reading_id, by=visitor.principal)
        study_id = session.get_one(Reading, reading_id).study_id
        uid = session.get_one(Study, study_id).study_instance_uid
    return RedirectResponse(f"/studies/{uid}?done=retried", 303)
