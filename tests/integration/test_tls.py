"""DICOM over TLS: certificates on both sides, peers bound to the names in theirs, and nobody held up by a silent one."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from gateway.dicom import reasons, tls
from gateway.dicom.calling import Destination, unreachable
from gateway.dicom.listener import listen_at
from gateway.dicom.peers import KnownPeer, Peers, write_peers
from gateway.launcher.processes import free_port, wait_until
from record.errors import Misconfigured
from record.settings import ListenerSettings, TlsSettings
from tests.certificates import Authority
from tests.conftest import missing
from tests.instances import instance, saved
from tests.listeners import AET, Running, listening


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority.made(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority.made(tmp_path_factory.mktemp("stranger"), "Somebody Else")


def secured(authority, **more):
    certificate, key = authority.certify("countersign")
    return {
        "dicom_tls_port": free_port(),
        "dicom_tls_certificate": certificate,
        "dicom_tls_key": key,
        "dicom_tls_ca": authority.certificate,
        "open_peers": 0,
        **more,
    }


def storescu(authority, port, path, *, signed_by=None, name="pacs", aet="PACS", more=()):
    """dcmtk's storescu by TLS; whether it says that it stored."""
    program = shutil.which("storescu")
    if program is None:
        missing("dcmtk is not installed (apt install dcmtk)")
    certificate, key = (signed_by or authority).certify(name)
    done = subprocess.run(
        [
            *(program, "-v", "+tls", key, certificate, "+cf", authority.certificate, *more),
            *("-aet", aet, "-aec", AET, "127.0.0.1", str(port), path),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode == 0 and "Success" in done.stdout + done.stderr


def lines(listener: Running) -> list[dict[str, object]]:
    pages = sorted((listener.root / "00" / "logbook").glob("*.jsonl"))
    return [json.loads(line) for page in pages for line in page.read_text().splitlines()]


def last(listener: Running, count: int) -> dict[str, object]:
    assert wait_until(lambda: len(lines(listener)) >= count, within_s=5)
    return lines(listener)[-1]


def test_a_peer_with_its_certificate_is_taken_and_every_other_one_refused(tmp_path, authority, stranger):
    settings = secured(authority)
    port = settings["dicom_tls_port"]
    path = saved(tmp_path, instance(side=64))
    with listening(tmp_path / "spool", **settings) as listener:
        write_peers(
            listener.root,
            [
                KnownPeer("PACS", "", "main", "1" * 32, certificate_name="pacs"),
                KnownPeer("CLINIC", "", "main", "2" * 32, certificate_name="clinic.example"),
                KnownPeer("PLAIN", "127.0.0.1", "main", "3" * 32),
            ],
        )
        assert storescu(authority, port, path), "by its common name, from any address"
        assert storescu(authority, port, path, name="clinic", aet="CLINIC"), "by its DNS name"
        assert storescu(authority, port, path, aet="PLAIN"), "by its address, whatever certificate it has"
        assert len(listener.files()) == 3
        assert lines(listener)[0]["is_secure"] is True
        assert not storescu(authority, port, path, aet="CLINIC"), "another's certificate"
        wrong = last(listener, 4)
        assert (wrong["reason_code"], wrong["certificate_names"]) == ("peer_uncertified", ["pacs", "pacs.example"])
        how, _ = reasons.explained(wrong)
        assert how == "rejected: this sender is bound to a certificate that it did not show, but pacs, pacs.example"
        assert not storescu(authority, port, path, signed_by=stranger)
        assert last(listener, 5)["outcome"] == "insecure"
        assert listener.send(path, calling_aet="PACS") == {path: None}, "without TLS"
        assert last(listener, 6)["reason_code"] == "peer_uncertified"
        assert len(listener.files()) == 3


def test_what_speaks_no_tls_is_told_apart_and_a_silent_one_holds_up_nobody(tmp_path, authority):
    settings = secured(authority, open_timeout_s=1)
    port = settings["dicom_tls_port"]
    path = saved(tmp_path, instance(side=64))
    with listening(tmp_path / "spool", **settings) as listener:
        write_peers(listener.root, [KnownPeer("PACS", "", "main", "1" * 32, certificate_name="pacs")])
        with (
            socket.create_connection(("127.0.0.1", port)) as silent,
            socket.create_connection(("127.0.0.1", port)) as http,
        ):
            http.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert storescu(authority, port, path)
            assert wait_until(lambda: len(lines(listener)) >= 2, within_s=5)
            assert {line["reason_code"] for line in lines(listener)} == {"", "tls_http_request"}
            silent.settimeout(5)
            assert silent.recv(1) == b"", "cut off after its time"
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        with (
            contextlib.suppress(OSError),  # with TLS 1.3 the refusal comes with the first answer
            socket.create_connection(("127.0.0.1", port)) as plain,
            old.wrap_socket(plain) as bare,
        ):
            bare.sendall(b"\x01")
            assert bare.recv(1) == b""
        assert last(listener, 3)["reason_code"] == "tls_peer_did_not_return_a_certificate"


def test_renewed_certificates_are_taken_without_a_restart(tmp_path, authority, stranger):
    settings = secured(authority)
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.certificate.read_bytes())
    path = saved(tmp_path, instance(side=64))
    with listening(tmp_path / "spool", **settings | {"dicom_tls_ca": trusted}) as listener:
        write_peers(listener.root, [KnownPeer("PACS", "", "main", "1" * 32, certificate_name="pacs")])
        both = authority.certificate.read_bytes() + stranger.certificate.read_bytes()
        assert not storescu(authority, settings["dicom_tls_port"], path, signed_by=stranger)
        trusted.write_bytes(both)
        assert storescu(authority, settings["dicom_tls_port"], path, signed_by=stranger)
        trusted.write_text("no certificate")
        assert storescu(authority, settings["dicom_tls_port"], path), "the former ones serve on"
        assert b"tls_files_unreadable" in listener.log.read_bytes()


def test_a_snapshot_of_an_earlier_release_lets_nobody_in_by_title_alone(tmp_path):
    known = Peers(tmp_path)
    (tmp_path / "peers.json").write_text(json.dumps([{"ae_title": "PACS", "address": "", "site": "main"}]))
    assert known.find("PACS", "10.0.0.9") == "peer_unknown"


def test_two_clinics_of_one_title_are_told_apart_by_their_certificates(tmp_path, authority):
    known = Peers(tmp_path)
    clinics = [KnownPeer("CLINIC", "", name, name, certificate_name=f"{name}.example") for name in ("one", "two")]
    write_peers(tmp_path, clinics)
    assert known.find("CLINIC", "10.0.0.9", {"two.example"}) == clinics[1]
    assert known.find("CLINIC", "10.0.0.9", {"three.example"}) == "peer_uncertified"


@pytest.mark.parametrize("lacks", ["dicom_tls_certificate", "dicom_tls_key", "dicom_tls_ca"])
def test_a_port_without_its_certificates_is_refused(tmp_path, authority, lacks):
    settings = {k: v for k, v in secured(authority).items() if k != lacks}
    with pytest.raises(Misconfigured, match="COUNTERSIGN_DICOM_TLS_CA"):
        listen_at(ListenerSettings(spool=tmp_path, dicom_port=0, **settings))
    with pytest.raises(Misconfigured, match=r"cannot be used \(/nowhere.pem: No such file"):
        listen_at(ListenerSettings(spool=tmp_path, dicom_port=0, **settings, **{lacks: Path("/nowhere.pem")}))
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(Misconfigured, match="cannot be used"):
        listen_at(ListenerSettings(spool=tmp_path, dicom_port=0, **settings, **{lacks: empty}))


def test_a_peer_is_called_by_tls_with_our_certificate_and_has_to_show_its_own(tmp_path, authority, stranger):
    theirs, their_key = authority.certify("archive")
    ours, our_key = authority.certify("countersign")
    program, port = shutil.which("storescp", path="/usr/bin:/usr/local/bin"), free_port()
    if program is None:
        missing("dcmtk is not installed (apt install dcmtk)")
    command = [
        program,
        "-aet",
        "PEER",
        "-od",
        tmp_path,
        "+tls",
        their_key,
        theirs,
        "+cf",
        authority.certificate,
        str(port),
    ]
    with contextlib.ExitStack() as held:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        held.callback(process.wait)
        held.callback(process.kill)

        def called(**files):
            told = {"dicom_tls_certificate": ours, "dicom_tls_key": our_key, "dicom_tls_ca": authority.certificate}
            context = tls.calling(TlsSettings(**(told | files)))
            return unreachable(Destination("127.0.0.1", port, "PEER", timeout_s=5, secure=context))

        assert wait_until(lambda: not called(), within_s=20)
        assert called(dicom_tls_ca=stranger.certificate), "it is of no authority of ours"
        assert unreachable(Destination("127.0.0.1", port, "PEER", timeout_s=5)), "it speaks nothing else"
    with pytest.raises(Misconfigured, match="COUNTERSIGN_DICOM_TLS_KEY"):
        tls.calling(TlsSettings())
