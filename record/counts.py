"""The peer's own count of a study's instances, as evidence that it is complete.

Knows which studies are to be asked about, when, and what an answer means. Does not know how a peer is asked.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from record import audit
from record.models import Peer, Study
from record.states import StudyState

ASK_AGAIN_S = 15.0
"""A peer that has more than we, or did not answer, is asked again so much later."""


@dataclass(frozen=True, slots=True)
class Question:
    """A study, and the peer to ask about it."""

    study_id: uuid.UUID
    study_instance_uid: str
    host: str
    port: int
    ae_title: str
    speaks_tls: bool
    peer_id: uuid.UUID
    is_first: bool
    """Whether it is asked for the first time since its last image."""
    asked_at: datetime | None


def claim(session: Session, after_s: float) -> Question | None:
    """The next study to ask about: quiet for `after_s`, and not asked about since its last image, or not for a while."""
    quiet = Study.last_image_at + func.make_interval(0, 0, 0, 0, 0, 0, after_s) <= func.now()
    long_ago = Study.count_asked_at + func.make_interval(0, 0, 0, 0, 0, 0, ASK_AGAIN_S) <= func.now()
    row = session.execute(
        select(Study, Peer)
        .join(Peer, Peer.id == Study.peer_id)
        .where(
            Study.state == StudyState.RECEIVING,
            Peer.asks_count,
            Peer.port.is_not(None),
            Peer.address != "",
            quiet,
            Study.count_asked_at.is_(None) | (Study.count_asked_at < Study.last_image_at) | long_ago,
        )
        .order_by(Study.last_image_at)
        .limit(1)
        .with_for_update(skip_locked=True, of=Study)
    ).first()
    if row is None:
        return None
    study, peer = row[0], row[1]
    is_first = study.count_asked_at is None or study.count_asked_at < (study.last_image_at or study.count_asked_at)
    study.count_asked_at = func.now()
    session.flush()
    return Question(
        study_id=study.id,
        study_instance_uid=study.study_instance_uid,
        host=peer.address,
        port=peer.port or 0,
        ae_title=peer.ae_title,
        speaks_tls=peer.speaks_tls,
        peer_id=peer.id,
        is_first=is_first,
        asked_at=study.count_asked_at,
    )


def answered(session: Session, question: Question, count: int | None) -> None:
    """Keep what the peer said: its count, or that it does not know the study or does not count."""
    study = session.get(Study, question.study_id, with_for_update=True)
    if study is None or study.state != StudyState.RECEIVING:
        return
    if count is None:
        _note(session, question, "count_unknown")
        return
    if study.count_asked_at != question.asked_at:
        return  # an answer to an older question
    study.expected_instances = count
    study.expected_at = study.count_asked_at  # an image that came since makes it another question


def unanswered(session: Session, question: Question) -> None:
    """The peer did not answer: it is asked about none of its studies for a while, so that no other peer waits for it."""
    _note(session, question, "count_unanswered")
    session.execute(
        update(Study)
        .where(Study.state == StudyState.RECEIVING, Study.peer_id == question.peer_id)
        .values(count_asked_at=func.now())
    )


def _note(session: Session, question: Question, kind: str) -> None:
    if question.is_first:
        site_id = session.scalar(select(Study.site_id).where(Study.id == question.study_id))
        audit.write(
            session,
            kind,
            site_id=site_id,
            study_id=question.study_id,
            peer_id=question.peer_id,
            ae_title=question.ae_title,
        )
