"""The lives, pair by pair, against a list of their own."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import pytest

from record.errors import IllegalMove
from record.states import (
    LANE_ORDER,
    CommitmentState,
    DeliveryState,
    ReadingState,
    ReportState,
    StudyState,
    allows,
    move,
)

LEGAL = {
    StudyState: "-:receiving receiving:ready receiving:skipped ready:receiving skipped:receiving",
    ReadingState: (
        "-:queued queued:preparing queued:superseded "
        "preparing:prepared preparing:abstained preparing:queued preparing:failed preparing:superseded "
        "prepared:drafting prepared:queued prepared:superseded "
        "drafting:done drafting:abstained drafting:prepared drafting:failed drafting:superseded "
        "done:superseded abstained:queued abstained:superseded failed:queued failed:superseded"
    ),
    ReportState: (
        "-:draft draft:draft draft:preliminary draft:final draft:superseded draft:cancelled "
        "preliminary:preliminary preliminary:final preliminary:cancelled "
        "final:final final:appended final:corrected final:entered_in_error "
        "appended:appended appended:corrected appended:entered_in_error "
        "corrected:appended corrected:corrected corrected:entered_in_error"
    ),
    DeliveryState: "-:queued queued:sent queued:dead sent:acknowledged sent:queued sent:dead dead:queued",
    CommitmentState: "-:queued queued:reported queued:dead dead:queued",
}


@dataclass
class Row:
    state: str


def pairs() -> list[tuple[type[StrEnum], str, str]]:
    return [(life, former, to) for life in LEGAL for former in ["", *life] for to in life]


@pytest.mark.parametrize(("life", "former", "to"), pairs(), ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_a_state_leads_only_where_the_house_says(life: type[StrEnum], former: str, to: str) -> None:
    row = Row(former)
    legal = f"{former or '-'}:{to}" in LEGAL[life].split()
    assert allows(life(former) if former else None, life(to)) is legal
    if legal:
        move(row, life(to))
        assert row.state == to
    else:
        with pytest.raises(IllegalMove):
            move(row, life(to))
        assert row.state == former


def test_lanes_are_named_so_that_their_names_backwards_are_their_order() -> None:
    """The worklist's index and its cursor rely on it."""
    assert sorted(LANE_ORDER, key=lambda lane: LANE_ORDER[lane]) == sorted(LANE_ORDER, reverse=True)
