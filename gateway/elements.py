"""The elements of a data set, one after the other, within limits that hold whatever the bytes are.

Knows the encodings of PS3.5 (section 7: elements, sequences, delimiters) as far as it takes to step over them: one
loop, no recursion, every length checked against the bytes that are there. Pixels are never touched, deflated data is
refused. Does not know what an element means (`headers` does), nor where the bytes come from.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from record.errors import InvalidInstance, UnsupportedInstance

Buffer = bytes | bytearray | memoryview
"""An `mmap` is wrapped in a memoryview first."""

DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
"""Data sets that must be inflated before they can be read: a bomb of 0.4 MB costs 800 MB. PS3.5 sections A.5, A.7."""
BIG_ENDIAN = "1.2.840.10008.1.2.2"

MAX_DEPTH = 32
MAX_ELEMENTS = 1_000_000

UNDEFINED = 0xFFFFFFFF
ITEM, END_OF_ITEM, END_OF_SEQUENCE = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS"}
    | {b"ST", b"TM", b"UI", b"UL", b"US"}
)


@dataclass(frozen=True, slots=True)
class Element:
    """Where the value of one top-level element lies; `length` of encapsulated pixels is what the buffer still holds."""

    tag: int
    vr: bytes
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Encoding:
    """How elements are written: with their VR or without, and in which byte order."""

    explicit: bool
    order: str  # of struct: "<" or ">"


def walk(buffer: Buffer, transfer_syntax_uid: str, start: int = 0) -> Iterator[Element]:
    """Step over the top-level elements of a data set, up to and including the pixels.

    Raises
    ------
    UnsupportedInstance
        The data set is deflated.
    InvalidInstance
        An element does not fit into the buffer, sequences are nested too deeply, or there are too many elements.
    """
    if transfer_syntax_uid in DEFLATED:
        raise UnsupportedInstance("Deflated data sets are not taken.", reason_code="deflated")
    end = len(buffer)
    encoding = encoding_of(buffer, start, transfer_syntax_uid)
    position, left = start, [MAX_ELEMENTS]
    while position < end:
        tag, vr, value, length = head_at(buffer, position, end, encoding, left)
        if tag in PIXELS and (length == UNDEFINED or value + length > end):
            yield Element(tag, vr, value, end - value)  # encapsulated, or cut off in the pixels
            return
        if length == UNDEFINED:
            after = end_of_sequence(buffer, value, end, inside(vr, encoding), left)
            yield Element(tag, vr, value, after - value)
        else:
            after = value + length
            if after > end:
                raise InvalidInstance("An element is longer than the data set.", reason_code="bad_length")
            yield Element(tag, vr, value, length)
        if tag in PIXELS:
            return
        position = after


def encoding_of(buffer: Buffer, start: int, transfer_syntax_uid: str) -> Encoding:
    """How the data set that begins at `start` is written, whatever its sender says of it."""
    if transfer_syntax_uid == BIG_ENDIAN:
        return Encoding(explicit=True, order=">")
    # Senders mix up the two little-endian forms; the bytes where a VR would stand tell which it is.
    looks = bytes(buffer[start + 4 : start + 6])
    return Encoding(explicit=looks in _SHORT or looks in _LONG, order="<")


def inside(vr: bytes, encoding: Encoding) -> Encoding:
    """How the elements within a sequence are written: UN hides Implicit VR Little Endian (PS3.5 section 6.2.2, note 4)."""
    return Encoding(explicit=False, order="<") if vr == b"UN" else encoding


def head_at(
    buffer: Buffer, position: int, end: int, encoding: Encoding, left: list[int]
) -> tuple[int, bytes, int, int]:
    """Tag, VR, start of the value, length (PS3.5 section 7.1).

    Parameters
    ----------
    left
        How many elements may still be read; one less afterwards.

    Raises
    ------
    InvalidInstance
        There is no whole head before `end`, its VR is none, or nothing is left.
    """
    left[0] -= 1
    if left[0] < 0:
        raise InvalidInstance("The data set has too many elements.", reason_code="too_many_elements")
    if position + 8 > end:
        raise InvalidInstance("The data set ends inside an element.", reason_code="truncated")
    group, element = struct.unpack_from(encoding.order + "HH", buffer, position)
    tag = group << 16 | element
    if not encoding.explicit or group == 0xFFFE:
        return tag, b"", position + 8, struct.unpack_from(encoding.order + "I", buffer, position + 4)[0]
    vr = bytes(buffer[position + 4 : position + 6])
    if vr in _SHORT:
        return tag, vr, position + 8, struct.unpack_from(encoding.order + "H", buffer, position + 6)[0]
    if vr not in _LONG:
        raise InvalidInstance("The data set has an element of no known kind.", reason_code="bad_vr")
    if position + 12 > end:
        raise InvalidInstance("The data set ends inside an element.", reason_code="truncated")
    return tag, vr, position + 12, struct.unpack_from(encoding.order + "I", buffer, position + 8)[0]


def end_of_sequence(buffer: Buffer, position: int, end: int, encoding: Encoding, left: list[int]) -> int:
    """Where a sequence of undefined length ends, its delimiter included (PS3.5 section 7.5). Iterative.

    Raises
    ------
    InvalidInstance
        It does not end before `end`, is not made of items, or goes too deep.
    """
    stack: list[tuple[bool, Encoding]] = [(False, encoding)]  # (inside an item?, how it is encoded)
    while stack:
        if len(stack) > 2 * MAX_DEPTH:  # a sequence and an item each
            raise InvalidInstance("Sequences are nested too deeply.", reason_code="too_deep")
        in_item, how = stack[-1]
        tag, vr, value, length = head_at(buffer, position, end, how, left)
        if tag == (END_OF_ITEM if in_item else END_OF_SEQUENCE):
            stack.pop()
            position = value
        elif in_item == (tag == ITEM):
            raise InvalidInstance("A sequence is not made of items.", reason_code="bad_sequence")
        elif length == UNDEFINED:
            stack.append((not in_item, inside(vr, how) if in_item else how))
            position = value
        else:
            position = value + length
    return position
