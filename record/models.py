"""Tables. Columns and constraints only: what may happen to a row is said by `states` and done by the verbs.

Text that was sent to us (DICOM, people) lies in columns that `erase_study()` can blank. Tables named in `APPEND_ONLY`
refuse UPDATE, DELETE and TRUNCATE to everybody but that function. Ids are UUIDv7 made in Python; time is the
database's `now()`; DICOM's own dates stay text.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from record.ids import new_id
from record.states import (
    DeliveryState,
    InstanceKind,
    Lane,
    Purpose,
    ReadingState,
    ReportState,
    Role,
    StudyState,
)

APPEND_ONLY = ("drafts", "draft_steps", "report_revisions", "signatures", "events", "seals")
"""Programs may insert and read these rows, never change or remove them."""


def _one_of(column: str, values: type[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(str(v)) for v in values)})"


class Table(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  # SQLAlchemy reads it from the class
        uuid.UUID: Uuid(),
        datetime: DateTime(timezone=True),
        str: Text(),
        dict[str, Any]: JSONB(),
        list[str]: ARRAY(Text()),
    }


def _key() -> Mapped[uuid.UUID]:
    return mapped_column(primary_key=True, default=new_id)


def _now() -> Mapped[datetime]:
    return mapped_column(server_default=func.now())


class Site(Table):
    """The tenant: who may see."""

    __tablename__ = "sites"
    id: Mapped[uuid.UUID] = _key()
    name: Mapped[str] = mapped_column(unique=True)
    language: Mapped[str] = mapped_column(server_default="en")
    created_at: Mapped[datetime] = _now()


class User(Table):
    """A person who signs in. `login` is what is typed, `printed_name` what stands under a report."""

    __tablename__ = "users"
    __table_args__ = (CheckConstraint(_one_of("role", Role), name="role"),)
    id: Mapped[uuid.UUID] = _key()
    site_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sites.id"))
    login: Mapped[str] = mapped_column(unique=True)
    printed_name: Mapped[str]
    role: Mapped[str]
    password_hash: Mapped[str]
    failed_logins: Mapped[int] = mapped_column(server_default="0")
    locked_until: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = _now()


class UserSession(Table):
    """A signed-in browser. The cookie's value is never stored, only its sha256."""

    __tablename__ = "user_sessions"
    id: Mapped[uuid.UUID] = _key()
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"), index=True)
    secret_sha256: Mapped[str] = mapped_column(unique=True)
    csrf_secret: Mapped[str]
    created_at: Mapped[datetime] = _now()
    seen_at: Mapped[datetime] = _now()
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class Token(Table):
    """A machine's bearer token: 256 random bits, stored as sha256."""

    __tablename__ = "tokens"
    __table_args__ = (
        CheckConstraint(_one_of("role", Role), name="role"),
        UniqueConstraint("site_id", "name"),
    )
    id: Mapped[uuid.UUID] = _key()
    site_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sites.id"))
    name: Mapped[str]
    role: Mapped[str]
    scopes: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    secret_sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = _now()
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Peer(Table):
    """Who sends to us: an application entity title bound to an address."""

    __tablename__ = "peers"
    __table_args__ = (
        CheckConstraint(_one_of("lane", Lane), name="lane"),
        UniqueConstraint("ae_title", "address"),
    )
    id: Mapped[uuid.UUID] = _key()
    site_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sites.id"))
    ae_title: Mapped[str]
    address: Mapped[str]
    lane: Mapped[str] = mapped_column(server_default=Lane.ROUTINE)
    strict: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    stable_after_s: Mapped[float | None]
    max_wait_s: Mapped[float | None]
    created_at: Mapped[datetime] = _now()


class Receiver(Table):
    """Who gets from us, and in which form."""

    __tablename__ = "receivers"
    __table_args__ = (UniqueConstraint("site_id", "name"),)
    id: Mapped[uuid.UUID] = _key()
    site_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sites.id"))
    name: Mapped[str]
    form: Mapped[str]
    address: Mapped[str]
    secret_name: Mapped[str | None]
    disabled_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = _now()


