"""What the API takes and gives, as `/openapi.json` shows it.

Knows shapes only. A field that a role may not see is null (`drafts`, `identity`, `text`), never left out silently.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from record.reports import MAX_REASON
from record.states import Guard

Line = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=MAX_REASON)]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=200_000)]
Number = Annotated[int, Field(ge=0, le=1_000_000)]


class _Taken(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class _Given(BaseModel):
    model_config = ConfigDict(frozen=True)


class Problem(_Given):
    """An error (RFC 9457). `code` is stable; conflicts add facts such as the current `revision`."""

    type: str
    title: str
    status: int
    detail: str
    code: str


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
    """Whether a conflicting instance is kept as the study's, and why."""

    keep: bool
    reason: Line


class SignatureRequest(Seen):
    """Report revision `seen`, study revision `shown`, the password again, and a reason for each guard that is passed."""

    shown: Number
    password: Annotated[SecretStr, Field(max_length=1000)]
    reasons: dict[Guard, Line] = Field(default_factory=dict)


class Person(_Given):
    """Who is signed in."""

    id: UUID
    printed_name: str
    role: str


class Opened(_Given):
    """A session: send `csrf` as the header `X-CSRF-Token` with every request that changes something."""

    csrf: str
    user: Person


class StudyItem(_Given):
    """One line of the worklist. `reading_state` is that of the current revision's primary reading."""

    study_instance_uid: str
    state: str
    revision: int
    instances: int
    modality: str
    lane: str
    reading_state: str | None
    reason_code: str | None
    report_state: str | None
    report_id: UUID | None
    updated_at: datetime


class StudyPage(_Given):
    """A page of the worklist, newest change first. `next` is the cursor of the page after it, or null."""

    items: list[StudyItem]
    next: str | None


class Identity(_Given):
    """Patient and study text as it was sent."""

    patient_name: str
    patient_id: str
    issuer_of_patient_id: str
    patient_birth_date: str
    patient_sex: str
    patient_age: str
    accession_number: str
    study_date: str
    study_time: str
    study_description: str
    referring_physician_name: str


class RevisionShown(_Given):
    """The set of images at one closing, and why the study was taken as complete."""

    number: int
    images: int
    images_sha256: str
    evidence_kind: str
    evidence: dict[str, Any]
    created_at: datetime


class SeriesShown(_Given):
    """A series; its description is free text and shown to those who may see identities."""

    series_instance_uid: str
    modality: str
    series_number: int | None
    series_description: str | None
    body_part_examined: str
    instances: int


class PictureShown(_Given):
    """A picture the model saw, and why it was chosen."""

    position: int
    sha256: str
    height: int
    width: int
    caption: str
    reason: str
    href: str


class ReadingShown(_Given):
    """A reading; `pictures` is null for those who may not see them."""

    id: UUID
    revision: int
    purpose: str
    state: str
    lane: str
    protocol: str | None
    protocol_version: str | None
    protocol_digest: str | None
    model: str | None
    failures: int
    reason_code: str | None
    reason: str | None
    omitted: list[dict[str, Any]] | None
    pictures: list[PictureShown] | None
    created_at: datetime
    ended_at: datetime | None


class DraftShown(_Given):
    """What the machine said: never reviewed, so `banner` stands beside it and in the first line of `text`."""

    id: UUID
    reading_id: UUID
    revision: int
    banner: str
    text: str
    body: dict[str, Any]
    body_sha256: str
    flags: list[str]
    provenance: dict[str, Any]
    offered: bool
    created_at: datetime


class SignatureShown(_Given):
    """One person's name under exactly one text."""

    report_revision: int
    study_revision: int
    body_sha256: str
    printed_name: str
    role: str
    meaning: str
    method: str
    reasons: dict[str, Any]
    signed_at: datetime


class ReportLine(_Given):
    """A report of a study, without its words."""

    id: UUID
    state: str
    revision: int
    signed_revision: int | None
    study_revision: int
    outdated: bool
    created_at: datetime
    updated_at: datetime


class ReportRevisionShown(_Given):
    """One saved text of a report, for physicians."""

    number: int
    kind: str
    author: str | None
    body_sha256: str
    text: str
    signed: bool
    created_at: datetime


class ReportShown(ReportLine):
    """A report.

    `text` and `body` are the words of revision `text_revision`, as they are edited and signed; while they are unsigned,
    `banner` says so and must stand with them wherever they are shown (`labelled_text` has it in its first line).
    Everybody but physicians gets signed words only, else null. `erased` says that the words are gone for good.
    """

    study_instance_uid: str
    erased: bool
    banner: str | None
    text_revision: int | None
    text: str | None
    labelled_text: str | None
    body: dict[str, Any] | None
    body_sha256: str | None
    ended_reason: str | None
    signatures: list[SignatureShown]


class ConflictShown(_Given):
    """A side that waits for a decision: other `bytes` under a known UID (`beside` names the first), or another `identity`."""

    instance_id: UUID
    kind: str
    beside: UUID | None
    sop_class_uid: str
    patient_id: str | None
    patient_name: str | None
    received_at: datetime


class StudyShown(StudyItem):
    """A study with all that the asking role may see; null where it may not."""

    outdated: bool
    undecided_conflicts: int
    conflicts: list[ConflictShown]
    erased_at: datetime | None
    identity: Identity | None
    revisions: list[RevisionShown]
    series: list[SeriesShown]
    readings: list[ReadingShown]
    drafts: list[DraftShown] | None
    reports: list[ReportLine]


class Ready(_Given):
    """Whether this process can serve; only the database makes it unready."""

    database: str
    redis: str
