"""All that was said of a study: every sentence of its drafts and of the texts that were saved, and when.

Knows which rows hold words that a physician may have seen. Does not know what follows from them (`origins`).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from record.body import Origin, Sentence
from record.models import Draft, Reading, Report, ReportRevision
from record.origins import Said
from record.states import Purpose

_MOST = 100
"""So many of the texts that were saved since the newest draft are looked at, the newest first."""
_MOST_BEFORE = 1000
"""And so many of those before it, the oldest first: they tell what a person said before the machine did."""


def of_study(session: Session, report: Report) -> list[Said]:
    """Each text once for each draft and origin, as it was said first. A shadow's draft is none of them: nobody has seen it."""
    drafts = session.execute(
        select(Draft.created_at, Draft.body, Draft.id)
        .join(Reading, Reading.id == Draft.reading_id)
        .where(Draft.study_id == report.study_id, Draft.erased_at.is_(None), Reading.purpose != Purpose.SHADOW)
    ).all()
    saved = (
        select(ReportRevision.created_at, ReportRevision.body, Report.draft_id)
        .join(Report, Report.id == ReportRevision.report_id)
        .where(Report.study_id == report.study_id, ReportRevision.erased_at.is_(None))
    )
    at, newest = ReportRevision.created_at, max((created_at for created_at, _, _ in drafts), default=None)
    since = saved if newest is None else saved.where(at >= newest)
    revisions = list(session.execute(since.order_by(at.desc(), ReportRevision.id.desc()).limit(_MOST)))
    if newest is not None:
        before = saved.where(at < newest).order_by(at, ReportRevision.id).limit(_MOST_BEFORE)
        revisions += session.execute(before)
    told: list[tuple[datetime, str, uuid.UUID | None]] = sorted(
        ((said_at, body, draft) for said_at, body, draft in [*drafts, *revisions]), key=lambda one: one[0]
    )
    first: dict[tuple[object, ...], Said] = {}
    for said_at, body, draft_id in told:
        for value in _sentences(body):
            which = (value["text"], value["origin"], value.get("draft"), draft_id)
            if which not in first:
                first[which] = Said(_named(Sentence.of(value), draft_id, report), said_at)
    return list(first.values())


def _sentences(body: str) -> Iterator[dict[str, str]]:
    for section in json.loads(body)["sections"]:
        yield from section["sentences"]


def _named(sentence: Sentence, draft_id: uuid.UUID | None, report: Report) -> Sentence:
    """The sentence with the draft it came from as this report names it: None is the one that the report was opened from."""
    if sentence.origin is Origin.HUMAN:
        return sentence
    named = sentence.draft or (str(draft_id) if draft_id else None)
    return Sentence(
        id=sentence.id,
        text=sentence.text,
        origin=sentence.origin,
        source=sentence.source or sentence.id,
        pictures=sentence.pictures,
        flags=sentence.flags,
        draft=None if report.draft_id and named == str(report.draft_id) else named,
    )
