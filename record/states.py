"""The lives as data: which state leads to which, and the one function that moves.

Knows the tables of the house and nothing of why a move happens: the verbs (`studies`, `readings`, `reports`) decide.
Nothing else may assign a state; a test compares these tables with an independent list, pair by pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol, TypeVar

from record.errors import IllegalMove


class StudyState(StrEnum):
    """The life of a study."""

    RECEIVING = "receiving"
    READY = "ready"
    SKIPPED = "skipped"


class ReadingState(StrEnum):
    """The life of a reading."""

    QUEUED = "queued"
    PREPARING = "preparing"
    PREPARED = "prepared"
    DRAFTING = "drafting"
    DONE = "done"
    ABSTAINED = "abstained"
    FAILED = "failed"
    SUPERSEDED = "superseded"


class ReportState(StrEnum):
    """The life of a report."""

    DRAFT = "draft"
    PRELIMINARY = "preliminary"
    FINAL = "final"
    APPENDED = "appended"
    CORRECTED = "corrected"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"
    ENTERED_IN_ERROR = "entered_in_error"


class DeliveryState(StrEnum):
    """The life of a delivery."""

    QUEUED = "queued"
    SENT = "sent"
    ACKNOWLEDGED = "acknowledged"
    DEAD = "dead"


class CommitmentState(StrEnum):
    """The life of a storage commitment that a peer asked for."""

    QUEUED = "queued"
    REPORTED = "reported"
    DEAD = "dead"


class AnnouncementKind(StrEnum):
    """How a peer announced what a study consists of."""

    AVAILABILITY = "availability"
    PROCEDURE_STEP = "procedure_step"


class Purpose(StrEnum):
    """Why a reading is done."""

    PRIMARY = "primary"
    SHADOW = "shadow"
    REPLAY = "replay"


class Lane(StrEnum):
    """How urgent a study is."""

    STAT = "stat"
    ROUTINE = "routine"
    BACKFILL = "backfill"


class Role(StrEnum):
    """What somebody is here for."""

    RESIDENT = "resident"
    ATTENDING = "attending"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    DASHBOARD = "dashboard"
    INTAKE = "intake"
    ADMIN = "admin"


class InstanceKind(StrEnum):
    """What an instance does to its study: images and rejection notes change the revision, the rest is kept."""

    IMAGE = "image"
    REJECTION_NOTE = "rejection_note"
    OTHER = "other"


class ConflictKind(StrEnum):
    """Why an instance waits for a person: other bytes came under its UID, or it names another patient than its study."""

    BYTES = "bytes"
    IDENTITY = "identity"


class Guard(StrEnum):
    """What stands before a signature; each may be passed only with a written reason."""

    NEW_IMAGES = "new_images"


LANE_ORDER: Mapping[Lane, int] = {Lane.STAT: 0, Lane.ROUTINE: 1, Lane.BACKFILL: 2}
"""Lower comes first."""


class ReasonCode(StrEnum):
    """Why a reading ended without a draft, or why a study needs none."""

    NO_IMAGES = "no_images"
    FETCHED_AS_PRIOR = "fetched_as_prior"
    NO_PROTOCOL = "no_protocol"
    NO_USABLE_FRAMES = "no_usable_frames"
    UNDECODABLE = "undecodable"
    BLANK_PICTURE = "blank_picture"
    CHECKS_FAILED = "checks_failed"
    UNSUPPORTED = "unsupported"
    ENGINE_REJECTED = "engine_rejected"
    UNUSABLE_FINDINGS = "unusable_findings"
    TIMED_OUT = "timed_out"
    ERROR = "error"
    LEASE_LOST = "lease_lost"
    NOT_FOUND = "not_found"
    NOT_PERMITTED = "not_permitted"


STUDY: Mapping[StudyState | None, frozenset[StudyState]] = {
    None: frozenset({StudyState.RECEIVING}),
    StudyState.RECEIVING: frozenset({StudyState.READY, StudyState.SKIPPED}),
    StudyState.READY: frozenset({StudyState.RECEIVING}),
    StudyState.SKIPPED: frozenset({StudyState.RECEIVING}),
}

READING: Mapping[ReadingState | None, frozenset[ReadingState]] = {
    None: frozenset({ReadingState.QUEUED}),
    ReadingState.QUEUED: frozenset({ReadingState.PREPARING, ReadingState.SUPERSEDED}),
    ReadingState.PREPARING: frozenset(
        {
            ReadingState.PREPARED,
            ReadingState.ABSTAINED,
            ReadingState.QUEUED,
            ReadingState.FAILED,
            ReadingState.SUPERSEDED,
        }
    ),
    ReadingState.PREPARED: frozenset({ReadingState.DRAFTING, ReadingState.QUEUED, ReadingState.SUPERSEDED}),
    ReadingState.DRAFTING: frozenset(
        {
            ReadingState.DONE,
            ReadingState.ABSTAINED,
            ReadingState.PREPARED,
            ReadingState.FAILED,
            ReadingState.SUPERSEDED,
        }
    ),
    ReadingState.DONE: frozenset({ReadingState.SUPERSEDED}),  # only when a new primary is asked for; a draft stays
    ReadingState.ABSTAINED: frozenset({ReadingState.QUEUED, ReadingState.SUPERSEDED}),
    ReadingState.FAILED: frozenset({ReadingState.QUEUED, ReadingState.SUPERSEDED}),
    ReadingState.SUPERSEDED: frozenset(),
}

_LIVE_SIGNED = frozenset(
    {
        ReportState.APPENDED,
        ReportState.CORRECTED,
        ReportState.ENTERED_IN_ERROR,
    }
)

REPORT: Mapping[ReportState | None, frozenset[ReportState]] = {
    None: frozenset({ReportState.DRAFT}),
    ReportState.DRAFT: frozenset(
        {
            ReportState.DRAFT,
            ReportState.PRELIMINARY,
            ReportState.FINAL,
            ReportState.SUPERSEDED,
            ReportState.CANCELLED,
        }
    ),
    ReportState.PRELIMINARY: frozenset({ReportState.PRELIMINARY, ReportState.FINAL, ReportState.CANCELLED}),
    ReportState.FINAL: _LIVE_SIGNED | {ReportState.FINAL},
    ReportState.APPENDED: _LIVE_SIGNED,
    ReportState.CORRECTED: _LIVE_SIGNED,
    ReportState.SUPERSEDED: frozenset(),
    ReportState.CANCELLED: frozenset(),
    ReportState.ENTERED_IN_ERROR: frozenset(),
}

DELIVERY: Mapping[DeliveryState | None, frozenset[DeliveryState]] = {
    None: frozenset({DeliveryState.QUEUED}),
    DeliveryState.QUEUED: frozenset({DeliveryState.SENT, DeliveryState.DEAD}),
    DeliveryState.SENT: frozenset({DeliveryState.ACKNOWLEDGED, DeliveryState.QUEUED, DeliveryState.DEAD}),
    DeliveryState.DEAD: frozenset({DeliveryState.QUEUED}),
    DeliveryState.ACKNOWLEDGED: frozenset(),
}

COMMITMENT: Mapping[CommitmentState | None, frozenset[CommitmentState]] = {
    None: frozenset({CommitmentState.QUEUED}),
    CommitmentState.QUEUED: frozenset({CommitmentState.REPORTED, CommitmentState.DEAD}),
    CommitmentState.DEAD: frozenset({CommitmentState.QUEUED}),
    CommitmentState.REPORTED: frozenset(),
}

LIVE_REPORT = frozenset(ReportState) - {
    ReportState.SUPERSEDED,
    ReportState.CANCELLED,
    ReportState.ENTERED_IN_ERROR,
}
ENDED_REPORT = frozenset(ReportState) - LIVE_REPORT
OPEN_REPORT = frozenset({ReportState.DRAFT, ReportState.PRELIMINARY})
SIGNED_REPORT = frozenset({ReportState.FINAL, ReportState.APPENDED, ReportState.CORRECTED})

_State = TypeVar("_State", StudyState, ReadingState, ReportState, DeliveryState, CommitmentState)

_TABLES: Mapping[type[StrEnum], Mapping[StrEnum | None, frozenset[StrEnum]]] = {
    StudyState: STUDY,  # type: ignore[dict-item]  # each table maps one enum; the union is wider
    ReadingState: READING,  # type: ignore[dict-item]
    ReportState: REPORT,  # type: ignore[dict-item]
    DeliveryState: DELIVERY,  # type: ignore[dict-item]
    CommitmentState: COMMITMENT,  # type: ignore[dict-item]
}


class Living(Protocol):
    """A row that lives one of the lives."""

    state: str


def move(thing: Living, to: _State) -> None:
    """Move one row to another state, or refuse.

    Raises
    ------
    IllegalMove
        The table of this life does not lead from the row's state to `to`.
    """
    table = _TABLES[type(to)]
    former = type(to)(thing.state) if thing.state else None
    if to not in table[former]:
        message = f"A {_life(to)} that is {former or 'not begun'} cannot become {to}."
        raise IllegalMove(message, former_state=str(former), state=str(to))
    thing.state = to


def allows(former: _State | None, to: _State) -> bool:
    """Whether the table leads from `former` to `to`; statements in SQL ask before they move many rows at once."""
    return to in _TABLES[type(to)][former]


def _life(state: StrEnum) -> str:
    return type(state).__name__.removesuffix("State").lower()
