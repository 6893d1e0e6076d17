"""The elements of a data set, stepped over within limits that hold whatever the bytes are.

Knows the encodings of PS3.5 (section 7: elements, sequences, delimiters): one loop, no recursion, every length checked against
the bytes that are there. Pixels are never touched, deflated data is refused. Does not know what an element means.
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
MAX_LEAF = 128
"""Bytes of a value that `leaves` tells."""
UNDEFINED = 0xFFFFFFFF
_TOP: tuple[tuple[int, int], ...] = ()
_ITEM, _END_OF_ITEM, _END_OF_SEQUENCE = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS"}
    | {b"ST", b"TM", b"UI", b"UL", b"US"}
)
PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})


@dataclass(frozen=True, slots=True)
class Element:
    """Where the value of one top-level element lies; `length` of encapsulated pixels is what the buffer still holds."""

    tag: int
    vr: bytes
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value that is no sequence: the sequences around it, each with the number of its item, the tag, its first bytes."""

    path: tuple[tuple[int, int], ...]
    tag: int
    value: bytes

    @property
    def tags(self) -> tuple[int, ...]:
        """The tags of the sequences around it, from the outermost."""
        return tuple(tag for tag, _ in self.path)

    @property
    def text(self) -> str:
        """The value as text without its padding; for UIDs and codes."""
        return self.value.decode("latin-1").strip("\0 ")


@dataclass(frozen=True, slots=True)
class _Encoding:
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
    encoding = _encoding(buffer, start, transfer_syntax_uid)
    position, left = start, [MAX_ELEMENTS]
    while position < end:
        tag, vr, value, length = _head(buffer, position, end, encoding, left)
        if tag in PIXELS and (length == UNDEFINED or value + length > end):
            yield Element(tag, vr, value, end - value)  # encapsulated, or cut off in the pixels
            return
        if length == UNDEFINED:
            after = _end_of_sequence(buffer, value, end, _inside(vr, encoding), left)
            yield Element(tag, vr, value, after - value)
        else:
            after = value + length
            if after > end:
                raise InvalidInstance("An element is longer than the data set.", reason_code="bad_length")
            yield Element(tag, vr, value, length)
        if tag in PIXELS:
            return
        position = after


def leaves(buffer: Buffer, transfer_syntax_uid: str, within: Element | None = None, start: int = 0) -> Iterator[Leaf]:
    """The values in a data set, or in one of its sequences, at whatever depth. Pixels end it, as `walk` ends there.

    Raises
    ------
    UnsupportedInstance
        The data set is deflated.
    InvalidInstance
        An element does not fit into the buffer, sequences are nested too deeply, or there are too many elements.
    """
    if transfer_syntax_uid in DEFLATED:
        raise UnsupportedInstance("Deflated data sets are not taken.", reason_code="deflated")
    encoding, left = _encoding(buffer, start, transfer_syntax_uid), [MAX_ELEMENTS]
    # Where a level ends, how it is encoded, and whether it is inside an item: the data set, a sequence, an item of it, …
    levels: list[tuple[int, _Encoding, bool]] = [(len(buffer), encoding, True)]
    position, path = start, _TOP
    if within is not None:
        levels = [(within.start + within.length, _inside(within.vr, encoding), False)]
        position, path = within.start, ((within.tag, -1),)
    while levels:
        end, how, in_item = levels[-1]
        if position >= end:
            levels.pop()
            path = path if in_item else path[:-1]
            continue
        tag, vr, value, length = _head(buffer, position, end, how, left)
        after = end if length == UNDEFINED else value + length
        if after > end:
            raise InvalidInstance("An element is longer than what holds it.", reason_code="bad_length")
        if tag in {_END_OF_ITEM, _END_OF_SEQUENCE}:
            levels.pop()
            path = path if in_item else path[:-1]
            position = value
        elif not in_item:
            if tag != _ITEM:
                raise InvalidInstance("A sequence is not made of items.", reason_code="bad_sequence")
            path = (*path[:-1], (path[-1][0], path[-1][1] + 1))
            levels.append((after, how, True))
            position = value
        elif tag in PIXELS:
            return
        elif vr == b"SQ" or length == UNDEFINED or (vr in {b"", b"UN"} and _looks_like_items(buffer, value, after)):
            if len(levels) > 2 * MAX_DEPTH:
                raise InvalidInstance("Sequences are nested too deeply.", reason_code="too_deep")
            path = (*path, (tag, -1))
            levels.append((after, _inside(vr, how), False))
            position = value
        else:
            yield Leaf(path, tag, bytes(buffer[value : min(after, value + MAX_LEAF)]))
            position = after


def _looks_like_items(buffer: Buffer, value: int, after: int) -> bool:
    # Implicit VR does not say what a sequence is: it begins with an item, which no text does.
    return after - value >= 8 and bytes(buffer[value : value + 4]) == b"\xfe\xff\x00\xe0"


def _encoding(buffer: Buffer, start: int, transfer_syntax_uid: str) -> _Encoding:
    if transfer_syntax_uid == BIG_ENDIAN:
        return _Encoding(explicit=True, order=">")
    # Senders mix up the two little-endian forms; the bytes where a VR would stand tell which it is.
    looks = bytes(buffer[start + 4 : start + 6])
    return _Encoding(explicit=looks in _SHORT or looks in _LONG, order="<")


def _inside(vr: bytes, encoding: _Encoding) -> _Encoding:
    # PS3.5 section 6.2.2, note 4: UN of undefined length is a sequence in Implicit VR Little Endian.
    return _Encoding(explicit=False, order="<") if vr == b"UN" else encoding


def _head(buffer: Buffer, position: int, end: int, encoding: _Encoding, left: list[int]) -> tuple[int, bytes, int, int]:
    """Tag, VR, start of the value, length (PS3.5 section 7.1)."""
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


def _end_of_sequence(buffer: Buffer, position: int, end: int, encoding: _Encoding, left: list[int]) -> int:
    """Where a sequence of undefined length ends, its delimiter included (PS3.5 section 7.5). Iterative."""
    stack: list[tuple[bool, _Encoding]] = [(False, encoding)]  # (inside an item?, how it is encoded)
    while stack:
        if len(stack) > 2 * MAX_DEPTH:  # a sequence and an item each
            raise InvalidInstance("Sequences are nested too deeply.", reason_code="too_deep")
        in_item, how = stack[-1]
        tag, vr, value, length = _head(buffer, position, end, how, left)
        if tag == (_END_OF_ITEM if in_item else _END_OF_SEQUENCE):
            stack.pop()
            position = value
        elif in_item == (tag == _ITEM):
            raise InvalidInstance("A sequence is not made of items.", reason_code="bad_sequence")
        elif length == UNDEFINED:
            stack.append((not in_item, _inside(vr, how) if in_item else how))
            position = value
        else:
            position = value + length
    return position
