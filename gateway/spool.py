"""The spool: a receiver's own folder of durable instances that have no row yet, and the form of a file in it.

Knows the folder's three rooms, who may hold it, and how a spooled file tells about itself. Does not know sockets,
tables or what is inside a data set.

A folder `NN/` below the spools' common root has `incoming/` (half-written, its owner clears it at start-up),
`ready/` (durable, waiting for the indexer) and `quarantine/` (kept aside, bounded in bytes, oldest go first). Two
locks: the receiver holds `receiver.lock`, the indexer `indexer.lock`; both fall when their process dies.

A file is DICOM part 10 (PS3.10, section 7.1) named by our own id. Its 128-byte preamble, which the standard leaves to
the application, holds a mark, the data set's length, a CRC over file meta and data set, and when it was received; the
file meta holds UIDs, transfer syntax, AE titles (0002,0017) (0002,0018), and as private information (0002,0102)
the door, the peer, its address, site and association. So a row can be made from the file alone, today or after a disaster.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import re
import struct
import threading
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from gateway.elements import Buffer, walk
from record.durable import sync_folder
from record.errors import InvalidInstance, Misconfigured

IMPLEMENTATION_CLASS_UID = "2.25.236317105218713043471034963517541238601"
IMPLEMENTATION_VERSION_NAME = "COUNTERSIGN_1"
PRIVATE_CREATOR_UID = "2.25.236317105218713043471034963517541238602"
"""Says that (0002,0102) of a file is ours to read."""

QUARANTINE_BYTES = 1 << 30
"""How much of what could not be taken is kept, for each spool."""

_MARK = b"CSGNSPL1"
_PREAMBLE = struct.Struct(
    "<8sQIQ"
)  # mark, length of the data set, CRC-32 of meta and data set, microseconds since 1970
_CHECKED = 124  # of the preamble's 128 bytes; the last four are the CRC-32 of these
META_AT = 132
_GROUP_LENGTH_BYTES = 12
_EXPLICIT = "1.2.840.10008.1.2.1"
_BLOCK = 1 << 20
_NAME = re.compile(r"([0-9a-f]{32})\.dcm")
_REASON = re.compile(r"[a-z_]{1,64}")
_PRINTABLE = re.compile(r"[^ -~]")


@dataclass(frozen=True, slots=True)
class Source:
    """Where an instance came from: by which kind of door, from whom, to whom, for which site, on which association."""

    kind: str
    ae_title: str = ""
    called_ae_title: str = ""
    address: str = ""
    site_name: str | None = None
    peer_id: str | None = None
    association_id: str | None = None


@dataclass(frozen=True, slots=True)
class SopIdentity:
    """What the sender says it sends: SOP class, SOP instance, and the transfer syntax of its bytes."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True)
class Spooled:
    """What a durable file says of itself."""

    instance_id: uuid.UUID
    source: Source
    sop: SopIdentity
    received_at: datetime
    data_set_at: int
    data_set_bytes: int
    crc: int


