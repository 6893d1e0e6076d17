"""One stored instance, opened: its header, checked before anything is decoded, and its frames.

Knows how a file is parsed once, where its pixels lie, and how its frames are decoded one by one, within what the header says
they cost. Runs in the decoding child. Does not know pictures.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.pixels import as_pixel_options, get_decoder, pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from record.errors import InvalidInstance, UnsupportedInstance
from worker import attributes, surveys
from worker.attributes import FrameAttributes, frame_attributes
from worker.codecs import DECODERS, DEFLATED_FRAME, NATIVE, OWN, decode_own
from worker.encapsulated import Frames, find_frames, stated_samples

MAX_FRAME_SAMPLES = 64_000_000
"""Samples of one frame: a mammogram has 30 million."""
MAX_FRAMES = 100_000
MAX_INFLATED_BYTES = 1 << 28
"""Of a deflated data set: small files may inflate without bound."""
MAX_INFLATED_HEADER_BYTES = 1 << 23
"""What may come before its pixels."""
_KEPT = 4
"""Files whose headers are kept: the next question is often about the same one."""
_MAX_KEPT_FRAME_BYTES = 1 << 25
_TAGS = [*attributes.TAGS, *surveys.TAGS, "SOPInstanceUID"]
_PIXEL_DATA = (0x7FE0, 0x0010)
_LONG_VRS = (b"OB", b"OW", b"UN", b"OF", b"OD", b"OL", b"OV")
_SYNTAX = b"\x02\x00\x10\x00UI"


@dataclass(slots=True, eq=False)
class Opened:
    """A file whose header is read and whose geometry is known to cost little.

    Attributes
    ----------
    syntax
        The transfer syntax as the file has it.
    inflated
        A deflated file's data set, as a file in Explicit VR Little Endian.
    pixels_at, pixels_bytes
        Where the value of Pixel Data begins and how long it is; -1 for encapsulated, None where it was not found.
    """

    path: Path
    syntax: str
    ds: FileDataset
    pixels_at: int | None = None
    pixels_bytes: int = 0
    inflated: bytes | None = None
    _attributes: dict[int, FrameAttributes] = field(default_factory=dict)
    _last: tuple[int, NDArray[Any]] | None = None
    _frames: Frames | None = None

    @property
    def is_native(self) -> bool:
        """All bits of the values are there: they lie uncompressed in the file, or their syntax keeps bits as they are."""
        return self.syntax in NATIVE or self.syntax in (RLELossless, DEFLATED_FRAME)

    def attributes(self, index: int) -> FrameAttributes:
        """What the display of a frame needs to know."""
        if index not in self._attributes:
            is_little = self.syntax != ExplicitVRBigEndian
            self._attributes[index] = frame_attributes(self.ds, index, little_endian=is_little)
        return self._attributes[index]

    def frame(self, index: int) -> NDArray[Any]:
        """Stored values, (rows, columns) or (rows, columns, 3); three samples come as RGB."""
        if self._last is not None and self._last[0] == index:
            return self._last[1]
        found = self._decoded(index)
        self._last = (index, found) if found.nbytes <= _MAX_KEPT_FRAME_BYTES else None
        return found

    def frames(self, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Several frames, in the order asked for."""
        for index in indices:
            yield self._decoded(index)

    def _decoded(self, index: int) -> NDArray[Any]:
        if (native := self._native(index)) is not None:
            return native
        found = self.attributes(index)
        options: dict[str, Any] = {}
        if self.is_native and found.shift and found.samples_per_pixel == 1:
            options["bits_stored"] = found.bits_allocated  # pydicom knows no High Bit: take all bits, shift later
        if self.syntax in NATIVE:
            return pixel_array(self._source(), index=index, **options)
        stream = self._stream(index)
        if stated_samples(stream) > math.prod(_shape(self.ds)) * found.samples_per_pixel:
            raise ValueError("the stream is larger than the header says")
        if self.syntax in OWN:
            return decode_own(self.syntax, stream, found, *_shape(self.ds))
        options = as_pixel_options(self.ds, number_of_frames=1, pixel_keyword="PixelData", **options)
        decoder = get_decoder(self.syntax)
        return decoder.as_array(encapsulate([stream]), index=0, decoding_plugin=DECODERS[self.syntax], **options)[0]

    def _native(self, index: int) -> NDArray[Any] | None:
        """Grey whole numbers that lie in little endian, one frame after the other: read as they are, all bits of them.

        None for whatever is less plain: pydicom knows it.
        """
        found, (rows, columns) = self.attributes(index), _shape(self.ds)
        width = found.bits_allocated // 8
        if (
            self.syntax not in NATIVE
            or self.syntax == ExplicitVRBigEndian
            or self.pixels_at is None
            or found.samples_per_pixel != 1
            or width not in {1, 2, 4}
        ):
            return None
        size = rows * columns * width
        frames = max(1, int(self.ds.get("NumberOfFrames") or 1))
        if not size * frames <= self.pixels_bytes <= size * frames + 1:
            return None
        with self._file() as opened:
            opened.seek(self.pixels_at + index * size)
            content = opened.read(size)
        if len(content) < size:
            return None
        kind = "i" if found.signed else "u"
        return np.frombuffer(content, f"<{kind}{width}").reshape(rows, columns)  # (rows, columns)

    def _stream(self, index: int) -> bytes:
        """One frame's stream (PS3.5 A.4)."""
        if self.pixels_at is None or self.pixels_bytes != -1:
            raise InvalidInstance("The instance has no encapsulated pixel data.", cause="pixel_data")
        with self._file() as opened:
            if self._frames is None:
                opened.seek(self.pixels_at)
                self._frames = find_frames(opened, max(1, int(self.ds.get("NumberOfFrames") or 1)))
            return self._frames.read(opened, index)

    def _source(self) -> Path | BinaryIO:
        return self.path if self.inflated is None else io.BytesIO(self.inflated)

    def _file(self) -> BinaryIO:
        return self.path.open("rb") if self.inflated is None else io.BytesIO(self.inflated)


