"""Drafts and reports, as far as the asking role may see their words. Knows shapes only."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.web.schemas.given import Given


class DraftShown(Given):
    """What the machine said: never reviewed, so `banner` stands beside it and in the first line of `text`."""

    id: UUID
    reading_id: UUID
    revision: int
    banner: str
    text: str
    body: dict[str, Any]
    body_sha256: str
    flags: list[str]
    provenance: dict[str, Any]
    offered: bool
    created_at: datetime


class SignatureShown(Given):
    """One person's name under exactly one text."""

    report_revision: int
    study_revision: int
    body_sha256: str
    printed_name: str
    role: str
    meaning: str
    method: str
    reasons: dict[str, Any]
    signed_at: datetime


class ReportLine(Given):
    """A report of a study, without its words."""

    id: UUID
    state: str
    revision: int
    signed_revision: int | None
    study_revision: int
    outdated: bool
    created_at: datetime
    updated_at: datetime


class ReportRevisionShown(Given):
    """One saved text of a report, for physicians."""

    number: int
    kind: str
    author: str | None
    body_sha256: str
    text: str
    signed: bool
    created_at: datetime


class ReportShown(ReportLine):
    """A report.

    `text` and `body` are the words of revision `text_revision`, as they are edited and signed; while they are unsigned,
    `banner` says so and must stand with them wherever they are shown (`labelled_text` has it in its first line).
    Everybody but physicians gets signed words only, else null. `erased` says that the words are gone for good.
    """

    study_instance_uid: str
    erased: bool
    banner: str | None
    text_revision: int | None
    text: str | None
    labelled_text: str | None
    body: dict[str, Any] | None
    body_sha256: str | None
    ended_reason: str | None
    signatures: list[SignatureShown]
