"""Sites and their peers: the tenants, and who may send to them.

Knows names, AE titles and addresses. Does not know how a sender is recognised (the listener reads a snapshot) or what
anybody may do (`access`).
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Sequence

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from record import audit
from record.access import SYSTEM, Principal
from record.errors import Conflict, InvalidRequest, NotFound
from record.models import Peer, Site
from record.settings import valid_ae_title
from record.states import Lane

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


def add_peer(
    session: Session,
    *,
    site: str | None,
    ae_title: str,
    address: str,
    lane: Lane = Lane.ROUTINE,
    stable_after_s: float | None = None,
    max_wait_s: float | None = None,
    by: Principal = SYSTEM,
) -> Peer:
    """Let a sender in: an AE title (VR AE, PS3.5 6.2) bound to one address.

    Parameters
    ----------
    lane
        How urgent its studies are.
    stable_after_s
        The quiet time after which its studies are complete, where the house's own does not fit.
    max_wait_s
        The longest that its studies stay open while images keep coming, likewise.

    Raises
    ------
    InvalidRequest
        It is no AE title, or no IP address; or its studies would be closed before they can be stable.
    Conflict
        The sender is known already.
    """
    title, plain = _sender(ae_title, address)
    if max_wait_s is not None and max_wait_s < (stable_after_s or 0.0):
        message = "The longest wait is shorter than the quiet time."
        raise InvalidRequest(message)
    found = find_site(session, site)
    one_at_a_time(session)
    if of := session.scalar(
        select(Site.name).join(Peer, Peer.site_id == Site.id).where(Peer.ae_title == title, Peer.address == plain)
    ):
        message = f"This sender is known already: it sends for site {of}."
        raise Conflict(message)
    peer = Peer(
        site_id=found.id,
        ae_title=title,
        address=plain,
        lane=lane,
        stable_after_s=stable_after_s,
        max_wait_s=max_wait_s,
    )
    session.add(peer)
    session.flush()
    audit.write(session, "peer_added", by, site_id=found.id, peer_id=peer.id, lane=lane)
    return peer


def list_peers(session: Session, *, site: str | None = None) -> Sequence[tuple[Peer, str]]:
    """Who may send, and for which site; of one site or of all."""
    statement = select(Peer, Site.name).join(Site, Site.id == Peer.site_id).order_by(Site.name, Peer.ae_title)
    if site is not None:
        statement = statement.where(Site.id == find_site(session, site).id)
    return [(row[0], row[1]) for row in session.execute(statement.order_by(Peer.address))]


def remove_peer(session: Session, *, ae_title: str, address: str, by: Principal = SYSTEM) -> None:
    """Let a sender in no more; what it sent stays. The listeners learn it from the next snapshot.

    Raises
    ------
    InvalidRequest
        It is no AE title, or no IP address.
    NotFound
        There is no such sender.
    """
    title, plain = _sender(ae_title, address)
    peer = session.scalar(select(Peer).where(Peer.ae_title == title, Peer.address == plain).with_for_update())
    if peer is None:
        message = "There is no such sender. `countersign peers list` names all."
        raise NotFound(message)
    audit.write(session, "peer_removed", by, site_id=peer.site_id, peer_id=peer.id)
    session.delete(peer)


def _sender(ae_title: str, address: str) -> tuple[str, str]:
    try:
        title = valid_ae_title(ae_title)
    except ValueError as error:
        message = f"{ae_title!r} cannot be a sender: {error}."
        raise InvalidRequest(message) from None
    try:
        return title, str(ipaddress.ip_address(address))
    except ValueError:
        message = "The address is an IP address, such as 10.0.0.9."
        raise InvalidRequest(message) from None
