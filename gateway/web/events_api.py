"""The API's audit: events in the order of their seals.

Knows how events are paged. Does not know what they mean. Reading the audit is itself an event.
"""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from gateway.web.auth import Visitor, allow
from gateway.web.context import Door
from gateway.web.problems import answers
from gateway.web.schemas import EventPage, EventShown, Limit
from record import audit, studies
from record.access import Action, Principal, visible_events
from record.db import transaction
from record.models import Event, Seal, Study

router = APIRouter(prefix="/api/v1", tags=["audit"])
_NAMES = EventShown.model_fields.keys() - {"position", "hash", "study_instance_uid"}
_LAST = 2**63 - 1


@router.get("/events", responses=answers(404), summary="Read the audit")
def events_listed(
    web: Door,
    by: Annotated[Visitor, Depends(allow(Action.READ_AUDIT))],
    study_instance_uid: Annotated[
        str | None, Query(pattern=r"^[^\x00]{1,128}$", description="Only what tells of this one study.")
    ] = None,
    kind: Annotated[
        str | None, Query(pattern=r"^[a-z_]{1,64}$", description="Only this kind.", examples=["report_signed"])
    ] = None,
    limit: Annotated[Limit, Query(description="Events a page.")] = 100,
    cursor: Annotated[int, Query(ge=0, le=_LAST, description="`position` of the last event you have.")] = 0,
) -> EventPage:
    """The site's events after `cursor`, oldest first: ids, codes, counts and hashes, never words.

    Their order is that of the seals, which has no gaps over all sites and grows at the end only: keep the last `position`
    and ask again to miss nothing. An event is here once it is sealed, a second or so after it happened. A list that was
    shown or a search names its studies in `facts`, not in `study_id`.
    """
    with transaction(web.engine) as session:
        about = studies.find(session, study_instance_uid, by.principal).id if study_instance_uid is not None else None
        wanted = events_asked(by.principal, about, kind).where(Seal.position > cursor).order_by(Seal.position)
        items, more = read_events(session, by.principal, wanted, limit, about=about, only=kind)
    return EventPage(items=items, next=items[-1].position if more else None)


def events_asked(by: Principal, about: uuid.UUID | None, kind: str | None) -> Select[Event, int, str, str]:
    """The sealed events that `by` may see, all or those of one study or one kind."""
    statement = (
        visible_events(select(Event, Seal.position, Seal.hash, Study.study_instance_uid), by)
        .join(Seal, Seal.event_id == Event.id)
        .outerjoin(Study, Study.id == Event.study_id)
    )
    wanted = [Event.kind == kind] if kind is not None else []
    wanted += [Event.study_id == about] if about is not None else []
    return statement.where(*wanted)


def read_events(
    session: Session,
    by: Principal,
    wanted: Select[Event, int, str, str],
    limit: int,
    *,
    about: uuid.UUID | None,
    only: str | None,
) -> tuple[list[EventShown], bool]:
    """So many of the wanted events, and whether there are more; reading them is an event."""
    found = session.execute(wanted.limit(limit + 1)).all()
    items = [
        EventShown(
            position=position, hash=seal, study_instance_uid=uid, **{name: getattr(event, name) for name in _NAMES}
        )
        for event, position, seal, uid in found[:limit]
    ]
    if items:
        ends = sorted((items[0].position, items[-1].position))
        audit.write(session, "audit_read", by, study_id=about, count=len(items), first=ends[0], last=ends[1], only=only)
    return items, len(found) > limit
