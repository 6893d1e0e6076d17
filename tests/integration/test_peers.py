"""A sender is let in by command; everything that is no sender is refused in a sentence."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result
from sqlalchemy.orm import Session

from gateway import cli
from record import peers
from record.errors import Conflict, InvalidRequest
from tests.conftest import FreshDatabase


def test_a_sender_is_let_in_once(session: Session) -> None:
    peer = peers.add_peer(session, site=None, ae_title="PACS ", address="10.0.0.9")
    assert (peer.ae_title, peer.address) == ("PACS", "10.0.0.9")
    with pytest.raises(Conflict):
        peers.add_peer(session, site=None, ae_title="PACS", address="10.0.0.9")


@pytest.mark.parametrize(
    ("ae_title", "address"),
    [
        *(("", "10.0.0.9"), ("X" * 17, "10.0.0.9"), ("A\\B", "10.0.0.9"), ("PACS", "pacs.example")),
        *(("PACS", "10.0.0.0/24"), ("PACS", "0.0.0.0"), ("PACS", "::"), ("PACS", "224.0.0.1")),
    ],
)
def test_what_is_no_sender_is_refused(session: Session, ae_title: str, address: str) -> None:
    with pytest.raises(InvalidRequest):
        peers.add_peer(session, site=None, ae_title=ae_title, address=address)


def test_a_wildcard_is_no_certificate_s_name(session: Session) -> None:
    with pytest.raises(InvalidRequest, match="letter by letter"):
        peers.add_peer(session, site=None, ae_title="CLINIC", certificate_name="*.clinic.example")


def test_several_of_one_title_are_told_apart(session: Session) -> None:
    for name in ("a.example", "b.example"):
        peers.add_peer(session, site=None, ae_title="CLINIC", certificate_name=name)
    peers.add_peer(session, site=None, ae_title="CLINIC", address="10.0.0.9")
    with pytest.raises(Conflict):
        peers.add_peer(session, site=None, ae_title="CLINIC", certificate_name="b.example")
    with pytest.raises(InvalidRequest, match="Several"):
        peers.find_peer(session, "CLINIC")
    with pytest.raises(InvalidRequest, match="Several"):
        peers.find_peer(session, "CLINIC", "")
    assert peers.find_peer(session, "CLINIC", "", "b.example").certificate_name == "b.example"
    assert peers.find_peer(session, "CLINIC", "10.0.0.9").certificate_name == ""


def test_a_sender_is_changed_and_stays_the_same(database: FreshDatabase) -> None:
    def run(*arguments: str, code: int = 0) -> Result:
        done = CliRunner(env={"DATABASE_URL": database.url, "COUNTERSIGN_STORE": "/tmp"}).invoke(cli.cli, arguments)
        assert done.exit_code == code, done.output
        return done

    assert "Nobody may send yet" in run("peers", "list").stderr
    run("peers", "add", "PACS", "10.0.0.9", "--stable-after", "5", "--strict", "--certificate", "pacs.example")
    (before,) = json.loads(run("peers", "list", "--json").stdout)
    run("peers", "change", "PACS", "--port", "104", "--count", "--no-strict", "--stable-after", "none")
    run("peers", "change", "PACS", "--new-address", "10.0.0.10", "--new-certificate", "none", "--max-associations", "3")
    (after,) = json.loads(run("peers", "list", "--json").stdout)
    told = {"port": 104, "asks_count": True, "strict": False, "stable_after_s": None, "address": "10.0.0.10"}
    assert after == before | told | {"certificate_name": "", "max_associations": 3}
    listed = run("peers", "list").stdout
    assert "3 associations at a time; asked for its count" in listed
    assert max(map(len, listed.splitlines())) <= 80
    for arguments, why in (
        (("--port", "none"), "known where it answers"),
        (("--new-address", "any"), "bound to"),
        ((), "Say what to change"),
    ):
        refused = CliRunner(env={"DATABASE_URL": database.url, "COUNTERSIGN_STORE": "/tmp"}).invoke(
            cli.cli, ("peers", "change", "PACS", *arguments)
        )
        assert why in str(refused.exception), arguments
    run("peers", "remove", "PACS")
    assert json.loads(run("peers", "list", "--json").stdout) == []
