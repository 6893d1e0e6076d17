"""The operator's page: what needs a person, parts, queue, failures with a way to have them read again.

Knows forms and addresses. Does not know how a figure is found or what gives cause for an alarm (`record.status`). No
patient is named on it: a study is the end of its UID, its modality and when it came. It works without a script.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from gateway.web import languages
from gateway.web.auth import Act, Look, Visitor
from gateway.web.context import Door
from gateway.web.templating import appearance_of, page
from record import alarms, figures, readings, status
from record.access import Action
from record.db import transaction
from record.errors import IllegalMove, NotFound
from record.states import Lane, ReadingState, ReasonCode
from record.status import Status

router = APIRouter(include_in_schema=False)
MOST_AT_ONCE = 200
"""Readings that one press of a button has read again."""
INCURABLE = frozenset(
    {
        *(ReasonCode.NO_IMAGES, ReasonCode.FETCHED_AS_PRIOR, ReasonCode.NO_PROTOCOL, ReasonCode.NO_USABLE_FRAMES),
        *(ReasonCode.UNDECODABLE, ReasonCode.BLANK_PICTURE, ReasonCode.UNSUPPORTED),
    }
)
"""Reasons that lie in the images themselves: the same images read again end the same way. One alone can still be tried."""
_ROWS = 25
_AGES_S = 30
_STATES = (ReadingState.QUEUED, ReadingState.PREPARING, ReadingState.PREPARED, ReadingState.DRAFTING)
TEXTS = [languages.english(each) for kind in alarms.KINDS.values() for each in (kind.text, kind.remedy) if each] + [
    languages.english(each) for each in (*alarms.ADVICE.values(), alarms.advice(None))
]
"""What this page says besides its template; the catalogues must have it."""


@router.get("/operations")
def operations_shown(
    request: Request,
    web: Door,
    visitor: Annotated[Visitor, Depends(Look(Action.READ_STATUS))],
    retried: Annotated[int | None, Query(ge=0, le=MOST_AT_ONCE)] = None,
) -> Response:
    """The state of the line, and what to do about it; the page asks again by itself, and is told 304 while nothing moved."""
    with transaction(web.engine) as session:
        found = status.read(session, visitor.principal, bell=web.bell, most=_ROWS)
    tag = _tag_of(found, request, visitor)
    if request.headers.get("if-none-match") == tag:
        return Response(None, 304, {"ETag": tag})
    return page(
        "operations.html",
        request=request,
        headers={"ETag": tag},
        visitor=visitor,
        tag=tag,
        line=found,
        lanes=list(Lane),
        states=_STATES,
        waiting={(one.lane, one.state): one for one in found.queue},
        oldest={lane: max((o.oldest_s or 0 for o in found.queue if o.lane == lane), default=0) for lane in Lane},
        busy={one.lane for one in found.queue if one.count},
        incurable=INCURABLE,
        advice=alarms.advice,
        size=alarms.size,
        retried=retried,
        most=MOST_AT_ONCE,
    )


def _tag_of(found: Status, request: Request, visitor: Visitor) -> str:
    """Changes with what is on the page and how this browser shows it, ages aside; they are told anew twice a minute."""
    told = (
        (languages.language_of(request, visitor.principal.site_id), appearance_of(request), visitor.csrf),
        [(one.code, {k: v for k, v in one.values.items() if k not in {"age", "free"}}) for one in found.alarms],
        [(part.kind, part.owner, part.verdict, part.busy, part.model, part.associations) for part in found.parts],
        [(one.lane, one.state, one.count) for one in found.queue],
        [(spool.host, spool.spool, spool.files) for spool in found.spools],
        [(one.reading_id, one.state, one.reported) for one in found.ended],
        [(one.study_instance_uid, one.count) for one in (*found.receiving.studies, *found.conflicting)],
        [(one.state, one.reason_code, one.count, one.unattended) for one in found.reasons],
        (found.studies, found.receiving.count, found.outdated, found.redis, int(found.at.timestamp() // _AGES_S)),
    )
    return f'"{hashlib.sha256(repr(told).encode()).hexdigest()[:32]}"'


@router.post("/operations/retry")
def all_retried(
    web: Door,
    visitor: Annotated[Visitor, Depends(Act(Action.RETRY_READING))],
    state: Annotated[ReadingState, Form()] = ReadingState.FAILED,
    reason_code: Annotated[str, Form(max_length=64, pattern=r"^[a-z_]*$")] = "",
) -> Response:
    """An operator has every reading done again that ended lately for one reason, a transaction each."""
    by = visitor.principal
    with transaction(web.engine) as session:
        found = figures.retriable(session, by, state, reason_code or None, MOST_AT_ONCE)
    done = 0
    for reading_id in found:
        try:
            with transaction(web.engine) as session:
                readings.retry(session, reading_id, by=by)
            done += 1
        except (IllegalMove, NotFound):  # somebody else was quicker, or its study was erased or has newer images
            continue
    return RedirectResponse(f"/operations?retried={done}", 303)
