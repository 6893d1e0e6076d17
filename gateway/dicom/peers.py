"""Who may send, as the listener knows it: without a database, from the snapshot that the indexer keeps beside the spool.

A peer is an AE title bound to an address, to a name in a certificate, or to both. Knows how the snapshot is written, and
why somebody is a stranger. Does not know associations.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import structlog

from record.durable import sync_folder

PEERS = "peers.json"
"""The snapshot's name below the spools' root."""
_logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class KnownPeer:
    """One line of the snapshot of peers; no address means any, no certificate name means none is asked for."""

    ae_title: str
    address: str
    site: str
    peer_id: str = ""
    certificate_name: str = ""
    port: int | None = None
    max_associations: int | None = None
    strict: bool = False


class Peers:
    """Who may send, read from the snapshot whenever it changes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stamp = -1
        self._peers: Mapping[str, Sequence[KnownPeer]] = {}
        self._lock = threading.Lock()

    def find(self, ae_title: str, address: str, certificate_names: Collection[str] = ()) -> KnownPeer | str:
        """The peer this is; for a stranger the code of what is lacking: `peer_unknown`, `peer_elsewhere`, `peer_uncertified`."""
        with self._lock:
            self._refresh()
            titled = self._peers.get(ae_title, ())
        here = [peer for peer in titled if not peer.address or _plain(peer.address) == _plain(address)]
        for peer in sorted(here, key=lambda peer: not peer.address):  # one that is bound to the address says more
            if not peer.certificate_name or peer.certificate_name in certificate_names:
                return peer
        return "peer_uncertified" if here else "peer_elsewhere" if titled else "peer_unknown"

    def _refresh(self) -> None:
        try:
            stamp = os.stat(self._root / PEERS).st_mtime_ns
            if stamp != self._stamp:
                peers: dict[str, list[KnownPeer]] = {}
                for peer in read_peers(self._root):
                    if peer.address or peer.certificate_name:  # an earlier release writes no certificate's name
                        peers.setdefault(peer.ae_title, []).append(peer)
                self._peers, self._stamp = peers, stamp
        except FileNotFoundError:
            return
        except (OSError, ValueError, LookupError, TypeError):  # keep what was known
            _logger.exception("peers_unreadable", hint="The indexer writes it anew; it is not to be edited.")


def write_peers(root: Path, peers: Sequence[KnownPeer]) -> None:
    """Replace the snapshot of who may send, if it changed."""
    told = json.dumps([asdict(peer) for peer in peers], indent=1).encode() + b"\n"
    target = root / PEERS
    with contextlib.suppress(FileNotFoundError):
        if target.read_bytes() == told:
            return
    passing = root / f".{PEERS}.{os.getpid()}"
    with passing.open("wb") as out:
        out.write(told)
        out.flush()
        os.fsync(out.fileno())
    passing.replace(target)
    sync_folder(root)


def read_peers(root: Path) -> Iterator[KnownPeer]:
    """The snapshot of who may send; nobody as long as there is none. One of an earlier or later release is read as well."""
    names = {field.name for field in fields(KnownPeer)}
    with contextlib.suppress(FileNotFoundError):
        lines: list[dict[str, Any]] = json.loads((root / PEERS).read_bytes())
        for line in lines:
            yield KnownPeer(**{name: value for name, value in line.items() if name in names})


def _plain(address: str) -> str:
    """An IP address in one way of writing it; anything else as it is."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