class Patient(Table):
    """A patient as (site, issuer, Patient ID). A merge re-links, never rewrites."""

    __tablename__ = "patients"
    __table_args__ = (UniqueConstraint("site_id", "issuer_of_patient_id", "patient_id"),)
    id: Mapped[uuid.UUID] = _key()
    site_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sites.id"))
    issuer_of_patient_id: Mapped[str] = mapped_column(server_default="")
    patient_id: Mapped[str]
    merged_into_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("patients.id"))
    created_at: Mapped[datetime] = _now()


class Study(Table):
    """A study of one site. `revision` counts its closings; 0 means never closed."""

    __tablename__ = "studies"
    __table_args__ = (
        CheckConstraint(_one_of("state", StudyState), name="state"),
        CheckConstraint(_one_of("lane", Lane), name="lane"),
        UniqueConstraint("site_id", "study_instance_uid"),
        Index("ix_studies_receiving", "last_image_at", postgresql_where=text("state = 'receiving'")),
        Index("ix_studies_worklist", "site_id", text("updated_at DESC"), text("id DESC")),
    )
    id: Mapped[uuid.UUID] = _key()
    site_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sites.id"))
    patient_id_key: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("patients.id"), index=True)
    study_instance_uid: Mapped[str]
    state: Mapped[str]
    lane: Mapped[str] = mapped_column(server_default=Lane.ROUTINE)
    revision: Mapped[int] = mapped_column(server_default="0")
    modality: Mapped[str] = mapped_column(server_default="")
    instances: Mapped[int] = mapped_column(server_default="0")
    skipped_code: Mapped[str | None]
    # as sent by the first instance; shown to people, blanked by erase_study()
    patient_id: Mapped[str] = mapped_column(server_default="")
    issuer_of_patient_id: Mapped[str] = mapped_column(server_default="")
    patient_name: Mapped[str] = mapped_column(server_default="")
    patient_birth_date: Mapped[str] = mapped_column(server_default="")
    patient_sex: Mapped[str] = mapped_column(server_default="")
    patient_age: Mapped[str] = mapped_column(server_default="")
    accession_number: Mapped[str] = mapped_column(server_default="")
    study_date: Mapped[str] = mapped_column(server_default="")
    study_time: Mapped[str] = mapped_column(server_default="")
    study_description: Mapped[str] = mapped_column(server_default="")
    referring_physician_name: Mapped[str] = mapped_column(server_default="")
    history: Mapped[str] = mapped_column(server_default="")
    # completeness
    stable_after_s: Mapped[float | None]
    max_wait_s: Mapped[float | None]
    expected_instances: Mapped[int | None]
    receiving_since: Mapped[datetime] = _now()
    first_image_at: Mapped[datetime | None]
    last_image_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = _now()
    updated_at: Mapped[datetime] = _now()
    erased_at: Mapped[datetime | None]


class Series(Table):
    """A series of a study."""

    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("study_id", "series_instance_uid"),)
    id: Mapped[uuid.UUID] = _key()
    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("studies.id"))
    series_instance_uid: Mapped[str]
    modality: Mapped[str] = mapped_column(server_default="")
    series_number: Mapped[int | None]
    series_description: Mapped[str] = mapped_column(server_default="")
    body_part_examined: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime] = _now()


