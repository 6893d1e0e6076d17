"""A site's own reading protocols: which are in use, which were, and which of the shipped ones are left out.

Knows names, versions, digests and when each was in use. Does not know what a protocol says: whoever adds one has read it
(`worker.protocols`), and the text is kept as it was given.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session, undefer

from record import audit
from record.access import SYSTEM, Principal
from record.errors import Conflict, InvalidRequest, NotFound
from record.models import Site, SiteProtocol

MAX_TEXT = 100_000
"""Characters of a protocol's text."""
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Added:
    """A protocol that is in use now: the one that was just added, or one of the same digest that had been before."""

    protocol: SiteProtocol
    is_new: bool
    replaced: SiteProtocol | None = None
    """What was in use under this name until now, or said that the shipped one is not."""


def live(session: Session, site_id: uuid.UUID) -> Sequence[SiteProtocol]:
    """What a site has in use of its own, and what it leaves out (`hides`), by name. Texts are loaded when they are read."""
    where = (SiteProtocol.site_id == site_id, SiteProtocol.retired_at.is_(None))
    return session.scalars(select(SiteProtocol).where(*where).order_by(SiteProtocol.name)).all()


def history(session: Session, site_id: uuid.UUID, name: str) -> Sequence[SiteProtocol]:
    """Every row of a name at a site, texts included, the latest first."""
    statement = select(SiteProtocol).where(SiteProtocol.site_id == site_id, SiteProtocol.name == name)
    newest = (SiteProtocol.added_at.desc(), SiteProtocol.id.desc())
    return session.scalars(statement.options(undefer(SiteProtocol.text)).order_by(*newest)).all()


def by_digest(session: Session, digest: str) -> SiteProtocol | None:
    """A protocol that was taken in with this digest, at whichever site, in use or not; the latest if there are several."""
    statement = select(SiteProtocol).where(SiteProtocol.digest == digest, ~SiteProtocol.hides)
    return session.scalars(statement.order_by(SiteProtocol.added_at.desc(), SiteProtocol.id.desc()).limit(1)).first()


def every(session: Session) -> Sequence[SiteProtocol]:
    """Every protocol with a text that any site has or had, the latest first. Texts are loaded when they are read."""
    statement = select(SiteProtocol).where(~SiteProtocol.hides)
    return session.scalars(statement.order_by(SiteProtocol.added_at.desc(), SiteProtocol.id.desc())).all()


def add(
    session: Session,
    site_id: uuid.UUID,
    *,
    name: str,
    version: int,
    digest: str,
    text: str,
    by: Principal = SYSTEM,
) -> Added:
    """Take a protocol into use at a site; the one of this name that was in use is retired, in the same transaction.

    What is in use already, by its digest, is left as it is.

    Raises
    ------
    InvalidRequest
        Its name, digest or text cannot be kept, or its version is not greater than every earlier one's of this name.
    NotFound
        No such site.
    """
    _require_sane(name, version, digest)
    if not text.strip() or len(text) > MAX_TEXT or "\0" in text:
        message = f"A protocol's text has 1 to {MAX_TEXT} characters, none of them NUL."
        raise InvalidRequest(message)
    at = _one_at_a_time(session, site_id)
    former = _live(session, site_id, name)
    if former is not None and not former.hides and former.digest == digest:
        return Added(former, is_new=False)
    greatest = session.scalar(
        select(func.max(SiteProtocol.version)).where(
            SiteProtocol.site_id == site_id, SiteProtocol.name == name, ~SiteProtocol.hides
        )
    )
    if greatest is not None and version <= greatest:
        message = (
            f"There has been a version {greatest} of {name} at this site: give this one the version {greatest + 1}."
        )
        raise InvalidRequest(message)
    if former is not None:
        _end(session, former, at, by, tell=not former.hides)
    added = SiteProtocol(site_id=site_id, name=name, version=version, digest=digest, text=text, added_at=at)
    session.add(added)
    session.flush()
    _tell(session, "protocol_added", added, by)
    return Added(added, is_new=True, replaced=former)


