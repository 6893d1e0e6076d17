"""The C-STORE listener: takes every storage SOP class as sent, and says Success when it is on the disk.

Knows associations, who may send, and which status tells what. It needs its disk alone: no database, no bell. Does not
know what is inside a data set (`gateway.intake` checks that) or how a hostile connection is survived (`server`).
"""

from __future__ import annotations

import ipaddress
import signal
import socket
import threading
import time
import uuid
from types import FrameType
from typing import cast

import structlog
from pydicom import uid
from pynetdicom import AE, AllStoragePresentationContexts, evt, register_uid
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from gateway import heartbeat
from gateway.dicom.peers import Peers
from gateway.dicom.server import HardAssociation, HardServer, Receiving
from gateway.intake import Incoming, Intake, SopIdentity, Source
from gateway.ports import bind_fault, why_not
from gateway.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, Spool
from record import log
from record.errors import (
    CountersignError,
    InvalidInstance,
    Misconfigured,
    MismatchedInstance,
    NotPermitted,
    StoreFull,
    UnsupportedInstance,
)
from record.owner import new_owner, own_version
from record.settings import MAX_AE_TITLE, ListenerSettings

_logger = structlog.get_logger()

SUCCESS, PROCESSING_FAILURE = 0x0000, 0x0110
STATUS: tuple[tuple[type[CountersignError], int], ...] = (
    (UnsupportedInstance, 0x0122),  # Refused: SOP Class not supported
    (MismatchedInstance, 0xA900),  # Error: Data Set does not match SOP Class
    (InvalidInstance, 0xC000),  # Error: Cannot understand
    (StoreFull, 0xA700),  # Refused: Out of resources; a sender tries again
    (NotPermitted, 0x0124),  # Refused: Not authorized
)
"""C-STORE response status by error, the first that fits (PS3.4 table B.2-1, PS3.7 annex C)."""

TRANSFER_SYNTAXES: tuple[uid.UID, ...] = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.JPEGLosslessSV1,
    uid.JPEGLossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.RLELossless,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEG2000,
    uid.HTJ2K,
    uid.JPEGLSNearLossless,
)
"""In the order of our choice, since the acceptor chooses (PS3.8 section 9.3.3.2): lossless before lossy, plain first so
that nobody compresses for our sake. Not: deflated (a bomb), big endian (retired), video, JPIP (a URL, not pixels)."""

RETIRED_SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.3": "RetiredUltrasoundMultiFrameImageStorage",
    "1.2.840.10008.5.1.4.1.1.5": "RetiredNuclearMedicineImageStorage",
    "1.2.840.10008.5.1.4.1.1.6": "RetiredUltrasoundImageStorage",
    "1.2.840.10008.5.1.4.1.1.12.3": "RetiredXRayAngiographicBiPlaneImageStorage",
    "1.2.840.10008.5.1.4.1.1.77.1": "RetiredVLImageStorage",
    "1.2.840.10008.5.1.4.1.1.77.2": "RetiredVLMultiFrameImageStorage",
}
"""Storage classes of PS3.6 table A-1 that archives still send, unknown to pynetdicom."""

MAX_PDU_BYTES = 1 << 17
MAX_ASSOCIATIONS = 400  # select(), which pynetdicom uses, ends at descriptor 1023
_REJECTED_TRANSIENT, _REJECTED_PERMANENT = 2, 1
_CALLED_UNKNOWN, _CALLING_UNKNOWN, _LIMIT = (1, 7), (1, 3), (3, 2)  # source and reason, PS3.8 table 9-21

_HINTS = {
    _CALLED_UNKNOWN: "The sender has to call us by COUNTERSIGN_AE_TITLE.",
    _CALLING_UNKNOWN: "Let the sender in with `countersign peers add AE ADDRESS`.",
}  # AE and ADDRESS stay words: a stranger's title must not get into a line that somebody pastes into a shell


class Arriving:
    """One C-STORE's data set: pushed into `Incoming`, or dropped with the reason kept for the answer."""

    def __init__(self, listener: Listener, source: Source, sop: SopIdentity) -> None:
        self._listener = listener
        self._refusal: Exception | None = None
        self._incoming: Incoming | None = None
        try:
            self._incoming = listener.intake.begin(source, sop)
        except (CountersignError, OSError) as error:
            self._refusal = error

    def take(self, chunk: memoryview) -> None:
        """Bytes of the data set; after a failure the rest is read and dropped, so that the answer reaches the peer."""
        if self._incoming is None or self._refusal:
            return
        try:
            self._incoming.write(chunk)
        except (CountersignError, OSError) as error:
            self._refusal = error

    def drop(self) -> None:
        """Leave nothing behind."""
        if self._incoming:
            self._incoming.close()

    def finish(self, association: HardAssociation) -> int:
        """Make it durable; the status to answer."""
        try:
            if self._refusal:
                raise self._refusal
            if self._incoming is None:
                return PROCESSING_FAILURE
            receipt = self._incoming.commit()
            association.instances += 1
            association.bytes += receipt.size_bytes
            return SUCCESS
        except InvalidInstance as error:
            reason = str(error.facts.get("reason_code", error.code))
            if self._incoming and self._incoming.size_bytes:
                self._incoming.quarantine(reason)
            return _answer(error, reason)
        except CountersignError as error:
            return _answer(error, error.code)
        except Exception:  # the door: the peer is told, the association goes on
            _logger.exception("instance_failed")
            return PROCESSING_FAILURE
        finally:
            self.drop()


