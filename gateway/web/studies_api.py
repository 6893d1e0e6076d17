"""The API's studies, and the pictures a reading was made from.

Knows the routes and which opening is an event. Does not know the tables (`worklist`, `opened`) nor the verbs.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.web.auth import Visitor, allow
from gateway.web.context import Door
from gateway.web.opened import show_report, show_study
from gateway.web.problems import NOT_MODIFIED, answers
from gateway.web.schemas import (
    Cursor,
    Decision,
    Limit,
    Moment,
    ReportShown,
    SearchRequest,
    Short,
    StudyPage,
    StudyShown,
)
from gateway.web.tabs import Tab
from gateway.web.worklist import Filters, Search, list_studies, note_shown, search, tag_of
from record import audit, conflicts, readings, reports, studies
from record.access import Action, Principal, may, visible
from record.db import transaction
from record.errors import IllegalMove, InvalidRequest, NotFound
from record.models import Instance, Reading, ReadingPicture, Study
from record.states import Lane, Purpose, ReadingState, ReportState, StudyState
from record.store import Kind

router = APIRouter(prefix="/api/v1", tags=["studies"])
Uid = Annotated[str, Path(pattern=r"^[^\x00]{1,128}$", examples=["1.2.826.0.1.3680043.8.498.1"])]


def filters_asked(
    state: Annotated[StudyState | None, Query()] = None,
    reading_state: Annotated[ReadingState | None, Query()] = None,
    report_state: Annotated[ReportState | None, Query()] = None,
    modality: Annotated[Short | None, Query(examples=["CR"])] = None,
    lane: Annotated[Lane | None, Query()] = None,
    updated_since: Annotated[Moment | None, Query(examples=["2026-01-02T03:04:05Z"])] = None,
    tab: Annotated[Tab | None, Query(description="One of the worklist's tabs; it also sets the order.")] = None,
) -> Filters:
    """The list's filters, as they stand in an address: nothing that belongs to a patient."""
    return Filters(state, reading_state, report_state, modality, lane, updated_since, tab=tab)


Asked = Annotated[Filters, Depends(filters_asked)]
Most = Annotated[Limit, Query(description="Lines a page.")]
From = Annotated[Cursor | None, Query(description="`next` of the page before.")]


@router.get("/studies", response_model=StudyPage, responses={**answers(), 304: NOT_MODIFIED}, summary="List studies")
def studies_listed(
    request: Request,
    web: Door,
    by: Annotated[Visitor, Depends(allow(Action.LIST_STUDIES))],
    filters: Asked,
    limit: Most = 50,
    cursor: From = None,
) -> Any:
    """The worklist, newest change first; patients are named only to those who may see them, and that is an event.

    Send the former `ETag` back as `If-None-Match` to be told that nothing changed (304): that is cheap, and no event.
    """
    with transaction(web.engine) as session:
        headers = _list_headers(session, by, filters, limit, cursor)
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(None, 304, headers)
        rows, after = list_studies(session, by.principal, filters, limit=limit, cursor=cursor)
        note_shown(session, by.principal, rows)
    content = StudyPage(items=[row.item() for row in rows], next=after).model_dump_json()
    return Response(content, 200, headers, media_type="application/json")


@router.head(
    "/studies",
    response_class=Response,
    responses={**answers(), 304: NOT_MODIFIED},
    summary="Whether the list has changed",
)
def studies_watched(
    request: Request,
    web: Door,
    by: Annotated[Visitor, Depends(allow(Action.LIST_STUDIES))],
    filters: Asked,
    limit: Most = 50,
    cursor: From = None,
) -> Response:
    """The list's `ETag` alone, for whoever only wants to know whether something changed: no line is sent, so no event."""
    with transaction(web.engine) as session:
        headers = _list_headers(session, by, filters, limit, cursor)
    unchanged = request.headers.get("if-none-match") == headers["ETag"]
    return Response(None, 304 if unchanged else 200, headers)