def open_instance(path: Path, index: int = 0) -> Opened:
    """Open a file that is asked about, once it is known to cost little.

    Raises
    ------
    InvalidInstance
        It has no such frame, or no rows and columns.
    UnsupportedInstance
        Nothing here decodes its transfer syntax, or its frames are too large.
    """
    stat = os.stat(path)
    opened = _opened(path, (stat.st_ino, stat.st_mtime_ns, stat.st_size))
    _check_geometry(opened.ds, index)
    return opened


@lru_cache(maxsize=_KEPT)
def _opened(path: Path, _identity: tuple[int, int, int]) -> Opened:
    syntax, inflated = _transfer_syntax(path), None
    if syntax == DeflatedExplicitVRLittleEndian:
        _opened.cache_clear()  # no two inflated data sets at a time
        inflated = _inflated(path)
    with path.open("rb") if inflated is None else io.BytesIO(inflated) as opened:
        ds = dcmread(opened, stop_before_pixels=True, specific_tags=_TAGS)
        at, length = _pixel_data(opened, syntax)
    return Opened(path, syntax, ds, at, length, inflated)


def _pixel_data(opened: BinaryIO, syntax: str) -> tuple[int | None, int]:
    """Where the value of Pixel Data begins, and its length (-1: encapsulated); pydicom stopped before its tag."""
    is_big, is_implicit = syntax == ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    head = opened.read(12)
    order = ">" if is_big else "<"
    if len(head) < 12 or struct.unpack(order + "HH", head[:4]) != _PIXEL_DATA:
        return None, 0
    if is_implicit:
        opened.seek(-4, os.SEEK_CUR)
        (length,) = struct.unpack(order + "I", head[4:8])
    elif head[4:6] in _LONG_VRS:
        (length,) = struct.unpack(order + "I", head[8:12])
    else:
        return None, 0
    return opened.tell(), -1 if length == 0xFFFFFFFF else length


def _inflated(path: Path) -> bytes:
    """A deflated data set as a file in Explicit VR Little Endian, inflated as far as its own header says (PS3.5 A.5).

    First the header, within its limit; then the pixels, as many as that header states. What follows them is left.
    """
    meta = read_file_meta_info(path)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    built = DicomBytesIO()
    built.write(bytes(128) + b"DICM")
    write_file_meta_info(built, meta, enforce_standard=False)
    with path.open("rb") as opened:
        head = opened.read(132 + 12)
        if head[128:136] != b"DICM\x02\x00\x00\x00":
            raise InvalidInstance(
                "The deflated data set cannot be found: its file meta has no length.", cause="decoder"
            )
        opened.seek(144 + int.from_bytes(head[140:144], "little"))
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        _inflate(opened, inflater, built, MAX_INFLATED_HEADER_BYTES)
        end = _end_of_pixels(built, is_cut=not inflater.eof)
        built.seek(0, os.SEEK_END)
        _inflate(opened, inflater, built, end)
    return bytes(built.getvalue())


