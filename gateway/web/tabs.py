"""The worklist's tabs: which studies a physician looks for under each, and in which order.

Knows which of `record.work`'s conditions a tab is, the order of work (lane, then the longest waiting; never what the model
thinks of a study) and the cursor of that order. Does not know pages nor who may ask.
"""

from __future__ import annotations

import base64
import json
import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, tuple_

from record import work
from record.errors import InvalidRequest
from record.models import Report, Study
from record.states import LANE_ORDER, SIGNED_REPORT, Lane


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


def condition(tab: Tab) -> ColumnElement[bool] | None:
    """What holds for the studies of a tab; None for all."""
    match tab:
        case Tab.TO_READ:
            return work.unsettled() & work.to_read()
        case Tab.NOT_READY:
            return work.unsettled() & work.not_ready()
        case Tab.PRELIMINARY:
            return work.unsettled() & work.preliminary()
        case Tab.ATTENTION:
            return work.unsettled() & work.needs_attention()
        case Tab.SIGNED:
            return Report.state.in_(SIGNED_REPORT)
        case Tab.ALL:
            return None


def ordered(statement: _Rows, cursor: str | None) -> _Rows:
    """The studies of a working tab after `cursor`, in the order of work."""
    if cursor is not None:
        urgency, since, key = _read(cursor)
        lane = next(lane for lane, order in LANE_ORDER.items() if order == urgency)
        later = (Study.lane == lane) & (tuple_(Study.created_at, Study.id) > tuple_(since, key))
        statement = statement.where((Study.lane < lane) | later)
    # The lanes' names happen to go backwards in their order, so the index of unsettled studies bears them as they are.
    return statement.order_by(Study.lane.desc(), Study.created_at, Study.id)


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
