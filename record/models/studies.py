"""Patients, studies, series, instances, and the revisions that are frozen of them."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from record.models.base import Table, key, now, one_of
from record.states import ConflictKind, InstanceKind, Lane, StudyState

NAME_WORDS = (
    "to_tsvector('simple'::regconfig, translate(normalize(regexp_replace(normalize(patient_name, NFD),"
    " '[\u0300-\u036f]'::text, ''::text, 'g'::text), NFC), '^=.,_/''-øØłŁđĐ', '        oOlLdD'))"
)
"""The words of a patient's name, all groups and components (PS3.5, 6.2.1), as they are searched: the index's expression.

Letters stand without their accents; `gateway.web.worklist` folds what is asked for in the same way.
"""

UNSETTLED = "CASE WHEN settled_at = updated_at THEN 0 ELSE 1 END"
"""1 where something may be left to do for a study: an expression, since PostgreSQL keeps statistics of those."""


class Patient(Table):
    """A patient as (site, issuer, Patient ID). A merge re-links, never rewrites."""

    __tablename__ = "patients"
    __table_args__ = (UniqueConstraint("site_id", "issuer_of_patient_id", "patient_id"),)
    id: Mapped[uuid.UUID] = key()
    site_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sites.id"))
    issuer_of_patient_id: Mapped[str] = mapped_column(server_default="")
    patient_id: Mapped[str]
    merged_into_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("patients.id"))
    created_at: Mapped[datetime] = now()


class Study(Table):
    """A study of one site. `revision` counts its closings; 0 means never closed."""

    __tablename__ = "studies"
    __table_args__ = (
        CheckConstraint(one_of("state", StudyState), name="state"),
        CheckConstraint(one_of("lane", Lane), name="lane"),
        UniqueConstraint("site_id", "study_instance_uid"),
        Index("ix_studies_receiving", "last_image_at", postgresql_where=text("state = 'receiving'")),
        Index("ix_studies_worklist", "site_id", text("updated_at DESC"), text("id DESC")),
        Index(
            "ix_studies_unsettled",
            "site_id",
            text("lane DESC"),
            "created_at",
            "id",
            postgresql_where=text(f"({UNSETTLED}) = 1"),
        ),
        Index("ix_studies_patient", "site_id", "patient_id", postgresql_ops={"patient_id": "text_pattern_ops"}),
        Index(
            "ix_studies_accession",
            "site_id",
            "accession_number",
            postgresql_ops={"accession_number": "text_pattern_ops"},
        ),
        Index("ix_studies_date", "site_id", "study_date"),
        Index("ix_studies_name", text(f"({NAME_WORDS})"), postgresql_using="gin"),
    )
    id: Mapped[uuid.UUID] = key()
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
    peer_id: Mapped[uuid.UUID | None]
    """Who sent its first instance; perhaps a peer no more."""
    expected_instances: Mapped[int | None]
    """How many that peer says there are, as it was told at `expected_at`; it was asked last at `count_asked_at`."""
    expected_at: Mapped[datetime | None]
    count_asked_at: Mapped[datetime | None]
    announced_at: Mapped[datetime | None]
    """When everything was here that was announced; not if that is uncertain, or was before it was last reopened."""
    receiving_since: Mapped[datetime] = now()
    first_image_at: Mapped[datetime | None]
    last_image_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = now()
    updated_at: Mapped[datetime] = now()
    settled_at: Mapped[datetime | None]
    """The `updated_at` at which nothing was left to do for this study (`record.work`); anything else: look again."""
    erased_at: Mapped[datetime | None]


class Series(Table):
    """A series of a study."""

    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("study_id", "series_instance_uid"),)
    id: Mapped[uuid.UUID] = key()
    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("studies.id"))
    series_instance_uid: Mapped[str]
    modality: Mapped[str] = mapped_column(server_default="")
    series_number: Mapped[int | None]
    series_description: Mapped[str] = mapped_column(server_default="")
    body_part_examined: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime] = now()


class Instance(Table):
    """One stored file. `id` is the file's own id, so that a row found again is this file's own, never a duplicate.

    `sha256` is over the data set bytes, without preamble and file meta. Another instance with the same UID and other
    bytes is another *side* of a conflict: `conflict_of_id` names the first that came, `conflict_decided_at` says that
    a person decided. The same bytes again leave a row that names the first (`duplicate_of_id`) and no file.
    """

    __tablename__ = "instances"
    __table_args__ = (
        CheckConstraint(one_of("kind", InstanceKind), name="kind"),
        Index("ix_instances_sop", "study_id", "sop_instance_uid"),
        Index("ix_instances_sop_instance_uid", "sop_instance_uid"),
        Index(
            "uq_instances_first_side",
            "study_id",
            "sop_instance_uid",
            unique=True,
            postgresql_where=text("conflict_of_id IS NULL AND duplicate_of_id IS NULL AND erased_at IS NULL"),
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
    association_id: Mapped[uuid.UUID | None]
    received_at: Mapped[datetime]
    erased_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = now()
    series: Mapped[Series] = relationship(lazy="raise")


class ConflictDecision(Table):
    """What a person decided about an instance, and why: append-only, so that it can be read again and taken back.

    `kept`, an instance of other bytes took the place of `instead_of_id`. An erasure blanks `reason`; its hash stays.
    """

    __tablename__ = "conflict_decisions"
    __table_args__ = (CheckConstraint(one_of("conflict", ConflictKind), name="conflict"),)
    id: Mapped[uuid.UUID] = key()
    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("studies.id"), index=True)
    instance_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("instances.id"))
    instead_of_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("instances.id"))
    conflict: Mapped[str]
    kept: Mapped[bool]
    reason: Mapped[str]
    reason_sha256: Mapped[str]
    decided_by_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    decided_at: Mapped[datetime] = now()


UNDECIDED = Instance.conflict_kind.is_not(None) & Instance.conflict_decided_at.is_(None)
"""Its bytes or its identity conflict with another's, and nobody has decided."""
KEEPS_A_FILE = Instance.duplicate_of_id.is_(None) & Instance.erased_at.is_(None)
"""There is a file of it in the store: not that of another row, nor erased."""


class StudyRevision(Table):
    """The set of images at one closing, and why the study was taken as complete."""

    __tablename__ = "study_revisions"
    __table_args__ = (UniqueConstraint("study_id", "number"),)
    id: Mapped[uuid.UUID] = key()
    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("studies.id"))
    number: Mapped[int]
    images: Mapped[int]
    images_sha256: Mapped[str]
    evidence_kind: Mapped[str]
    evidence: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = now()


class RevisionInstance(Table):
    """An instance that belongs to a frozen revision."""

    __tablename__ = "revision_instances"
    revision_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("study_revisions.id"), primary_key=True)
    instance_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("instances.id"), primary_key=True, index=True)


class StoreDeletion(Table):
    """A stored file that may go; the sweep removes it and then the row."""

    __tablename__ = "store_deletions"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    kind: Mapped[str]
    key: Mapped[str]
    created_at: Mapped[datetime] = now()
