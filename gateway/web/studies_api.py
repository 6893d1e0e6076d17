"""The API's studies, and the pictures a reading was made from.

Knows the routes and which opening is an event. Does not know the tables (`worklist`, `opened`) nor the verbs.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import AwareDatetime, StringConstraints
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.web.auth import Visitor, allow
from gateway.web.context import Door
from gateway.web.opened import show_report, show_study
from gateway.web.problems import answers
from gateway.web.schemas import Decision, ReportShown, StudyPage, StudyShown
from gateway.web.worklist import MAX_LIMIT, Filters, list_studies
from record import audit, conflicts, reports, studies
from record.access import Action, Principal, visible
from record.db import transaction
from record.errors import NotFound
from record.models import Instance, Reading, ReadingPicture, Study
from record.states import Lane, Purpose, ReadingState, ReportState, StudyState
from record.store import Kind

router = APIRouter(prefix="/api/v1", tags=["studies"])
Uid = Annotated[str, Path(pattern=r"^[^\x00]{1,128}$", examples=["1.2.826.0.1.3680043.8.498.1"])]
Short = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=64)]


@router.get("/studies", response_model=StudyPage, responses={**answers(403), 304: {"description": "Not Modified"}})
def studies_listed(
    request: Request,
    web: Door,
    by: Annotated[Visitor, Depends(allow(Action.LIST_STUDIES))],
    state: Annotated[StudyState | None, Query()] = None,
    reading_state: Annotated[ReadingState | None, Query()] = None,
    report_state: Annotated[ReportState | None, Query()] = None,
    modality: Annotated[Short | None, Query()] = None,
    lane: Annotated[Lane | None, Query()] = None,
    updated_since: Annotated[AwareDatetime | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
    cursor: Annotated[str | None, Query(max_length=300)] = None,
) -> Any:
    """The worklist, newest change first, without patient data. Send the former ETag back to be told that nothing changed."""
    filters = Filters(state, reading_state, report_state, modality, lane, updated_since)
    with transaction(web.engine) as session:
        rows, after = list_studies(session, by.principal, filters, limit=limit, cursor=cursor)
    content = StudyPage(items=[row.item() for row in rows], next=after).model_dump_json().encode()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(None, 304, headers)
    return Response(content, 200, headers, media_type="application/json")


@router.get("/studies/{study_instance_uid}", responses=answers(403, 404))
def study_shown(
    study_instance_uid: Uid, web: Door, by: Annotated[Visitor, Depends(allow(Action.READ_STUDY))]
) -> StudyShown:
    """A study with its revisions, series, readings, drafts and reports, as far as the role may see them."""
    with transaction(web.engine) as session:
        study = studies.find(session, study_instance_uid, by.principal)
        shown = show_study(session, study, by.principal)
        note_opening(session, study, by.principal)
    return shown


@router.post("/studies/{study_instance_uid}/report", status_code=201, responses=answers(403, 404, 409))
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


@router.post("/studies/{study_instance_uid}/conflicts/{instance_id}", responses=answers(403, 404, 409))
def conflict_decided(
    study_instance_uid: Uid,
    instance_id: uuid.UUID,
    asked: Decision,
    web: Door,
    by: Annotated[Visitor, Depends(allow(Action.DECIDE_CONFLICT))],
) -> StudyShown:
    """Decide an instance that conflicts in bytes or identity; keeping it changes the study's set of images."""
    with transaction(web.engine) as session:
        study = studies.find(session, study_instance_uid, by.principal)
        conflicts.require_of(session, study, instance_id)
        conflicts.decide(session, instance_id, keep=asked.keep, by=by.principal, reason=asked.reason)
        session.flush()
        session.refresh(study)
        return show_study(session, study, by.principal)


@router.get(
    "/pictures/{sha256}", response_class=Response, responses={**answers(403, 404), 200: {"content": {"image/png": {}}}}
)
def picture_served(
    sha256: Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")],
    request: Request,
    web: Door,
    by: Annotated[Visitor, Depends(allow(Action.READ_PICTURE))],
) -> Response:
    """A picture exactly as the model saw it (PNG)."""
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
