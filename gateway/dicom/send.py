"""C-ECHO and C-STORE as a user of somebody's listener: is it there, and here are some files.

Knows presentation contexts and how many fit into one association. Does not know whose files they are. Files go out in
their own transfer syntaxes, straight from the disk.
"""

from __future__ import annotations

import mmap
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread, uid
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from gateway.headers import read_identity
from gateway.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from record.errors import InvalidInstance, UnsupportedInstance
from record.part10 import data_set_offset

CALLING_AE_TITLE = "COUNTERSIGN"
MAX_CONTEXTS = 128  # PS3.8 section 9.3.2.2: odd identifiers from 1 to 255
_MAX_PDU_BYTES = 1 << 17


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the files."""

    sent: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class _Outgoing:
    path: Path
    sop_class_uid: str
    transfer_syntax_uid: str
    as_data_set: bool
    """Its file meta tells other UIDs than its data set, which counts: it must be read to be sent."""


def echo(host: str, port: int, aet: str, timeout_s: float = 5.0, *, calling_aet: str = CALLING_AE_TITLE) -> bool:
    """Whether a listener accepts an association and answers a C-ECHO with Success."""
    ae = _ae(calling_aet, timeout_s)
    ae.add_requested_context(Verification, [uid.ImplicitVRLittleEndian])
    association = _associate(ae, host, port, aet)
    if association is None:
        return False
    try:
        return bool(association.send_c_echo().get("Status", -1) == 0)
    except (RuntimeError, ValueError):  # it was lost in between
        return False
    finally:
        _end(association)


def send(
    paths: Iterable[Path],
    host: str,
    port: int,
    aet: str,
    on_result: Callable[[Path, int | None], None] = lambda _path, _status: None,
    *,
    calling_aet: str = CALLING_AE_TITLE,
    timeout_s: float = 60.0,
) -> Counts:
    """Send files, and folders with all that is in them.

    Parameters
    ----------
    paths
        Files and folders.
    on_result
        Told each file's C-STORE status (PS3.4 table B.2-1); None when it is no DICOM file, when the peer takes its
        kind not at all, or when the connection failed.
    """
    sent = failed = 0

    def tell(path: Path, status: int | None) -> None:
        nonlocal sent, failed
        if status == 0:
            sent += 1
        else:
            failed += 1
        on_result(path, status)

    outgoing = []
    for path in _files(paths):
        described = _describe(path)
        if described:
            outgoing.append(described)
        else:
            tell(path, None)
    for batch in _batches(outgoing):
        _send_batch(batch, (host, port, aet), _ae(calling_aet, timeout_s), tell)
    return Counts(sent, failed)


def _send_batch(
    batch: Sequence[_Outgoing], to: tuple[str, int, str], ae: AE, tell: Callable[[Path, int | None], None]
) -> None:
    """Send what shares one set of contexts; a lost association is opened anew for what is left."""
    for class_uid, syntax_uid in dict.fromkeys((o.sop_class_uid, o.transfer_syntax_uid) for o in batch):
        ae.add_requested_context(class_uid, syntax_uid)  # one context each: else the acceptor would choose one syntax
    left = list(batch)
    while left:
        association = _associate(ae, *to)
        if association is None:
            for one in left:
                tell(one.path, None)
            return
        try:
            while left:
                one = left.pop(
                    0
                )  # at least one for each association: a peer that hangs up at once gets no endless calls
                tell(one.path, _store(association, one))
                if not association.is_established:
                    break
        finally:
            _end(association)


def _store(association: Association, one: _Outgoing) -> int | None:
    try:
        status = association.send_c_store(dcmread(one.path) if one.as_data_set else one.path)
    except (ValueError, AttributeError, RuntimeError, OSError):
        return None
    return int(status.Status) if "Status" in status else None


def _describe(path: Path) -> _Outgoing | None:
    try:
        meta = read_file_meta_info(path)
        class_uid, syntax_uid = str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as pages:
            start = data_set_offset(stream)
            with memoryview(pages) as view:
                identity = read_identity(view, syntax_uid, start)
    except UnsupportedInstance:  # deflated: its file meta is all we look at
        return _Outgoing(path, class_uid, syntax_uid, as_data_set=False)
    except InvalidInstance:  # an unusual frame or a broken data set: let pydicom try
        return _Outgoing(path, class_uid, syntax_uid, as_data_set=True)
    except (InvalidDicomError, AttributeError, OSError, EOFError, ValueError, KeyError):
        return None
    differs = (identity.sop_class_uid, identity.sop_instance_uid) != (class_uid, str(meta.MediaStorageSOPInstanceUID))
    complete = bool(identity.sop_class_uid and identity.sop_instance_uid)
    return _Outgoing(path, identity.sop_class_uid or class_uid, syntax_uid, as_data_set=differs and complete)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.is_file())
        else:
            yield path


def _batches(outgoing: Iterable[_Outgoing]) -> Iterator[list[_Outgoing]]:
    """In order, cut where one more file would need a context too many."""
    batch: list[_Outgoing] = []
    contexts: set[tuple[str, str]] = set()
    for one in outgoing:
        needed = (one.sop_class_uid, one.transfer_syntax_uid)
        if needed not in contexts and len(contexts) == MAX_CONTEXTS:
            yield batch
            batch, contexts = [], set()
        batch.append(one)
        contexts.add(needed)
    if batch:
        yield batch


def _ae(calling_aet: str, timeout_s: float) -> AE:
    ae = AE(calling_aet)
    ae.implementation_class_uid = uid.UID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = _MAX_PDU_BYTES
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = timeout_s
    return ae


def _associate(ae: AE, host: str, port: int, aet: str) -> Association | None:
    try:
        association = ae.associate(host, port, ae_title=aet, evt_handlers=[(evt.EVT_CONN_OPEN, _without_delay)])
    except (OSError, ValueError):  # a name that leads nowhere
        return None
    return association if association.is_established else None


def _end(association: Association) -> None:
    if association.is_established:
        association.release()


def _without_delay(event: evt.Event) -> None:
    connection = event.assoc.dul.socket
    if connection and connection.socket:  # else each instance's last packet waits 40 ms for an acknowledgement
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
