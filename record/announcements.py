"""Announcements: what peers say a study consists of, as evidence that it is complete.

Knows how messages about one procedure step go together, whichever came first. Does not know DICOM's form of them, nor when a
study is closed (`studies`): it only says when everything that was announced is here.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Text, any_, cast, delete, exists, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from record.models import Announcement, Instance, Study
from record.peers import sender_of
from record.states import AnnouncementKind, StudyState

KEEP_DAYS = 90
_DELETED_AT_ONCE = 1000
_GOING_ON = "IN PROGRESS"


def note(session: Session, notice_id: uuid.UUID, notice: Mapping[str, Any]) -> None:
    """Keep what a peer told, once, and look at the studies that it is about.

    Raises
    ------
    NotFound
        The peer is no more, nor another of its title and address.
    """
    peer = sender_of(session, notice)
    if session.get(Announcement, notice_id) is not None:
        return
    told = Announcement(
        id=notice_id,
        site_id=peer.site_id,
        peer_id=peer.id,
        kind=AnnouncementKind(notice["kind"]),
        sop_instance_uid=str(notice["sop_instance_uid"]),
        study_instance_uids=[str(uid) for uid in notice["study_instance_uids"]],
        status=str(notice["status"]),
        instance_uids=[str(uid) for uid in notice["instance_uids"]],
        received_at=datetime.fromisoformat(notice["received_at"]),
    )
    session.add(told)
    session.flush()
    same_step = (Announcement.site_id == told.site_id, Announcement.sop_instance_uid == told.sop_instance_uid)
    about = {
        uid for uids in session.scalars(select(Announcement.study_instance_uids).where(*same_step)) for uid in uids
    }
    for study in session.scalars(
        select(Study)
        .where(
            Study.site_id == peer.site_id,
            Study.study_instance_uid == any_(cast(list(about), ARRAY(Text))),
            Study.state == StudyState.RECEIVING,
        )
        .order_by(Study.id)
        .with_for_update()
    ):
        reconsider(session, study)


def reconsider(session: Session, study: Study) -> None:
    """Say of a locked, receiving study whether everything is here that was announced of it."""
    if (others := _agree(session, study)) is None:
        return
    siblings = select(Study).where(
        Study.site_id == study.site_id,
        Study.study_instance_uid == any_(cast(others, ARRAY(Text))),
        Study.state == StudyState.RECEIVING,
    )  # of one step: its last image may be another study's
    for each in session.scalars(siblings.order_by(Study.id).with_for_update(skip_locked=True)) if others else ():
        _agree(session, each)


def forget_old(session: Session, keep_days: int = KEEP_DAYS) -> None:
    """Delete what was told so long ago that its studies are over, some at a time."""
    old = (
        select(Announcement.id)
        .where(Announcement.created_at < func.now() - func.make_interval(0, 0, 0, keep_days))
        .limit(_DELETED_AT_ONCE)
    )
    session.execute(delete(Announcement).where(Announcement.id.in_(old)))


def _agree(session: Session, study: Study) -> list[str] | None:
    """Say whether everything is here; the other studies of the same steps if so, None if not.

    The lists of instances may be long and are looked at for each batch of images: they stay in the database, and are compared only
    when as many instances are here as the longest has.
    """
    at_site = Announcement.site_id == study.site_id
    about_it = select(Announcement.sop_instance_uid).where(
        at_site, Announcement.study_instance_uids.contains([study.study_instance_uid])
    )
    told = session.execute(
        select(
            *(Announcement.id, Announcement.sop_instance_uid, Announcement.status, Announcement.study_instance_uids),
            Announcement.created_at,
            func.cardinality(Announcement.instance_uids).label("listed"),
        )
        .where(at_site, Announcement.sop_instance_uid.in_(about_it))
        .order_by(Announcement.received_at, Announcement.id)
    ).all()
    if not told:
        return None
    study.announced_at = None
    statuses: dict[str, str] = {}
    last: dict[str, tuple[uuid.UUID, int]] = {}
    for one in told:
        statuses[one.sop_instance_uid] = one.status or statuses.get(one.sop_instance_uid, "")
        if one.listed:
            last[one.sop_instance_uid] = one.id, one.listed
    is_news = study.revision == 0 or any(one.created_at > study.receiving_since for one in told)
    if not last or _GOING_ON in statuses.values() or not is_news:
        return None
    uids = sorted({uid for one in told for uid in one.study_instance_uids})
    of_steps = select(Study.id).where(
        Study.site_id == study.site_id, Study.study_instance_uid == any_(cast(uids, ARRAY(Text)))
    )
    here = session.scalar(select(func.sum(Study.instances)).where(Study.id.in_(of_steps)))
    if (here or 0) < max(listed for _, listed in last.values()):
        return None
    wanted = (
        select(func.unnest(Announcement.instance_uids).label("uid"))
        .where(Announcement.id.in_([row_id for row_id, _ in last.values()]))
        .subquery()
    )
    is_here = exists().where(
        Instance.sop_instance_uid == wanted.c.uid, Instance.study_id.in_(of_steps), Instance.erased_at.is_(None)
    )
    if session.scalar(select(wanted.c.uid).where(~is_here).limit(1)) is not None:
        return None
    study.announced_at = func.now()
    return [uid for uid in uids if uid != study.study_instance_uid]