@router.post("/studies/search", responses=answers(body=True), summary="Search studies by patient, number or date")
def studies_searched(
    asked: SearchRequest, web: Door, by: Annotated[Visitor, Depends(allow(Action.SEARCH_STUDIES))]
) -> StudyPage:
    """Studies by what belongs to a patient: in the body, so that it stands in no address and no log.

    Each word of `patient_name` must begin a word of the name, in any order and case. `patient_id` and
    `accession_number` are compared as they stand, or as a beginning with `*` at the end. Days are inclusive. A search for
    nothing is refused: that is the list. Searching is an event, which tells who asked for which fields, never the words.
    """
    if asked.study_date and (asked.study_date_from or asked.study_date_to):
        message = "Send either study_date, or study_date_from and study_date_to."
        raise InvalidRequest(message)
    first, last = asked.study_date or asked.study_date_from, asked.study_date or asked.study_date_to
    wanted = Search(asked.patient_name, asked.patient_id, asked.accession_number, first, last)
    filters = Filters(
        asked.state, asked.reading_state, asked.report_state, asked.modality, asked.lane, asked.updated_since, wanted
    )
    with transaction(web.engine) as session:
        rows, after = search(session, by.principal, filters, limit=asked.limit, cursor=asked.cursor)
    return StudyPage(items=[row.item() for row in rows], next=after)


@router.get("/studies/{study_instance_uid}", responses=answers(404), summary="Open a study")
def study_shown(
    study_instance_uid: Uid, web: Door, by: Annotated[Visitor, Depends(allow(Action.READ_STUDY))]
) -> StudyShown:
    """A study with its revisions, series, readings, drafts and reports, as far as the role may see them.

    Opening is an event.
    """
    with transaction(web.engine) as session:
        study = studies.find(session, study_instance_uid, by.principal)
        shown = show_study(session, study, by.principal)
        note_opening(session, study, by.principal)
    return shown


@router.post("/studies/{study_instance_uid}/close", responses=answers(404, "illegal_move"), summary="Close a study")
def study_closed(
    study_instance_uid: Uid, web: Door, by: Annotated[Visitor, Depends(allow(Action.CLOSE_STUDY))]
) -> StudyShown:
    """Say that a study which is still receiving is complete now: its images are frozen and its reading is queued."""
    with transaction(web.engine) as session:
        study = studies.find(session, study_instance_uid, by.principal)
        studies.close(session, study.id, by=by.principal)
        return _as_it_stands(session, study, by)


@router.post(
    "/studies/{study_instance_uid}/retry", responses=answers(404, "illegal_move"), summary="Read a study again"
)
def study_retried(
    study_instance_uid: Uid, web: Door, by: Annotated[Visitor, Depends(allow(Action.RETRY_READING))]
) -> StudyShown:
    """Have the current primary reading done again, which failed or abstained."""
    with transaction(web.engine) as session:
        study = studies.find(session, study_instance_uid, by.principal)
        studies.lock(session, study.id, by.principal)
        reading_id = studies.retriable(session, study)
        if (state := session.get_one(Reading, reading_id).state) not in {ReadingState.FAILED, ReadingState.ABSTAINED}:
            message = f"Only a reading that failed or abstained is done again; this one is {state}."
            raise IllegalMove(message, state=state)
        readings.retry(session, reading_id, by=by.principal)
        return _as_it_stands(session, study, by)


@router.post(
    "/studies/{study_instance_uid}/read", responses=answers(404, "illegal_move"), summary="Read a skipped study"
)
def study_taken_up(
    study_instance_uid: Uid, web: Door, by: Annotated[Visitor, Depends(allow(Action.CLOSE_STUDY))]
) -> StudyShown:
    """Have a skipped study read: its images are no priors any more, and it closes anew after its quiet time."""
    with transaction(web.engine) as session:
        study = studies.find(session, study_instance_uid, by.principal)
        studies.read_skipped(session, study.id, by=by.principal)
        return _as_it_stands(session, study, by)