class Spool:
    """One folder of the spools. Holding it is explicit, so that a reader can look without owning."""

    def __init__(self, folder: Path, quarantine_bytes: int = QUARANTINE_BYTES) -> None:
        self.folder = folder
        self.incoming, self.ready, self.quarantine = folder / "incoming", folder / "ready", folder / "quarantine"
        self._quarantine_bytes = quarantine_bytes
        self._locks: dict[str, int] = {}
        self._trimming = threading.Lock()

    @classmethod
    def claim(cls, root: Path, quarantine_bytes: int = QUARANTINE_BYTES) -> Spool:
        """Take the first folder below the root that no living receiver holds, and clear what died half-written.

        Several receivers on one machine so get a folder each, and one that starts again finds its former folder.
        """
        for number in range(100):
            spool = cls(root / f"{number:02}", quarantine_bytes)
            spool.make()
            if spool.hold("receiver"):
                for leftover in spool.incoming.iterdir():
                    leftover.unlink()
                return spool
        raise Misconfigured("A hundred receivers hold the spools below this folder; is one started in a loop?")

    @property
    def spool_id(self) -> str:
        """The folder's number, for logs."""
        return self.folder.name

    def make(self) -> None:
        """Make the folder's rooms, durably."""
        for room in (self.incoming, self.ready, self.quarantine):
            if not room.is_dir():
                room.mkdir(parents=True, exist_ok=True, mode=0o700)
                for parent in (self.folder, self.folder.parent):
                    sync_folder(parent)

    def hold(self, role: str) -> bool:
        """Take one of the two locks, `receiver` or `indexer`; False while another process has it."""
        if role in self._locks:
            return True
        descriptor = os.open(self.folder / f"{role}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._locks[role] = descriptor
        return True

    def release(self) -> None:
        """Give back what is held."""
        while self._locks:
            os.close(self._locks.popitem()[1])

    def waiting(self) -> list[Path]:
        """Durable files without a row, the oldest first (ids begin with the time)."""
        with contextlib.suppress(FileNotFoundError):
            return [self.ready / name for name in sorted(os.listdir(self.ready)) if _NAME.fullmatch(name)]
        return []

    def set_aside(self, path: Path, reason: str) -> bool:
        """Move a file into quarantine under its id and the reason; False when it alone would pass the bound."""
        if not _REASON.fullmatch(reason):
            reason = "unknown"
        try:
            if path.stat().st_size > self._quarantine_bytes:
                path.unlink()
                return False
            path.rename(self.quarantine / f"{path.name.partition('.')[0]}.{reason}.dcm")
        except FileNotFoundError:
            return False
        self._trim()
        return True

    def _trim(self) -> None:
        with self._trimming:
            kept = 0
            for path in sorted(self.quarantine.iterdir(), reverse=True):  # newest first: ids begin with the time
                with contextlib.suppress(FileNotFoundError):  # the other holder may trim as well
                    kept += path.stat().st_size
                    if kept > self._quarantine_bytes:
                        path.unlink()


def find(root: Path) -> list[Spool]:
    """Every spool at or below a folder: the common root's children, or the folder itself if it is one spool."""
    if (root / "ready").is_dir():
        return [Spool(root)]
    with contextlib.suppress(FileNotFoundError):
        return [Spool(child) for child in sorted(root.iterdir()) if (child / "ready").is_dir()]
    return []


def preamble(data_set_bytes: int, crc: int, received_at: datetime) -> bytes:
    """The 128 bytes that make a file whole: they are written last, just before the flush."""
    microseconds = round(received_at.timestamp() * 1_000_000)
    told = _PREAMBLE.pack(_MARK, data_set_bytes, crc, microseconds).ljust(_CHECKED, b"\0")
    return told + struct.pack("<I", zlib.crc32(told))


def file_meta(sop: SopIdentity, source: Source) -> bytes:
    """The complete file meta information (PS3.10, section 7.1), from its group length on."""
    told = {
        "door": source.kind,
        "address": source.address,
        "site": source.site_name,
        "peer": source.peer_id,
        "association": source.association_id,
    }
    elements = [
        _element(0x0001, b"OB", b"\0\x01"),
        _element(0x0002, b"UI", sop.sop_class_uid.encode("ascii")),
        _element(0x0003, b"UI", sop.sop_instance_uid.encode("ascii")),
        _element(0x0010, b"UI", sop.transfer_syntax_uid.encode("ascii")),
        _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode("ascii")),
        _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode("ascii")),
    ]
    if source.ae_title:
        elements.append(_element(0x0017, b"AE", _ae_title(source.ae_title)))
    if source.called_ae_title:
        elements.append(_element(0x0018, b"AE", _ae_title(source.called_ae_title)))
    elements += [
        _element(0x0100, b"UI", PRIVATE_CREATOR_UID.encode("ascii")),
        _element(0x0102, b"OB", json.dumps(told, sort_keys=True).encode("ascii")),
    ]
    body = b"".join(elements)
    return _element(0x0000, b"UL", struct.pack("<I", len(body))) + body


