"""PDUs, fragments and command sets: what is read of them, and what no stranger's bytes can do."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pynetdicom.dimse_messages import C_STORE_RSP
from pynetdicom.pdu import P_DATA_TF

from gateway.dicom import wire
from gateway.dicom.wire import Broken, Command, Gone, Inbox
from tests.pdus import encoded_command, fragment, pdu

STORE = Command(wire.C_STORE_RQ, 7, "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4", has_data_set=True)


@contextlib.contextmanager
def connected(max_pdu_bytes: int = 4096, timeout_s: float = 0.5) -> Iterator[tuple[socket.socket, Inbox]]:
    tcp = socket.create_server(("127.0.0.1", 0))
    theirs = socket.create_connection(tcp.getsockname())
    ours, _ = tcp.accept()
    tcp.close()
    with ours, theirs:
        yield theirs, Inbox(ours, max_pdu_bytes, timeout_s)


def read_all(inbox: Inbox) -> list[tuple[int, bytes]]:
    found = []
    with contextlib.suppress(Gone):
        while True:
            found += [(kind, bytes(field)) for kind, field in inbox.whole()]
            inbox.fill()
    return found


def test_pdus_arrive_whole_however_they_are_cut() -> None:
    sent = [(4, bytes([n % 251]) * (n * 37 % 3000)) for n in range(60)]
    content = b"".join(pdu(kind, field) for kind, field in sent)
    with connected() as (peer, inbox):

        def send() -> None:
            for at in range(0, len(content), 1234):
                peer.sendall(content[at : at + 1234])
            peer.close()

        thread = threading.Thread(target=send)
        thread.start()
        assert read_all(inbox) == sent
        thread.join()


def test_a_pdu_that_is_too_long_is_refused_by_its_header() -> None:
    with connected() as (peer, inbox):
        peer.sendall(struct.pack(">BxI", 4, 4097))
        inbox.fill()
        with pytest.raises(Broken, match="pdu_too_long"):
            list(inbox.whole())


def test_an_inbox_knows_whether_more_has_come_than_it_told() -> None:
    with connected() as (peer, inbox):
        peer.sendall(pdu(4, b"first") + pdu(4, b"second")[:3])
        inbox.fill()
        assert [bytes(field) for _, field in inbox.whole()] == [b"first"]
        assert not inbox.is_empty
        peer.sendall(pdu(4, b"second")[3:])
        inbox.fill()
        assert [bytes(field) for _, field in inbox.whole()] == [b"second"]
        assert inbox.is_empty


def test_a_silent_peer_and_a_slow_pdu_are_cut_off() -> None:
    with connected(timeout_s=0.2) as (peer, inbox):
        with pytest.raises(Broken, match="silent"):
            inbox.fill()
        stop = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.05):
                    peer.sendall(b"\x04")

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(Broken, match="too_slow"):
            read_all(inbox)
        stop.set()
        thread.join()


def test_fragments_are_told_with_their_context_and_control() -> None:
    field = memoryview(fragment(1, b"command") + fragment(2, b"", 3) + fragment(0, b"data"))
    assert [(c, k, bytes(p)) for c, k, p in wire.fragments(field)] == [(1, 1, b"command"), (3, 2, b""), (1, 0, b"data")]
    for broken in (field[:-1], field[:3], memoryview(struct.pack(">IBB", 1, 1, 1))):
        with pytest.raises(Broken):
            list(wire.fragments(broken))


def test_a_command_says_what_it_asks_for() -> None:
    asked = encoded_command(
        (0x0002, b"1.2.840.10008.5.1.4.1.1.2\0"),
        (0x0100, b"\x01\0"),
        (0x0110, b"\x07\0"),
        (0x0700, b"\0\0"),
        (0x0800, b"\0\0"),
        (0x1000, b"1.2.3.4\0"),
    )
    assert wire.command_of(asked) == STORE
    without = encoded_command((0x0100, b"\x30\0"), (0x0800, b"\x01\x01"))
    assert wire.command_of(without) == Command(wire.C_ECHO_RQ, 0, "", "", has_data_set=False)


@pytest.mark.parametrize(
    "broken",
    [
        b"\0",
        encoded_command((0x0100, b"\x01\0"))[:-1],
        encoded_command((0x0100, b"\x01")),
        encoded_command((0x0110, b"\x01\0")),
        struct.pack("<HHI", 8, 0x18, 2) + b"1\0",
        struct.pack("<HHI", 0, 0x100, 0xFFFFFFFF),
    ],
)
def test_what_is_no_command_is_refused(broken: bytes) -> None:
    with pytest.raises(Broken):
        wire.command_of(broken)


@pytest.mark.parametrize("most_bytes", [0, 16384, 40, 7])
def test_an_answer_is_one_that_pynetdicom_reads_whatever_its_peer_can_take(most_bytes: int) -> None:
    content, message = wire.response(5, STORE, 0xA700, most_bytes), C_STORE_RSP()
    at = 0
    while at < len(content):
        length = struct.unpack_from(">I", content, at + 2)[0]
        assert not most_bytes or length <= max(most_bytes, 8)
        read = P_DATA_TF()
        read.decode(content[at : at + 6 + length])
        done = message.decode_msg(read.to_primitive())
        at += 6 + length
    answer = message.message_to_primitive()
    assert done
    assert (answer.Status, answer.MessageIDBeingRespondedTo) == (0xA700, 7)
    assert (answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID) == (STORE.sop_class_uid, STORE.sop_instance_uid)


@given(st.binary(max_size=200))
@example(encoded_command((0x0100, b"\x01\0"), (0x0800, b"\0\0"), (0x1000, b"\xff\xfe")))
def test_no_bytes_break_the_reader_of_commands(content: bytes) -> None:
    with contextlib.suppress(Broken):
        command = wire.command_of(content)
        assert wire.response(1, command, 0, 0)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader_of_fragments(content: bytes) -> None:
    with contextlib.suppress(Broken):
        assert sum(len(piece) + 6 for _, _, piece in wire.fragments(memoryview(content))) == len(content)