class Instance(Table):
    """One stored file. `id` is the file's own id, so that a row found again is this file's own, never a duplicate.

    `sha256` is over the data set bytes, without preamble and file meta. Another instance with the same UID and other
    bytes is another *side* of a conflict: `conflict_of_id` names the first that came, `conflict_decided_at` says that
    a person decided. The same bytes again leave a row that names the first (`duplicate_of_id`) and no file.
    """

    __tablename__ = "instances"
    __table_args__ = (
        CheckConstraint(_one_of("kind", InstanceKind), name="kind"),
        Index("ix_instances_sop", "study_id", "sop_instance_uid"),
        Index(
            "uq_instances_first_side",
            "study_id",
            "sop_instance_uid",
            unique=True,
            postgresql_where=text("conflict_of_id IS NULL AND duplicate_of_id IS NULL"),
        ),
        Index(
            "ix_instances_undecided",
            "study_id",
            postgresql_where=text("conflict_kind IS NOT NULL AND conflict_decided_at IS NULL"),
        ),
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("studies.id"))
    series_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("series.id"), index=True)
    sop_instance_uid: Mapped[str]
    sop_class_uid: Mapped[str]
    transfer_syntax_uid: Mapped[str]
    instance_number: Mapped[int | None]
    kind: Mapped[str]
    header: Mapped[dict[str, Any]]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    prior: Mapped[bool] = mapped_column(server_default=text("false"))
    rejected: Mapped[bool] = mapped_column(server_default=text("false"))
    conflict_kind: Mapped[str | None]
    conflict_of_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("instances.id"))
    conflict_decided_at: Mapped[datetime | None]
    duplicate_of_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("instances.id"))
    source: Mapped[str]
    peer_ae_title: Mapped[str] = mapped_column(server_default="")
    peer_address: Mapped[str] = mapped_column(server_default="")
    received_at: Mapped[datetime]
    created_at: Mapped[datetime] = _now()
    series: Mapped[Series] = relationship(lazy="raise")


class StudyRevision(Table):
    """The set of images at one closing, and why the study was taken as complete."""

    __tablename__ = "study_revisions"
    __table_args__ = (UniqueConstraint("study_id", "number"),)
    id: Mapped[uuid.UUID] = _key()
    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("studies.id"))
    number: Mapped[int]
    images: Mapped[int]
    images_sha256: Mapped[str]
    evidence_kind: Mapped[str]
    evidence: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = _now()


class RevisionInstance(Table):
    """An instance that belongs to a frozen revision."""

    __tablename__ = "revision_instances"
    revision_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("study_revisions.id"), primary_key=True)
    instance_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("instances.id"), primary_key=True, index=True)


class Reading(Table):
    """One run of an engine over one study revision under one protocol: also the queue's truth.

    `token` grows at every claim and only fences; `failures` counts errors, lost leases and deaths. `rank` is the fair
    rank of the reading's site in its lane.
    """

    __tablename__ = "readings"
    __table_args__ = (
        CheckConstraint(_one_of("state", ReadingState), name="state"),
        CheckConstraint(_one_of("purpose", Purpose), name="purpose"),
        CheckConstraint(_one_of("lane", Lane), name="lane"),
        CheckConstraint("token >= 0 AND failures >= 0", name="counters"),
        CheckConstraint("(state IN ('preparing', 'drafting')) = (lease_until IS NOT NULL)", name="lease"),
        Index(
            "uq_readings_live_primary",
            "revision_id",
            unique=True,
            postgresql_where=text("purpose = 'primary' AND state <> 'superseded'"),
        ),
        Index("ix_readings_queued", "lane_order", "rank", "id", postgresql_where=text("state = 'queued'")),
        Index(
            "ix_readings_prepared",
            "model",
            "lane_order",
            "rank",
            "id",
            postgresql_where=text("state = 'prepared'"),
        ),
        Index(
            "ix_readings_leased",
            "lease_until",
            postgresql_where=text("state IN ('preparing', 'drafting')"),
        ),
        Index("ix_readings_fair", "lane_order", "site_id", "rank", postgresql_where=text("state = 'queued'")),
    )
    id: Mapped[uuid.UUID] = _key()
    site_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sites.id"))
    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("studies.id"), index=True)
    revision_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("study_revisions.id"))
    purpose: Mapped[str]
    state: Mapped[str]
    lane: Mapped[str]
    lane_order: Mapped[int]
    rank: Mapped[int] = mapped_column(BigInteger)
    token: Mapped[int] = mapped_column(server_default="0")
    failures: Mapped[int] = mapped_column(server_default="0")
    not_before: Mapped[datetime] = _now()
    lease_until: Mapped[datetime | None]
    lease_owner: Mapped[str | None]
    protocol: Mapped[str | None]
    protocol_version: Mapped[str | None]
    protocol_digest: Mapped[str | None]
    model: Mapped[str | None]
    reason_code: Mapped[str | None]
    reason: Mapped[str | None]
    omitted: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB)
    created_at: Mapped[datetime] = _now()
    prepared_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = _now()


