"""The worklist's page: tabs, filters, a search whose words stand in no address, and what keeps the page live.

Knows forms, addresses and the tag of what is shown. Does not know the query (`worklist`, `tabs`) nor any rule. All of it
works without a script; with one the page asks for itself again, in the background, and is told 304 while nothing moved.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BeforeValidator, StringConstraints
from sqlalchemy.orm import Session

from gateway.web import languages, problems, worklist
from gateway.web.auth import Act, Look, Visitor
from gateway.web.context import Door
from gateway.web.hands import in_hands_of
from gateway.web.image_counts import count_images
from gateway.web.tabs import WORK, Tab
from gateway.web.templating import appearance_of, page
from gateway.web.worklist import Filters, Row, Search
from record import sessions
from record.access import Action, Principal, may
from record.db import transaction
from record.errors import InvalidRequest
from record.states import Lane, ReadingState, ReportState, StudyState

router = APIRouter(include_in_schema=False)
PAGE_ROWS = 50
COUNTED = (Tab.TO_READ, Tab.NOT_READY, Tab.PRELIMINARY, Tab.ATTENTION)
MOST_COUNTED = 100
"""A tab shows how many studies wait in it, counted no further than this."""
_TITLES: Mapping[Tab, str] = {
    Tab.TO_READ: languages.english("To read"),
    Tab.NOT_READY: languages.english("Not ready"),
    Tab.PRELIMINARY: languages.english("Preliminary"),
    Tab.SIGNED: languages.english("Signed"),
    Tab.ATTENTION: languages.english("Needs attention"),
    Tab.ALL: languages.english("All"),
}
_CHOICES: Mapping[str, Sequence[str]] = {
    "state": [str(s) for s in StudyState],
    "reading_state": [str(s) for s in ReadingState],
    "report_state": [str(s) for s in ReportState],
    "lane": [str(s) for s in Lane],
}
_Any = BeforeValidator(lambda chosen: chosen or None)
"""A form sends what was left open as an empty string."""
_Short = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=64)]
_Uid = Annotated[str, StringConstraints(max_length=128)]
_Cursor = Annotated[str, StringConstraints(max_length=300)]


@router.get("/")
def worklist_shown(
    request: Request,
    web: Door,
    visitor: Annotated[Visitor, Depends(Look(Action.LIST_STUDIES))],
    tab: Annotated[Tab | None, _Any, Query()] = None,
    state: Annotated[StudyState | None, _Any, Query()] = None,
    reading_state: Annotated[ReadingState | None, _Any, Query()] = None,
    report_state: Annotated[ReportState | None, _Any, Query()] = None,
    modality: Annotated[_Short | None, Query()] = None,
    lane: Annotated[Lane | None, _Any, Query()] = None,
    cursor: Annotated[_Cursor | None, Query()] = None,
) -> Response:
    """The worklist. A page that names patients is an event; being told that nothing moved is none."""
    by = visitor.principal
    chosen = _chosen(state=state, reading_state=reading_state, report_state=report_state, modality=modality, lane=lane)
    tab = tab or (Tab.ALL if chosen or not may(by, Action.SAVE_REPORT) else Tab.TO_READ)
    filters = Filters(**chosen, tab=tab)
    with transaction(web.engine) as session:
        counts = _counts(session, by, filters)
        seen = worklist.tag_of(session, by, filters, limit=PAGE_ROWS, cursor=cursor)
        tag = _tag(request, visitor, seen, counts)
        if request.headers.get("if-none-match") == tag:
            return Response(None, 304, {"ETag": tag})
        rows, after = worklist.list_studies(session, by, filters, limit=PAGE_ROWS, cursor=cursor)
        worklist.note_shown(session, by, rows)
        beside = _beside(session, rows, by)
    query = {"tab": str(tab), **{name: str(value) for name, value in chosen.items()}}
    return _page(
        request,
        visitor,
        rows,
        beside,
        tab=tab,
        chosen=chosen,
        counts=counts,
        tag=tag,
        live="/?" + urlencode({**query, "cursor": cursor} if cursor else query),
        first="/?" + urlencode(query) if cursor else None,
        next_page="/?" + urlencode({**query, "cursor": after}) if after else None,
    )


@router.get("/next")
def next_to_read(
    web: Door,
    visitor: Annotated[Visitor, Depends(Look(Action.SAVE_REPORT))],
    after: Annotated[_Uid | None, Query()] = None,
) -> Response:
    """The study that waits longest to be read, but not the one somebody comes from; the worklist if there is none."""
    with transaction(web.engine) as session:
        rows, _ = worklist.list_studies(session, visitor.principal, Filters(tab=Tab.TO_READ), limit=2, cursor=None)
        waiting = [row.study.study_instance_uid for row in rows if row.study.study_instance_uid != after]
    return RedirectResponse(f"/studies/{quote(waiting[0], safe='')}" if waiting else "/", 303)


@router.post("/search")
def search_asked(
    web: Door,
    visitor: Annotated[Visitor, Depends(Act(Action.SEARCH_STUDIES))],
    patient_name: Annotated[_Short, Form()] = "",
    patient_id: Annotated[_Short, Form()] = "",
    accession_number: Annotated[_Short, Form()] = "",
    study_date_from: Annotated[date | None, _Any, Form()] = None,
    study_date_to: Annotated[date | None, _Any, Form()] = None,
) -> Response:
    """Search by what belongs to a patient: the words come in the body, are kept in the session, and stand in no address."""
    search = Search(patient_name, patient_id, accession_number, study_date_from, study_date_to)
    if not search.asked():
        return RedirectResponse("/", 303)
    with transaction(web.engine) as session:
        name = sessions.keep_search(session, _session_of(visitor), search.words())
    return RedirectResponse(f"/search?kept={name}", 303)


@router.get("/search")
def studies_searched(
    request: Request,
    web: Door,
    visitor: Annotated[Visitor, Depends(Look(Action.SEARCH_STUDIES))],
    kept: Annotated[_Short, Query()] = "",
    cursor: Annotated[_Cursor | None, _Any, Query()] = None,
) -> Response:
    """The studies of a search that the session keeps; an address to come back to. Without one, the worklist."""
    by = visitor.principal
    problem = None
    rows: list[Row] = []
    after = None
    with transaction(web.engine) as session:
        words = sessions.kept_search(session, _session_of(visitor), kept)
        if not words:
            return RedirectResponse("/", 303)
        counts = _counts(session, by, Filters())
        try:
            found = Filters(search=Search.of_words(words))
            rows, after = worklist.search(session, by, found, limit=PAGE_ROWS, cursor=cursor)
        except InvalidRequest as error:
            problem = problems.of_error(error)
        beside = _beside(session, rows, by)
    address = "/search?" + urlencode({"kept": kept})
    return _page(
        request,
        visitor,
        rows,
        beside,
        status=422 if problem else 200,
        tab=None,
        chosen={},
        counts=counts,
        words=words,
        problem=problem,
        first=address if cursor else None,
        next_page=address + "&" + urlencode({"cursor": after}) if after else None,
        back=address,
    )


def _session_of(visitor: Visitor) -> uuid.UUID:
    assert visitor.session_id is not None  # noqa: S101  for the type checker: whoever comes to a page has a session
    return visitor.session_id


def _beside(session: Session, rows: Sequence[Row], by: Principal) -> dict[str, object]:
    """What stands beside the rows: how many images each study has, and in whose hands its report is."""
    return {
        "images": count_images(session, [row.study for row in rows]),
        "hands": in_hands_of(session, [row.report for row in rows], by),
    }


def _page(
    request: Request, visitor: Visitor, rows: Sequence[Row], beside: Mapping[str, object], **values: Any
) -> Response:
    tag = values.pop("tag", None)
    tab: Tab | None = values["tab"]
    kept = {name: str(value) for name, value in values["chosen"].items()}
    tabs = [(str(each), _TITLES[each], urlencode({"tab": str(each), **kept})) for each in Tab]
    return page(
        "worklist.html",
        request=request,
        headers={"ETag": tag} if tag else None,
        visitor=visitor,
        rows=rows,
        identified=may(visitor.principal, Action.READ_IDENTITY),
        tabs=tabs,
        in_order_of_work=tab in WORK,
        most=MOST_COUNTED,
        choices=_CHOICES,
        tag=tag,
        **{**beside, "live": None, "words": {}, "problem": None, **values, "chosen": kept},
    )


def _chosen(**asked: Any) -> dict[str, Any]:
    asked["modality"] = (asked["modality"] or "").strip() or None
    return {name: value for name, value in asked.items() if value}


def _counts(session: Session, by: Principal, filters: Filters) -> dict[str, int]:
    return {
        str(tab): worklist.count_up_to(session, by, replace(filters, tab=tab, search=None), MOST_COUNTED)
        for tab in COUNTED
    }


def _tag(request: Request, visitor: Visitor, seen: str, counts: Mapping[str, int]) -> str:
    """The tag of the page as this visitor's browser shows it."""
    about = [
        seen,
        counts,
        languages.language_of(request, visitor.principal.site_id),
        appearance_of(request),
        visitor.csrf,
    ]
    return f'"{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]}"'
