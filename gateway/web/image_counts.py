"""How many images studies have: what a physician counts, without reports, notes and copies.

Knows the rows that count as images. Does not know pages.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from record.models import Instance, Study, StudyRevision
from record.states import InstanceKind, StudyState


def count_images(session: Session, studies: Iterable[Study]) -> dict[uuid.UUID, int]:
    """How many images each study has: those of its newest revision, or while it is receiving those that have come."""
    coming: list[uuid.UUID] = []
    closed: list[uuid.UUID] = []
    for study in studies:
        (coming if study.state == StudyState.RECEIVING else closed).append(study.id)
    frozen = (
        select(StudyRevision.study_id, StudyRevision.images)
        .join(Study, (Study.id == StudyRevision.study_id) & (Study.revision == StudyRevision.number))
        .where(Study.id.in_(closed))
    )
    counted = (
        select(Instance.study_id, func.count())
        .where(
            Instance.study_id.in_(coming),
            Instance.kind == InstanceKind.IMAGE,
            Instance.duplicate_of_id.is_(None),
            Instance.conflict_of_id.is_(None),
            Instance.rejected.is_(False),
            Instance.erased_at.is_(None),
        )
        .group_by(Instance.study_id)
    )
    return {row[0]: row[1] for query in (frozen, counted) for row in session.execute(query)}
