"""What clients send. Knows shapes only; a field that is none of ours is refused."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StrictBool,
    StringConstraints,
)

from record.reports import MAX_REASON
from record.states import Guard, Lane, ReadingState, ReportState, StudyState

MAX_LIMIT = 200
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_MOMENT = re.compile(_DAY.pattern + r"[Tt ]\d{2}:\d{2}", re.ASCII)


def _written(value: object) -> object:
    """A day as it is written: numbers and times are none."""
    if value is not None and not (isinstance(value, str) and _DAY.fullmatch(value)):
        raise ValueError("a day is written YYYY-MM-DD")
    return value


def _moment(value: object) -> object:
    """A moment as it is written: a number is none."""
    if value is not None and not (isinstance(value, str) and _MOMENT.match(value)):
        raise ValueError("a moment is written as RFC 3339 has it, such as 2026-01-02T03:04:05Z")
    return value


Line = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=MAX_REASON)]
Short = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=64)]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=200_000)]
Number = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]
Cursor = Annotated[str, StringConstraints(max_length=300)]
Day = Annotated[date, BeforeValidator(_written)]
Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]


class _Taken(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class SignIn(_Taken):
    """A person's login and password."""

    login: Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=200)]
    password: Annotated[SecretStr, Field(max_length=1000)]


class Seen(_Taken):
    """The report revision whose text was seen."""

    seen: Number


class SavedText(Seen):
    """A text to save on top of revision `seen`: either plain `text` or a structured `body`."""

    text: Text | None = None
    body: dict[str, Any] | None = None


class Cancellation(Seen):
    """Why an unsigned report is cancelled."""

    reason: Line


class Decision(_Taken):
    """Whether a conflicting instance is kept as the study's, and why.

    To take a decision back, decide anew: `overrules` is the `decided_at` of the decision that was seen.
    """

    keep: StrictBool
    reason: Line
    overrules: Moment | None = None


class SignatureRequest(Seen):
    """Report revision `seen`, study revision `shown`, the password again, and a reason for each guard that is passed."""

    shown: Number
    password: Annotated[SecretStr, Field(max_length=1000)]
    reasons: dict[Guard, Line] = Field(default_factory=dict)


class SearchRequest(_Taken):
    """Whose studies are wanted: at least one of the first six, and the list's filters.

    Each word of `patient_name` must begin a word of the patient's name. An identifier is compared as it stands; one that
    ends with `*` as a beginning. Days are inclusive.
    """

    patient_name: Short | None = None
    patient_id: Short | None = None
    accession_number: Short | None = None
    study_date: Day | None = None
    study_date_from: Day | None = None
    study_date_to: Day | None = None
    state: StudyState | None = None
    reading_state: ReadingState | None = None
    report_state: ReportState | None = None
    modality: Short | None = None
    lane: Lane | None = None
    updated_since: Moment | None = None
    limit: Annotated[Limit, Field(strict=True)] = 50
    cursor: Cursor | None = None
