"""Intake: the only way an instance gets in. Bytes are pushed into it; what it has acknowledged is on the disk.

Knows files, flushing and limits. Does not know who pushes (a C-STORE, an upload), nor databases or bells.

`commit()` makes a file durable in this order, and each step has its reason. (1) The preamble, which makes a file
whole, is written last: a file without it is known as unfinished. (2) The file is renamed into `ready/`, which is atomic:
the indexer sees all of it or nothing. (3) The file is flushed, once, and its name with it: the journals of ext4, XFS and
Btrfs write what they know of a file, its last rename included, when the file is flushed. Only now may the sender be told
Success. What a power cut leaves in `ready/` before that is not whole, tells so by its preamble and its CRC, and was never
acknowledged; the indexer flushes a file itself before it makes a row of it. Whatever fails before leaves at most a file in
`incoming/`, which is removed at once, or, after a death, when the receiver starts again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import uuid
import zlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from gateway.elements import DEFLATED
from gateway.headers import UID, Identity, check, read_identity
from gateway.spool import SopIdentity, Source, Spool, file_meta, preamble
from record.errors import InvalidInstance, MismatchedInstance, StoreFull, UnsupportedInstance
from record.ids import new_id

__all__ = ["Incoming", "Intake", "Receipt", "SopIdentity", "Source"]

_HEAD_BYTES = 1 << 16  # what is remembered of the data set: the UIDs of nearly every instance stand there
_MOST_VECTORS = 512
"""Of one write; the system takes 1,024 (IOV_MAX), and a sender's fragments may be tiny."""
_LOOK_AT_SPACE_EVERY_BYTES = 16 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that an instance is durable: our id for it, and the data set's size in bytes."""

    instance_id: uuid.UUID
    size_bytes: int
    received_at: datetime


class Intake:
    """Takes instances into one spool. Safe to use from many threads; each `Incoming` belongs to one at a time."""

    def __init__(self, spool: Spool, min_free_bytes: int = 0) -> None:
        self._spool = spool
        self._min_free_bytes = min_free_bytes

    def begin(self, source: Source, sop: SopIdentity) -> Incoming:
        """Begin to take one instance.

        Raises
        ------
        InvalidInstance
            A UID is none: it is refused before it meets anything that could take it for something else.
        UnsupportedInstance
            The data set would have to be inflated.
        StoreFull
            Less disk space is free than must stay free.
        """
        for name in ("sop_class_uid", "sop_instance_uid", "transfer_syntax_uid"):
            if not UID.fullmatch(getattr(sop, name)):
                raise InvalidInstance(f"The request's {name} is no UID.", reason_code=f"malformed_{name}")
        if sop.transfer_syntax_uid in DEFLATED:
            raise UnsupportedInstance("Deflated data sets are not taken.", reason_code="deflated")
        self.require_space()
        return Incoming(self, self._spool, source, sop)

    def require_space(self) -> None:
        """Refuse while less disk space is free than must stay free.

        Raises
        ------
        StoreFull
            Passing: room comes back when the indexer drains, or when somebody makes some.
        """
        if not self.has_space():
            raise StoreFull("The spool's disk has too little room.")

    def has_space(self) -> bool:
        """Whether as much disk space is free as must stay free."""
        room = os.statvfs(self._spool.folder)
        return room.f_bavail * room.f_frsize >= self._min_free_bytes


