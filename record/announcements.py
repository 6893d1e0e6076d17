"""Announcements: what peers say a study consists of, as evidence that it is complete.

Knows how messages about one procedure step go together, whichever came first. Does not know DICOM's form of them, nor when a
study is closed (`studies`): it only says when everything that was announced is here.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Text, any_, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from record.models import Announcement, Instance, Study
from record.peers import sender_of
from record.states import AnnouncementKind, StudyState

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
    about = {uid for one in _about(session, told) for uid in one.study_instance_uids}
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
    rows = session.scalars(
        select(Announcement)
        .where(
            Announcement.site_id == study.site_id, Announcement.study_instance_uids.contains([study.study_instance_uid])
        )
        .order_by(Announcement.received_at, Announcement.id)
    ).all()
    if not rows:
        return
    steps = {row.sop_instance_uid for row in rows}
    told = session.scalars(
        select(Announcement)
        .where(
            Announcement.site_id == study.site_id, Announcement.sop_instance_uid == any_(cast(list(steps), ARRAY(Text)))
        )
        .order_by(Announcement.received_at, Announcement.id)
    ).all()
    statuses: dict[str, str] = {}
    listed: dict[str, list[str]] = defaultdict(list)
    for one in told:
        statuses[one.sop_instance_uid] = one.status or statuses.get(one.sop_instance_uid, "")
        listed[one.sop_instance_uid] = one.instance_uids or listed[one.sop_instance_uid]
    wanted = {uid for uids in listed.values() for uid in uids}
    is_news = study.revision == 0 or any(one.created_at > study.receiving_since for one in told)
    if not wanted or _GOING_ON in statuses.values() or not is_news:
        study.announced_at = None
        return
    here = session.scalar(
        select(func.count(Instance.sop_instance_uid.distinct())).where(
            Instance.study_id == study.id,
            Instance.sop_instance_uid == any_(cast(list(wanted), ARRAY(Text))),
            Instance.erased_at.is_(None),
        )
    )
    study.announced_at = func.now() if here == len(wanted) else None


def _about(session: Session, told: Announcement) -> list[Announcement]:
    """All messages about the same step."""
    same = (Announcement.site_id == told.site_id, Announcement.sop_instance_uid == told.sop_instance_uid)
    return list(session.scalars(select(Announcement).where(*same)))
