"""Studies and their readings, as far as the asking role may see them. Knows shapes only."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.web.schemas.given import Given
from gateway.web.schemas.report import DraftShown, ReportLine


class StudyItem(Given):
    """One line of the worklist. `reading_state` is that of the current revision's primary reading.

    From `patient_name` to `study_date`: null for who may not see whose a study is. `flags` are codes: `conflict`,
    `outdated`, `receiving_late`, `retrying`, `erased`, and for who may read drafts those of the current draft.
    """

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
    patient_name: str | None
    patient_id: str | None
    patient_sex: str | None
    patient_age: str | None
    accession_number: str | None
    study_description: str | None
    study_date: str | None
    site: str
    flags: list[str]
    created_at: datetime
    first_image_at: datetime | None
    last_image_at: datetime | None
    updated_at: datetime


class StudyPage(Given):
    """A page of the worklist, newest change first. `next` is the cursor of the page after it, or null."""

    items: list[StudyItem]
    next: str | None


class Identity(Given):
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


class RevisionShown(Given):
    """The set of images at one closing, and why the study was taken as complete."""

    number: int
    images: int
    images_sha256: str
    evidence_kind: str
    evidence: dict[str, Any]
    created_at: datetime


class MomentShown(Given):
    """Something that happened to a study, and until when, where it took a while; `facts` are counts, codes and ids."""

    at: datetime
    until: datetime | None
    code: str
    facts: dict[str, Any]


class SeriesShown(Given):
    """A series; its description is free text and shown to those who may see identities."""

    series_instance_uid: str
    modality: str
    series_number: int | None
    series_description: str | None
    body_part_examined: str
    instances: int


class PictureShown(Given):
    """A picture the model saw, of which frame it is (counted from 1), and why it was chosen."""

    position: int
    instance_id: UUID
    frame: int
    sha256: str
    height: int
    width: int
    caption: str
    reason: str
    href: str


class ReadingShown(Given):
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


class SideShown(Given):
    """One of the instances of a conflict, as it was sent. `href`: its first frame, for who may see pictures of an image.

    `patient_id` and `patient_name`: null for who may not see whose a study is.
    """

    instance_id: UUID
    sop_class_uid: str
    transfer_syntax_uid: str
    size_bytes: int
    rows: int
    columns: int
    number_of_frames: int
    patient_id: str | None
    patient_name: str | None
    received_at: datetime
    href: str | None


class ConflictShown(SideShown):
    """A side that waits for a decision: other `bytes` under a known UID (`beside` names the first), or another `identity`.

    `standing` is what it is compared with: the instance it would take the place of, else the first image of the study.
    `differs` names the fields in which the two differ, by what they are as well for who may not see the words.
    """

    kind: str
    beside: UUID | None
    standing: SideShown | None
    differs: list[str]


class DecisionShown(Given):
    """What somebody decided. `instance_id` is what they decided about, `instead_of_id` what it took the place of."""

    instance_id: UUID
    instead_of_id: UUID | None
    kept: bool
    reason: str | None
    decided_by: str
    decided_at: datetime


class DecidedShown(ConflictShown):
    """A side that was decided. `kept` says whether it is the study's now; send `decided_at` as `overrules` to decide anew.

    `came_again` counts how often the same bytes have come again. `decisions`: the newest first.
    """

    kept: bool
    decided_at: datetime
    came_again: int
    decisions: list[DecisionShown]


class StudyShown(StudyItem):
    """A study with all that the asking role may see; null where it may not."""

    outdated: bool
    undecided_conflicts: int
    conflicts: list[ConflictShown]
    decided_conflicts: list[DecidedShown]
    erased_at: datetime | None
    identity: Identity | None
    revisions: list[RevisionShown]
    timeline: list[MomentShown]
    series: list[SeriesShown]
    readings: list[ReadingShown]
    drafts: list[DraftShown] | None
    reports: list[ReportLine]