def _inflate(opened: BinaryIO, inflater: zlib._Decompress, built: DicomBytesIO, upto: int) -> None:
    """Inflate on, until so many bytes are built or there are no more."""
    while (room := upto - built.tell()) > 0 and not inflater.eof:
        piece = inflater.unconsumed_tail or opened.read(1 << 16)
        got = inflater.decompress(piece, min(room, 1 << 20))
        if not piece and not got:  # the file is cut
            return
        built.write(got)


def _end_of_pixels(built: DicomBytesIO, *, is_cut: bool) -> int:
    """Where the pixels end that the header states; it costs little, or is refused."""
    built.seek(0)
    try:
        ds = dcmread(built, stop_before_pixels=True, specific_tags=_TAGS)
    except Exception:
        if is_cut:
            raise _inflates_beyond(MAX_INFLATED_HEADER_BYTES) from None
        raise
    at = built.tell() + 12
    if is_cut and built.read(2) != _PIXEL_DATA[0].to_bytes(2, "little"):
        raise _inflates_beyond(MAX_INFLATED_HEADER_BYTES)
    _check_geometry(ds, 0)
    samples = math.prod(_shape(ds)) * int(ds.get("SamplesPerPixel") or 1)
    end = at + samples * int(ds.BitsAllocated) // 8 * max(1, int(ds.get("NumberOfFrames") or 1)) + 1
    if end > MAX_INFLATED_BYTES:
        raise _inflates_beyond(MAX_INFLATED_BYTES)
    return end


def _inflates_beyond(limit: int) -> UnsupportedInstance:
    return UnsupportedInstance(f"The data set inflates to more than {limit} bytes.", cause="deflated")


def _transfer_syntax(path: Path) -> str:
    """The transfer syntax, asked of the file meta alone: a deflated data set must not be inflated to find out."""
    with path.open("rb") as opened:
        head = opened.read(2048)
    at = head.find(_SYNTAX, 132)
    if head[128:132] == b"DICM" and at >= 0:
        length = int.from_bytes(head[at + 6 : at + 8], "little")
        syntax = head[at + 8 : at + 8 + min(length, 64)].decode("latin-1").strip("\0 ")
    else:
        syntax = str(read_file_meta_info(path).get("TransferSyntaxUID", ""))
    if syntax not in DECODERS:
        raise UnsupportedInstance(
            f"No decoder here reads the transfer syntax {_named(syntax)}.", cause="transfer_syntax"
        )
    return syntax


def _named(syntax: str) -> str:
    """A transfer syntax by its name and UID; a stranger's UID only if it is one."""
    uid = UID(syntax)
    if not uid.is_valid or not uid:
        return "of this file, which is no UID"
    return f"{uid.name} ({uid})" if uid.name != uid else str(uid)


def _shape(ds: FileDataset) -> tuple[int, int]:
    return int(ds.Rows), int(ds.Columns)


def _check_geometry(ds: FileDataset, index: int) -> None:
    """Refuse by the header what would cost too much, or is no picture, before a byte of it is decoded."""
    rows, columns, samples, bits, frames = (
        int(ds.get(keyword) or default)
        for keyword, default in (
            *(("Rows", 0), ("Columns", 0), ("SamplesPerPixel", 1)),
            *(("BitsAllocated", 0), ("NumberOfFrames", 1)),
        )
    )
    if rows <= 0 or columns <= 0:
        raise InvalidInstance("The instance has no rows or columns.", cause="geometry")
    if samples not in {1, 3} or bits not in {8, 16, 32, 64}:
        raise UnsupportedInstance("Pictures have 1 or 3 samples of 8, 16, 32 or 64 bits.", cause="sample")
    if rows * columns * samples > MAX_FRAME_SAMPLES or not 0 < frames <= MAX_FRAMES:
        raise UnsupportedInstance(f"A frame may have {MAX_FRAME_SAMPLES} samples at most.", cause="geometry")
    if not 0 <= index < frames:
        raise InvalidInstance("The instance has no frame of this number.", cause="frame")
