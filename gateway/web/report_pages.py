"""A report's forms: save, declare preliminary, sign, cancel. Whatever happens, what somebody typed is on the answer's page.

Knows forms and addresses. Does not know any rule of a report's life: the verbs refuse, and the page says so.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from gateway.web import problems
from gateway.web.auth import Act, ActWithText, Look, TextKept, Visitor, client_address
from gateway.web.context import Door, Web
from gateway.web.languages import english
from gateway.web.reports_api import save_text, sign
from gateway.web.schemas import SignatureRequest
from gateway.web.study_page import Kept, page_of_report, signing_page, study_of
from gateway.web.templating import page
from record import reports
from record.access import Action
from record.accounts import Refusal
from record.db import transaction
from record.errors import CountersignError, IllegalMove, InvalidRequest, NotAuthenticated, NotFound, NotPermitted
from record.states import Guard, ReportState

SIGNED_IN_AGAIN = english("Signed in again")
WRONG_PASSWORD = english("The password was wrong")
SESSION_OVER = english("Your session is over")
SIGN_IN_BELOW = "Sign in below: your text is kept."
OTHER_SESSION = "This page belongs to another session, or you may not save. Sign in below: your text is kept."
NOTHING_SIGNED = "Nothing is signed, and the text is saved as it stands here. Type your password again."
REPLACED = english("The report was replaced")
REPLACED_BY_DRAFT = english(
    "While you wrote, the machine read newer images, and its new draft took the place of the one you opened. Your text is "
    "kept on this page: copy from it what you need."
)
router = APIRouter(include_in_schema=False, prefix="/reports")
Count = Annotated[int, Form(ge=0, le=1_000_000)]


def install(app: FastAPI) -> None:
    """Answer an editor's form whose session is over with the text still on the page."""
    app.add_exception_handler(TextKept, _text_kept)


@router.post("/{report_id}/text")
def text_saved(
    report_id: uuid.UUID,
    request: Request,
    web: Door,
    visitor: Annotated[Visitor, Depends(ActWithText(Action.SAVE_REPORT))],
    seen: Count,
    text: Annotated[str, Form()] = "",
    then: Annotated[Literal["stay", "preliminary", "sign"], Form()] = "stay",
) -> Response:
    """Save the editor's text, and go on to what was asked for: nothing, preliminary, or the page to sign on."""
    try:
        if "\x00" in text:
            message = "The text contains control characters."
            raise InvalidRequest(message)
        number = save_text(web, report_id, text, by=visitor, seen=seen)
        uid = study_of(web, visitor, report_id)
    except NotFound:
        raise
    except CountersignError as error:
        kept = Kept(_refused(error), text, report_id=report_id, seen=seen)
        return page_of_report(request, web, visitor, report_id, kept)
    except SQLAlchemyError as error:
        if not problems.is_database_away(error):
            raise
        return kept_page(request, problems.of_away(), report_id, text, seen, csrf=visitor.csrf)
    if then == "sign":
        return RedirectResponse(f"/reports/{report_id}/sign", 303)
    if then == "preliminary":
        try:
            with transaction(web.engine) as session:
                reports.declare_preliminary(session, report_id, by=visitor.principal, seen=number)
        except CountersignError as error:
            return page_of_report(request, web, visitor, report_id, Kept(problems.of_error(error)))
        return RedirectResponse(f"/studies/{uid}?done=preliminary", 303)
    return RedirectResponse(f"/studies/{uid}?done=saved", 303)


@router.get("/{report_id}/sign")
def signing_shown(
    report_id: uuid.UUID, request: Request, web: Door, visitor: Annotated[Visitor, Depends(Look(Action.SIGN_REPORT))]
) -> Response:
    """The page to sign on."""
    return signing_page(request, web, visitor, report_id)


