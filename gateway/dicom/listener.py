"""The listener: takes every storage SOP class as sent, and says Success when it is on the disk.

Knows who may send, and keeps a line of its logbook on every association. It needs its disk alone: no database, no bell. Does
not know what becomes of a data set (`arriving`), how a hostile connection is survived (`server`, `association`), or that
there may be several such processes (`receivers`).
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog

from gateway import heartbeat
from gateway.dicom import tls
from gateway.dicom.arriving import Arriving
from gateway.dicom.association import Accepted, Asked, Association, Receiving, Rejection, Terms
from gateway.dicom.contexts import SERVICES, VERIFICATION, contexts
from gateway.dicom.peers import KnownPeer, Peers
from gateway.dicom.reasons import remedy_of
from gateway.dicom.seats import MAX_ASSOCIATIONS, Seats
from gateway.dicom.server import Door, Server
from gateway.dicom.strict import Strict
from gateway.dicom.telling import Told
from gateway.dicom.wire import C_STORE_RQ, Command
from gateway.headers import UID
from gateway.intake import Intake, SopIdentity, Source
from gateway.logbook import Logbook
from gateway.ports import why_not
from gateway.spool import Spool
from record.errors import Misconfigured
from record.owner import new_owner, own_version
from record.settings import MAX_AE_TITLE, ListenerSettings

_logger = structlog.get_logger()

MAX_PDU_BYTES = 1 << 17
_MOST_OFFERS, _MOST_SYNTAXES = 128, 16
_MOST_NAMES, _MOST_NAME = 10, 255
_BACKLOG = 512
_CALLED_UNKNOWN = Rejection(1, 1, 7, "called_ae_title_unknown")
_CALLING_UNKNOWN = {
    code: Rejection(1, 1, 3, code) for code in ("peer_unknown", "peer_elsewhere", "peer_uncertified")
}  # to a stranger all the same


_NO_ROOM = Rejection(2, 3, 1, "no_room")
REJECTIONS = (_CALLED_UNKNOWN, *_CALLING_UNKNOWN.values(), _NO_ROOM)
"""What this door rejects; its server, and the association itself, have others."""


class Listener:
    """The door of one process: one server on a socket that listens, one spool."""

    def __init__(self, settings: ListenerSettings, doors: Sequence[Door], seats: Seats | None = None) -> None:
        self._settings = settings
        self._peers = Peers(settings.spool)
        self._spool = claim(settings)
        self._logbook = Logbook(self._spool.folder)
        self._strict = Strict(settings.spool, settings.database_url)
        self.intake = Intake(self._spool, settings.min_free_bytes)
        taken = contexts(settings.private_sop_classes)
        terms = Terms(taken, MAX_PDU_BYTES, settings.open_timeout_s, settings.idle_timeout_s)
        self._server = Server(doors, terms, self, seats or Seats(1, settings.max_associations))
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
        self._logbook.close()
        self._spool.release()
        _logger.info("listener_stopped")

    def decide(self, association: Association, asked: Asked) -> Rejection | None:
        """Whether somebody may come in (PS3.8 section 7.1.1)."""
        if asked.called_ae_title != self._settings.ae_title.strip():
            return _CALLED_UNKNOWN
        found = self._peers.find(asked.calling_ae_title, association.peer_address, association.certificate_names)
        if isinstance(found, KnownPeer):
            association.peer = found
        elif not self._is_own_probe(association, asked) and not self._settings.open_peers:
            return _CALLING_UNKNOWN[found]
        wants_to_store = any(each.abstract_syntax not in SERVICES for each in asked.offers)
        return _NO_ROOM if wants_to_store and not self.intake.has_space() else None

    def rejected(self, association: Association, asked: Asked, rejection: Rejection) -> None:
        """Tell who was not let in, and what to do about it."""
        _logger.warning(
            "association_rejected",
            reason_code=rejection.code,
            calling_ae_title=_told(asked.calling_ae_title),
            called_ae_title=_told(asked.called_ae_title),
            peer_address=association.peer_address,
            hint=remedy_of(rejection.code),
        )

    def begin(self, association: Association, command: Command, accepted: Accepted) -> Receiving | None:
        """A request was read: open what takes its data set."""
        if command.field != C_STORE_RQ:
            if not Told.takes(command, accepted):
                return None
            return Told(self._spool.folder, association, command, accepted)
        title = association.asked.calling_ae_title if association.asked else ""
        peer = association.peer
        source = Source(
            kind="dicom",
            ae_title=title,
            called_ae_title=str(self._settings.ae_title),
            address=association.peer_address,
            site_name=peer.site if peer else None,
            peer_id=peer.peer_id or None if peer else None,
            association_id=association.id,
        )
        sop = SopIdentity(command.sop_class_uid, command.sop_instance_uid, accepted.transfer_syntax_uid)
        return Arriving(self.intake, association, source, sop, self._strict if peer and peer.strict else None)

    def ended(self, association: Association) -> None:
        """Tell what an association brought; who only knocked is not worth a line of the logbook."""
        duration_s = time.monotonic() - association.began_at
        _logger.info(
            "association_ended",
            association_id=association.id,
            result=association.outcome,
            reason_code=association.reason_code,
            instances=association.instances,
            bytes=association.bytes,
            duration_s=round(duration_s, 3),
        )
        if not association.has_spoken or (association.is_own_probe and association.outcome == "released"):
            return
        asked, peer, now = association.asked, association.peer, datetime.now(UTC)
        line = {
            "id": association.id,
            "listener": f"{socket.gethostname()}/{self._spool.spool_id}",
            "calling_ae_title": _told(asked.calling_ae_title) if asked else "",
            "called_ae_title": _told(asked.called_ae_title) if asked else "",
            "peer_address": association.peer_address,
            "peer_id": peer.peer_id or None if peer else None,
            "is_secure": association.is_secure,
            "began_at": (now - timedelta(seconds=duration_s)).isoformat(),
            "ended_at": now.isoformat(),
            "offers": [
                [_uid(each.abstract_syntax), [_uid(one) for one in each.transfer_syntaxes[:_MOST_SYNTAXES]], each.taken]
                for each in (asked.offers[:_MOST_OFFERS] if asked and association.outcome != "rejected" else ())
            ],
            "instances": association.instances,
            "bytes": association.bytes,
            "requests": dict(association.requests),
            "refusals": {f"{status:04X}": count for status, count in association.refusals.items()},
            "refused": [
                [f"{each.status:04X}", each.why, _uid(each.sop_instance_uid), _uid(each.study_instance_uid)]
                for each in association.refused
            ],
            "certificate_names": [_printable(each)[:_MOST_NAME] for each in sorted(association.certificate_names)][
                :_MOST_NAMES
            ],
            "outcome": association.outcome,
            "reason_code": association.reason_code,
        }
        try:
            self._logbook.write(line)
        except OSError:
            _logger.warning("logbook_failed", hint="The disk of the spool is full, or fails.")

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
                        "tls_port": self._server.tls_port,
                        "associations": self._server.associations,
                        "min_free_bytes": self._settings.min_free_bytes,
                        "every_s": self._settings.report_s,
                    },
                )
            except OSError:  # a full disk: instances are refused by then, and the indexer tells how full it is
                _logger.warning("heartbeat_failed")
            self._stopping.wait(self._settings.report_s)

    @staticmethod
    def _is_own_probe(association: Association, asked: Asked) -> bool:
        """Our own question whether the door answers: a C-ECHO from this machine, which can do nothing else."""
        address = association.peer_address
        local = _is_loopback(address) or address == association.own_address
        association.is_own_probe = local and {each.abstract_syntax for each in asked.offers} == {VERIFICATION}
        return association.is_own_probe


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


def listen_at(settings: ListenerSettings) -> list[Door]:
    """Sockets that listen where the settings say: the plain one, and the one for TLS where there is one.

    Raises
    ------
    Misconfigured
        The settings do not go together, or nothing can listen there.
    """
    _require_sane(settings)
    doors = [Door(_listening(settings.dicom_host, settings.dicom_port, "COUNTERSIGN_DICOM_PORT"))]
    if (secure := tls.of(settings)) is not None:
        port = settings.dicom_tls_port or 0
        doors.append(Door(_listening(settings.dicom_host, port, "COUNTERSIGN_DICOM_TLS_PORT"), secure))
    return doors


def _listening(host: str, port: int, named: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        told = f"{why_not(error, host, port)} Set COUNTERSIGN_DICOM_HOST and {named}."
        raise Misconfigured(told) from None
    return made


def _uid(text: str) -> str:
    """A stranger's UID as it may be kept."""
    return text if not text or UID.fullmatch(text) else "?"


def _told(title: str) -> str:
    """A stranger's AE title as it may stand in a log."""
    return _printable(title.strip()[:MAX_AE_TITLE])


def _printable(text: str) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in text)


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
