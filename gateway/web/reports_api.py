"""The API's reports: read, save, declare preliminary, sign, cancel.

Each route calls one verb of `record.reports` and shows the report as it stands then. Knows no rule of a report's life.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException

from gateway.web.auth import Visitor, allow, client_address, prove_again
from gateway.web.context import Door, Web
from gateway.web.opened import show_report
from gateway.web.problems import answers
from gateway.web.schemas import Cancellation, ReportShown, SavedText, Seen, SignatureRequest
from record import audit, reports, written
from record.access import Action
from record.body import Body
from record.db import transaction
from record.errors import InvalidRequest, NotFound
from record.reports import MAX_REASON

router = APIRouter(prefix="/api/v1/reports", tags=["reports"])
_WORDS = "UNSIGNED\n\nFindings:\nThe lungs are clear.\n"


@router.get(
    "/{report_id}",
    response_model=ReportShown,
    responses={**answers(404, "erased"), 200: {"content": {"text/plain": {"example": _WORDS}}}},
    summary="Read a report",
)
def report_shown(
    report_id: uuid.UUID, request: Request, web: Door, by: Annotated[Visitor, Depends(allow(Action.READ_SIGNED))]
) -> Any:
    """A report. Everybody but physicians sees signed words only. `Accept: text/plain` gives the words with their banner.

    Reading one is an event.
    """
    with transaction(web.engine) as session:
        report = reports.find(session, report_id, by.principal)
        shown = show_report(session, report, by.principal)
        wants_words = request.headers.get("accept", "").startswith("text/plain")
        if wants_words and shown.labelled_text is None:
            if shown.erased:
                raise HTTPException(410)
            message = "The report has no words for you to see yet."
            raise NotFound(message)
        audit.write(
            session,
            "report_shown",
            by.principal,
            study_id=report.study_id,
            report_id=report.id,
            revision=shown.text_revision,
        )
    return PlainTextResponse(shown.labelled_text) if wants_words else shown


@router.put(
    "/{report_id}/text", responses=answers(404, "stale_revision", "illegal_move", body=True), summary="Save a text"
)
def text_saved(
    report_id: uuid.UUID, asked: SavedText, web: Door, by: Annotated[Visitor, Depends(allow(Action.SAVE_REPORT))]
) -> ReportShown:
    """Save plain `text` or a structured `body` on top of the revision that was `seen`; newer words are a 409, not lost."""
    if (asked.text is None) == (asked.body is None):
        message = "Send either text or body."
        raise InvalidRequest(message)
    if asked.text is not None:
        save_text(web, report_id, asked.text, by=by, seen=asked.seen)
    else:
        body = written.taken(Body.from_dict(asked.body))  # before anything is locked
        with transaction(web.engine) as session:
            reports.save(session, report_id, body, by=by.principal, seen=asked.seen)
    return _as_it_stands(web, report_id, by)


@router.post(
    "/{report_id}/preliminary",
    responses=answers(404, "stale_revision", "illegal_move", "conflict", body=True),
    summary="Declare a report preliminary",
)
def declared_preliminary(
    report_id: uuid.UUID, asked: Seen, web: Door, by: Annotated[Visitor, Depends(allow(Action.DECLARE_PRELIMINARY))]
) -> ReportShown:
    """Declare the text that was seen a preliminary report."""
    return _changed(
        web, report_id, by, lambda s: reports.declare_preliminary(s, report_id, by=by.principal, seen=asked.seen)
    )


@router.post(
    "/{report_id}/cancel",
    responses=answers(404, "stale_revision", "illegal_move", body=True),
    summary="Cancel a report",
)
def cancelled(
    report_id: uuid.UUID, asked: Cancellation, web: Door, by: Annotated[Visitor, Depends(allow(Action.CANCEL_REPORT))]
) -> ReportShown:
    """Cancel an unsigned report, with a reason."""
    return _changed(
        web,
        report_id,
        by,
        lambda s: reports.cancel(s, report_id, by=by.principal, seen=asked.seen, reason=asked.reason[:MAX_REASON]),
    )


@router.post("/{report_id}/sign", responses=answers(404, 409, body=True), summary="Sign a report")
def signed(
    report_id: uuid.UUID,
    asked: SignatureRequest,
    request: Request,
    web: Door,
    by: Annotated[Visitor, Depends(allow(Action.SIGN_REPORT))],
) -> ReportShown:
    """Sign exactly the text that was seen, beside the images that were shown; the password proves who signs."""
    sign(web, report_id, asked, by=by, address=client_address(request))
    return _as_it_stands(web, report_id, by)


def save_text(web: Web, report_id: uuid.UUID, text: str, *, by: Visitor, seen: int) -> int:
    """Save a plain text on top of the revision that was seen; returns the report's revision."""
    body = written.read(text)  # before anything is locked
    with transaction(web.engine) as session:
        return reports.save(session, report_id, body, by=by.principal, seen=seen).number


def sign(web: Web, report_id: uuid.UUID, asked: SignatureRequest, *, by: Visitor, address: str) -> None:
    """Prove the password in a transaction of its own, then sign."""
    secret = asked.password.get_secret_value()
    proof = prove_again(web, by, secret, address=address)
    with transaction(web.engine) as session:
        reports.sign(
            session, report_id, by=by.principal, seen=asked.seen, shown=asked.shown, proof=proof, reasons=asked.reasons
        )


def _changed(web: Web, report_id: uuid.UUID, by: Visitor, verb: Callable[[Session], object]) -> ReportShown:
    with transaction(web.engine) as session:
        verb(session)
    return _as_it_stands(web, report_id, by)


def _as_it_stands(web: Web, report_id: uuid.UUID, by: Visitor) -> ReportShown:
    with transaction(web.engine) as session:
        return show_report(session, reports.find(session, report_id, by.principal), by.principal)