class ReadingPicture(Table):
    """A picture of a reading: which frame of which instance, rendered how, and why it was chosen."""

    __tablename__ = "reading_pictures"
    __table_args__ = (UniqueConstraint("reading_id", "position"),)
    id: Mapped[uuid.UUID] = _key()
    reading_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("readings.id"))
    position: Mapped[int]
    instance_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("instances.id"))
    frame: Mapped[int]
    sha256: Mapped[str] = mapped_column(index=True)
    height: Mapped[int]
    width: Mapped[int]
    caption: Mapped[str] = mapped_column(server_default="")
    reason: Mapped[str] = mapped_column(server_default="")
    rendering: Mapped[dict[str, Any]]


class Draft(Table):
    """What a reading said, with its provenance. One per reading, never changed."""

    __tablename__ = "drafts"
    id: Mapped[uuid.UUID] = _key()
    reading_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("readings.id"), unique=True)
    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("studies.id"), index=True)
    body: Mapped[str]
    body_sha256: Mapped[str]
    flags: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    provenance: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = _now()
    erased_at: Mapped[datetime | None]


class DraftStep(Table):
    """One engine call behind a draft: the prompt as rendered, the completion, parameters and token log-probabilities."""

    __tablename__ = "draft_steps"
    __table_args__ = (UniqueConstraint("draft_id", "position"),)
    id: Mapped[uuid.UUID] = _key()
    draft_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("drafts.id"))
    position: Mapped[int]
    prompt: Mapped[str]
    prompt_sha256: Mapped[str]
    completion: Mapped[str]
    completion_sha256: Mapped[str]
    parameters: Mapped[dict[str, Any]]
    finish: Mapped[str]
    tokens: Mapped[dict[str, Any]]
    timing: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = _now()


class Report(Table):
    """A physician's document. `revision` is its newest revision, `signed_revision` the last signed one."""

    __tablename__ = "reports"
    __table_args__ = (
        CheckConstraint(_one_of("state", ReportState), name="state"),
        Index(
            "uq_reports_live",
            "study_id",
            unique=True,
            postgresql_where=text("state NOT IN ('superseded', 'cancelled', 'entered_in_error')"),
        ),
        CheckConstraint(
            "(state IN ('final', 'appended', 'corrected')) <= (signed_revision IS NOT NULL)", name="signed"
        ),
    )
    id: Mapped[uuid.UUID] = _key()
    site_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sites.id"))
    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("studies.id"), index=True)
    study_revision: Mapped[int]
    draft_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("drafts.id"))
    state: Mapped[str]
    revision: Mapped[int]
    signed_revision: Mapped[int | None]
    pending_kind: Mapped[str | None]
    pending_author_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))
    begun_by_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))
    touched_at: Mapped[datetime | None]
    ended_reason: Mapped[str | None]
    created_at: Mapped[datetime] = _now()
    updated_at: Mapped[datetime] = _now()


class ReportRevision(Table):
    """One saved text of a report. `previous_sha256` chains it to the revision before."""

    __tablename__ = "report_revisions"
    __table_args__ = (UniqueConstraint("report_id", "number"),)
    id: Mapped[uuid.UUID] = _key()
    report_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("reports.id"))
    number: Mapped[int]
    kind: Mapped[str]
    body: Mapped[str]
    body_sha256: Mapped[str]
    previous_sha256: Mapped[str | None]
    builds_on: Mapped[int | None]
    author_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))
    comment: Mapped[str | None]
    created_at: Mapped[datetime] = _now()
    erased_at: Mapped[datetime | None]


