"""A real listener on a real socket: whatever is said to it, it answers, aborts or closes, and the next one is served."""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.processors import format_exc_info
from structlog.testing import capture_logs

from gateway.dicom import wire
from gateway.dicom.listener import Listener, listen_at
from gateway.dicom.seats import Seats
from gateway.indexer import arrival_of
from gateway.launcher.processes import wait_until
from record.settings import ListenerSettings
from tests.hostile import EXTREMES, bounded, hurt, pieces, tries
from tests.instances import CT, EXPLICIT, encoded, instance
from tests.pdus import (
    ACCEPTED,
    ECHO,
    ECHOES,
    REJECTED,
    RELEASE,
    RELEASED,
    STORES,
    VERIFICATION,
    Answers,
    asking,
    context,
    encoded_command,
    fragment,
    part,
    pdu,
    storing,
    talk,
)
from tests.strict_reader import opinion_on

pytestmark = [
    pytest.mark.filterwarnings("ignore:Invalid value for VR UI"),  # pydicom's word for a stranger's UIDs
    pytest.mark.filterwarnings("ignore:The value length"),
    pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning"),
]
INSTANCE_UID = "1.2.3.4"
STATUSES = {0x0000, 0x0110, 0x0122, 0x0124, 0x0211, 0xA700, 0xA900, 0xC000}
REFUSALS = {0xA900, 0xC000}
FAULTS = {"association_failed", "instance_failed", "connection_failed"}
"""What the listener says where something happened that nobody thought of."""


@dataclass(repr=False)
class Door:
    """A listener in this process, what it says, and who sits in it."""

    listener: Listener
    seats: Seats
    root: Path
    said: list[Any]
    descriptors: int = field(default_factory=lambda: len(os.listdir("/proc/self/fd")))

    def files(self, room: str) -> list[Path]:
        return sorted((self.root / "00" / room).iterdir())

    def is_empty(self) -> bool:
        return not self.listener._server._threads and self.seats.taken == 0

    def talk(self, segments: Sequence[bytes], **more: Any) -> Answers:
        """Say all of it; afterwards nobody is there, nothing half-written stays, and the next one is served."""
        self.clear()
        with bounded():
            answers = talk(self.listener.port, segments, **more)
        assert self.files("incoming") == []
        assert set(answers.kinds) <= {ACCEPTED, REJECTED, wire.DATA_TF, RELEASED, wire.ABORT}
        assert set(answers.statuses) <= STATUSES
        asked = talk(self.listener.port, [pdu(wire.DATA_TF, fragment(3, ECHO, ECHOES)) + RELEASE], opening=asking())
        assert (asked.kinds, asked.statuses) == ([ACCEPTED, wire.DATA_TF, RELEASED], [0])
        until = time.monotonic() + 5
        while not self.is_empty():
            assert time.monotonic() < until, "somebody sits there who is gone"
            time.sleep(0.0002)
        assert not [line for line in self.said if line["event"] in FAULTS]
        return answers

    def taken(self) -> list[str]:
        """SHA-256 of every data set that was stored."""
        digests = []
        for path in self.files("ready"):
            arrival = arrival_of(path)
            assert (arrival.header.sop_class_uid, arrival.header.sop_instance_uid) == (CT, INSTANCE_UID)
            digests.append(arrival.sha256)
        return digests

    def clear(self) -> None:
        """What was before counts no more, should it have failed."""
        self.said.clear()
        for path in (*self.files("ready"), *self.files("quarantine")):
            path.unlink()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    root = tmp_path_factory.mktemp("fuzz") / "spool"
    settings = ListenerSettings(spool=root, dicom_port=0, open_peers=True, min_free_bytes=0, report_s=3600)
    seats, listening = Seats(1, 20), listen_at(settings)
    with capture_logs(processors=[format_exc_info]) as said:
        listener = Listener(settings, listening, seats)
        listener.start()
        made = Door(listener, seats, root, said)
        made.talk([])
        made.descriptors = len(os.listdir("/proc/self/fd")) + 1  # a page of the logbook, when there is a line to write
        yield made
        assert wait_until(made.is_empty, within_s=5)
        assert len(os.listdir("/proc/self/fd")) <= made.descriptors, "a descriptor stays open"
        listener.stop()
        listener._accepting.join(5)
        listener._server._waking.close()  # a process that ends has no need to
        listener._server._woken.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "association"]


# --- what is said ----------------------------------------------------------------------------------------------------