class Incoming:
    """One instance on its way in. A context manager; left without `commit()`, it leaves nothing behind."""

    def __init__(self, intake: Intake, spool: Spool, source: Source, sop: SopIdentity) -> None:
        self.instance_id = new_id().hex
        self.size_bytes = 0
        self.study_instance_uid = ""  # once its header was read
        self._intake, self._spool, self._sop = intake, spool, sop
        self._path = spool.incoming / f"{self.instance_id}.part"
        self._head = bytearray()
        self._look_at = _LOOK_AT_SPACE_EVERY_BYTES
        meta = file_meta(sop, source)
        self._data_set_at = 132 + len(meta)
        self._crc = zlib.crc32(meta)
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._put([memoryview(bytes(128)), memoryview(b"DICM"), memoryview(meta)])
        except OSError as error:
            self.close()
            raise _as_full(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, *chunks: memoryview) -> None:
        """Append bytes of the data set.

        Raises
        ------
        StoreFull
            The disk has no room or fails; nothing stays of this instance.
        """
        for chunk in chunks:
            self._crc = zlib.crc32(chunk, self._crc)
            self.size_bytes += chunk.nbytes
            if len(self._head) < _HEAD_BYTES:
                self._head += chunk[: _HEAD_BYTES - len(self._head)]
        try:
            self._put(list(chunks))
            if self.size_bytes >= self._look_at:
                self._look_at = self.size_bytes + _LOOK_AT_SPACE_EVERY_BYTES
                self._intake.require_space()
        except StoreFull:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise _as_full(error) from error

    def data_set_sha256(self) -> str:
        """The digest of what came so far."""
        digest, at = hashlib.sha256(), self._data_set_at
        while self._descriptor is not None and (block := os.pread(self._descriptor, 1 << 20, at)):
            digest.update(block)
            at += len(block)
        return digest.hexdigest()

    def commit(self, admitting: AbstractContextManager[None] | None = None) -> Receipt:
        """Check what came against what was announced, and make it durable. When it returns, it is.

        Parameters
        ----------
        admitting
            Entered when the instance is found to be usable, left when it is durable; what it raises keeps the instance out.

        Raises
        ------
        InvalidInstance
            The data set cannot be read as far as its UIDs, or lacks one; `reason_code` says which. It may be kept
            aside by `quarantine`.
        MismatchedInstance
            SOP class or instance differ between the announcement and the data set.
        StoreFull
            The disk has no room or fails; nothing stays of this instance.
        """
        identity = self._identity()
        self.study_instance_uid = identity.study_instance_uid or ""
        if identity.sop_class_uid and identity.sop_class_uid != self._sop.sop_class_uid:
            raise MismatchedInstance("The data set is of another class.", reason_code="mismatched_sop_class_uid")
        if identity.sop_instance_uid and identity.sop_instance_uid != self._sop.sop_instance_uid:
            raise MismatchedInstance("The data set is another instance.", reason_code="mismatched_sop_instance_uid")
        check(identity)
        with admitting or contextlib.nullcontext():
            received_at = self._make_durable()
        return Receipt(uuid.UUID(hex=self.instance_id), self.size_bytes, received_at)

    def _make_durable(self) -> datetime:
        received_at = datetime.now(UTC)
        try:
            descriptor = self._finish(received_at)
            self._path.rename(self._spool.ready / f"{self.instance_id}.dcm")
            os.fsync(descriptor)
            os.close(descriptor)
            self._descriptor = None
        except OSError as error:
            self.close()
            with contextlib.suppress(OSError):  # renamed, but perhaps not durably: it must not come in unacknowledged
                (self._spool.ready / f"{self.instance_id}.dcm").unlink()
            raise _as_full(error) from error
        return received_at

    def quarantine(self, reason: str) -> None:
        """Keep what came aside, under a reason in small letters, bounded in bytes; the oldest go first."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):  # what cannot even be kept aside is let go
            os.close(self._finish(datetime.now(UTC)))
            self._descriptor = None
            self._spool.set_aside(self._path, reason)
        self.close()

    def close(self) -> None:
        """Let go of what is not committed. Repeating it is harmless."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def _identity(self) -> Identity:
        if self._descriptor is None:
            raise StoreFull("This instance was let go, because a write failed.")
        try:
            return read_identity(self._head, self._sop.transfer_syntax_uid)
        except InvalidInstance:
            if self.size_bytes <= _HEAD_BYTES:
                raise
        with mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ) as pages, memoryview(pages) as view:
            return read_identity(view, self._sop.transfer_syntax_uid, self._data_set_at)

    def _finish(self, received_at: datetime) -> int:
        if self._descriptor is None:
            raise OSError(errno.EIO, "closed")
        told = preamble(self.size_bytes, self._crc, received_at)
        if os.pwrite(self._descriptor, told, 0) != len(told):
            raise OSError(errno.ENOSPC, "short write")
        return self._descriptor

    def _put(self, chunks: list[memoryview]) -> None:
        if self._descriptor is None:
            raise OSError(errno.EIO, "closed")
        at = 0
        while at < len(chunks):
            written = os.writev(self._descriptor, chunks[at : at + _MOST_VECTORS])
            while at < len(chunks) and written >= chunks[at].nbytes:
                written -= chunks[at].nbytes
                at += 1
            if written:
                chunks[at] = chunks[at][written:]


def _as_full(error: OSError) -> Exception:
    if error.errno in _FULL:
        return StoreFull("The spool's disk has no room, or fails to write.")
    return error