@router.post(
    "/studies/{study_instance_uid}/report",
    status_code=201,
    responses=answers(404, "conflict", "illegal_move"),
    summary="Begin a report by hand",
)
def report_begun(
    study_instance_uid: Uid, response: Response, web: Door, by: Annotated[Visitor, Depends(allow(Action.BEGIN_REPORT))]
) -> ReportShown:
    """A physician begins an empty report by hand: the reading abstained or failed, or the study was skipped."""
    with transaction(web.engine) as session:
        study = studies.find(session, study_instance_uid, by.principal)
        report = reports.begin_by_hand(session, study.id, by=by.principal)
        session.flush()
        session.refresh(report)
        shown = show_report(session, report, by.principal)
    response.headers["Location"] = f"/api/v1/reports/{shown.id}"
    return shown


@router.post(
    "/studies/{study_instance_uid}/conflicts/{instance_id}",
    responses=answers(404, "illegal_move", body=True),
    summary="Decide a conflict",
)
def conflict_decided(
    study_instance_uid: Uid,
    instance_id: uuid.UUID,
    asked: Decision,
    web: Door,
    by: Annotated[Visitor, Depends(allow(Action.DECIDE_CONFLICT, of_people=True))],
) -> StudyShown:
    """Decide an instance that conflicts in bytes or identity; keeping it changes the study's set of images.

    What was decided stays in `decided_conflicts`; it is taken back by deciding anew. Only people decide, so this takes a
    session, no token.
    """
    with transaction(web.engine) as session:
        study = studies.find(session, study_instance_uid, by.principal)
        conflicts.require_of(session, study, instance_id)
        conflicts.decide(
            session, instance_id, keep=asked.keep, by=by.principal, reason=asked.reason, overrules=asked.overrules
        )
        return _as_it_stands(session, study, by)


@router.get(
    "/pictures/{sha256}",
    response_class=Response,
    responses={**answers(404), 304: NOT_MODIFIED, 200: {"content": {"image/png": {}}}},
    summary="A picture the model saw",
)
def picture_served(
    sha256: Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", examples=["9f" * 32])],
    request: Request,
    web: Door,
    by: Annotated[Visitor, Depends(allow(Action.READ_PICTURE))],
) -> Response:
    """A picture exactly as the model saw it (PNG). Serving one is an event."""
    headers = {"ETag": f'"{sha256}"', "Cache-Control": "private, no-cache"}
    with transaction(web.engine) as session:
        found = session.execute(
            visible(select(Reading), by.principal)
            .join(ReadingPicture, ReadingPicture.reading_id == Reading.id)
            .join(Instance, (Instance.id == ReadingPicture.instance_id) & Instance.erased_at.is_(None))
            .where(ReadingPicture.sha256 == sha256, Reading.purpose != Purpose.SHADOW)
            .limit(1)
        ).scalar()
        if found is None:
            message = "There is no such picture."
            raise NotFound(message)
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(None, 304, headers)
        with web.store.open(Kind.PICTURE, sha256) as stored:
            content = stored.read()
        audit.write(
            session, "picture_served", by.principal, study_id=found.study_id, reading_id=found.id, sha256=sha256
        )
    return Response(content, 200, headers, media_type="image/png")


def note_opening(session: Session, study: Study, by: Principal, **facts: Any) -> None:
    """Opening what belongs to a patient is an event, written before the bytes go out."""
    audit.write(session, "study_opened", by, study_id=study.id, revision=study.revision, **facts)


def _as_it_stands(session: Session, study: Study, by: Visitor) -> StudyShown:
    """The study as whoever changed it may see it: that is an opening too."""
    session.flush()
    session.refresh(study)
    note_opening(session, study, by.principal)
    return show_study(session, study, by.principal)


def _list_headers(session: Session, by: Visitor, filters: Filters, limit: int, cursor: str | None) -> dict[str, str]:
    """The page's tag; what names patients is kept nowhere."""
    kept = "no-store" if may(by.principal, Action.READ_IDENTITY) else "private, no-cache"
    tag = tag_of(session, by.principal, filters, limit=limit, cursor=cursor)
    return {"ETag": tag, "Cache-Control": kept}
