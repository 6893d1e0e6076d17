"""DICOM upper layer and DIMSE on the wire: PDUs as they arrive, command sets, and the few answers that a receiver gives.

Knows PS3.8 section 9.3 (PDUs), annex E (fragments) and PS3.7 section 6.3 and annex E (command sets), with a limit on every
length. Does not know what an association is for, files or peers. The bytes of a data set are never copied: whoever asks
gets views of the one buffer into which the socket was read.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO

MAX_REQUEST_BYTES = 1 << 18
"""Of an A-ASSOCIATE-RQ: 128 presentation contexts with 30 transfer syntaxes each fit."""
MAX_COMMAND_BYTES = 1 << 14
ASSOCIATE_RQ, DATA_TF, RELEASE_RQ, ABORT = 1, 4, 5, 7
C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0030, 0x0FFF
N_SET_RQ, N_ACTION_RQ, N_CREATE_RQ = 0x0120, 0x0130, 0x0140
REQUESTS = {
    C_STORE_RQ: "C-STORE",
    0x0010: "C-GET",
    0x0020: "C-FIND",
    0x0021: "C-MOVE",
    C_ECHO_RQ: "C-ECHO",
    0x0100: "N-EVENT-REPORT",
    0x0110: "N-GET",
    N_SET_RQ: "N-SET",
    N_ACTION_RQ: "N-ACTION",
    N_CREATE_RQ: "N-CREATE",
    0x0150: "N-DELETE",
}
"""Command fields by name (PS3.7, table E.1-1)."""
RESPONSE = 0x8000
MAX_COMMENT = 64
NO_DATA_SET = 0x0101
RELEASE_RP = bytes((6, 0, 0, 0, 0, 4, 0, 0, 0, 0))
_HEADER = struct.Struct(">BxI")
_PDV = struct.Struct(">IBB")
_ELEMENT = struct.Struct("<HHI")
_SLACK = 1 << 16
_HTTP = {b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"PRI "}
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux


class Broken(Exception):
    """The peer breaks the protocol or is too slow: a code for our own records, and `reason` as A-ABORT has it (PS3.8, table 9-26)."""

    def __init__(self, code: str, reason: int = 0) -> None:
        super().__init__(code)
        self.code, self.reason = code, reason


class Gone(Exception):
    """The peer, or we, closed the connection."""


class Inbox:
    """What a socket has brought and nobody has read yet: whole PDUs, in place, within limits of length and time.

    Parameters
    ----------
    connection
        A blocking socket.
    max_pdu_bytes
        The length of a PDU's variable field that is taken.
    timeout_s
        A PDU has to be whole so long after its first byte, and the next one has to begin so long after it.
    """

    def __init__(self, connection: socket.socket, max_pdu_bytes: int, timeout_s: float) -> None:
        self._connection, self._max, self._timeout_s = connection, max_pdu_bytes, timeout_s
        self._memory = memoryview(bytearray(max_pdu_bytes + _HEADER.size + _SLACK))
        self._start = self._end = 0
        self._since = time.monotonic()
        whole, part = divmod(timeout_s, 1)
        connection.settimeout(None)  # the kernel's own timeouts: no poll() before every read
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(whole), int(part * 1e6)))
        if isinstance(connection, ssl.SSLSocket):  # which waits by itself, and knows nothing of the kernel's timeouts
            connection.settimeout(timeout_s)

    @property
    def foreign(self) -> str:
        """The code of another protocol, if what has come begins as that does; else empty."""
        first = bytes(self._memory[self._start : min(self._end, self._start + 4)])
        if first[:1] == b"\x16":  # a handshake record (RFC 8446, 5.1)
            return "speaks_tls"
        return "speaks_http" if first in _HTTP else ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come beyond the PDUs that were told."""
        return self._start == self._end

    def whole(self) -> Iterator[tuple[int, memoryview]]:
        """Type and variable field of every PDU that is complete; they hold until the next `fill`.

        Raises
        ------
        Broken
            A PDU is longer than it may be.
        """
        while self._end - self._start >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._memory, self._start)
            if length > self._max:
                raise Broken("pdu_too_long", 6)
            begins = self._start + _HEADER.size
            if self._end - begins < length:
                return
            self._start = begins + length
            self._since = time.monotonic()
            yield kind, self._memory[begins : begins + length]

    def fill(self) -> None:
        """Read what has come, and wait for it if nothing has. Views that were given are no longer good.

        Raises
        ------
        Broken
            Nothing came for too long, or a PDU takes too long.
        Gone
            The connection is over.
        """
        rest = self._end - self._start
        if rest == 0:
            self._start = self._end = 0
        elif self._start:
            self._memory[:rest] = bytes(self._memory[self._start : self._end])
            self._start, self._end = 0, rest
        try:
            count = self._connection.recv_into(self._memory[self._end :])
            if _QUICKACK is not None:  # else Nagle there and delayed acknowledgement here cost 40 ms an instance
                self._connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        except (BlockingIOError, TimeoutError):
            raise Broken("silent") from None
        except OSError:
            raise Gone from None
        if count == 0:
            raise Gone
        if rest and time.monotonic() - self._since > self._timeout_s:
            raise Broken("too_slow")
        if not rest:
            self._since = time.monotonic()
        self._end += count


