"""Sites, people, machines, senders and receivers."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, CheckConstraint, ForeignKey, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from record.models.base import Table, key, now, one_of
from record.states import Lane, Role


class Site(Table):
    """The tenant: who may see."""

    __tablename__ = "sites"
    id: Mapped[uuid.UUID] = key()
    name: Mapped[str] = mapped_column(unique=True)
    language: Mapped[str] = mapped_column(server_default="en")
    created_at: Mapped[datetime] = now()


class User(Table):
    """A person who signs in. `login` is what is typed, `printed_name` what stands under a report."""

    __tablename__ = "users"
    __table_args__ = (CheckConstraint(one_of("role", Role), name="role"),)
    id: Mapped[uuid.UUID] = key()
    site_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sites.id"))
    login: Mapped[str] = mapped_column(unique=True)
    printed_name: Mapped[str]
    role: Mapped[str]
    password_hash: Mapped[str]
    failed_logins: Mapped[int] = mapped_column(server_default="0")
    locked_until: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = now()


class UserSession(Table):
    """A signed-in browser. The cookie's value is never stored, only its sha256."""

    __tablename__ = "user_sessions"
    id: Mapped[uuid.UUID] = key()
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"), index=True)
    secret_sha256: Mapped[str] = mapped_column(unique=True)
    csrf_secret: Mapped[str]
    created_at: Mapped[datetime] = now()
    seen_at: Mapped[datetime] = now()
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    search: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    """The last searches, by name: words of a patient's. Blanked when the session ends, by the sweep when it ran out, and
    whenever a study is erased."""
    failed_proofs: Mapped[int] = mapped_column(server_default="0")
    """Wrong passwords in this session since the last right one."""


class Token(Table):
    """A machine's bearer token: 256 random bits, stored as sha256."""

    __tablename__ = "tokens"
    __table_args__ = (
        CheckConstraint(one_of("role", Role), name="role"),
        UniqueConstraint("site_id", "name"),
    )
    id: Mapped[uuid.UUID] = key()
    site_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sites.id"))
    name: Mapped[str]
    role: Mapped[str]
    scopes: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    secret_sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = now()
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Peer(Table):
    """Who sends to us: an application entity title bound to an address, to a name in a certificate, or to both.

    An empty address is any, an empty certificate name asks for none. `port` is where it answers itself, by TLS if it `speaks_tls`;
    without one it is never called. `asks_count`: its own count of a study's instances is asked for, to know that a study is complete.
    """

    __tablename__ = "peers"
    __table_args__ = (
        CheckConstraint(one_of("lane", Lane), name="lane"),
        UniqueConstraint("ae_title", "address", "certificate_name"),
    )
    id: Mapped[uuid.UUID] = key()
    site_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sites.id"))
    ae_title: Mapped[str]
    address: Mapped[str]
    certificate_name: Mapped[str] = mapped_column(server_default="")
    port: Mapped[int | None]
    speaks_tls: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    lane: Mapped[str] = mapped_column(server_default=Lane.ROUTINE)
    strict: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    stable_after_s: Mapped[float | None]
    max_wait_s: Mapped[float | None]
    max_associations: Mapped[int | None]
    asks_count: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    created_at: Mapped[datetime] = now()


class Receiver(Table):
    """Who gets from us, and in which form."""

    __tablename__ = "receivers"
    __table_args__ = (UniqueConstraint("site_id", "name"),)
    id: Mapped[uuid.UUID] = key()
    site_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sites.id"))
    name: Mapped[str]
    form: Mapped[str]
    address: Mapped[str]
    secret_name: Mapped[str | None]
    disabled_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = now()
