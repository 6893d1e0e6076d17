"""Where the data set begins in a part-10 file, and its digest.

Knows the file's frame (PS3.10, section 7.1) and nothing of what is inside. *Same bytes* means: the same data set bytes,
without preamble and file meta.
"""

from __future__ import annotations

import hashlib
import struct
from typing import BinaryIO

from record.errors import InvalidInstance

_FRAME = 128 + 4 + 12  # preamble, "DICM", and the element (0002,0000) UL with its four bytes
_MAX_META_BYTES = 1 << 20
_BLOCK = 1 << 20


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


def data_set_digest(stream: BinaryIO) -> tuple[str, int]:
    """sha256 (hex) and length in bytes of the data set of a part-10 file."""
    data_set_offset(stream)
    digest, length = hashlib.sha256(), 0
    while block := stream.read(_BLOCK):
        digest.update(block)
        length += len(block)
    return digest.hexdigest(), length
