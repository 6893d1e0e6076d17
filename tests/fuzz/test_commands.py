"""Fragments and command sets of any bytes: read, or refused; and an answer that the peer can take to whatever was read."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dicom import wire
from gateway.dicom.wire import Broken, Command
from tests.hostile import bounded, hurt, tries
from tests.instances import CT
from tests.pdus import ECHO, encoded_command, fragment, storing

numbers = st.integers(0, 0xFFFF)
uids = st.text("0123456789.", max_size=64)
commands = st.one_of(
    hurt(storing(CT, "1.2.3.4")),
    hurt(ECHO),
    st.lists(st.tuples(numbers, st.binary(max_size=70)), max_size=8).map(lambda told: encoded_command(*told)),
    st.binary(max_size=100),
    st.builds(
        lambda unit, many: unit * (wire.MAX_COMMAND_BYTES // max(1, len(unit)) * many // 8),
        hurt(ECHO),
        st.integers(1, 8),
    ),
)


@tries(1000)
@given(commands, numbers | st.just(0xFFFFFFFF), numbers)
def test_any_command_is_refused_or_gets_an_answer_of_a_length_that_is_taken(
    content: bytes, most_bytes: int, status: int
) -> None:
    with bounded(), contextlib.suppress(Broken):
        asked = wire.command_of(content)
        answer, at, encoded = wire.response(1, asked, status, most_bytes), 0, b""
        while at < len(answer):
            length = int.from_bytes(answer[at + 2 : at + 6], "big")
            assert not most_bytes or length <= max(most_bytes, 8)  # a fragment of two bytes is the least
            encoded += b"".join(
                bytes(piece) for _, _, piece in wire.fragments(memoryview(answer)[at + 6 : at + 6 + length])
            )
            at += 6 + length
        read = wire.command_of(encoded)
        assert read.field == asked.field | wire.RESPONSE
        assert not read.has_data_set
        assert struct.pack("<HHIH", 0, 0x0120, 2, asked.message_id) in encoded
        assert struct.pack("<HHIH", 0, 0x0900, 2, status) in encoded


@tries(500)
@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=30), st.integers(0, 255)), max_size=6), st.data())
def test_fragments_are_what_they_were_made_of_or_refused(
    told: list[tuple[int, bytes, int]], data: st.DataObject
) -> None:
    whole = b"".join(fragment(*one) for one in told)
    assert [(k, bytes(p), c) for c, k, p in wire.fragments(memoryview(whole))] == told
    changed = data.draw(hurt(whole))
    with contextlib.suppress(Broken):
        read = [
            (control, bytes(piece), context_id) for context_id, control, piece in wire.fragments(memoryview(changed))
        ]
        assert b"".join(fragment(*one) for one in read) == changed


@tries(200)
@given(st.integers(0, len(storing(CT, "1.2.3.4"))))
def test_a_command_that_is_cut_is_refused(length: int) -> None:
    whole = storing(CT, "1.2.3.4")
    may_lack = 8 + len("1.2.3.4\0")  # the last element; without the others it is no request at all
    with contextlib.nullcontext() if length in {len(whole) - may_lack, len(whole)} else pytest.raises(Broken):
        wire.command_of(whole[:length])


@tries(300)
@given(numbers, numbers, uids, uids, st.booleans(), st.permutations(range(5)))
def test_a_command_is_read_in_whatever_order_it_was_written(  # PS3.7 wants them in order; not all peers do
    field: int, message_id: int, class_uid: str, instance_uid: str, has_data_set: bool, order: list[int]
) -> None:
    elements = [
        (0x0002, class_uid.encode()),
        (0x0100, struct.pack("<H", field)),
        (0x0110, struct.pack("<H", message_id)),
        (0x0800, struct.pack("<H", 1 if has_data_set else wire.NO_DATA_SET)),
        (0x1000, instance_uid.encode()),
    ]
    content = encoded_command(*(elements[at] for at in order))
    assert wire.command_of(content) == Command(field, message_id, class_uid, instance_uid, has_data_set)
