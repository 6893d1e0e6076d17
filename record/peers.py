"""Peers: who may send, for which site, and within which limits.

A peer is an AE title bound to an address, to a name in a certificate, or to both. Knows the rules for entering one. Does not
know how a sender is recognised: the listener reads a snapshot.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from record import audit
from record.access import SYSTEM, Principal
from record.errors import Conflict, InvalidRequest, NotFound
from record.models import Peer, Site
from record.settings import valid_ae_title
from record.sites import find_site, one_at_a_time
from record.states import Lane

MAX_CERTIFICATE_NAME = 255
_NAME = re.compile(r"[!-~]+( [!-~]+)*")


def add_peer(
    session: Session,
    *,
    site: str | None,
    ae_title: str,
    address: str = "",
    certificate_name: str = "",
    port: int | None = None,
    speaks_tls: bool = False,
    lane: Lane = Lane.ROUTINE,
    strict: bool = False,
    asks_count: bool = False,
    stable_after_s: float | None = None,
    max_wait_s: float | None = None,
    max_associations: int | None = None,
    by: Principal = SYSTEM,
) -> Peer:
    """Let a sender in: an AE title (VR AE, PS3.5 6.2) bound to one address, to a certificate, or to both.

    Parameters
    ----------
    certificate_name
        The common name, or an alternative DNS name or URI, of the certificate that it has to show.
    port
        Where it answers itself.
    speaks_tls
        It is called by TLS there.
    lane
        How urgent its studies are.
    strict
        Other bytes under a UID that is taken are refused, instead of being kept as a conflict.
    asks_count
        Its own count of a study's instances says that the study is complete.
    stable_after_s
        The quiet time after which its studies are complete, where the house's own does not fit.
    max_wait_s
        The longest that its studies stay open while images keep coming, likewise.
    max_associations
        How many it may have at a time.

    Raises
    ------
    InvalidRequest
        It is no AE title, no IP address, bound to nothing, or it would have to be called and says no port or address; or its
        studies would be closed before they can be stable.
    Conflict
        The sender is known already.
    """
    title, plain = _sender(ae_title, address)
    if not plain and not certificate_name:
        message = "A sender is bound to its IP address, or to the name in its certificate: say one of them."
        raise InvalidRequest(message)
    if len(certificate_name) > MAX_CERTIFICATE_NAME or (certificate_name and not _NAME.fullmatch(certificate_name)):
        message = "A certificate's name is its common name, a DNS name or a URI: printable ASCII."
        raise InvalidRequest(message)
    if asks_count and not (port and plain):
        message = "To ask a sender for its count, it must be known where it answers: say its address and --port."
        raise InvalidRequest(message)
    if max_wait_s is not None and max_wait_s < (stable_after_s or 0.0):
        message = "The longest wait is shorter than the quiet time."
        raise InvalidRequest(message)
    found = find_site(session, site)
    one_at_a_time(session)
    if of := session.scalar(
        select(Site.name).join(Peer, Peer.site_id == Site.id).where(Peer.ae_title == title, Peer.address == plain)
    ):
        message = f"This sender is known already: it sends for site {of}. To change it, remove it and add it again."
        raise Conflict(message)
    peer = Peer(
        site_id=found.id,
        ae_title=title,
        address=plain,
        certificate_name=certificate_name,
        port=port,
        speaks_tls=speaks_tls,
        lane=lane,
        strict=strict,
        asks_count=asks_count,
        stable_after_s=stable_after_s,
        max_wait_s=max_wait_s,
        max_associations=max_associations,
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


def find_peer(session: Session, ae_title: str, address: str | None = None, *, site_id: uuid.UUID | None = None) -> Peer:
    """The peer of this AE title; the address tells several apart.

    Raises
    ------
    InvalidRequest
        It is no AE title or no IP address, or several peers have this title and no address is given.
    NotFound
        There is no such peer.
    """
    title, plain = _sender(ae_title, address or "")
    statement = select(Peer).where(Peer.ae_title == title).order_by(Peer.id)
    if address is not None:
        statement = statement.where(Peer.address == plain)
    if site_id is not None:
        statement = statement.where(Peer.site_id == site_id)
    found = session.scalars(statement).all()
    if not found:
        message = "There is no such sender. `countersign peers list` names all."
        raise NotFound(message)
    if len(found) > 1:
        message = "Several senders have this AE title: say the address as well."
        raise InvalidRequest(message)
    return found[0]


def sender_of(session: Session, notice: Mapping[str, Any]) -> Peer:
    """The peer that a listener's notice came from; one that was removed and added again is found by title and address.

    Raises
    ------
    NotFound
        There is none.
    """
    peer = session.get(Peer, uuid.UUID(notice["peer_id"]))
    if peer is None:
        titled = (Peer.ae_title == str(notice.get("ae_title", "")), Peer.address == str(notice.get("address", "")))
        peer = session.scalar(select(Peer).where(*titled))
    if peer is None:
        message = "The sender of a notice is no more."
        raise NotFound(message)
    return peer


def remove_peer(session: Session, *, ae_title: str, address: str = "", by: Principal = SYSTEM) -> None:
    """Let a sender in no more; what it sent stays. The listeners learn it from the next snapshot.

    Raises
    ------
    InvalidRequest
        It is no AE title, or no IP address.
    NotFound
        There is no such sender.
    """
    peer = find_peer(session, ae_title, address)
    audit.write(session, "peer_removed", by, site_id=peer.site_id, peer_id=peer.id)
    session.delete(peer)


def _sender(ae_title: str, address: str) -> tuple[str, str]:
    try:
        title = valid_ae_title(ae_title)
    except ValueError as error:
        message = f"{ae_title!r} cannot be a sender: {error}."
        raise InvalidRequest(message) from None
    if not address:
        return title, ""
    try:
        return title, str(ipaddress.ip_address(address))
    except ValueError:
        message = "The address is an IP address, such as 10.0.0.9."
        raise InvalidRequest(message) from None
