"""Pages: sign in, the worklist, a study, and what may be asked for there besides its report.

Knows forms and addresses. Does not know what a page is made of (`study_page`, `worklist`) nor any rule. Everything works
without a script.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import AwareDatetime
from sqlalchemy.exc import SQLAlchemyError

from gateway.web import auth, problems
from gateway.web.auth import Act, Look, Visitor
from gateway.web.context import Door, Web
from gateway.web.report_pages import keep_after_sign_in, kept_page
from gateway.web.studies_api import Uid
from gateway.web.study_page import Kept, study_page, tag_of_study
from gateway.web.templating import page
from record import conflicts, readings, reports, studies
from record.access import Action
from record.conflicts import MAX_REASON
from record.db import transaction
from record.errors import Busy, CountersignError, NotAuthenticated, NotFound, TooManyTries
from record.models import Reading, Study

router = APIRouter(include_in_schema=False)


@router.get("/sign-in", dependencies=[Depends(auth.public())])
def sign_in_page(request: Request) -> HTMLResponse:
    """The page to sign in. Whoever comes with the cookie of a session that ran out leaves nothing in the browser either."""
    forget = auth.FORGET if auth.COOKIE in request.cookies else {}
    return page("sign_in.html", request=request, headers=forget, problem=None, login="")


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
    """Sign in; a text that came with an expired session is back in the editor afterwards, and on the page whatever fails."""
    auth.require_own_origin(request)
    try:
        if "\x00" in login:
            message = "The login or the password is wrong, or the account is locked."
            raise NotAuthenticated(message)
        visitor, secret = auth.sign_in(request, login, password)
    except (NotAuthenticated, TooManyTries, Busy) as error:
        return _not_signed_in(request, problems.of_error(error), login, report_id, text, seen)
    except SQLAlchemyError as error:
        return _not_signed_in(request, problems.of_unexpected(request, error), login, report_id, text, seen)
    answer: Response = RedirectResponse("/", 303)
    if report_id is not None:
        try:
            answer = keep_after_sign_in(request, web, visitor, report_id, text, seen)
        except SQLAlchemyError as error:
            problem = problems.of_unexpected(request, error)
            answer = kept_page(request, problem, report_id, text, seen, csrf=visitor.csrf)
    auth.set_cookie(answer, request, secret, web.settings)
    return answer


def _not_signed_in(
    request: Request, problem: dict[str, Any], login: str, report_id: uuid.UUID | None, text: str, seen: int
) -> HTMLResponse:
    if report_id is not None:
        return kept_page(request, problem, report_id, text, seen, csrf=None)
    status = int(problem["status"])
    wait = {"Retry-After": problems.retry_after(problem)} if status in {429, 503} else {}
    typed = login.replace("\x00", "")
    return page(
        "sign_in.html", request=request, status=status, headers=wait, back="/sign-in", problem=problem, login=typed
    )


@router.post("/sign-out", dependencies=[Depends(Act(None))])
def signed_out(request: Request) -> Response:
    """Sign out."""
    answer = RedirectResponse("/sign-in", 303)
    auth.sign_out(request, answer)
    return answer


@router.get("/studies/{study_instance_uid}")
def study_shown(
    study_instance_uid: Uid,
    request: Request,
    web: Door,
    visitor: Annotated[Visitor, Depends(Look(Action.READ_STUDY))],
    done: Annotated[str | None, Query(max_length=32)] = None,
) -> HTMLResponse:
    """A study: pictures, draft, report."""
    return study_page(request, web, visitor, study_instance_uid, done=done)


@router.get("/studies/{study_instance_uid}/tag")
def study_watched(
    study_instance_uid: Uid, request: Request, web: Door, visitor: Annotated[Visitor, Depends(Look(Action.READ_STUDY))]
) -> Response:
    """Whether a study has changed since its page was made: nothing of it is sent, so this is no opening."""
    with transaction(web.engine) as session:
        study = studies.find(session, study_instance_uid, visitor.principal)
        tag = tag_of_study(session, study, visitor.principal)
    return Response(None, 304 if request.headers.get("if-none-match") == tag else 204, {"ETag": tag})


@router.post("/studies/{study_instance_uid}/close")
def study_closed(
    study_instance_uid: Uid,
    request: Request,
    web: Door,
    visitor: Annotated[Visitor, Depends(Act(Action.CLOSE_STUDY))],
) -> Response:
    """An operator says that a receiving study is complete."""
    return _operated(request, web, visitor, study_instance_uid, studies.close, "closed")


@router.post("/studies/{study_instance_uid}/read")
def study_taken_up(
    study_instance_uid: Uid,
    request: Request,
    web: Door,
    visitor: Annotated[Visitor, Depends(Act(Action.CLOSE_STUDY))],
) -> Response:
    """An operator has a skipped study read."""
    return _operated(request, web, visitor, study_instance_uid, studies.read_skipped, "taken_up")


@router.post("/studies/{study_instance_uid}/report")
def report_begun(
    study_instance_uid: Uid,
    request: Request,
    web: Door,
    visitor: Annotated[Visitor, Depends(Act(Action.BEGIN_REPORT))],
) -> Response:
    """Begin a report by hand."""
    try:
        with transaction(web.engine) as session:
            study = studies.find(session, study_instance_uid, visitor.principal)
            reports.begin_by_hand(session, study.id, by=visitor.principal)
    except NotFound:
        raise
    except CountersignError as error:
        return study_page(request, web, visitor, study_instance_uid, kept=Kept(problems.of_error(error)))
    return RedirectResponse(f"/studies/{study_instance_uid}?done=begun", 303)


@router.post("/studies/{study_instance_uid}/conflicts/{instance_id}")
def conflict_decided(
    study_instance_uid: Uid,
    instance_id: uuid.UUID,
    request: Request,
    web: Door,
    visitor: Annotated[Visitor, Depends(Act(Action.DECIDE_CONFLICT))],
    keep: Annotated[bool, Form()] = False,
    reason: Annotated[str, Form(max_length=MAX_REASON)] = "",
    overrules: Annotated[AwareDatetime | None, Form()] = None,
) -> Response:
    """Decide an instance that conflicts in bytes or identity, or decide anew."""
    try:
        with transaction(web.engine) as session:
            conflicts.require_of(session, studies.find(session, study_instance_uid, visitor.principal), instance_id)
            conflicts.decide(session, instance_id, keep=keep, by=visitor.principal, reason=reason, overrules=overrules)
    except NotFound:
        raise
    except CountersignError as error:
        return study_page(request, web, visitor, study_instance_uid, kept=Kept(problems.of_error(error)))
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


def _operated(
    request: Request, web: Web, visitor: Visitor, study_instance_uid: str, verb: Callable[..., None], done: str
) -> Response:
    try:
        with transaction(web.engine) as session:
            verb(session, studies.find(session, study_instance_uid, visitor.principal).id, by=visitor.principal)
    except NotFound:
        raise
    except CountersignError as error:
        return study_page(request, web, visitor, study_instance_uid, kept=Kept(problems.of_error(error)))
    return RedirectResponse(f"/studies/{study_instance_uid}?done={done}", 303)