class Listener:
    """The door: one server, one spool."""

    def __init__(self, settings: ListenerSettings) -> None:
        _require_sane(settings)
        if settings.dicom_port and (fault := bind_fault(settings.dicom_host, settings.dicom_port)):
            raise _unbindable(settings, fault)  # before a spool is claimed that nobody would empty
        self._settings = settings
        self._peers = Peers(settings.spool)
        try:
            settings.spool.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._spool = Spool.claim(settings.spool)
        except OSError as error:
            raise Misconfigured(
                f"The spool {settings.spool} cannot be made or written: {error.strerror}. Set COUNTERSIGN_SPOOL to a "
                "folder on a local disk."
            ) from None
        self.intake = Intake(self._spool, settings.min_free_bytes)
        self._server = self._make_server()
        self._stopping = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Answer from now on, in threads of its own."""
        threading.Thread(target=self._server.serve_forever, args=(0.2,), name="accept", daemon=True).start()
        self._beating.start()
        _logger.info("listener_started", port=self.port, spool_id=self._spool.spool_id)

    def stop(self) -> None:
        """Take nothing more; what was acknowledged is safe anyway."""
        self._stopping.set()
        self._server.stop()
        self._beating.join(1.0)
        heartbeat.stop(self._spool)
        self._spool.release()
        _logger.info("listener_stopped")

    def begin(self, association: HardAssociation, transfer_syntax_uid: str, request: C_STORE_RQ) -> Receiving:
        """A C-STORE request was read: open its `Incoming`."""
        address, title = association.peer_address, _title(association)
        site = self._peers.site(title, address)
        command = request.command_set
        return Arriving(
            self,
            Source("dicom", title, str(self._settings.ae_title), address, site),
            SopIdentity(
                str(command.get("AffectedSOPClassUID", "")),
                str(command.get("AffectedSOPInstanceUID", "")),
                transfer_syntax_uid,
            ),
        )

    def ended(self, association: HardAssociation) -> None:
        """Tell what an association brought."""
        outcome = (
            "released" if association.is_released else "aborted" if association.is_aborted else association.outcome
        )
        _logger.info(
            "association_ended",
            association_id=uuid.uuid4().hex[:12],
            result=outcome,
            instances=association.instances,
            bytes=association.bytes,
            duration_s=round(time.monotonic() - association.began_at, 3),
        )

    def _beat(self) -> None:
        """Tell, beside the spool, that this listener is here; it has no database to tell."""
        owner, since = new_owner(), time.monotonic()
        while not self._stopping.is_set():
            try:
                heartbeat.beat(
                    self._spool,
                    {
                        "owner": owner,
                        "version": own_version(),
                        "up_s": round(time.monotonic() - since, 1),
                        "port": self.port,
                        "associations": self._server.associations,
                        "min_free_bytes": self._settings.min_free_bytes,
                        "every_s": self._settings.report_s,
                    },
                )
            except OSError:  # a full disk: instances are refused by then, and the indexer tells how full it is
                _logger.warning("heartbeat_failed")
            self._stopping.wait(self._settings.report_s)

    def _make_server(self) -> HardServer:
        for class_uid, keyword in RETIRED_SOP_CLASSES.items():
            register_uid(class_uid, keyword, StorageServiceClass)
        ae = AE(self._settings.ae_title)
        ae.implementation_class_uid = uid.UID(IMPLEMENTATION_CLASS_UID)
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.maximum_pdu_size = MAX_PDU_BYTES
        ae.maximum_associations = 1 << 20  # counted by the server, which knows silent sockets from associations
        ae.acse_timeout = self._settings.open_timeout_s
        ae.dimse_timeout = ae.network_timeout = self._settings.idle_timeout_s
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax or "", list(TRANSFER_SYNTAXES))
        for class_uid in RETIRED_SOP_CLASSES:
            ae.add_supported_context(class_uid, list(TRANSFER_SYNTAXES))
        ae.add_supported_context(Verification, [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
        try:
            server = ae.make_server(
                (self._settings.dicom_host, self._settings.dicom_port),
                server_class=HardServer,
                evt_handlers=[(evt.EVT_REQUESTED, self._requested), (evt.EVT_C_STORE, _serve_store)],
                doors=self,
                max_associations=self._settings.max_associations,
                open_timeout_s=self._settings.open_timeout_s,
                idle_timeout_s=self._settings.idle_timeout_s,
            )
            return cast(HardServer, server)
        except OSError as error:
            self._spool.release()
            raise _unbindable(self._settings, error) from error

    def _requested(self, event: evt.Event) -> None:
        """Decide on an association before it is negotiated (PS3.8 section 7.1.1)."""
        association: HardAssociation = event.assoc  # type: ignore[assignment]
        request = association.requestor.primitive
        if request is None:
            return
        if request.called_ae_title != self._settings.ae_title.strip():
            self._reject(association, _REJECTED_PERMANENT, _CALLED_UNKNOWN, "called_ae_title_unknown")
        elif not self._may_send(association):
            self._reject(association, _REJECTED_PERMANENT, _CALLING_UNKNOWN, "peer_unknown")
        elif not self._server.admit(association):
            self._reject(association, _REJECTED_TRANSIENT, _LIMIT, "too_many_associations")

    def _may_send(self, association: HardAssociation) -> bool:
        address = association.peer_address
        if self._settings.open_peers or self._peers.site(_title(association), address) is not None:
            return True
        # Our own question whether the door answers: a C-ECHO from this machine, which can do nothing else.
        ours = association.acceptor.address_info
        local = _is_loopback(address) or (ours is not None and address == ours.address)
        request = association.requestor.primitive
        asked = request.presentation_context_definition_list if request else []
        return local and bool(asked) and all(cx.abstract_syntax == Verification for cx in asked)

    def _reject(self, association: HardAssociation, result: int, why: tuple[int, int], reason: str) -> None:
        request = association.requestor.primitive
        _logger.warning(
            "association_rejected",
            reason_code=reason,
            calling_ae_title=_told(request.calling_ae_title if request else ""),
            called_ae_title=_told(request.called_ae_title if request else ""),
            peer_address=association.peer_address,
            hint=_HINTS.get(why, ""),
        )
        association.outcome = "rejected"
        association.acse.send_reject(result, *why)
        association.kill()


def main(settings: ListenerSettings) -> int:
    """Run the listener until SIGTERM or SIGINT."""
    log.configure("listener")
    threading.excepthook = _log_thread_failure
    stop = threading.Event()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    listener = Listener(settings)
    listener.start()
    stop.wait()
    listener.stop()
    return 0


def _serve_store(event: evt.Event) -> int:
    association: HardAssociation = event.assoc  # type: ignore[assignment]
    arriving = association.dimse.take_complete()
    if not isinstance(arriving, Arriving):
        return 0xC000  # a C-STORE request without a data set
    return arriving.finish(association)


def _answer(error: CountersignError, reason: str) -> int:
    _logger.warning("instance_refused", code=error.code, reason_code=reason)
    return next((status for kind, status in STATUS if isinstance(error, kind)), PROCESSING_FAILURE)


def _title(association: HardAssociation) -> str:
    request = association.requestor.primitive
    return request.calling_ae_title.strip() if request else ""


def _told(title: str) -> str:
    """A stranger's AE title as it may stand in a log."""
    return "".join(char if " " <= char <= "~" else "?" for char in title.strip()[:MAX_AE_TITLE])


def _is_loopback(host: str) -> bool:
    try:
        return all(ipaddress.ip_address(entry[4][0]).is_loopback for entry in socket.getaddrinfo(host, None))
    except (OSError, ValueError):
        return False


def _unbindable(settings: ListenerSettings, error: OSError) -> Misconfigured:
    told = why_not(error, settings.dicom_host, settings.dicom_port)
    return Misconfigured(f"{told} Set COUNTERSIGN_DICOM_HOST and COUNTERSIGN_DICOM_PORT.")


def _require_sane(settings: ListenerSettings) -> None:
    if settings.open_peers and not _is_loopback(settings.dicom_host):
        raise Misconfigured(
            "Open peers take images from anybody, so they work on a loopback address only. Unset "
            "COUNTERSIGN_OPEN_PEERS and enter the senders with `countersign peers add`, or listen on 127.0.0.1."
        )
    if not 1 <= settings.max_associations <= MAX_ASSOCIATIONS:
        raise Misconfigured(f"COUNTERSIGN_MAX_ASSOCIATIONS must lie between 1 and {MAX_ASSOCIATIONS}.")


def _log_thread_failure(failure: threading.ExceptHookArgs) -> None:
    _logger.error("thread_failed", exc_info=failure.exc_value)
