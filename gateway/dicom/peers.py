"""Who may send, as the listener knows it: without a database, from the snapshot that the indexer keeps beside the spool.

Does not know associations, nor what becomes of a stranger.
"""

from __future__ import annotations

import ipaddress
import os
import threading
from pathlib import Path

import structlog

from gateway.spool import PEERS, read_peers

_logger = structlog.get_logger()


class Peers:
    """Who may send: AE titles bound to addresses, read from the snapshot whenever it changes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stamp = -1
        self._sites: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    def site(self, ae_title: str, address: str) -> str | None:
        """The site this peer sends for; None for a stranger."""
        with self._lock:
            self._refresh()
            return self._sites.get((ae_title, _plain(address)))

    def _refresh(self) -> None:
        try:
            stamp = os.stat(self._root / PEERS).st_mtime_ns
            if stamp != self._stamp:
                self._sites = {(p.ae_title, _plain(p.address)): p.site for p in read_peers(self._root)}
                self._stamp = stamp
        except FileNotFoundError:
            return
        except (OSError, ValueError, LookupError, TypeError):  # keep what was known
            _logger.exception("peers_unreadable", hint="The indexer writes it anew; it is not to be edited.")


def _plain(address: str) -> str:
    """An IP address in one way of writing it; anything else as it is."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
