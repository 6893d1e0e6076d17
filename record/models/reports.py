"""Reports, their revisions, signatures and deliveries."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from record.models.base import Table, key, now, one_of
from record.states import DeliveryState, ReportState


class Report(Table):
    """A physician's document. `revision` is its newest revision, `signed_revision` the last signed one."""

    __tablename__ = "reports"
    __table_args__ = (
        CheckConstraint(one_of("state", ReportState), name="state"),
        Index(
            "uq_reports_live",
            "study_id",
            unique=True,
            postgresql_where=text("state NOT IN ('superseded', 'cancelled', 'entered_in_error')"),
        ),
        ForeignKeyConstraint(
            ["id", "signed_revision"],
            ["signatures.report_id", "signatures.report_revision"],
            name="fk_reports_signed_revision_signatures",
            deferrable=True,
            initially="DEFERRED",
            use_alter=True,
        ),
        CheckConstraint(
            "(state IN ('final', 'appended', 'corrected')) <= (signed_revision IS NOT NULL)", name="signed"
        ),
    )
    id: Mapped[uuid.UUID] = key()
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
    created_at: Mapped[datetime] = now()
    updated_at: Mapped[datetime] = now()


class ReportRevision(Table):
    """One saved text of a report. `previous_sha256` chains it to the revision before."""

    __tablename__ = "report_revisions"
    __table_args__ = (UniqueConstraint("report_id", "number"),)
    id: Mapped[uuid.UUID] = key()
    report_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("reports.id"))
    number: Mapped[int]
    kind: Mapped[str]
    body: Mapped[str]
    body_sha256: Mapped[str]
    previous_sha256: Mapped[str | None]
    builds_on: Mapped[int | None]
    author_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))
    comment: Mapped[str | None]
    created_at: Mapped[datetime] = now()
    erased_at: Mapped[datetime | None]


class ReportOffer(Table):
    """A late primary's draft beside a report that somebody has touched: only offered."""

    __tablename__ = "report_offers"
    report_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("reports.id"), primary_key=True)
    draft_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("drafts.id"), primary_key=True)
    created_at: Mapped[datetime] = now()


class Signature(Table):
    """One person's name under exactly one text (21 CFR 11.50: printed name, time, meaning)."""

    __tablename__ = "signatures"
    __table_args__ = (UniqueConstraint("report_id", "report_revision"),)
    id: Mapped[uuid.UUID] = key()
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
    signed_at: Mapped[datetime] = now()


class Delivery(Table):
    """One event to one receiver in one form, until acknowledged. Its outgoing identity is fixed when it is queued."""

    __tablename__ = "deliveries"
    __table_args__ = (
        CheckConstraint(one_of("state", DeliveryState), name="state"),
        UniqueConstraint("receiver_id", "report_id", "position"),
        Index("ix_deliveries_waiting", "not_before", postgresql_where=text("state IN ('queued', 'sent')")),
    )
    id: Mapped[uuid.UUID] = key()
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
    not_before: Mapped[datetime] = now()
    lease_until: Mapped[datetime | None]
    last_code: Mapped[str | None]
    created_at: Mapped[datetime] = now()
    acknowledged_at: Mapped[datetime | None]
