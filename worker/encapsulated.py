"""Where the frames of encapsulated pixel data lie, found once a file (PS3.5 A.4), and what a frame's stream will cost.

Knows items, offset tables and the few bytes of a stream that state its size. Does not decode. Writers leave the Basic
Offset Table empty, or wrong, more often than right: it is believed only where the fragments alone do not tell.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

MAX_FRAGMENTS = 1_000_000
"""A whole slide has some ten thousand; without a bound, a file of empty items takes a child's whole time."""
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_END_OF_IMAGE, _TAIL_BYTES = b"\xff\xd9", 10
_J2K_START = b"\xff\x4f\xff\x51"
_JXL_START, _JXL_BOXES = b"\xff\x0a", (b"jxlc", b"jxlp")
_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_NO_FRAME_HEADER = {0xC4, 0xC8, 0xCC}
"""DHT, JPG and DAC lie among the markers that begin a frame (ITU-T T.81 B.1.1.3)."""
_JPEG_LS_FRAME = 0xF7


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Where every frame lies.

    Attributes
    ----------
    starts, lengths
        Of each fragment's bytes in the file: int64 (fragments,).
    first
        Each frame's first fragment, and the number of fragments at the end: int64 (frames + 1,).
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    first: NDArray[np.int64]

    def read(self, source: BinaryIO, index: int) -> bytes:
        """One frame's stream.

        Raises
        ------
        ValueError
            There is no such frame, or the file ends within it.
        """
        if not 0 <= index < len(self.first) - 1:
            raise ValueError("fewer frames than the header says")
        parts = []
        for n in range(int(self.first[index]), int(self.first[index + 1])):
            source.seek(int(self.starts[n]))
            part = source.read(int(self.lengths[n]))
            if len(part) < self.lengths[n] - 1:  # only the byte that makes a length even may be missing
                raise ValueError("the file ends within a frame")
            parts.append(part)
        return b"".join(parts)


def find_frames(source: BinaryIO, number_of_frames: int) -> Frames:
    """Find the frames of a file that stands at the value of Pixel Data.

    Raises
    ------
    ValueError
        The items are malformed, too many, or cannot be told apart into frames.
    """
    table = _offset_table(source)
    starts, lengths = _fragments(source)
    count = len(starts)
    if count == number_of_frames:
        first = np.arange(count + 1)  # (frames + 1,)
    elif len(table) and table[0] == 0 and (np.diff(table) > 0).all():
        items = starts - starts[0] if count else starts  # (fragments,)
        first = np.append(np.searchsorted(items, table), count)  # (frames + 1,)
    elif count == 1 or number_of_frames == 1:
        first = np.array([0, count])  # (2,)
    elif count > number_of_frames:
        ends = [n + 1 for n in range(count) if _ends_image(source, int(starts[n]), int(lengths[n]))]
        first = np.array([0, *ends])  # (frames + 1,)
    else:
        raise ValueError("fewer fragments than frames")
    return Frames(starts, lengths, first)


def _offset_table(source: BinaryIO) -> NDArray[np.int64]:
    head = source.read(8)
    length = int.from_bytes(head[4:], "little")
    if head[:4] != _ITEM or length % 4 or length > 4 * MAX_FRAGMENTS:
        raise ValueError("no offset table")
    return np.frombuffer(source.read(length), "<u4").astype(np.int64)  # (frames,) or (0,)


def _fragments(source: BinaryIO) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each fragment's bytes begin, and how many they are; up to the delimiter, or to the end of a cut file."""
    starts: list[int] = []
    lengths: list[int] = []
    at = source.tell()
    while len(head := source.read(8)) == 8 and head[:4] != _DELIMITER:
        length = int.from_bytes(head[4:], "little")
        if head[:4] != _ITEM or length == 0xFFFFFFFF or len(starts) >= MAX_FRAGMENTS:
            raise ValueError("not a fragment")
        starts.append(at + 8)
        lengths.append(length)
        at += 8 + length
        source.seek(length, 1)
    return np.array(starts, np.int64), np.array(lengths, np.int64)  # each (fragments,)


def _ends_image(source: BinaryIO, start: int, length: int) -> bool:
    """Whether a JPEG, JPEG-LS or JPEG 2000 image ends with this fragment; padding may follow the marker."""
    source.seek(start + max(0, length - _TAIL_BYTES))
    return _END_OF_IMAGE in source.read(min(length, _TAIL_BYTES))


def stated_samples(stream: bytes) -> int:
    """How many samples a stream says it holds, rows × columns × components; 0 where it says nothing that is read here.

    JPEG XL states its components elsewhere: one is counted.
    """
    if stream[:2] == b"\xff\xd8":
        return _jpeg_samples(stream)
    if (at := stream.find(_J2K_START, 0, 4096)) >= 0 and len(stream) >= at + 42:  # ITU-T T.800 A.5.1
        right, lower, left, upper = struct.unpack_from(">4I", stream, at + 8)
        (components,) = struct.unpack_from(">H", stream, at + 40)
        samples: int = max(0, right - left) * max(0, lower - upper) * components
        return samples
    return _jpeg_xl_samples(stream)


def _jpeg_samples(stream: bytes) -> int:
    """From the frame header (ITU-T T.81 B.2.2, T.87 C.2.2)."""
    at = 2
    while at + 10 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == _JPEG_LS_FRAME or (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME_HEADER):
            rows, columns = struct.unpack_from(">2H", stream, at + 5)
            return int(rows) * int(columns) * stream[at + 9]
        at += 2 + max(2, int.from_bytes(stream[at + 2 : at + 4], "big"))
    return 0


def _jpeg_xl_samples(stream: bytes) -> int:
    """From the size header (ISO/IEC 18181-1 D.2), which may lie in a box (ISO/IEC 18181-2)."""
    if stream[:2] == _JXL_START:
        return _jxl_size(stream[2:20])
    for box in _JXL_BOXES:
        if (at := stream.find(box, 0, 1 << 16)) >= 0:
            at = stream.find(_JXL_START, at + 4, at + 12)
            return _jxl_size(stream[at + 2 : at + 20]) if at >= 0 else 0
    return 0


def _jxl_size(header: bytes) -> int:
    bits = _Bits(int.from_bytes(header, "little"))
    is_small = bits.take(1)
    rows = 8 * (bits.take(5) + 1) if is_small else bits.size()
    if ratio := bits.take(3):
        numerator, denominator = _JXL_RATIOS[ratio - 1]
        return rows * (rows * numerator // denominator)
    return rows * (8 * (bits.take(5) + 1) if is_small else bits.size())


@dataclass(slots=True)
class _Bits:
    left: int

    def take(self, count: int) -> int:
        value = self.left & ((1 << count) - 1)
        self.left >>= count
        return value

    def size(self) -> int:
        return 1 + self.take((9, 13, 18, 30)[self.take(2)])
