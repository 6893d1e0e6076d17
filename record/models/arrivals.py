"""What the listeners tell: associations, and what was proposed on them."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from record.models.base import Table, key


class Proposal(Table):
    """The presentation contexts of an association, as offered and taken: many have the same, so each is kept once.

    `offers` are lists of abstract syntax, transfer syntaxes offered, and the one that was taken or null.
    """

    __tablename__ = "proposals"
    sha256: Mapped[str] = mapped_column(primary_key=True)
    offers: Mapped[list[list[Any]]] = mapped_column(JSONB)


class Association(Table):
    """One association that ended, or an attempt at one; a stranger's has neither peer nor site.

    `peer_id` may name a peer that is no more. AE titles and addresses are a sender's own words, made printable.
    """

    __tablename__ = "associations"
    __table_args__ = (
        Index("ix_associations_ended", text("ended_at DESC")),
        Index("ix_associations_peer", "peer_id", text("ended_at DESC")),
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
    refusals: Mapped[dict[str, Any]]
    outcome: Mapped[str]
    reason_code: Mapped[str]
    began_at: Mapped[datetime]
    ended_at: Mapped[datetime]