class ReportOffer(Table):
    """A late primary's draft beside a report that somebody has touched: only offered."""

    __tablename__ = "report_offers"
    report_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("reports.id"), primary_key=True)
    draft_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("drafts.id"), primary_key=True)
    created_at: Mapped[datetime] = _now()


class Signature(Table):
    """One person's name under exactly one text (21 CFR 11.50: printed name, time, meaning)."""

    __tablename__ = "signatures"
    __table_args__ = (UniqueConstraint("report_id", "report_revision"),)
    id: Mapped[uuid.UUID] = _key()
    report_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("reports.id"))
    report_revision: Mapped[int]
    study_revision: Mapped[int]
    body_sha256: Mapped[str]
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    printed_name: Mapped[str]
    role: Mapped[str]
    meaning: Mapped[str]
    method: Mapped[str]
    proven_at: Mapped[datetime]
    client_address: Mapped[str]
    reasons: Mapped[dict[str, Any]]
    seal_head: Mapped[str | None]
    signed_at: Mapped[datetime] = _now()


class Delivery(Table):
    """One event to one receiver in one form, until acknowledged. Its outgoing identity is fixed when it is queued."""

    __tablename__ = "deliveries"
    __table_args__ = (
        CheckConstraint(_one_of("state", DeliveryState), name="state"),
        UniqueConstraint("receiver_id", "report_id", "position"),
        Index("ix_deliveries_waiting", "not_before", postgresql_where=text("state IN ('queued', 'sent')")),
    )
    id: Mapped[uuid.UUID] = _key()
    site_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sites.id"))
    receiver_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("receivers.id"))
    report_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("reports.id"), index=True)
    position: Mapped[int]
    form: Mapped[str]
    event: Mapped[str]
    identity: Mapped[str] = mapped_column(unique=True)
    report_revision: Mapped[int]
    state: Mapped[str]
    attempts: Mapped[int] = mapped_column(server_default="0")
    token: Mapped[int] = mapped_column(server_default="0")
    not_before: Mapped[datetime] = _now()
    lease_until: Mapped[datetime | None]
    last_code: Mapped[str | None]
    created_at: Mapped[datetime] = _now()
    acknowledged_at: Mapped[datetime | None]


class Event(Table):
    """Something that happened, written in its own transaction. Ids, codes and hashes, never text."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_study", "study_id", "at"), Index("ix_events_report", "report_id"))
    id: Mapped[uuid.UUID] = _key()
    at: Mapped[datetime] = _now()
    kind: Mapped[str]
    site_id: Mapped[uuid.UUID | None]
    actor_kind: Mapped[str]
    actor_id: Mapped[uuid.UUID | None]
    study_id: Mapped[uuid.UUID | None]
    reading_id: Mapped[uuid.UUID | None]
    report_id: Mapped[uuid.UUID | None]
    facts: Mapped[dict[str, Any]]


class UnsealedEvent(Table):
    """The sealer's queue; a trigger fills it, so that no event can miss its seal."""

    __tablename__ = "unsealed_events"
    event_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("events.id"), primary_key=True)


class Seal(Table):
    """The one order of events: no gaps, each hash over event and former seal."""

    __tablename__ = "seals"
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    event_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("events.id"), unique=True)
    hash: Mapped[str]
    created_at: Mapped[datetime] = _now()


class StoreDeletion(Table):
    """A stored file that may go; the sweep removes it and then the row."""

    __tablename__ = "store_deletions"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    kind: Mapped[str]
    key: Mapped[str]
    created_at: Mapped[datetime] = _now()


class Worker(Table):
    """A worker process that was here: what it serves and when it was last seen."""

    __tablename__ = "workers"
    owner: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    model: Mapped[str | None]
    slots: Mapped[int] = mapped_column(Integer)
    identity: Mapped[dict[str, Any]]
    started_at: Mapped[datetime] = _now()
    seen_at: Mapped[datetime] = _now()
