"""A site's own reading protocols."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, column_property, mapped_column

from record.models.base import Table, key, now


class SiteProtocol(Table):
    """One version of a protocol of a site's own; without a text: the shipped one of this name is left out at this site.

    Rows stay for good, since readings name their digests: only `retired_at` is ever set, once. `digest` is that of the release
    that took it in; version and digest of a row without a text are those of the shipped one that was left out.
    """

    __tablename__ = "site_protocols"
    __table_args__ = (
        CheckConstraint("version >= 1", name="version"),
        CheckConstraint("digest ~ '^[0-9a-f]{64}$'", name="digest"),
        CheckConstraint("retired_at >= added_at", name="retired"),
        Index("uq_site_protocols_live", "site_id", "name", unique=True, postgresql_where=sql("retired_at IS NULL")),
        Index(
            "uq_site_protocols_version",
            "site_id",
            "name",
            "version",
            unique=True,
            postgresql_where=sql("text IS NOT NULL"),
        ),
        Index("ix_site_protocols_digest", "digest"),
    )
    id: Mapped[uuid.UUID] = key()
    site_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sites.id"))
    name: Mapped[str]
    version: Mapped[int]
    digest: Mapped[str]
    text: Mapped[str | None] = mapped_column(deferred=True)
    """YAML, as it was given; loaded only for whoever reads it, since a worker asks which ones there are for every study."""
    hides: Mapped[bool] = column_property(text.is_(None))
    """Whether there is no text."""
    added_at: Mapped[datetime] = now()
    retired_at: Mapped[datetime | None]
