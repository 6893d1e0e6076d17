"""Bytes that nobody should send: PDUs, fragments, commands, data sets and spooled files, mutated and made up.

No crash, no hang, nothing left behind, and after each the next C-ECHO succeeds. COUNTERSIGN_FUZZ_S makes it last longer, with
other bytes each time; without it the same bytes are tried every time.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context

from gateway.dicom import wire
from gateway.dicom.association import APPLICATION_CONTEXT, Answer
from gateway.dicom.contexts import SERVICES, VERIFICATION
from gateway.dicom.telling import _READ
from gateway.dicom.wire import Command
from gateway.elements import leaves, walk
from gateway.headers import read_header, read_identity
from gateway.indexer import arrival_of
from gateway.intake import Intake, SopIdentity, Source
from gateway.launcher.processes import wait_until
from gateway.spool import Spool
from record.errors import InvalidInstance
from tests.instances import CT, EXPLICIT, encoded, instance, uid
from tests.listeners import AET, Running, listening

SECONDS = float(os.environ.get("COUNTERSIGN_FUZZ_S", "0"))
LONG = SECONDS > 0
USUAL_S = 13.0
"""About how long all of it takes where nobody says."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + 2 * int(SECONDS))]
IMPLICIT = str(ImplicitVRLittleEndian)
PATIENCE_S = 10.0

Mutation = Callable[[bytes], bytes]


