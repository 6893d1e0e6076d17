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

from sqlalchemy import select, true
from sqlalchemy.orm import Session

from record import audit
from record.access import SYSTEM, Principal
from record.errors import Conflict, InvalidRequest, NotFound
from record.models import Peer, Site
from record.settings import valid_ae_title
from record.sites import find_site, one_at_a_time
from record.states import Lane

MAX_CERTIFICATE_NAME = 255
CHANGEABLE = frozenset({"address", "certificate_name", "port", "speaks_tls", "lane", "strict", "asks_count"}) | {
    "stable_after_s", "max_wait_s", "max_associations",
}  # fmt: skip
"""What `change_peer` changes."""
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
    found = find_site(session, site)
    one_at_a_time(session)
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
    _require_sane(peer)
    _require_new(session, peer)
    session.add(peer)
    session.flush()
    audit.write(session, "peer_added", by, site_id=found.id, peer_id=peer.id, lane=lane)
    return peer


def change_peer(session: Session, peer: Peer, changes: Mapping[str, Any], *, by: Principal = SYSTEM) -> None:
    """Change what a sender may do; who it is, and all that it asked for, stay. The listeners learn it from the next snapshot.

    Parameters
    ----------
    changes
        Any of `CHANGEABLE`, with its new value.

    Raises
    ------
    InvalidRequest, Conflict
        As for `add_peer`.
    """
    one_at_a_time(session)
    for name in changes.keys() & CHANGEABLE:
        setattr(peer, name, _sender(peer.ae_title, changes[name])[1] if name == "address" else changes[name])
    with session.no_autoflush:
        _require_sane(peer)
        _require_new(session, peer)
    session.flush()
    audit.write(session, "peer_changed", by, site_id=peer.site_id, peer_id=peer.id, fields=sorted(changes))


def list_peers(session: Session, *, site: str | None = None) -> Sequence[tuple[Peer, str]]:
    """Who may send, and for which site; of one site or of all."""
    statement = select(Peer, Site.name).join(Site, Site.id == Peer.site_id).order_by(Site.name, Peer.ae_title)
    if site is not None:
        statement = statement.where(Site.id == find_site(session, site).id)
    return [(row[0], row[1]) for row in session.execute(statement.order_by(Peer.address))]


def find_peer(session: Session, ae_title: str, address: str | None = None, certificate_name: str | None = None) -> Peer:
    """The peer of this AE title; address (empty for one that is bound to none) and certificate tell several apart.

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
        statement = statement.where(Peer.address.in_([plain, address]))  # a former release kept it as it was written
    if certificate_name is not None:
        statement = statement.where(Peer.certificate_name == certificate_name)
    found = session.scalars(statement).all()
    if not found:
        message = "There is no such sender. `countersign peers list` names all."
        raise NotFound(message)
    if len(found) > 1:
        message = (
            "Several senders have this AE title: say the address (`any`, if it is bound to none), or --certificate."
        )
        raise InvalidRequest(message)
    return found[0]


def sender_of(session: Session, notice: Mapping[str, Any]) -> Peer:
    """The peer that a listener's notice came from; one that was removed and entered again is found by all that it is known by.

    Raises
    ------
    NotFound
        There is none.
    """
    peer = session.get(Peer, uuid.UUID(notice["peer_id"]))
    if peer is None:
        told = {
            "ae_title": Peer.ae_title,
            "address": Peer.address,
            "certificate_name": Peer.certificate_name,
            "site": Site.name,
        }
        titled = [column == str(notice.get(name, "")) for name, column in told.items()]
        same = session.scalars(select(Peer).join(Site, Site.id == Peer.site_id).where(*titled).limit(2)).all()
        peer = same[0] if len(same) == 1 else None
    if peer is None:
        message = "The sender of a notice is no more."
        raise NotFound(message)
    return peer


def remove_peer(session: Session, peer: Peer, *, by: Principal = SYSTEM) -> None:
    """Let a sender in no more; what it sent stays. The listeners learn it from the next snapshot."""
    audit.write(session, "peer_removed", by, site_id=peer.site_id, peer_id=peer.id)
    session.delete(peer)


def _require_sane(peer: Peer) -> None:
    if not peer.address and not peer.certificate_name:
        message = "A sender is bound to its IP address, or to the name in its certificate: say one of them."
        raise InvalidRequest(message)
    name = peer.certificate_name
    if len(name) > MAX_CERTIFICATE_NAME or (name and not _NAME.fullmatch(name)):
        message = "A certificate's name is its common name, a DNS name or a URI: printable ASCII."
        raise InvalidRequest(message)
    if "*" in name:
        message = "A certificate's name is compared letter by letter: say one without a wildcard that it bears as well."
        raise InvalidRequest(message)
    if peer.asks_count and not (peer.port and peer.address):
        message = "To ask a sender for its count, it must be known where it answers: say its address and --port."
        raise InvalidRequest(message)
    if peer.max_wait_s is not None and peer.max_wait_s < (peer.stable_after_s or 0.0):
        message = "The longest wait is shorter than the quiet time."
        raise InvalidRequest(message)


def _require_new(session: Session, peer: Peer) -> None:
    same = (
        Peer.ae_title == peer.ae_title,
        Peer.address == peer.address,
        Peer.certificate_name == peer.certificate_name,
        Peer.id != peer.id if peer.id else true(),
    )
    if of := session.scalar(select(Site.name).join(Peer, Peer.site_id == Site.id).where(*same)):
        message = (
            f"This sender is known already: it sends for site {of}. `countersign peers change` changes what it may."
        )
        raise Conflict(message)


def _sender(ae_title: str, address: str) -> tuple[str, str]:
    try:
        title = valid_ae_title(ae_title)
    except ValueError as error:
        message = f"{ae_title!r} cannot be a sender: {error}."
        raise InvalidRequest(message) from None
    if not address:
        return title, ""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        message = (
            "The address is one IP address, such as 10.0.0.9: neither a network nor a host's name. For a sender whose "
            "address changes, say the name in its certificate."
        )
        raise InvalidRequest(message) from None
    if parsed.is_unspecified or parsed.is_multicast:
        message = f"No sender has the address {parsed}."
        raise InvalidRequest(message)
    return title, str(getattr(parsed, "ipv4_mapped", None) or parsed)
