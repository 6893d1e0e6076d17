"""Where the data set begins in a part-10 file, its digest, and what the file meta says that it is.

Knows the file's frame and its file meta information (PS3.10, section 7.1), and nothing of what is in the data set. *Same
bytes* means: the same data set bytes, without preamble and file meta.
"""

from __future__ import annotations

import hashlib
import struct
from typing import BinaryIO

from record.errors import InvalidInstance

_FRAME = 128 + 4 + 12  # preamble, "DICM", and the element (0002,0000) UL with its four bytes
_MAX_META_BYTES = 1 << 20
_BLOCK = 1 << 20
_UIDS = (0x0002, 0x0003, 0x0010)
_LONG = frozenset({b"OB", b"OW", b"UN", b"UT", b"SQ"})
"""What has its length in four bytes, in file meta information (PS3.5, section 7.1.2)."""


def data_set_offset(stream: BinaryIO) -> int:
    """Byte offset of the data set in a part-10 file; the stream is left there.

    Raises
    ------
    InvalidInstance
        The file has no part-10 frame.
    """
    frame = stream.read(_FRAME)
    if len(frame) != _FRAME or frame[128:132] != b"DICM" or frame[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        message = "The file has no DICOM part-10 frame."
        raise InvalidInstance(message)
    (length,) = struct.unpack("<I", frame[140:144])
    if length > _MAX_META_BYTES:
        message = "The file's meta information is longer than any real one."
        raise InvalidInstance(message, bytes=length)
    stream.seek(_FRAME + length)
    return _FRAME + int(length)


def meta_uids(stream: BinaryIO) -> tuple[str, str, str]:
    """SOP Class UID, SOP Instance UID and Transfer Syntax UID of the file meta, empty where one is missing.

    Raises
    ------
    InvalidInstance
        The file has no part-10 frame.
    """
    end = data_set_offset(stream)
    stream.seek(_FRAME)
    meta, at, found = stream.read(end - _FRAME), 0, dict.fromkeys(_UIDS, "")
    while at + 8 <= len(meta):
        group, element, vr, length = struct.unpack_from("<HH2sH", meta, at)
        at += 8
        if vr in _LONG:
            if at + 4 > len(meta):
                break
            (length,) = struct.unpack_from("<I", meta, at)
            at += 4
        if group == 0x0002 and element in found:
            found[element] = meta[at : at + length].rstrip(b"\0 ").decode("ascii", errors="replace")
        at += length
    return found[0x0002], found[0x0003], found[0x0010]


def data_set_digest(stream: BinaryIO) -> tuple[str, int]:
    """sha256 (hex) and length in bytes of the data set of a part-10 file."""
    data_set_offset(stream)
    digest, length = hashlib.sha256(), 0
    while block := stream.read(_BLOCK):
        digest.update(block)
        length += len(block)
    return digest.hexdigest(), length