def fragments(field: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Presentation context, control header and bytes of each fragment in a P-DATA-TF (PS3.8, 9.3.5 and E.2).

    Raises
    ------
    Broken
        The lengths do not fit.
    """
    at, end = 0, len(field)
    while at < end:
        if end - at < _PDV.size:
            raise Broken("malformed_fragment", 6)
        length, context_id, control = _PDV.unpack_from(field, at)
        if length < 2 or at + 4 + length > end:
            raise Broken("malformed_fragment", 6)
        yield context_id, control, field[at + 6 : at + 4 + length]
        at += 4 + length


@dataclass(frozen=True, slots=True)
class Command:
    """A request's command set, as far as a receiver needs it; the SOP class and instance that it affects or asks for."""

    field: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    has_data_set: bool
    action_type: int = 0


def command_of(encoded: bytes) -> Command:
    """Read a command set: implicit VR little endian, group 0000 (PS3.7, 6.3.1).

    Raises
    ------
    Broken
        It is none, or lacks what every request has.
    """
    values: dict[int, bytes] = {}
    at = 0
    while at < len(encoded):
        if len(encoded) - at < _ELEMENT.size:
            raise Broken("malformed_command", 2)
        group, element, length = _ELEMENT.unpack_from(encoded, at)
        at += _ELEMENT.size
        if group or at + length > len(encoded):
            raise Broken("malformed_command", 2)
        values[element] = encoded[at : at + length]
        at += length
    return Command(
        field=_number(values, 0x0100),
        message_id=_number(values, 0x0110) if 0x0110 in values else 0,
        sop_class_uid=_uid(values, 0x0002) or _uid(values, 0x0003),
        sop_instance_uid=_uid(values, 0x1000) or _uid(values, 0x1001),
        has_data_set=_number(values, 0x0800) != NO_DATA_SET,
        action_type=_number(values, 0x1008) if 0x1008 in values else 0,
    )


def response(context_id: int, to: Command, status: int, most_bytes: int, comment: str = "") -> bytes:
    """The P-DATA-TF PDUs that answer a request, without a data set (PS3.7, annex E).

    Parameters
    ----------
    most_bytes
        The longest PDU that the peer takes; 0 for any.
    comment
        Words of ours for whoever reads the sender's log: the Error Comment, 64 characters at most.
    """
    elements = [(0x0002, _padded(to.sop_class_uid))] if to.sop_class_uid else []
    elements += [
        (0x0100, struct.pack("<H", to.field | RESPONSE)),
        (0x0120, struct.pack("<H", to.message_id)),
        (0x0800, struct.pack("<H", NO_DATA_SET)),
        (0x0900, struct.pack("<H", status)),
    ]
    if comment:
        elements.append((0x0902, _padded(comment[:MAX_COMMENT], b" ")))
    if to.sop_instance_uid:
        elements.append((0x1000, _padded(to.sop_instance_uid)))
    if to.field == N_ACTION_RQ:
        elements.append((0x1008, struct.pack("<H", to.action_type)))
    body = b"".join(_ELEMENT.pack(0, element, len(value)) + value for element, value in elements)
    encoded = _ELEMENT.pack(0, 0, 4) + struct.pack("<I", len(body)) + body
    room = max(2, most_bytes - _PDV.size) if most_bytes else len(encoded)
    out = BytesIO()
    for at in range(0, len(encoded), room):
        part = encoded[at : at + room]
        last = 2 if at + room >= len(encoded) else 0
        out.write(_HEADER.pack(DATA_TF, len(part) + _PDV.size) + _PDV.pack(len(part) + 2, context_id, 1 | last) + part)
    return out.getvalue()


def rejection(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8, table 9-21)."""
    return bytes((3, 0, 0, 0, 0, 4, 0, result, source, reason))


def abort(reason: int) -> bytes:
    """An A-ABORT of the service provider (PS3.8, table 9-26)."""
    return bytes((ABORT, 0, 0, 0, 0, 4, 0, 0, 2, reason))


def _number(values: Mapping[int, bytes], element: int) -> int:
    value = values.get(element, b"")
    if len(value) != 2:
        raise Broken("malformed_command", 2)
    return int.from_bytes(value, "little")


def _uid(values: Mapping[int, bytes], element: int) -> str:
    return values.get(element, b"").decode("ascii", "replace").rstrip("\0 ")


def _padded(text: str, pad: bytes = b"\0") -> bytes:
    value = text.encode("ascii", "replace")
    return value + pad * (len(value) % 2)
