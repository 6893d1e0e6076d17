"""What any client gets: errors, who is signed in, events, health. Knows shapes only."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict


class Given(BaseModel):
    """Base of what is given; never changed after it is made."""

    model_config = ConfigDict(frozen=True)


class Problem(Given):
    """An error (RFC 9457). `code` is stable; conflicts add facts such as the current `revision`."""

    type: str
    title: str
    status: int
    detail: str
    code: str


class Person(Given):
    """Who is signed in."""

    id: UUID
    printed_name: str
    role: str


class Opened(Given):
    """A session: send `csrf` as the header `X-CSRF-Token` with every request that changes something."""

    csrf: str
    user: Person


class EventShown(Given):
    """Something that happened: ids, codes, counts and hashes. `position` and `hash` are its seal's."""

    position: int
    hash: str
    id: UUID
    at: datetime
    kind: str
    actor_kind: str
    actor_id: UUID | None
    study_id: UUID | None
    study_instance_uid: str | None
    reading_id: UUID | None
    report_id: UUID | None
    facts: dict[str, Any]


class EventPage(Given):
    """Events in the order of their seals, oldest first. `next` is the cursor of the page after it, or null."""

    items: list[EventShown]
    next: int | None


class Alive(Given):
    """A process that answers."""

    status: str


class Ready(Given):
    """Whether this process can serve; only the database makes it unready."""

    database: str
    redis: str
