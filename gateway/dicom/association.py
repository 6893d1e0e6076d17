"""One association as its acceptor serves it: asked for, negotiated, and then request after request until it ends.

Knows the order of things (PS3.8, 7), and that a request's data set is pushed on as it comes. Does not know who may send,
which requests are taken and what becomes of them (`Doors`), or how many associations there are (`server`). One blocking
thread serves it; pynetdicom decodes and negotiates the request, and nothing else.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog
from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from gateway.dicom import tls, wire
from gateway.dicom.peers import KnownPeer
from gateway.dicom.tls import Tls
from gateway.dicom.wire import Broken, Command, Gone, Inbox
from gateway.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from record.ids import new_id

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
SUCCESS, UNRECOGNIZED_OPERATION, CANNOT_UNDERSTAND = 0x0000, 0x0211, 0xC000
MOST_REFUSED = 100
"""Refused instances of an association that are told one by one."""
_LAST_WORD_S = 2.0
_logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an association is refused (PS3.8, table 9-21), and the code for our own log."""

    result: int
    source: int
    reason: int
    code: str


NO_APPLICATION_CONTEXT = Rejection(1, 1, 2, "application_context_unknown")
OTHER_PROTOCOL = Rejection(1, 2, 2, "protocol_version_unknown")


@dataclass(frozen=True, slots=True)
class Offer:
    """One presentation context as it is proposed, and the transfer syntax that is taken of it; None where none is."""

    abstract_syntax: str
    transfer_syntaxes: Sequence[str]
    taken: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What an A-ASSOCIATE-RQ says; text in it is a stranger's."""

    calling_ae_title: str
    called_ae_title: str
    offers: Sequence[Offer]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered: the status, and words of ours for whoever reads the sender's log."""

    status: int
    comment: str = ""
    study_instance_uid: str = ""
    """The study that the refused instance belongs to, where that could be read."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An instance that was refused: the status, why in words of ours, and its UIDs as far as they are known."""

    status: int
    why: str
    sop_instance_uid: str
    study_instance_uid: str


class Receiving(Protocol):
    """One data set on its way in. No call raises; what went wrong is told when it is finished."""

    def take(self, views: Sequence[memoryview]) -> None:
        """Bytes of the data set, in order; the views hold during this call alone."""

    def finish(self) -> Answer:
        """All of it has come."""

    def drop(self) -> None:
        """No more will come, and nobody waits for an answer."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What was agreed on for one presentation context."""

    abstract_syntax: str
    transfer_syntax_uid: str


class Doors(Protocol):
    """What an association asks of the one who started its server."""

    def decide(self, association: Association, asked: Asked) -> Rejection | None:
        """Whether somebody may come in; counted, if so."""

    def rejected(self, association: Association, asked: Asked, rejection: Rejection) -> None:
        """Somebody is not let in."""

    def begin(self, association: Association, command: Command, accepted: Accepted) -> Receiving | None:
        """A request was read whose data set follows; None where nobody here does that."""

    def ended(self, association: Association) -> None:
        """The association, or the attempt at one, is over."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What every association of a server has in common: contexts in the acceptor's order, and limits."""

    contexts: Sequence[PresentationContext]
    max_pdu_bytes: int
    open_timeout_s: float
    idle_timeout_s: float


