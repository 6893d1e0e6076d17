"""The auditor's page: what happened, the newest first, and who did it.

Knows a form, addresses and how an actor is named. Does not know what an event means, nor how events are found (`events_api`).
It works without a script.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BeforeValidator, StringConstraints
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.web import problems
from gateway.web.auth import Look, Visitor
from gateway.web.context import Door
from gateway.web.events_api import events_asked, read_events
from gateway.web.schemas import EventShown
from gateway.web.templating import page
from record import studies
from record.access import Action
from record.db import transaction
from record.errors import NotFound
from record.models import Seal, Token, User

router = APIRouter(include_in_schema=False)
_ROWS = 100
_LAST = 2**63 - 1
_Any = BeforeValidator(lambda chosen: chosen or None)
_Uid = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[^\x00]{0,128}$")]
_Kind = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[a-z_]{0,64}$")]


@router.get("/audit")
def audit_shown(
    request: Request,
    web: Door,
    visitor: Annotated[Visitor, Depends(Look(Action.READ_AUDIT))],
    study_instance_uid: Annotated[_Uid | None, _Any, Query()] = None,
    kind: Annotated[_Kind | None, _Any, Query()] = None,
    before: Annotated[int | None, _Any, Query(ge=0, le=_LAST)] = None,
) -> HTMLResponse:
    """The site's events, the newest first, of all studies or one. Reading them is itself an event."""
    by, problem = visitor.principal, None
    found: list[EventShown] = []
    more = False
    with transaction(web.engine) as session:
        try:
            about = studies.find(session, study_instance_uid, by).id if study_instance_uid else None
        except NotFound as error:
            problem = problems.of_error(error)
        else:
            wanted = events_asked(by, about, kind).order_by(Seal.position.desc())
            if before is not None:
                wanted = wanted.where(Seal.position < before)
            found, more = read_events(session, by, wanted, _ROWS, about=about, only=kind)
        names = _names(session, found)
    asked = {"study_instance_uid": study_instance_uid, "kind": kind}
    kept = {name: value for name, value in asked.items() if value}
    return page(
        "audit.html",
        request=request,
        status=404 if problem else 200,
        visitor=visitor,
        problem=problem,
        events=found,
        names=names,
        asked=kept,
        older="/audit?" + urlencode({**kept, "before": found[-1].position}) if more else None,
        first="/audit?" + urlencode(kept) if before is not None else None,
    )


def _names(session: Session, events: Iterable[EventShown]) -> Mapping[uuid.UUID, str]:
    """What people and tokens are called, by their id."""
    ids = {event.actor_id for event in events} - {None}
    people = session.execute(select(User.id, User.printed_name).where(User.id.in_(ids))).all()
    machines = session.execute(select(Token.id, Token.name).where(Token.id.in_(ids))).all()
    return {row[0]: row[1] for row in (*people, *machines)}
