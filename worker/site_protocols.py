"""The protocols of a site: those that are shipped, with its own in their place and what it leaves out.

Knows the record's rows (`record.protocols`) and how their text is read (`worker.protocols`). Does not know what a protocol
asks for. A text is parsed once a process: rows never change.
"""

from __future__ import annotations

import importlib.resources
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import structlog
from sqlalchemy.orm import Session

from record import protocols as records
from record.errors import Misconfigured
from record.models import SiteProtocol
from worker.protocols import Protocol, load, load_all, ordered, with_own

_logger = structlog.get_logger()
_MOST = 4096
_read: dict[uuid.UUID, Protocol | Misconfigured] = {}
"""What the text of each row was read as, or why it cannot be."""
_told: set[uuid.UUID] = set()
"""Rows of which the log has it that they cannot be read."""


@dataclass(frozen=True, slots=True)
class SiteProtocols:
    """What a site has: `tried` in their order, and apart from these what is not tried and why."""

    tried: tuple[Protocol, ...]
    own: Mapping[str, SiteProtocol]
    """Those in use of its own, by name."""
    unreadable: Mapping[str, Misconfigured]
    """Of these, what this release cannot read: as if it were not there."""
    hidden: frozenset[str]
    """Shipped ones that are left out, by name."""


def protocols_of(session: Session, site_id: uuid.UUID) -> tuple[Protocol, ...]:
    """Return the protocols of a site in the order in which they are tried; its own that cannot be read are left out."""
    found = site_protocols(session, site_id)
    for row in (found.own[name] for name in found.unreadable if found.own[name].id not in _told):
        _told.add(row.id)
        _logger.error("protocol_unreadable", site_id=str(site_id), digest=row.digest, version=row.version)
    return found.tried


def protocol_of_digest(session: Session, digest: str) -> Protocol | None:
    """Return the protocol of a digest, shipped or of whichever site, in use or not; None where this release has none such."""
    for shipped in load_all():
        if shipped.digest == digest:
            return shipped
    row = records.by_digest(session, digest)
    read = read_row(row) if row is not None else None
    if isinstance(read, Protocol) and read.digest == digest:
        return read
    # A release may read the same text as more than a former one did, and give it another digest than it was taken in with.
    found = (read_row(each) for each in records.every(session))
    return next((each for each in found if isinstance(each, Protocol) and each.digest == digest), None)


def site_protocols(session: Session, site_id: uuid.UUID) -> SiteProtocols:
    """Return all that a site has, told apart."""
    rows = records.live(session, site_id)
    own = {row.name: row for row in rows if not row.hides}
    hidden = frozenset(row.name for row in rows if row.hides)
    read = {name: read_row(row) for name, row in own.items()}
    readable = [each for each in read.values() if isinstance(each, Protocol)]
    unreadable = {name: each for name, each in read.items() if isinstance(each, Misconfigured)}
    return SiteProtocols(with_own(load_all(), readable, hidden), own, unreadable, hidden)


def with_changed(of_site: SiteProtocols, changed: Protocol) -> tuple[Protocol, ...]:
    """Return what a site would have if it added a protocol."""
    return ordered([changed, *(each for each in of_site.tried if each.name != changed.name)])


def read_row(row: SiteProtocol) -> Protocol | Misconfigured:
    """Return what a row's text says, or why this release cannot read it."""
    found = _read.get(row.id)
    if found is None:
        try:
            found = load(row.text or "", origin=f"{row.name} version {row.version}")
        except Misconfigured as error:
            found = error
        if len(_read) >= _MOST:
            _read.clear()
        _read[row.id] = found
    return found


@cache
def shipped_texts() -> Mapping[str, str]:
    """Return the YAML of every shipped protocol, by name."""
    texts = (
        entry.read_text(encoding="utf-8")
        for entry in importlib.resources.files("worker.protocols").iterdir()
        if entry.name.endswith(".yaml")
    )
    return {load(text).name: text for text in texts}
