"""Sites: the tenants.

Knows names and languages. Does not know who belongs to a site, nor what anybody may do (`access`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from record import audit
from record.access import SYSTEM, Principal
from record.errors import Conflict, InvalidRequest, NotFound
from record.models import Site

MAX_SITE_NAME = 64
_LOCK = 4_711_003
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")


def find_site(session: Session, name: str | None) -> Site:
    """The named site, or the only one.

    Raises
    ------
    NotFound
        No such site, or several and no name given.
    """
    sites = session.scalars(select(Site).where(Site.name == name) if name else select(Site)).all()
    if len(sites) == 1:
        return sites[0]
    message = f"There is no site named {name!r}." if name else "There are several sites: say which with --site."
    raise NotFound(message)


def one_at_a_time(session: Session) -> None:
    """Wait until nobody else adds a name: whether one is taken is looked up before it is written."""
    session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def folded(name: str) -> str:
    """A name as it is compared with others: without the difference of capitals, and of forms of one character."""
    return unicodedata.normalize("NFKC", name).casefold()


def list_sites(session: Session) -> Sequence[Site]:
    """All sites, the oldest first: whoever is no peer sends to that one."""
    return session.scalars(select(Site).order_by(Site.created_at, Site.id)).all()


def add_site(session: Session, *, name: str, language: str = "en", by: Principal = SYSTEM) -> Site:
    """Add a tenant. Names differ in more than capitals, and in more than spaces around them, which are taken off.

    Raises
    ------
    InvalidRequest
        The name is empty, too long or holds characters that cannot be seen; or the language is no tag.
    Conflict
        There is a site of this name.
    """
    name = name.strip()
    if not name or len(name) > MAX_SITE_NAME or not name.isprintable():
        message = f"A site's name has 1 to {MAX_SITE_NAME} characters that can be seen."
        raise InvalidRequest(message)
    if not _LANGUAGE.fullmatch(language):
        message = "A language is a tag such as en or zh-Hans (BCP 47)."
        raise InvalidRequest(message)
    one_at_a_time(session)
    if folded(name) in map(folded, session.scalars(select(Site.name))):
        message = "There is a site of this name; capitals make no difference."
        raise Conflict(message)
    site = Site(name=name, language=language)
    session.add(site)
    session.flush()
    audit.write(session, "site_added", by, site_id=site.id)
    return site