def retire(session: Session, site_id: uuid.UUID, name: str, *, by: Principal = SYSTEM) -> SiteProtocol:
    """Use a site's own protocol no more; the shipped one of this name, if there is one, is used again. The row stays.

    Raises
    ------
    NotFound
        The site has none of its own of this name in use.
    """
    at = _one_at_a_time(session, site_id)
    former = _live(session, site_id, name)
    if former is None or former.hides:
        message = (
            f"This site has no protocol of its own of the name {name!r} in use. `countersign protocols list` has all."
        )
        raise NotFound(message)
    _end(session, former, at, by, tell=True)
    return former


def hide(
    session: Session, site_id: uuid.UUID, *, name: str, version: int, digest: str, by: Principal = SYSTEM
) -> SiteProtocol:
    """Leave the shipped protocol of a name out at a site, whatever version a later release brings.

    Parameters
    ----------
    version, digest
        Those of the shipped one, for the record.

    Raises
    ------
    Conflict
        It is left out already, or the site has one of its own of this name in use.
    InvalidRequest, NotFound
        As for `add`.
    """
    _require_sane(name, version, digest)
    at = _one_at_a_time(session, site_id)
    former = _live(session, site_id, name)
    if former is not None:
        message = (
            f"The shipped protocol {name} is left out at this site already."
            if former.hides
            else f"This site has a protocol {name} of its own in use: retire that one first."
        )
        raise Conflict(message)
    hidden = SiteProtocol(site_id=site_id, name=name, version=version, digest=digest, text=None, added_at=at)
    session.add(hidden)
    session.flush()
    _tell(session, "protocol_retired", hidden, by)
    return hidden


def unhide(
    session: Session, site_id: uuid.UUID, *, name: str, version: int, digest: str, by: Principal = SYSTEM
) -> None:
    """Use the shipped protocol of a name again; `version` and `digest` are its present ones, for the record.

    Raises
    ------
    NotFound
        It is not left out at this site.
    """
    at = _one_at_a_time(session, site_id)
    former = _live(session, site_id, name)
    if former is None or not former.hides:
        message = f"No shipped protocol of the name {name!r} is left out at this site."
        raise NotFound(message)
    _end(session, former, at, by, tell=False)
    audit.write(session, "protocol_added", by, site_id=site_id, name=name, version=version, digest=digest)


def _require_sane(name: str, version: int, digest: str) -> None:
    if not _NAME.fullmatch(name):
        message = "A protocol's name has up to 64 small letters, digits, - and _, and begins with a letter."
        raise InvalidRequest(message)
    if not 1 <= version < 2**31:
        message = "A protocol's version is a whole number from 1 on."
        raise InvalidRequest(message)
    if not _DIGEST.fullmatch(digest):
        message = "A protocol's digest is a sha256: 64 hex digits."
        raise InvalidRequest(message)


def _one_at_a_time(session: Session, site_id: uuid.UUID) -> datetime:
    """Wait until nobody else changes this site's protocols; the moment from which the change holds.

    That moment is the clock's, not the transaction's beginning: whoever waited here began before what it waited for.
    """
    if session.scalar(select(Site.id).where(Site.id == site_id).with_for_update(key_share=True)) is None:
        message = "There is no such site."
        raise NotFound(message)
    at: datetime = session.scalars(select(func.clock_timestamp())).one()
    return at


def _live(session: Session, site_id: uuid.UUID, name: str) -> SiteProtocol | None:
    where = (SiteProtocol.site_id == site_id, SiteProtocol.name == name, SiteProtocol.retired_at.is_(None))
    return session.scalars(select(SiteProtocol).where(*where).execution_options(populate_existing=True)).one_or_none()


def _end(session: Session, former: SiteProtocol, at: datetime, by: Principal, *, tell: bool) -> None:
    former.retired_at = at
    session.flush()  # before another of this name is added: one at a time is live
    if tell:
        _tell(session, "protocol_retired", former, by)


def _tell(session: Session, kind: str, protocol: SiteProtocol, by: Principal) -> None:
    name, version, digest = protocol.name, protocol.version, protocol.digest
    audit.write(session, kind, by, site_id=protocol.site_id, name=name, version=version, digest=digest)
