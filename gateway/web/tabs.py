"""The worklist's tabs: which studies a physician looks for under each, and in which order.

Knows SQL conditions over a study, its current reading and its live report, the order of work (lane, then the longest
waiting; never what the model thinks of a study) and the cursor of that order. Does not know pages nor who may ask.
"""

from __future__ import annotations

import base64
import json
import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, case, select, tuple_
from sqlalchemy.orm import aliased

from record.errors import InvalidRequest
from record.models import Instance, Reading, Report, Study
from record.states import LANE_ORDER, SIGNED_REPORT, Lane, ReadingState, ReportState, StudyState


class Tab(StrEnum):
    """The tabs, in the order they stand."""

    TO_READ = "to_read"
    NOT_READY = "not_ready"
    PRELIMINARY = "preliminary"
    SIGNED = "signed"
    ATTENTION = "attention"
    ALL = "all"


WORK = frozenset({Tab.TO_READ, Tab.NOT_READY, Tab.PRELIMINARY, Tab.ATTENTION})
"""Where somebody is expected to do something: urgent first, then the longest waiting. The others: newest change first."""

_Rows = TypeVar("_Rows", bound=Select[*tuple[Any, ...]])
_URGENCY = case({str(lane): order for lane, order in LANE_ORDER.items()}, value=Study.lane)
_ENDED = [ReadingState.DONE, ReadingState.ABSTAINED, ReadingState.FAILED]


def condition(tab: Tab) -> ColumnElement[bool] | None:
    """What holds for the studies of a tab; None for all."""
    nobody_reported = Report.id.is_(None) & Study.erased_at.is_(None)
    match tab:
        case Tab.TO_READ:
            by_hand = nobody_reported & Reading.state.in_(_ENDED) & ~_cancelled()
            return (Report.state == ReportState.DRAFT) | by_hand
        case Tab.NOT_READY:
            at_work = (Study.state == StudyState.RECEIVING) | Reading.state.not_in(_ENDED)
            return nobody_reported & at_work
        case Tab.PRELIMINARY:
            return Report.state == ReportState.PRELIMINARY
        case Tab.SIGNED:
            return Report.state.in_(SIGNED_REPORT)
        case Tab.ATTENTION:
            failed = nobody_reported & (Reading.state == ReadingState.FAILED)
            other_images = Report.study_revision < Study.revision
            return failed | other_images | _conflicting()
        case Tab.ALL:
            return None


def ordered(statement: _Rows, cursor: str | None) -> _Rows:
    """The studies of a working tab after `cursor`, in the order of work."""
    place = tuple_(_URGENCY, Study.created_at, Study.id)
    if cursor is not None:
        statement = statement.where(place > tuple_(*_read(cursor)))
    return statement.order_by(_URGENCY, Study.created_at, Study.id)


def place_of(study: Study) -> str:
    """The cursor that goes on after this study."""
    place = [LANE_ORDER[Lane(study.lane)], study.created_at.isoformat(timespec="microseconds"), study.id.hex]
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _read(cursor: str) -> tuple[int, datetime, uuid.UUID]:
    try:
        urgency, at, key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None or type(urgency) is not int or not 0 <= urgency < len(LANE_ORDER):
            raise ValueError
        return urgency, moment, uuid.UUID(key)
    except (ValueError, TypeError, AttributeError):
        message = "The cursor is none of ours: take the value of `next` from the page before."
        raise InvalidRequest(message) from None


def _cancelled() -> ColumnElement[bool]:
    """Whether a physician has cancelled the report on these very images: nobody waits for another."""
    ended = aliased(Report)
    return (
        select(ended.id)
        .where(
            ended.study_id == Study.id,
            ended.state == ReportState.CANCELLED,
            ended.study_revision == Study.revision,
        )
        .exists()
    )


def _conflicting() -> ColumnElement[bool]:
    return (
        select(Instance.id)
        .where(
            Instance.study_id == Study.id,
            Instance.conflict_kind.is_not(None),
            Instance.conflict_decided_at.is_(None),
        )
        .exists()
    )
