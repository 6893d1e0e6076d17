"""Events and the one order they are sealed in."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from record.models.base import Table, key, now


class Event(Table):
    """Something that happened, written in its own transaction. Ids, codes and hashes, never text."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_study", "study_id", "at"), Index("ix_events_report", "report_id"))
    id: Mapped[uuid.UUID] = key()
    at: Mapped[datetime] = now()
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
    created_at: Mapped[datetime] = now()
