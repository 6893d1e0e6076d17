"""What the listeners tell besides images: associations, storage commitments that were asked for, announcements."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Double, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from record.models.base import Table, key, now, one_of
from record.states import AnnouncementKind, CommitmentState


class Proposal(Table):
    """The presentation contexts of an association, as offered and taken: many have the same, so each is kept once.

    `offers` are lists of abstract syntax, transfer syntaxes offered, and the one that was taken or null.
    """

    __tablename__ = "proposals"
    sha256: Mapped[str] = mapped_column(primary_key=True)
    offers: Mapped[list[list[Any]]] = mapped_column(JSONB)


class Association(Table):
    """One association that ended, or an attempt at one; a stranger's has neither peer nor site.

    `peer_id` may name a peer that is no more. AE titles, addresses and certificate names are a sender's own words, made printable.
    `requests` counts what it asked for, `refusals` what was answered otherwise than by Success; `refused` are the first of these:
    `status`, `why`, and the UIDs `sop` and `study` as far as they are known. `untaken` counts the classes of which no offer was taken.
    """

    __tablename__ = "associations"
    __table_args__ = (
        Index("ix_associations_ended", text("ended_at DESC")),
        Index("ix_associations_peer", "peer_id", text("ended_at DESC")),
        Index("ix_associations_proposal", "proposal"),
        Index("ix_associations_gaps", "peer_id", "ended_at", postgresql_where=text("gap_s >= 600")),
        Index(
            "ix_associations_refused",
            "refused",
            postgresql_using="gin",
            postgresql_ops={"refused": "jsonb_path_ops"},
            postgresql_where=text("refused <> '[]'"),
        ),
    )
    id: Mapped[uuid.UUID] = key()
    site_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("sites.id"))
    peer_id: Mapped[uuid.UUID | None]
    listener: Mapped[str]
    calling_ae_title: Mapped[str]
    called_ae_title: Mapped[str]
    peer_address: Mapped[str]
    is_secure: Mapped[bool]
    proposal: Mapped[str] = mapped_column(ForeignKey("proposals.sha256"))
    instances: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    requests: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    refusals: Mapped[dict[str, Any]]
    refused: Mapped[list[dict[str, str]]] = mapped_column(JSONB, server_default="[]")
    certificate_names: Mapped[list[str]] = mapped_column(JSONB, server_default="[]")
    untaken: Mapped[int] = mapped_column(server_default="0")
    outcome: Mapped[str]
    reason_code: Mapped[str]
    began_at: Mapped[datetime]
    ended_at: Mapped[datetime]
    gap_s: Mapped[float | None] = mapped_column(Double)
    """How long its peer had been silent before."""


class Commitment(Table):
    """A storage commitment that a peer asked for (PS3.4, annex J), until it was told what became of it.

    `asked` are pairs of SOP Class UID and SOP Instance UID. `not_before` is also the lease of who reports. `ae_title` and `address` are
    the peer's: one that was removed and entered again is known by them.
    """

    __tablename__ = "commitments"
    __table_args__ = (
        CheckConstraint(one_of("state", CommitmentState), name="state"),
        Index("ix_commitments_waiting", "not_before", postgresql_where=text("state = 'queued'")),
        Index("ix_commitments_dead", "received_at", postgresql_where=text("state = 'dead'")),
    )
    id: Mapped[uuid.UUID] = key()
    site_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sites.id"))
    peer_id: Mapped[uuid.UUID]
    ae_title: Mapped[str] = mapped_column(server_default="")
    address: Mapped[str] = mapped_column(server_default="")
    transaction_uid: Mapped[str]
    asked: Mapped[list[list[str]]] = mapped_column(JSONB)
    state: Mapped[str]
    attempts: Mapped[int] = mapped_column(server_default="0")
    failed_instances: Mapped[int | None]
    last_code: Mapped[str | None]
    received_at: Mapped[datetime]
    not_before: Mapped[datetime] = now()
    created_at: Mapped[datetime] = now()
    reported_at: Mapped[datetime | None]


class Announcement(Table):
    """What a peer announced of studies: that instances can be had, or that a procedure step makes them.

    Messages about one step share its `sop_instance_uid`; only the first names its studies. Rows are only ever added.
    """

    __tablename__ = "announcements"
    __table_args__ = (
        CheckConstraint(one_of("kind", AnnouncementKind), name="kind"),
        Index("ix_announcements_studies", "study_instance_uids", postgresql_using="gin"),
        Index("ix_announcements_step", "site_id", "sop_instance_uid"),
    )
    id: Mapped[uuid.UUID] = key()
    site_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sites.id"))
    peer_id: Mapped[uuid.UUID]
    kind: Mapped[str]
    sop_instance_uid: Mapped[str]
    study_instance_uids: Mapped[list[str]]
    status: Mapped[str]
    instance_uids: Mapped[list[str]]
    received_at: Mapped[datetime]
    created_at: Mapped[datetime] = now()