@router.post("/{report_id}/sign")
def signed(
    report_id: uuid.UUID,
    request: Request,
    web: Door,
    visitor: Annotated[Visitor, Depends(Act(Action.SIGN_REPORT))],
    seen: Count,
    shown: Count,
    password: Annotated[str, Form(max_length=1000)] = "",
    reason: Annotated[str, Form(max_length=2000)] = "",
) -> Response:
    """Sign exactly what the page showed."""
    reasons = {Guard.NEW_IMAGES: reason} if reason.strip() else {}
    try:
        asked = _signature(seen, shown, password, reasons)
        sign(web, report_id, asked, by=visitor, address=client_address(request))
        uid = study_of(web, visitor, report_id)
    except NotFound:
        raise
    except NotAuthenticated as error:
        if error.facts.get("reason_code") == Refusal.SESSION_ENDED:
            return RedirectResponse("/sign-in", 303)
        wrong = problems.of_error(error) | {"title": WRONG_PASSWORD, "detail": NOTHING_SIGNED}
        return signing_page(request, web, visitor, report_id, kept=Kept(wrong, reason=reason, seen=seen))
    except CountersignError as error:
        kept = Kept(problems.of_error(error), reason=reason, seen=seen)
        return signing_page(request, web, visitor, report_id, kept=kept)
    return RedirectResponse(f"/studies/{uid}?done=signed", 303)


@router.post("/{report_id}/cancel")
def cancelled(
    report_id: uuid.UUID,
    request: Request,
    web: Door,
    visitor: Annotated[Visitor, Depends(Act(Action.CANCEL_REPORT))],
    seen: Count,
    reason: Annotated[str, Form(max_length=2000)] = "",
) -> Response:
    """Cancel an unsigned report, with a reason."""
    try:
        uid = study_of(web, visitor, report_id)
        with transaction(web.engine) as session:
            reports.cancel(session, report_id, by=visitor.principal, seen=seen, reason=reason.replace("\x00", ""))
    except NotFound:
        raise
    except CountersignError as error:
        return page_of_report(request, web, visitor, report_id, Kept(problems.of_error(error), reason=reason))
    return RedirectResponse(f"/studies/{uid}?done=cancelled", 303)


def keep_after_sign_in(
    request: Request, web: Web, visitor: Visitor, report_id: uuid.UUID, text: str, seen: int
) -> HTMLResponse:
    """The editor again, with the text that an expired session had left, not yet saved."""
    again = problems.describe(200, "kept", "You are signed in again. Your text below is not saved yet.")
    again["title"] = SIGNED_IN_AGAIN
    try:
        return page_of_report(request, web, visitor, report_id, Kept(again, text, report_id=report_id, seen=seen))
    except CountersignError as error:
        return kept_page(request, problems.of_error(error), report_id, text, seen, csrf=visitor.csrf)


def kept_page(
    request: Request, problem: dict[str, object], report_id: uuid.UUID, text: str, seen: int, *, csrf: str | None
) -> HTMLResponse:
    """A page that needs no database: what went wrong, the text, and the way to try again. Without csrf: sign in first."""
    status = int(str(problem["status"]))
    return page(
        "kept.html",
        request=request,
        status=status,
        problem=problem,
        report_id=report_id,
        text=text,
        seen=seen,
        csrf=csrf,
    )


def _text_kept(request: Request, error: Exception) -> Response:
    assert isinstance(error, TextKept)  # noqa: S101  for the type checker: Starlette looked at the type
    if isinstance(error.error, SQLAlchemyError):
        problem = problems.of_unexpected(request, error.error)
    else:
        problem = problems.of_error(error.error)
    if not problems.wants_page(request):
        return problems.answer(request, problem)
    if isinstance(error.error, NotAuthenticated):
        problem |= {"title": SESSION_OVER, "detail": SIGN_IN_BELOW}
    elif isinstance(error.error, NotPermitted):
        problem |= {"detail": OTHER_SESSION}
    try:
        report_id = uuid.UUID(str(request.path_params.get("report_id")))
    except ValueError:
        return problems.answer(request, problem)
    return kept_page(request, problem, report_id, error.text, error.seen, csrf=error.csrf or None)


def _refused(error: CountersignError) -> dict[str, Any]:
    problem = problems.of_error(error)
    if isinstance(error, IllegalMove) and error.facts.get("state") == ReportState.SUPERSEDED:
        problem |= {"title": REPLACED, "detail": REPLACED_BY_DRAFT}
    return problem


def _signature(seen: int, shown: int, password: str, reasons: dict[Guard, str]) -> SignatureRequest:
    try:
        return SignatureRequest.model_validate({"seen": seen, "shown": shown, "password": password, "reasons": reasons})
    except ValidationError:
        message = "The reason contains characters that cannot be kept."
        raise InvalidRequest(message) from None
