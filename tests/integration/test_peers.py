"""A sender is let in by command; everything that is no sender is refused in a sentence."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from record import peers
from record.errors import Conflict, InvalidRequest


def test_a_sender_is_let_in_once(session: Session) -> None:
    peer = peers.add_peer(session, site=None, ae_title="PACS ", address="10.0.0.9")
    assert (peer.ae_title, peer.address) == ("PACS", "10.0.0.9")
    with pytest.raises(Conflict):
        peers.add_peer(session, site=None, ae_title="PACS", address="10.0.0.9")


@pytest.mark.parametrize(
    ("ae_title", "address"), [("", "10.0.0.9"), ("X" * 17, "10.0.0.9"), ("A\\B", "10.0.0.9"), ("PACS", "pacs.example")]
)
def test_what_is_no_sender_is_refused(session: Session, ae_title: str, address: str) -> None:
    with pytest.raises(InvalidRequest):
        peers.add_peer(session, site=None, ae_title=ae_title, address=address)