def read(path: Path, buffer: Buffer) -> Spooled:
    """What a spooled file says of itself, checked for its mark and length (not its CRC, which costs a whole read).

    Raises
    ------
    InvalidInstance
        The file is not whole, or none of ours. Such a file was never acknowledged, unless the disk lost bytes.
    """
    named = _NAME.fullmatch(path.name)
    if not named or len(buffer) < META_AT + _GROUP_LENGTH_BYTES or bytes(buffer[128:META_AT]) != b"DICM":
        raise InvalidInstance("Not a spooled file.", reason_code="not_spooled")
    told = bytes(buffer[:_CHECKED])
    mark, length, crc, microseconds = _PREAMBLE.unpack_from(told)
    if mark != _MARK or zlib.crc32(told) != struct.unpack_from("<I", buffer, _CHECKED)[0]:
        raise InvalidInstance("A spooled file without its mark.", reason_code="not_spooled")
    data_set_at = META_AT + _GROUP_LENGTH_BYTES + struct.unpack_from("<I", buffer, META_AT + 8)[0]
    if data_set_at + length != len(buffer):
        raise InvalidInstance("A spooled file of another length than it tells.", reason_code="damaged")
    try:
        source, sop = _read_meta(bytes(buffer[META_AT:data_set_at]))
        received_at = datetime.fromtimestamp(microseconds / 1_000_000, UTC)
    except (ValueError, LookupError, TypeError, OverflowError, OSError, RecursionError, struct.error):
        raise InvalidInstance("A spooled file whose meta information was changed.", reason_code="damaged") from None
    return Spooled(
        instance_id=uuid.UUID(hex=named[1]),
        source=source,
        sop=sop,
        received_at=received_at,
        data_set_at=data_set_at,
        data_set_bytes=length,
        crc=crc,
    )


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """A spooled file's bytes, as they lie on the disk.

    Raises
    ------
    InvalidInstance
        The file is empty.
    """
    with path.open("rb") as stream:
        try:
            pages = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise InvalidInstance("An empty file in the spool.", reason_code="damaged") from None
        with pages, memoryview(pages) as view:
            yield view


def data_set_sha256(path: Path) -> str:
    """The digest of a spooled file's data set, as the record has it.

    Raises
    ------
    InvalidInstance
        The file is not whole, or none of ours.
    """
    with mapped(path) as view:
        told = read(path, view)
        digest = sha256()
        for start in range(told.data_set_at, len(view), _BLOCK):
            with view[start : start + _BLOCK] as block:
                digest.update(block)
    return digest.hexdigest()


def _ae_title(text: str) -> bytes:
    return _PRINTABLE.sub("?", text)[:16].encode("ascii")


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    value += (b"\0" if vr in {b"UI", b"OB"} else b" ") * (len(value) % 2)
    head = struct.pack("<HH", 0x0002, number) + vr
    return head + (struct.pack("<HI", 0, len(value)) if vr == b"OB" else struct.pack("<H", len(value))) + value


def _read_meta(written: bytes) -> tuple[Source, SopIdentity]:
    """What `file_meta` wrote; any error where a bit of it fell over."""
    meta = {e.tag & 0xFFFF: written[e.start : e.start + e.length] for e in walk(written, _EXPLICIT)}
    private = json.loads(meta[0x0102].rstrip(b"\0"))
    source = Source(
        kind=_text(private["door"]),
        ae_title=_string(meta, 0x0017),
        called_ae_title=_string(meta, 0x0018),
        address=_text(private["address"]),
        site_name=_text_or_none(private["site"]),
        peer_id=_text_or_none(private.get("peer")),
        association_id=_text_or_none(private.get("association")),
    )
    return source, SopIdentity(*(_string(meta, number) for number in (0x0002, 0x0003, 0x0010)))


def _text(value: object) -> str:
    """Text that can be written in UTF-8; JSON knows other values, and half characters."""
    if not isinstance(value, str):
        raise TypeError
    value.encode()
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _string(meta: dict[int, bytes], number: int) -> str:
    return meta.get(number, b"").decode("ascii", "replace").strip("\0 ")
