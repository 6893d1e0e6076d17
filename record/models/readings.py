"""Readings, their pictures and drafts, and the workers that do them."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from record.models.base import Table, key, now, one_of
from record.states import Lane, Purpose, ReadingState


class Reading(Table):
    """One run of an engine over one study revision under one protocol: also the queue's truth.

    `token` grows at every claim and only fences; `failures` counts errors, lost leases and deaths. `rank` is the fair
    rank of the reading's site in its lane.
    """

    __tablename__ = "readings"
    __table_args__ = (
        CheckConstraint(one_of("state", ReadingState), name="state"),
        CheckConstraint(one_of("purpose", Purpose), name="purpose"),
        CheckConstraint(one_of("lane", Lane), name="lane"),
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
    id: Mapped[uuid.UUID] = key()
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
    not_before: Mapped[datetime] = now()
    lease_until: Mapped[datetime | None]
    lease_owner: Mapped[str | None]
    protocol: Mapped[str | None]
    protocol_version: Mapped[str | None]
    protocol_digest: Mapped[str | None]
    model: Mapped[str | None]
    reason_code: Mapped[str | None]
    reason: Mapped[str | None]
    omitted: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB)
    created_at: Mapped[datetime] = now()
    prepared_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = now()


class ReadingPicture(Table):
    """A picture of a reading: which frame of which instance, rendered how, and why it was chosen."""

    __tablename__ = "reading_pictures"
    __table_args__ = (UniqueConstraint("reading_id", "position"),)
    id: Mapped[uuid.UUID] = key()
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
    id: Mapped[uuid.UUID] = key()
    reading_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("readings.id"), unique=True)
    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("studies.id"), index=True)
    body: Mapped[str]
    body_sha256: Mapped[str]
    flags: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    provenance: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = now()
    erased_at: Mapped[datetime | None]


class DraftStep(Table):
    """One engine call behind a draft: the prompt as rendered, the completion, parameters and token log-probabilities."""

    __tablename__ = "draft_steps"
    __table_args__ = (UniqueConstraint("draft_id", "position"),)
    id: Mapped[uuid.UUID] = key()
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
    created_at: Mapped[datetime] = now()


class Worker(Table):
    """A worker process that was here: what it serves and when it was last seen."""

    __tablename__ = "workers"
    owner: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    model: Mapped[str | None]
    slots: Mapped[int] = mapped_column(Integer)
    identity: Mapped[dict[str, Any]]
    started_at: Mapped[datetime] = now()
    seen_at: Mapped[datetime] = now()


class Part(Table):
    """A process of the gateway that was here: a door, an indexer, a sweep. Workers have a table of their own.

    `facts` holds what the process alone knows: an indexer tells its spool's files, age and free room, and whether the
    listener beside it lives, which has no database.
    """

    __tablename__ = "parts"
    owner: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    host: Mapped[str]
    version: Mapped[str]
    facts: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    started_at: Mapped[datetime] = now()
    seen_at: Mapped[datetime] = now()