DATA_SET = encoded(
    instance(side=24, SOPInstanceUID=INSTANCE_UID, StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.1")
)
STORE = storing(CT, INSTANCE_UID)


@st.composite
def data_sets(draw: st.DrawFn) -> bytes:
    """A good one of some size."""
    side = draw(st.sampled_from([1, 16, 90, 300]))  # 300: longer than a PDU may be
    ds = instance(side=side, SOPInstanceUID=INSTANCE_UID, StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.1")
    ds.PixelData = draw(st.binary(min_size=1, max_size=8)) * (2 * side * side)
    return encoded(ds)


@st.composite
def messages(draw: st.DrawFn, command: bytes, data_set: bytes, context_id: int = STORES) -> list[bytes]:
    """A command and its data set, in fragments and PDUs of any size that is allowed."""
    fragments = []
    for control, content in ((1, command), (0, data_set)) if data_set else ((1, command),):
        cut = draw(pieces(content, 8))
        told = [(control | (2 if at == len(cut) - 1 else 0), piece) for at, piece in enumerate(cut)]
        fragments += [
            fragment(
                control & 1 | (control & 2 if start + 60000 >= len(piece) else 0),
                piece[start : start + 60000],
                context_id,
            )
            for control, piece in told
            for start in range(0, max(1, len(piece)), 60000)
        ]
    made, field = [], b""
    for one in fragments:
        if field and (len(field) + len(one) > 1 << 17 or draw(st.booleans())):
            made.append(pdu(wire.DATA_TF, field))
            field = b""
        field += one
    return [*made, pdu(wire.DATA_TF, field)]


uids = st.sampled_from([CT, CT, EXPLICIT, EXPLICIT, VERIFICATION, "", "1", "1..2", "x", "9" * 65]).map(str.encode)
contents = uids | st.binary(max_size=12)
limits = st.builds(struct.pack, st.just(">I"), st.sampled_from(EXTREMES))


def within(*kinds: int) -> st.SearchStrategy[bytes]:
    """What stands in one of a request's items."""
    return st.lists(st.builds(part, st.sampled_from(kinds), contents | limits), max_size=4).map(b"".join)


syntaxes = st.lists(st.sampled_from([EXPLICIT, EXPLICIT, "1.2.3", ""]), max_size=3)
contexts = st.one_of(
    st.builds(
        lambda number, class_uid, named: context(number, class_uid, *named),
        st.sampled_from([1, 1, 3, 255]),
        st.sampled_from([CT, CT, VERIFICATION, "1.2"]),
        syntaxes,
    ),
    st.builds(
        lambda number, named: part(0x20, bytes((number, 0, 0, 0)) + named), st.integers(0, 255), within(0x30, 0x40)
    ),
)
parts = st.one_of(
    st.just(part(0x50, part(0x51, struct.pack(">I", 16384)) + part(0x52, b"1.2.3"))),
    contexts,
    within(0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58).map(lambda told: part(0x50, told)),
    st.builds(part, st.sampled_from([0x10, 0x20, 0x21, 0x30, 0x40, 0x50, 0x99]), contents),
)
APPLICATION = part(0x10, b"1.2.840.10008.3.1.1.1")
requests = st.one_of(
    st.builds(
        lambda named, told, called, versions: asking(*named, *told, called=called, versions=versions),
        st.just([APPLICATION]),
        st.lists(parts, max_size=5),
        st.sampled_from([b"COUNTERSIGN"] * 6 + [b"", b"\0" * 16, b"\xff" * 16, b"NOBODY", b"\\"]),
        st.sampled_from([1, 1, 1, 3, 0, 0xFFFF]),
    ),
    st.lists(parts, min_size=1, max_size=4).map(lambda told: asking(*told)),
    hurt(asking()),
    st.binary(max_size=200).map(lambda content: pdu(wire.ASSOCIATE_RQ, content)),
)
commands = st.lists(
    st.tuples(
        st.sampled_from([0x0000, 0x0002, 0x0100, 0x0110, 0x0120, 0x0700, 0x0800, 0x0900, 0x1000]),
        st.sampled_from([b"", b"\0", b"\1\0", b"\x30\0", b"\x20\0", b"\xff\x0f", b"\1\x80", b"\1\1", b"\xff\xff" * 40])
        | contents,
    ),
    max_size=8,
).map(lambda elements: encoded_command(*elements))
fragments = st.builds(
    fragment,
    st.sampled_from([0, 1, 2, 3, 0, 1, 2, 3, 0xFF]),
    st.sampled_from([ECHO, STORE, DATA_SET, STORE[:30], STORE[30:], DATA_SET[:900], DATA_SET[900:]])
    | commands
    | st.binary(max_size=60),
    st.sampled_from([STORES, STORES, ECHOES, 0, 5, 255]),
)
said = st.one_of(
    st.lists(fragments, max_size=4).map(lambda many: pdu(wire.DATA_TF, b"".join(many))),
    messages(STORE, DATA_SET).map(b"".join),
    messages(ECHO, b"", ECHOES).map(b"".join),
    st.just(RELEASE),
    st.builds(pdu, st.sampled_from([0, 1, 2, 3, 5, 6, 7, 8, 255]), st.binary(max_size=30)),
    st.just(asking()),
    hurt(pdu(wire.DATA_TF, fragment(3, STORE) + fragment(2, DATA_SET))),
    st.builds(struct.pack, st.just(">BxI"), st.integers(0, 9), st.sampled_from(EXTREMES)),
    st.binary(max_size=40),
)


# --- what becomes of it ----------------------------------------------------------------------------------------------


@tries(150)
@given(st.data())
def test_an_instance_is_stored_byte_for_byte_however_it_is_cut(door: Door, data: st.DataObject) -> None:
    sent, content = [], b""
    for _ in range(data.draw(st.integers(1, 3))):
        sent.append(data.draw(data_sets()))
        content += b"".join(data.draw(messages(STORE, sent[-1])))
        if data.draw(st.booleans()):
            content += b"".join(data.draw(messages(ECHO, b"", ECHOES)))
    most_bytes = data.draw(st.sampled_from([0, 7, 20, 16384, 0xFFFFFFFF]))
    answers = door.talk(data.draw(pieces(content + RELEASE)), opening=asking(most_bytes=most_bytes))
    assert set(answers.statuses) == {0}
    assert answers.kinds[-1] == RELEASED
    assert sorted(door.taken()) == sorted(map(_digest, sent))


@tries(400)
@given(requests, st.booleans(), st.data())
@example(asking(APPLICATION, context(1, CT)), True, None)
def test_whatever_asks_for_an_association_is_answered(
    door: Door, request_: bytes, goes_on: bool, data: st.DataObject | None
) -> None:
    content = request_ + (pdu(wire.DATA_TF, fragment(3, ECHO, ECHOES)) + RELEASE if goes_on else b"")
    answers = door.talk(data.draw(pieces(content, 4)) if data else [content])
    assert answers.kinds[:1] in ([], [ACCEPTED], [REJECTED], [wire.ABORT])
    assert door.taken() == []


@tries(400)
@given(st.lists(said, min_size=1, max_size=6), st.data())
@example([pdu(wire.DATA_TF, fragment(3, STORE) + fragment(2, DATA_SET)[:-2])], None)
@example([pdu(wire.DATA_TF, fragment(3, STORE) + struct.pack(">IBB", 1, STORES, 2))], None)
def test_pdus_in_any_order_are_answered_as_a_strict_reader_would(
    door: Door, said: Sequence[bytes], data: st.DataObject | None
) -> None:
    content = b"".join(said)
    answers = door.talk(data.draw(pieces(content, 5)) if data else [content], opening=asking())
    _require_agreement(door, answers, content)


@tries(150)
@given(st.lists(said, min_size=1, max_size=4), st.data())
def test_pdus_without_an_association_bring_nothing(door: Door, said: Sequence[bytes], data: st.DataObject) -> None:
    door.talk(data.draw(pieces(b"".join(said), 5)))
    assert door.taken() == []


@tries(250)
@given(st.data())
def test_a_hurt_store_is_answered_as_a_strict_reader_would(door: Door, data: st.DataObject) -> None:
    good = b"".join(data.draw(messages(STORE, DATA_SET)))
    if data.draw(st.booleans()):
        content = good + data.draw(hurt(good)) + good
    else:  # only the data set, so that the association goes on
        content = good + b"".join(data.draw(messages(STORE, data.draw(hurt(DATA_SET))))) + good
    answers = door.talk(data.draw(pieces(content + RELEASE, 6)), opening=asking())
    assert _digest(DATA_SET) in door.taken()
    _require_agreement(door, answers, content + RELEASE)


@tries(60)
@given(pieces(asking() + pdu(wire.DATA_TF, fragment(3, ECHO, ECHOES)) + RELEASE))
@example([asking() + pdu(wire.DATA_TF, fragment(3, ECHO, ECHOES)) + RELEASE])
def test_what_is_said_before_the_answer_is_taken_or_aborted_but_never_lost(door: Door, said: Sequence[bytes]) -> None:
    answers = door.talk(said)
    if answers.is_whole:
        assert answers.kinds in ([ACCEPTED, wire.DATA_TF, RELEASED], [wire.ABORT])


def _require_agreement(door: Door, answers: Answers, said: bytes) -> None:
    """What was stored is what a strict reader stores; what was answered likewise, as far as no reset took it away."""
    expected = opinion_on(said)
    assert sorted(door.taken()) == sorted(map(_digest, expected.stored))
    heard = answers.statuses
    assert len(heard) == len(expected.statuses) or (len(heard) < len(expected.statuses) and not answers.is_whole)
    for status, wanted in zip(heard, expected.statuses, strict=False):
        assert status == wanted if wanted is not None else status in REFUSALS
    if answers.is_whole:
        last = answers.kinds[-1]
        assert last == (expected.last or (wire.DATA_TF if heard else ACCEPTED))


def _digest(data_set: bytes) -> str:
    return hashlib.sha256(data_set).hexdigest()