class Association:
    """One connection, from the accept to its end."""

    def __init__(
        self,
        connection: socket.socket,
        peer_address: str,
        own_address: str,
        terms: Terms,
        doors: Doors,
        secure: Tls | None = None,
    ) -> None:
        self.id = new_id().hex
        self.peer_address, self.own_address = peer_address, own_address
        self.certificate_names: frozenset[str] = frozenset()
        self.asked: Asked | None = None
        self.peer: KnownPeer | None = None
        self.seat: int | None = None
        self.began_at = time.monotonic()
        self.instances = 0
        self.bytes = 0
        self.requests: Counter[str] = Counter()
        self.refusals: Counter[int] = Counter()
        self.refused: list[Refused] = []
        self.outcome = "closed"
        self.reason_code = ""
        self.has_spoken = False
        self.is_own_probe = False
        self._is_cut = False
        self._connection, self._terms, self._doors, self._secure = connection, terms, doors, secure
        self._contexts: dict[int, Accepted] = {}
        self._most_bytes = 0  # of a PDU that the peer takes
        self._command = bytearray()
        self._request: tuple[int, Command] | None = None
        self._receiving: Receiving | None = None
        self._views: list[memoryview] = []

    @property
    def is_secure(self) -> bool:
        """Whether it came by TLS."""
        return self._secure is not None

    def serve(self) -> None:
        """Serve it until its end. Never raises: what a stranger sends ends their association, no other."""
        try:
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._secured() and self._negotiate():
                self._run()
        except Broken as error:
            self.outcome, self.reason_code, self.has_spoken = "aborted", error.code, True
            self._abort(error.reason)
        except Gone:
            if self._is_cut:
                self._abort(0)
        except Exception:  # the door: a stranger's bytes went through a parser of ours
            self.outcome = "failed"
            _logger.exception("association_failed")
        finally:
            if self._receiving is not None:
                self._receiving.drop()
            self._close()
            self._doors.ended(self)

    def cut(self, outcome: str) -> None:
        """End it from another thread: nothing more is read, and what was complete is still answered."""
        self.outcome, self._is_cut = outcome, True
        self._shut(socket.SHUT_RD)

    def _secured(self) -> bool:
        """Shake hands, where TLS is spoken; False when that fails."""
        if self._secure is None:
            return True
        try:
            connection = self._secure.wrap(self._connection)
            self._connection = connection
            connection.settimeout(self._terms.open_timeout_s)
            connection.do_handshake()
        except ssl.SSLEOFError:
            raise Gone from None
        except ssl.SSLError as error:
            self.outcome, self.has_spoken = "insecure", True
            self.reason_code = f"tls_{error.reason or 'failed'}".lower()
            return False
        except TimeoutError:
            self.outcome, self.reason_code = "insecure", "silent"
            return False
        except OSError:
            raise Gone from None
        self.certificate_names = tls.names_of(connection)
        return True

    def _negotiate(self) -> bool:
        version, request = self._request_read()
        self.has_spoken = True
        offered = request.presentation_context_definition_list
        offers = [Offer(str(each.abstract_syntax), [str(one) for one in each.transfer_syntax]) for each in offered]
        asked = self.asked = Asked(request.calling_ae_title.strip(), request.called_ae_title.strip(), offers)
        rejection = None if version & 1 else OTHER_PROTOCOL
        if str(request.application_context_name) != APPLICATION_CONTEXT:
            rejection = NO_APPLICATION_CONTEXT
        if rejection := rejection or self._doors.decide(self, asked):
            self.outcome, self.reason_code = "rejected", rejection.code
            self._doors.rejected(self, asked, rejection)
            self._send(wire.rejection(rejection.result, rejection.source, rejection.reason))
            self._let_peer_close()
            return False
        results, _ = negotiate_as_acceptor(offered, list(self._terms.contexts), {})
        self._contexts = {
            context.context_id or 0: Accepted(str(context.abstract_syntax), str(context.transfer_syntax[0]))
            for context in results
            if context.result == 0
        }
        taken = [self._contexts.get(context.context_id or 0) for context in offered]
        if offers and not self._contexts:
            self.reason_code = "nothing_taken"
        offers = [
            replace(each, taken=one.transfer_syntax_uid) if one else each
            for each, one in zip(offers, taken, strict=True)
        ]
        self.asked = replace(asked, offers=offers)
        self._most_bytes = request.maximum_length_received or 0
        self._send(self._acceptance(request, results))
        return True

    def _request_read(self) -> tuple[int, A_ASSOCIATE]:
        """The protocol versions, a bit each, and the A-ASSOCIATE-RQ, within its time and length."""
        inbox = Inbox(self._connection, wire.MAX_REQUEST_BYTES, self._terms.open_timeout_s)
        while True:
            if foreign := inbox.foreign:
                raise Broken(foreign, 2)
            for kind, field in inbox.whole():
                if kind != wire.ASSOCIATE_RQ:
                    raise Broken("no_request", 2)
                if not inbox.is_empty:  # it would be lost with this inbox
                    raise Broken("unexpected_pdu", 2)
                try:
                    pdu = A_ASSOCIATE_RQ()
                    pdu.decode(bytes(6) + bytes(field))
                    request = pdu.to_primitive()
                except Exception:  # noqa: BLE001  a stranger's bytes go through a parser that is not ours
                    raise Broken("malformed_request", 6) from None
                offered = request.presentation_context_definition_list
                ids = {context.context_id for context in offered}
                if len(ids) < len(offered) or not all(context.transfer_syntax for context in offered):
                    raise Broken("malformed_request", 6)
                return int.from_bytes(field[:2], "big"), request
            inbox.fill()
            if time.monotonic() - self.began_at > self._terms.open_timeout_s:
                raise Broken("no_request")

    def _acceptance(self, request: A_ASSOCIATE, results: list[PresentationContext]) -> bytes:
        answer = A_ASSOCIATE()
        answer.application_context_name = APPLICATION_CONTEXT
        answer.calling_ae_title, answer.called_ae_title = request.calling_ae_title, request.called_ae_title
        answer.result, answer.result_source = 0, 1
        answer.presentation_context_definition_results_list = results
        length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
        version = ImplementationVersionNameNotification()
        length.maximum_length_received = self._terms.max_pdu_bytes
        implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        answer.user_information = [length, implementation, version]
        return A_ASSOCIATE_AC(answer).encode()

    def _run(self) -> None:
        """Serve requests until the peer releases or aborts."""
        inbox = Inbox(self._connection, self._terms.max_pdu_bytes, self._terms.idle_timeout_s)
        while True:
            for kind, field in inbox.whole():
                if kind == wire.DATA_TF:
                    for context_id, control, piece in wire.fragments(field):
                        self._fragment(context_id, control, piece)
                elif kind == wire.RELEASE_RQ:
                    self.outcome = "released"
                    self._send(wire.RELEASE_RP)
                    self._let_peer_close()
                    return
                elif kind == wire.ABORT:
                    self.outcome, self.reason_code = "aborted", self.reason_code or "by_peer"
                    return
                else:
                    raise Broken("unexpected_pdu", 2)
            self._push()
            inbox.fill()

    def _fragment(self, context_id: int, control: int, piece: memoryview) -> None:
        if control & 1:
            self._command += piece
            if len(self._command) > wire.MAX_COMMAND_BYTES or self._request is not None:
                raise Broken("unexpected_command", 6)
            if control & 2:
                command = wire.command_of(bytes(self._command))
                self._command.clear()
                self._requested(context_id, command)
            return
        if self._request is None or self._request[0] != context_id or self._command:
            raise Broken("unexpected_data_set", 6)
        self._views.append(piece)
        if control & 2:
            self._push()
            self._answer(self._finish())

    def _requested(self, context_id: int, command: Command) -> None:
        context = self._contexts.get(context_id)
        if context is None:
            raise Broken("context_not_accepted", 6)
        if command.field & wire.RESPONSE:
            raise Broken("unexpected_command", 2)
        if command.field == wire.C_CANCEL_RQ:
            return
        self._request = (context_id, command)
        self.requests[wire.REQUESTS.get(command.field, "other")] += 1
        if command.has_data_set:
            self._receiving = self._doors.begin(self, command, context)
        else:
            self._answer(self._finish())

    def _finish(self) -> Answer:
        """What answers the request that is complete now."""
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            return receiving.finish()
        field = self._request[1].field if self._request else 0
        if field == wire.C_STORE_RQ:
            return Answer(CANNOT_UNDERSTAND, "no data set")
        return Answer(SUCCESS if field == wire.C_ECHO_RQ else UNRECOGNIZED_OPERATION)

    def _answer(self, answer: Answer) -> None:
        if self._request is not None:
            context_id, command = self._request
            self._request = None
            if answer.status:
                self.refusals[answer.status] += 1
                if len(self.refused) < MOST_REFUSED:
                    told = Refused(answer.status, answer.comment, command.sop_instance_uid, answer.study_instance_uid)
                    self.refused.append(told)
            self._send(wire.response(context_id, command, answer.status, self._most_bytes, answer.comment))

    def _push(self) -> None:
        """Pass on what has come of a data set, before the buffer is read into again."""
        if self._views:
            if self._receiving is not None:
                self._receiving.take(self._views)
            self._views = []

    def _send(self, content: bytes) -> None:
        try:
            self._connection.sendall(content)
        except OSError:  # the peer closed, or takes nothing for too long
            raise Gone from None

    def _let_peer_close(self) -> None:
        """Wait a little until the peer has read our last word and closes (PS3.8, AR-4, AE-8), however much it still says."""
        self._connection.settimeout(_LAST_WORD_S)
        with contextlib.suppress(OSError):
            self._connection.recv(wire.MAX_REQUEST_BYTES)

    def _abort(self, reason: int) -> None:
        with contextlib.suppress(OSError):
            self._connection.sendall(wire.abort(reason))

    def _shut(self, how: int) -> None:
        with contextlib.suppress(OSError):  # not TLS's own, which would take its keys away under whoever reads
            socket.socket.shutdown(self._connection, how)

    def _close(self) -> None:
        self._shut(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            self._connection.close()