def fuzz(examples: int) -> Any:
    """So many examples; as many more as there are seconds, where somebody says how many."""
    most = max(examples, int(examples * SECONDS / USUAL_S))
    return settings(
        max_examples=most,
        deadline=None,
        derandomize=not LONG,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def mutations(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    """What is done to bytes, and where: a place is a part of their length."""
    kinds = st.sampled_from(["set", "insert", "delete", "repeat", "cut", "length"])
    return draw(st.lists(st.tuples(kinds, st.floats(0, 1), st.binary(min_size=1, max_size=12)), min_size=1, max_size=6))


def mutated(content: bytes, done: list[tuple[str, float, bytes]]) -> bytes:
    """The bytes after it."""
    changed = bytearray(content)
    for kind, where, more in done:
        at = int(where * len(changed))
        if kind == "set":
            changed[at : at + len(more)] = more
        elif kind == "insert":
            changed[at:at] = more
        elif kind == "delete":
            del changed[at : at + more[0]]
        elif kind == "repeat":
            changed[at:at] = changed[at : at + 64 * more[0]]
        elif kind == "cut":
            del changed[at:]
        else:
            changed[at : at + 4] = struct.pack("<I", (0, 1, 0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, 1 << 30)[more[0] % 6])
    return bytes(changed)


def request(*class_uids: str) -> bytes:
    """An A-ASSOCIATE-RQ as pynetdicom encodes it."""
    asked = A_ASSOCIATE()
    asked.application_context_name = APPLICATION_CONTEXT
    asked.calling_ae_title, asked.called_ae_title = "FUZZ", AET
    contexts = [build_context(class_uid, [EXPLICIT, IMPLICIT]) for class_uid in class_uids]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    asked.presentation_context_definition_list = contexts
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16384
    implementation.implementation_class_uid = AE().implementation_class_uid
    asked.user_information = [length, implementation]
    return bytes(A_ASSOCIATE_RQ(asked).encode())


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxI", kind, len(body)) + body


def fragment(context_id: int, control: int, piece: bytes) -> bytes:
    return struct.pack(">IBB", len(piece) + 2, context_id, control) + piece


def command(field: int, class_uid: str, instance_uid: str = "", *, has_data_set: bool = True) -> bytes:
    def padded(text: str) -> bytes:
        return text.encode() + b"\0" * (len(text) % 2)

    elements = [(0x0002, padded(class_uid)), (0x0100, struct.pack("<H", field)), (0x0110, b"\1\0")]
    elements += [(0x0700, b"\0\0"), (0x0800, b"\0\0" if has_data_set else b"\1\1"), (0x1000, padded(instance_uid))]
    return b"".join(struct.pack("<HHI", 0, element, len(value)) + value for element, value in elements)


def store(ds: Dataset, cuts: list[int], *, together: bool = False) -> bytes:
    """A C-STORE, its command and data set cut into fragments of these sizes, each in a PDU of its own or several in one."""
    asked, content = command(wire.C_STORE_RQ, CT, ds.SOPInstanceUID), encoded(ds)
    pieces = [*_cut(asked, cuts, 1), *_cut(content, cuts, 0)]
    if together:
        size, groups = 0, [b""]
        for each in pieces:
            if size + len(each) > 60_000:
                size, groups = 0, [*groups, b""]
            size, groups[-1] = size + len(each), groups[-1] + each
        return b"".join(pdu(wire.DATA_TF, group) for group in groups)
    return b"".join(pdu(wire.DATA_TF, each) for each in pieces)


def _cut(content: bytes, cuts: list[int], is_command: int) -> Iterator[bytes]:
    at = number = 0
    while at < len(content) or not number:
        size = cuts[number % len(cuts)]
        last = 2 if at + size >= len(content) else 0
        yield fragment(1, is_command | last, content[at : at + size])
        at, number = at + size, number + 1


ECHO = request(VERIFICATION) + pdu(
    wire.DATA_TF, fragment(1, 3, command(wire.C_ECHO_RQ, VERIFICATION, has_data_set=False))
)
RELEASE = pdu(wire.RELEASE_RQ, bytes(4))
SESSION = request(CT, *SERVICES) + store(instance(side=16), [300]) + RELEASE


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("fuzz") / "spool"
    with listening(root, receivers=1, open_timeout_s=2, idle_timeout_s=2) as running:
        pid = running.process.pid
        yield running
        assert running.process.poll() is None
        assert running.process.pid == pid
        assert wait_until(lambda: not list((root / "00" / "incoming").iterdir()), within_s=10), (
            "nothing half-written stays"
        )
        said = running.log.read_text()
        for sign in ("association_failed", "instance_failed", "Traceback", "thread_failed"):
            assert sign not in said, said[said.index(sign) - 1000 :][:3000]
        assert wait_until(lambda: threads(pid) <= 6, within_s=10), "no thread stays with a connection"


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def said_to(listener: Running, content: bytes, segments: list[int] = [1 << 16]) -> bytes:  # noqa: B006  never changed
    """Say it, in TCP segments of about these sizes, stop talking, and take what comes back until it closes."""
    answer = b""
    with socket.create_connection(("127.0.0.1", listener.port), timeout=PATIENCE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            at = number = 0
            while at < len(content):
                size = segments[number % len(segments)]
                connection.sendall(content[at : at + size])
                at, number = at + size, number + 1
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(1 << 16):
                answer += more
        except TimeoutError:
            raise
        except OSError:  # it was closed, or cut, before everything was said
            pass
    return answer


def echoes(listener: Running) -> bool:
    """Whether a C-ECHO succeeds now."""
    return struct.pack("<HHIH", 0, 0x0900, 2, 0) in said_to(listener, ECHO + RELEASE)


@given(done=mutations(), segments=st.lists(st.integers(1, 3000), min_size=1, max_size=4))
@fuzz(500)
def test_a_mutated_session_ends_and_the_next_echo_succeeds(
    listener: Running, done: list[tuple[str, float, bytes]], segments: list[int]
) -> None:
    began = time.monotonic()
    said_to(listener, mutated(SESSION, done), segments)
    assert time.monotonic() - began < PATIENCE_S
    assert echoes(listener)


@given(
    pieces=st.lists(
        st.one_of(
            st.just(request(CT, *SERVICES)),
            st.builds(pdu, st.integers(0, 255), st.binary(max_size=200)),
            st.builds(
                lambda *parts: pdu(wire.DATA_TF, fragment(*parts)),
                st.sampled_from([0, 1, 3, 5, 9, 255]),
                st.integers(0, 3),
                st.one_of(
                    st.binary(max_size=120),
                    st.builds(
                        command,
                        st.sampled_from([0x0001, 0x0030, 0x0130, 0x0140, 0x0120, 0x0FFF, 0x0020, 0x8001, 0xFFFF]),
                        st.sampled_from([CT, *SERVICES, "", "x" * 100]),
                        st.sampled_from(["1.2.3", "../../etc", ""]),
                        has_data_set=st.booleans(),
                    ),
                ),
            ),
            st.just(RELEASE),
        ),
        max_size=8,
    )
)
@fuzz(500)
def test_pdus_in_any_order_end_in_an_answer_or_an_abort(listener: Running, pieces: list[bytes]) -> None:
    answer = said_to(listener, request(CT, *SERVICES) + b"".join(pieces))
    assert answer[:1] == b"\2", "the first request was a good one"
    assert echoes(listener)


@given(
    cuts=st.lists(st.integers(1, 900), min_size=1, max_size=5),
    segments=st.lists(st.integers(1, 5000), min_size=1, max_size=5),
    together=st.booleans(),
)
@fuzz(150)
def test_a_c_store_in_any_pieces_is_stored_byte_for_byte(
    listener: Running, cuts: list[int], segments: list[int], *, together: bool
) -> None:
    ds = instance(side=24)
    answer = said_to(listener, request(CT) + store(ds, cuts, together=together) + RELEASE, segments)
    assert struct.pack("<HHIH", 0, 0x0900, 2, 0) in answer
    newest = max((path for path in listener.files()), key=lambda path: path.stat().st_mtime_ns)
    content = newest.read_bytes()
    assert content.endswith(encoded(ds))
    assert arrival_of(newest).header.sop_instance_uid == ds.SOPInstanceUID
    newest.unlink()


DATA_SETS = [(encoded(instance(side=8)), EXPLICIT)]


def nested() -> Dataset:
    """A data set with sequences in sequences, of every kind of length."""
    outer, item, inner = instance(side=8), Dataset(), Dataset()
    inner.ReferencedSOPClassUID, inner.ReferencedSOPInstanceUID = CT, uid()
    item.ReferencedSOPSequence = [inner, inner]
    item.ReferencedSOPSequence.is_undefined_length = True
    outer.ReferencedSeriesSequence = [item]
    outer.CurrentRequestedProcedureEvidenceSequence = [item]
    return outer


DATA_SETS.append((encoded(nested()), EXPLICIT))
PIECES = st.lists(
    st.one_of(
        st.binary(max_size=24),
        st.sampled_from(
            [
                b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
                b"\xfe\xff\x0d\xe0\x00\x00\x00\x00",
                b"\xfe\xff\xdd\xe0\x00\x00\x00\x00",
                b"\x08\x00\x15\x11SQ\x00\x00\xff\xff\xff\xff",
                b"\x08\x00\x15\x11\xff\xff\xff\xff",
                b"\x08\x00\x18\x00UI\x02\x001\x00",
                b"\x08\x00\x18\x00UN\x00\x00\xff\xff\xff\xff",
                b"\xe0\x7f\x10\x00OW\x00\x00\xff\xff\xff\xff",
            ]
        ),
    ),
    max_size=60,
).map(b"".join)
SYNTAXES = st.sampled_from([EXPLICIT, IMPLICIT, "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.70", "1.2.3"])


@given(
    content=st.one_of(
        PIECES,
        st.builds(mutated, st.sampled_from([content for content, _ in DATA_SETS]), mutations()),
        PIECES.map(lambda piece: piece * 50),
    ),
    syntax=SYNTAXES,
)
@fuzz(3000)
def test_a_data_set_of_any_bytes_is_read_or_refused(content: bytes, syntax: str) -> None:
    for read in (read_identity, read_header):
        with contextlib.suppress(InvalidInstance):
            read(content, syntax)
    for step in (walk, leaves):
        with contextlib.suppress(InvalidInstance):
            for found in step(content, syntax):
                assert 0 <= found.tag <= 0xFFFFFFFF


def test_sequences_without_end_cost_neither_stack_nor_time() -> None:
    opening = b"\x08\x00\x15\x11SQ\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    began = time.monotonic()
    for content in (opening * 200_000, opening[:12] + b"\xfe\xff\x00\xe0\x00\x00\x00\x00" * 900_000):
        for step in (walk, leaves):
            with contextlib.suppress(InvalidInstance):
                list(step(content, EXPLICIT))
    assert time.monotonic() - began < 20


ASKED = encoded(nested())


@given(
    content=st.one_of(PIECES, st.builds(mutated, st.just(ASKED), mutations())),
    syntax=SYNTAXES,
    which=st.sampled_from(list(_READ)),
)
@fuzz(1000)
def test_what_is_told_besides_images_is_read_or_refused(content: bytes, syntax: str, which: tuple[str, int]) -> None:
    try:
        found = list(leaves(content, syntax))
    except InvalidInstance:
        return
    said = _READ[which](
        Command(which[1], 1, which[0], "1.2.840.10008.1.20.1.1", has_data_set=True, action_type=1), found
    )
    assert isinstance(said, Answer) or said["kind"] in {"commitment", "availability", "procedure_step"}


@given(done=mutations())
@fuzz(600)
def test_a_spooled_file_of_any_bytes_is_taken_as_it_was_or_refused(
    tmp_path_factory: pytest.TempPathFactory, done: list[tuple[str, float, bytes]]
) -> None:
    path, content = spooled(tmp_path_factory)
    changed = mutated(content, done)
    path.write_bytes(changed)
    try:
        arrival_of(path)
    except InvalidInstance:
        return
    assert changed[132:] == content[132:], "only what nothing is made of may differ unseen"


_SPOOLED: dict[str, tuple[Path, bytes]] = {}


def spooled(factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    if not _SPOOLED:
        spool, ds = Spool.claim(factory.mktemp("spooled")), instance(side=8)
        with Intake(spool).begin(
            Source("dicom", "A", "B", "10.0.0.7", "main"), SopIdentity(CT, ds.SOPInstanceUID, EXPLICIT)
        ) as incoming:
            incoming.write(memoryview(encoded(ds)))
            incoming.commit()
        (path,) = spool.waiting()
        _SPOOLED["one"] = (path, path.read_bytes())
    return _SPOOLED["one"]
