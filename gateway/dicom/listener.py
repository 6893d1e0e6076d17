"""The C-STORE listener: takes every storage SOP class as sent, and says Success when it is on the disk.

Knows associations, who may send, and which status tells what. It needs its disk alone: no database, no bell. Does not
know what is inside a data set (`gateway.intake` checks that), how a hostile connection is survived (`server`,
`association`), or that there may be several such processes (`receivers`).
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
import uuid
from collections.abc import Sequence

import structlog
from pydicom import uid
from pynetdicom import AllStoragePresentationContexts
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from gateway import heartbeat
from gateway.dicom.association import CANNOT_UNDERSTAND, SUCCESS, Asked, Association, Receiving, Rejection, Terms
from gateway.dicom.peers import Peers
from gateway.dicom.seats import Seats
from gateway.dicom.server import TOO_MANY, Server
from gateway.dicom.wire import Command
from gateway.intake import Incoming, Intake, SopIdentity, Source
from gateway.ports import why_not
from gateway.spool import Spool
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

PROCESSING_FAILURE = 0x0110
STATUS: tuple[tuple[type[CountersignError], int], ...] = (
    (UnsupportedInstance, 0x0122),  # Refused: SOP Class not supported
    (MismatchedInstance, 0xA900),  # Error: Data Set does not match SOP Class
    (InvalidInstance, CANNOT_UNDERSTAND),
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
_BACKLOG = 512
MAX_ASSOCIATIONS = 400
_CALLED_UNKNOWN = Rejection(1, 1, 7, "called_ae_title_unknown")
_CALLING_UNKNOWN = Rejection(1, 1, 3, "peer_unknown")
_HINTS = {
    _CALLED_UNKNOWN.code: "The sender has to call us by COUNTERSIGN_AE_TITLE.",
    _CALLING_UNKNOWN.code: "Let the sender in with `countersign peers add AE ADDRESS`.",
    TOO_MANY.code: "More associations at a time: COUNTERSIGN_MAX_ASSOCIATIONS.",
}  # AE and ADDRESS stay words: a stranger's title must not get into a line that somebody pastes into a shell


class Arriving:
    """One C-STORE's data set: pushed into `Incoming`, or dropped with the reason kept for the answer."""

    def __init__(self, listener: Listener, association: Association, source: Source, sop: SopIdentity) -> None:
        self._association = association
        self._refusal: Exception | None = None
        self._incoming: Incoming | None = None
        try:
            self._incoming = listener.intake.begin(source, sop)
        except (CountersignError, OSError) as error:
            self._refusal = error

    def take(self, views: Sequence[memoryview]) -> None:
        """Bytes of the data set; after a failure the rest is read and dropped, so that the answer reaches the peer."""
        if self._incoming is None or self._refusal:
            return
        try:
            self._incoming.write(*views)
        except (CountersignError, OSError) as error:
            self._refusal = error

    def drop(self) -> None:
        """Leave nothing behind."""
        if self._incoming:
            self._incoming.close()

    def finish(self) -> int:
        """Make it durable; the status to answer."""
        try:
            if self._refusal:
                raise self._refusal
            if self._incoming is None:
                return PROCESSING_FAILURE
            receipt = self._incoming.commit()
            self._association.instances += 1
            self._association.bytes += receipt.size_bytes
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
    """The door of one process: one server on a socket that listens, one spool."""

    def __init__(self, settings: ListenerSettings, listening: socket.socket, seats: Seats | None = None) -> None:
        self._settings = settings
        self._peers = Peers(settings.spool)
        self._spool = claim(settings)
        self.intake = Intake(self._spool, settings.min_free_bytes)
        terms = Terms(_contexts(), MAX_PDU_BYTES, settings.open_timeout_s, settings.idle_timeout_s)
        self._server = Server(listening, terms, self, seats or Seats(1, settings.max_associations))
        self._stopping = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._accepting = threading.Thread(target=self._server.serve_forever, name="accept", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    def start(self) -> None:
        """Answer from now on, in threads of its own."""
        self._accepting.start()
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

    def decide(self, association: Association, asked: Asked) -> Rejection | None:
        """Whether somebody may come in (PS3.8 section 7.1.1)."""
        if asked.called_ae_title != self._settings.ae_title.strip():
            return _CALLED_UNKNOWN
        return None if self._may_send(association, asked) else _CALLING_UNKNOWN

    def rejected(self, association: Association, asked: Asked, rejection: Rejection) -> None:
        """Tell who was not let in, and what to do about it."""
        _logger.warning(
            "association_rejected",
            reason_code=rejection.code,
            calling_ae_title=_told(asked.calling_ae_title),
            called_ae_title=_told(asked.called_ae_title),
            peer_address=association.peer_address,
            hint=_HINTS.get(rejection.code, ""),
        )

    def begin(self, association: Association, command: Command, transfer_syntax_uid: str) -> Receiving:
        """A C-STORE request was read: open its `Incoming`."""
        title = association.asked.calling_ae_title if association.asked else ""
        site = self._peers.site(title, association.peer_address)
        return Arriving(
            self,
            association,
            Source("dicom", title, str(self._settings.ae_title), association.peer_address, site),
            SopIdentity(command.sop_class_uid, command.sop_instance_uid, transfer_syntax_uid),
        )

    def ended(self, association: Association) -> None:
        """Tell what an association brought."""
        _logger.info(
            "association_ended",
            association_id=uuid.uuid4().hex[:12],
            result=association.outcome,
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

    def _may_send(self, association: Association, asked: Asked) -> bool:
        address = association.peer_address
        if self._settings.open_peers or self._peers.site(asked.calling_ae_title, address) is not None:
            return True
        # Our own question whether the door answers: a C-ECHO from this machine, which can do nothing else.
        local = _is_loopback(address) or address == association.own_address
        return local and bool(asked.abstract_syntaxes) and set(asked.abstract_syntaxes) == {Verification}


def claim(settings: ListenerSettings) -> Spool:
    """A spool for one process.

    Raises
    ------
    Misconfigured
        The folder cannot be used.
    """
    try:
        settings.spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Spool.claim(settings.spool)
    except OSError as error:
        raise Misconfigured(
            f"The spool {settings.spool} cannot be made or written: {error.strerror}. Set COUNTERSIGN_SPOOL to a "
            "folder on a local disk."
        ) from None


def listen_at(settings: ListenerSettings) -> socket.socket:
    """A socket that listens where the settings say.

    Raises
    ------
    Misconfigured
        The settings do not go together, or nothing can listen there.
    """
    _require_sane(settings)
    host, port = settings.dicom_host, settings.dicom_port
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        told = f"{why_not(error, host, port)} Set COUNTERSIGN_DICOM_HOST and COUNTERSIGN_DICOM_PORT."
        raise Misconfigured(told) from None
    return made


def _contexts() -> list[PresentationContext]:
    """What is taken, each with the transfer syntaxes in our order."""
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    stored = [build_context(class_uid, list(TRANSFER_SYNTAXES)) for class_uid in (*classes, *RETIRED_SOP_CLASSES)]
    return [*stored, build_context(Verification, [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])]


def _answer(error: CountersignError, reason: str) -> int:
    _logger.warning("instance_refused", code=error.code, reason_code=reason)
    return next((status for kind, status in STATUS if isinstance(error, kind)), PROCESSING_FAILURE)


def _told(title: str) -> str:
    """A stranger's AE title as it may stand in a log."""
    return "".join(char if " " <= char <= "~" else "?" for char in title.strip()[:MAX_AE_TITLE])


def _is_loopback(host: str) -> bool:
    try:
        return all(ipaddress.ip_address(entry[4][0]).is_loopback for entry in socket.getaddrinfo(host, None))
    except (OSError, ValueError):
        return False


def _require_sane(settings: ListenerSettings) -> None:
    if settings.open_peers and not _is_loopback(settings.dicom_host):
        raise Misconfigured(
            "Open peers take images from anybody, so they work on a loopback address only. Unset "
            "COUNTERSIGN_OPEN_PEERS and enter the senders with `countersign peers add`, or listen on 127.0.0.1."
        )
    if not 1 <= settings.max_associations <= MAX_ASSOCIATIONS:
        raise Misconfigured(f"COUNTERSIGN_MAX_ASSOCIATIONS must lie between 1 and {MAX_ASSOCIATIONS}.")
