"""Drafts and reports, as far as the asking role may see their words. Knows shapes only."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from gateway.web.schemas.given import Given

_BODY = "The same words as sections and sentences, bare: what `PUT …/text` takes as `body`."
_LABELLED = "The words as they are to be shown: while they are unsigned, the banner is their first line."


class DraftShown(Given):
    """What the machine said: never reviewed, so `banner` stands wherever it is shown, and there is no bare text of it."""

    id: UUID
    reading_id: UUID
    revision: int
    banner: str
    labelled_text: str = Field(description=_LABELLED)
    body: dict[str, Any] = Field(description=_BODY)
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
    text: str = Field(description="The bare words, without a banner, be they signed or not.")
    signed: bool
    created_at: datetime


class ReportShown(ReportLine):
    """A report.

    `text` and `body` are the bare words of revision `text_revision`, as they are edited and signed: they are to be worked
    on. `labelled_text` is to be shown: while the words are unsigned, `banner` is its first line. Everybody but physicians
    gets signed words only, else null. `erased` says that the words are gone for good. `ended_…`: who cancelled it, when and
    why, for physicians.
    """

    study_instance_uid: str
    erased: bool
    banner: str | None
    text_revision: int | None
    text: str | None = Field(description="The bare words, without a banner: what `PUT …/text` takes as `text`.")
    labelled_text: str | None = Field(description=_LABELLED)
    body: dict[str, Any] | None = Field(description=_BODY)
    body_sha256: str | None
    ended_reason: str | None
    ended_by: str | None
    ended_at: datetime | None
    signatures: list[SignatureShown]
