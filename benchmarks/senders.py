"""Senders that cost next to no CPU: instances encoded beforehand, one association each, every answer waited for."""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from benchmarks.receivers import Receiver

EXPLICIT = "1.2.840.10008.1.2.1"
TOKEN = b"7777777777"


@dataclass(frozen=True)
class Kind:
    """A kind of image: its class, and how many are sent to one sender's share of a round."""

    sop_class_uid: str
    rows: int
    columns: int
    images: int


KINDS = {
    "ct": Kind("1.2.840.10008.5.1.4.1.1.2", 512, 512, 400),
    "mr": Kind("1.2.840.10008.5.1.4.1.1.4", 256, 256, 1200),
    "cr": Kind("1.2.840.10008.5.1.4.1.1.1", 2500, 2048, 24),
    "tiny": Kind("1.2.840.10008.5.1.4.1.1.7", 48, 40, 2000),
}


def template(kind: Kind) -> tuple[bytes, int]:
    """An encoded data set, and where the ten digits stand that make its SOP Instance UID another one."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = kind.sop_class_uid, f"2.25.9.{TOKEN.decode()}.1"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "2.25.9.1", "2.25.9.1.1"
    ds.PatientName, ds.PatientID, ds.Modality = "Bench^Patient", "P1", "OT"
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = kind.rows, kind.columns, 16, 12, 11
    ds.PixelRepresentation, ds.SamplesPerPixel, ds.PhotometricInterpretation = 0, 1, "MONOCHROME2"
    noise = np.random.default_rng(7).integers(0, 4096, kind.rows * kind.columns, dtype=np.uint16)
    ds.add_new(0x7FE00010, "OW", noise.tobytes())
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    write_dataset(out, ds)
    encoded = out.getvalue()
    return encoded, encoded.index(TOKEN)


def sender(
    receiver: Receiver, kind: Kind, encoded: bytes, uid_at: int, share: int, number: int, barrier: object, told: object
) -> None:
    """Send a share over one association; tells how long each answer took."""
    connection = socket.create_connection(("127.0.0.1", receiver.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    most = associate(connection, receiver.called, kind.sop_class_uid)
    base = (time.time_ns() // 1000 * 16 + number) % 9_000_000_000
    streams = [stream(kind, encoded, uid_at, base + n * 64, most) for n in range(min(share, 64))]
    barrier.wait()  # type: ignore[attr-defined]
    waits = []
    for n in range(share):
        if n >= len(streams):  # encoded anew only where memory does not hold all
            streams[n % 64] = stream(kind, encoded, uid_at, base + n * 64, most)
        began = time.monotonic()
        connection.sendall(streams[n % 64])
        status = answer(connection)
        waits.append(time.monotonic() - began)
        if status:
            raise SystemExit(f"status 0x{status:04x}")
    connection.sendall(struct.pack(">BxI4x", 5, 4))
    connection.recv(10)
    connection.close()
    told.put(waits)  # type: ignore[attr-defined]


def associate(connection: socket.socket, called: str, sop_class_uid: str) -> int:
    """Ask for an association; the longest PDU that the receiver takes."""

    def part(kind: int, body: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(body)) + body

    context = struct.pack(">B3x", 1) + part(0x30, sop_class_uid.encode()) + part(0x40, EXPLICIT.encode())
    user = part(0x51, struct.pack(">I", 1 << 17)) + part(0x52, b"2.25.9")
    body = struct.pack(">H2x", 1) + called.encode().ljust(16) + b"BENCH".ljust(16) + bytes(32)
    body += part(0x10, b"1.2.840.10008.3.1.1.1") + part(0x20, context) + part(0x50, user)
    connection.sendall(struct.pack(">BxI", 1, len(body)) + body)
    kind, field = pdu(connection)
    at = field.find(b"\x51\x00\x00\x04")
    if kind != 2 or at < 0:
        raise SystemExit(f"no association: PDU type {kind}")
    return int(struct.unpack_from(">I", field, at + 4)[0]) or 1 << 17


def stream(kind: Kind, encoded: bytes, uid_at: int, number: int, most: int) -> bytes:
    """One C-STORE, as it goes over the wire."""
    token = b"%010d" % (number % 10_000_000_000)
    uid = f"2.25.9.{token.decode()}.1".encode()
    elements = [(0x0002, padded(kind.sop_class_uid.encode())), (0x0100, b"\x01\0"), (0x0110, b"\x01\0")]
    elements += [(0x0700, b"\0\0"), (0x0800, b"\0\0"), (0x1000, padded(uid))]
    body = b"".join(struct.pack("<HHI", 0, element, len(value)) + value for element, value in elements)
    command = struct.pack("<HHII", 0, 0, 4, len(body)) + body
    out = [struct.pack(">BxIIBB", 4, len(command) + 6, len(command) + 2, 1, 3), command]
    mine = encoded[:uid_at] + token + encoded[uid_at + len(token) :]
    step = most - 6
    for at in range(0, len(mine), step):
        piece = mine[at : at + step]
        last = 2 if at + step >= len(mine) else 0
        out += [struct.pack(">BxIIBB", 4, len(piece) + 6, len(piece) + 2, 1, last), piece]
    return b"".join(out)


def padded(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)


def answer(connection: socket.socket) -> int:
    """The status of the next response."""
    kind, field = pdu(connection)
    at = field.find(struct.pack("<HHI", 0, 0x0900, 2))
    if kind != 4 or at < 0:
        raise SystemExit(f"PDU type {kind} instead of an answer")
    return int(struct.unpack_from("<H", field, at + 8)[0])


def pdu(connection: socket.socket) -> tuple[int, bytes]:
    head = exactly(connection, 6)
    kind, length = struct.unpack(">BxI", head)
    return kind, exactly(connection, length)


def exactly(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        more = connection.recv(count - len(received))
        if not more:
            raise SystemExit("the receiver closed the connection")
        received += more
    return received
