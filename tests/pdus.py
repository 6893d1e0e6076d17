"""PDUs by hand: what a test says to a listener, byte for byte, and what is answered."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.dicom import wire
from tests.instances import CT, EXPLICIT

VERIFICATION = "1.2.840.10008.1.1"
RELEASE = bytes((wire.RELEASE_RQ, 0, 0, 0, 0, 4, 0, 0, 0, 0))
ACCEPTED, REJECTED, RELEASED = 2, 3, 6
STORES, ECHOES = 1, 3
"""Presentation contexts of `asking`."""


def pdu(kind: int, field: bytes) -> bytes:
    return struct.pack(">BxI", kind, len(field)) + field


def fragment(control: int, piece: bytes, context_id: int = STORES) -> bytes:
    return struct.pack(">IBB", len(piece) + 2, context_id, control) + piece


def encoded_command(*elements: tuple[int, bytes]) -> bytes:
    return b"".join(struct.pack("<HHI", 0, element, len(value)) + value for element, value in elements)


def part(kind: int, content: bytes) -> bytes:
    """An item of an A-ASSOCIATE-RQ, or one within it."""
    return struct.pack(">BxH", kind, len(content)) + content


def context(context_id: int, class_uid: str, *syntaxes: str) -> bytes:
    named = part(0x30, class_uid.encode()) + b"".join(part(0x40, syntax.encode()) for syntax in syntaxes)
    return part(0x20, bytes((context_id, 0, 0, 0)) + named)


def asking(*parts: bytes, called: bytes = b"COUNTERSIGN", most_bytes: int = 16384, versions: int = 1) -> bytes:
    """An A-ASSOCIATE-RQ to store CT images and to ask for an echo, unless other parts are given."""
    told = parts or (
        part(0x10, b"1.2.840.10008.3.1.1.1"),
        context(STORES, CT, EXPLICIT),
        context(ECHOES, VERIFICATION, EXPLICIT),
        part(0x50, part(0x51, struct.pack(">I", most_bytes)) + part(0x52, b"1.2.3")),
    )
    titles = called.ljust(16) + b"SENDER".ljust(16)
    return pdu(wire.ASSOCIATE_RQ, struct.pack(">HH", versions, 0) + titles + bytes(32) + b"".join(told))


def storing(class_uid: str, instance_uid: str, message_id: int = 1) -> bytes:
    """The command set of a C-STORE."""
    return encoded_command(
        (0x0002, class_uid.encode() + b"\0" * (len(class_uid) % 2)),
        (0x0100, struct.pack("<H", wire.C_STORE_RQ)),
        (0x0110, struct.pack("<H", message_id)),
        (0x0700, b"\0\0"),
        (0x0800, b"\1\0"),
        (0x1000, instance_uid.encode() + b"\0" * (len(instance_uid) % 2)),
    )


ECHO = encoded_command(
    (0x0002, VERIFICATION.encode() + b"\0"),
    (0x0100, struct.pack("<H", wire.C_ECHO_RQ)),
    (0x0110, b"\1\0"),
    (0x0800, struct.pack("<H", wire.NO_DATA_SET)),
)


@dataclass(frozen=True)
class Answers:
    """What came back until the connection ended; a reset may have cost the last of it."""

    pdus: Sequence[tuple[int, bytes]]
    is_whole: bool

    @property
    def kinds(self) -> list[int]:
        return [kind for kind, _ in self.pdus]

    @property
    def statuses(self) -> list[int]:
        """Of every DIMSE response, in order."""
        found, command = [], bytearray()
        for kind, field in self.pdus:
            for _, control, piece in wire.fragments(memoryview(field)) if kind == wire.DATA_TF else ():
                command += piece
                if control & 2:
                    found.append(_number(bytes(command), 0x0900))
                    command.clear()
        return found


def talk(port: int, segments: Iterable[bytes], *, opening: bytes = b"", within_s: float = 10.0) -> Answers:
    """Say all of it, a write each, and listen until the other side ends the connection.

    `opening` is said first and an answer to it awaited.
    """
    until, heard = time.monotonic() + within_s, bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=within_s) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if opening:
                connection.sendall(opening)
                heard += connection.recv(1 << 16)
            for segment in segments:
                connection.sendall(segment)
            connection.shutdown(socket.SHUT_WR)
        except TimeoutError:
            raise AssertionError("the listener takes nothing any more") from None
        except OSError:  # it closed already
            pass
        is_whole = True
        while True:
            connection.settimeout(max(0.01, until - time.monotonic()))
            try:
                more = connection.recv(1 << 16)
            except TimeoutError:
                raise AssertionError("the listener leaves a connection open") from None
            except OSError:
                more, is_whole = b"", False
            if not more:
                return Answers(list(_pdus(bytes(heard), is_whole=is_whole)), is_whole)
            heard += more


def _pdus(heard: bytes, *, is_whole: bool) -> Iterable[tuple[int, bytes]]:
    at = 0
    while at < len(heard):
        length = int.from_bytes(heard[at + 2 : at + 6], "big")
        field = heard[at + 6 : at + 6 + length]
        if len(field) < length or at + 6 > len(heard):
            assert not is_whole, "an answer is cut"
            return
        yield heard[at], field
        at += 6 + length


def _number(command: bytes, wanted: int) -> int:
    at = 0
    while at < len(command):
        _, element, length = struct.unpack_from("<HHI", command, at)
        if element == wanted:
            return int.from_bytes(command[at + 8 : at + 8 + length], "little")
        at += 8 + length
    raise AssertionError("a response without a status")
