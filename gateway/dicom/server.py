"""A pynetdicom server that strangers cannot lock out, and whose data sets are pushed on as they arrive.

Knows what pynetdicom 3.0 leaves open: sockets that block for ever, PDUs of any length, unbounded command sets, an
association limit that silent sockets count towards, data sets gathered in memory. Does not know what becomes of an
instance: whoever starts it passes a `Receiving`, and it is told each data set piece by piece.

Terms are those of PS3.8: an association begins with an A-ASSOCIATE-RQ; P-DATA-TF carries message fragments (annex E).
"""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
import time
from collections import OrderedDict
from typing import Any, Protocol, cast

import structlog
from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class
from pynetdicom.transport import (
    AddressInformation,
    AssociationSocket,
    RequestHandler,
    ThreadedAssociationServer,
)

MAX_REQUEST_BYTES = 1 << 18
"""Of a PDU before the association stands: 128 presentation contexts with 30 transfer syntaxes each fit."""
MAX_COMMAND_BYTES = 1 << 14
MAX_PENDING = 64
"""Connections without an association; one more pushes the oldest out, so that silent ones never keep others out."""

_logger = structlog.get_logger()
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux


class Receiving(Protocol):
    """One data set on its way in. No call raises; what went wrong is answered when the request is served."""

    def take(self, chunk: memoryview) -> None:
        """Bytes of the data set, in order."""

    def drop(self) -> None:
        """No more will come, and nobody waits for an answer."""


class Doors(Protocol):
    """What a server asks of the one who started it."""

    def begin(self, association: HardAssociation, transfer_syntax_uid: str, request: C_STORE_RQ) -> Receiving:
        """A C-STORE request was read; its data set follows."""

    def ended(self, association: HardAssociation) -> None:
        """The association, or the attempt at one, is over."""


class HardSocket(AssociationSocket):
    """Reads with a limit on every PDU's length and a deadline on its arrival."""

    opened_at: float
    open_timeout_s: float
    idle_timeout_s: float
    max_pdu_bytes: int
    _deadline: float

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly so many bytes, or as many as came before the peer closed.

        Raises
        ------
        OSError
            The PDU is too long or too slow; pynetdicom then closes the connection.
        """
        established = self.assoc.is_established
        if nr_bytes > (self.max_pdu_bytes if established else MAX_REQUEST_BYTES):
            raise OSError("PDU too long")
        if nr_bytes == 6:  # a PDU's header (PS3.8 section 9.3.1): the deadline holds for all of it
            self._deadline = (
                time.monotonic() + self.idle_timeout_s if established else self.opened_at + self.open_timeout_s
            )
        connection = cast(socket.socket, self.socket)
        received = bytearray(nr_bytes)
        view, got = memoryview(received), 0
        while got < nr_bytes:
            left_s = self._deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("PDU too slow")
            connection.settimeout(left_s)
            count = connection.recv_into(view[got:])
            if (
                _QUICKACK is not None
            ):  # else Nagle at the sender and delayed acknowledgement here cost 40 ms an instance
                connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            if count == 0:
                return received[:got]
            got += count
        connection.settimeout(self.idle_timeout_s)
        return received


class StreamingProvider(DIMSEServiceProvider):
    """pynetdicom's DIMSE provider, except that a C-STORE's data set goes to a `Receiving`, fragment by fragment.

    It runs in the connection's reading thread; the request is served in the association's. One request may be open at
    a time: we negotiate no asynchronous operations (PS3.7 section D.3.3.3).
    """

    def __init__(self, association: HardAssociation, doors: Doors) -> None:
        super().__init__(association)
        self._doors = doors
        self._lock = threading.Lock()
        self._current: Receiving | None = None  # its data set is arriving
        self._complete: Receiving | None = None  # waits to be served
        self._context_id = 0
        self._command_bytes = 0
        self._closed = False

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the fragments of one P-DATA-TF in their order (PS3.8 annex E.2)."""
        try:
            fine = all(self._fragment(number, value) for number, value in primitive.presentation_data_value_list)
        except Exception:  # a stranger's command set went through a parser: this association ends, no other
            _logger.warning("message_unreadable", exc_info=True)
            fine = False
        if not fine:
            self.close()
            self.dul.event_queue.put("Evt19")  # "invalid PDU": the peer gets an A-ABORT

    def take_complete(self) -> Receiving | None:
        """The data set of the request that is being served now."""
        with self._lock:
            complete, self._complete = self._complete, None
            return complete

    def close(self) -> None:
        """Nothing more is taken; what is unfinished is let go."""
        with self._lock:
            self._closed = True
            unfinished = [r for r in (self._current, self._complete) if r]
            self._current = self._complete = None
        for receiving in unfinished:
            receiving.drop()

    def _fragment(self, context_id: int, value: bytes) -> bool:
        if not value or self._closed:
            return False
        control, body = value[0], memoryview(value)[1:]
        if control & 1:
            return self._command(context_id, value, body)
        with self._lock:
            if self._current is None or context_id != self._context_id:
                return False  # a data set that belongs to no C-STORE request: nothing else here carries one
            self._current.take(body)
            if not control & 2:
                return True
            self._complete, self._current = self._current, None
        super().receive_primitive(_fragment(context_id, b"\x02"))  # its end; pynetdicom sees an empty data set
        return True

    def _command(self, context_id: int, value: bytes, body: memoryview) -> bool:
        self._command_bytes += body.nbytes
        if self._command_bytes > MAX_COMMAND_BYTES or self._current or self._complete:
            return False
        super().receive_primitive(_fragment(context_id, value))
        if not value[0] & 2:
            return True
        self._command_bytes = 0
        message = self.message
        if message is None:  # a request without a data set, on its way to be served
            return True
        context = self.assoc._accepted_cx.get(context_id)  # noqa: SLF001  there is no other way to it
        if not isinstance(message, C_STORE_RQ) or context is None:
            return False
        self._context_id = context_id
        syntax = str(context.transfer_syntax[0])
        self._current = self._doors.begin(cast(HardAssociation, self.assoc), syntax, message)
        return True


class HardAssociation(Association):
    """An association that tells its server when it is over, however it ends."""

    def __init__(self, ae: ApplicationEntity, server: HardServer) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self._server = server
        self.began_at = time.monotonic()
        self.instances = 0
        self.bytes = 0
        self.outcome = "closed"
        self.dul.daemon = True  # a reading thread must not keep the process alive
        self.dimse: StreamingProvider = StreamingProvider(self, server.doors)

    def run_reactor(self) -> None:
        """Serve until the end; then let go of what is unfinished."""
        try:
            super().run_reactor()
        finally:
            self.dimse.close()
            cast(HardServer, self._server).ended(self)

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """Answer a C-STORE whatever class it names: pynetdicom hangs up over one it does not know.

        With the connection would go every file that was to follow (dcmsend opens no other).
        """
        context = self._accepted_cx.get(context_id)
        known = not isinstance(msg, C_STORE) or uid_to_service_class(str(msg.AffectedSOPClassUID)) is not ServiceClass
        if known or context is None or not msg.is_valid_request or self._sent_release:
            super()._serve_request(msg, context_id)
            return
        try:
            self._is_paused = True
            StorageServiceClass(self).SCP(msg, context)
            self._is_paused = False
        except Exception:  # the door, as the method it stands before
            _logger.exception("request_failed")
            self.abort()

    @property
    def peer_address(self) -> str:
        """The peer's IP address."""
        return cast(AddressInformation, self.requestor.address_info).address


class HardHandler(RequestHandler):
    """Makes a `HardAssociation` of an accepted connection."""

    server: HardServer

    def _create_association(self) -> Association:
        server = self.server
        association = HardAssociation(self.ae, server)
        association.name = "AcceptorThread@" + str(self.client_address[1])
        association.daemon = True
        connection = HardSocket(association, client_socket=cast(socket.socket, self.request))
        connection.opened_at = time.monotonic()
        connection.open_timeout_s = server.open_timeout_s
        connection.idle_timeout_s = server.idle_timeout_s
        connection.max_pdu_bytes = self.ae.maximum_pdu_size
        self.request.settimeout(server.open_timeout_s)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        association.set_socket(connection)
        acceptor = association.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        acceptor.supported_contexts = server.contexts  # read, never changed: a copy costs 7 ms
        association.requestor.address_info = self.remote
        for event, handlers in server._handlers.items():  # noqa: SLF001  as the method it replaces
            if event.is_intervention:
                association.bind(cast(evt.InterventionEvent, event), *cast(tuple[Any, Any], handlers))
            else:
                for handler, arguments in cast(list[tuple[Any, Any]], handlers):
                    association.bind(event, handler, arguments)
        server.began(association)
        return association


class HardServer(ThreadedAssociationServer):
    """Accepts connections; knows which of them wait and which are associations."""

    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        ae: ApplicationEntity,
        address: tuple[str, int],
        ae_title: str,
        contexts: list[PresentationContext],
        ssl_context: ssl.SSLContext | None = None,
        evt_handlers: list[Any] | None = None,
        *,
        doors: Doors,
        max_associations: int,
        open_timeout_s: float,
        idle_timeout_s: float,
    ) -> None:
        self.doors = doors
        self.max_associations = max_associations
        self.open_timeout_s, self.idle_timeout_s = open_timeout_s, idle_timeout_s
        self._counting = threading.Lock()
        self._pending: OrderedDict[int, HardAssociation] = OrderedDict()
        self._established: dict[int, HardAssociation] = {}
        super().__init__(ae, address, ae_title, contexts, ssl_context, evt_handlers, HardHandler)

    @property
    def associations(self) -> int:
        """How many associations stand now."""
        with self._counting:
            return len(self._established)

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002  socketserver's form
        """Make room for a new connection: the one that has waited longest without asking is closed."""
        with self._counting:
            oldest = self._pending.popitem(last=False)[1] if len(self._pending) >= MAX_PENDING else None
        if oldest:
            oldest.outcome = "pushed_out"
            _shut(oldest)
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the association's threads from here: nothing in it waits for the peer."""
        self.process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  socketserver's form
        """A connection that failed while it was taken: logged without the peer's words."""
        _logger.exception("connection_failed")  # noqa: LOG004  called while the exception is handled

    def began(self, association: HardAssociation) -> None:
        """A connection was taken; no association yet."""
        with self._counting:
            self._pending[id(association)] = association

    def admit(self, association: HardAssociation) -> bool:
        """Count an association in; False when there are as many as there may be (it then goes on counting as waiting)."""
        with self._counting:
            if len(self._established) >= self.max_associations:
                return False
            self._pending.pop(id(association), None)
            self._established[id(association)] = association
            return True

    def ended(self, association: HardAssociation) -> None:
        """Count it out."""
        with self._counting:
            self._pending.pop(id(association), None)
            self._established.pop(id(association), None)
        self.doors.ended(association)

    def stop(self, grace_s: float = 3.0) -> None:
        """Take no more connections, abort what is open, and wait until what was complete has been answered."""
        socketserver.BaseServer.shutdown(self)  # pynetdicom's own expects a server that its AE started
        self.server_close()
        with self._counting:
            waiting, living = list(self._pending.values()), list(self._established.values())
        for association in waiting:
            _shut(association)
        for association in living:
            association.abort(block=False)
        until = time.monotonic() + grace_s
        for association in living:
            association.join(max(0.0, until - time.monotonic()))


def _shut(association: HardAssociation) -> None:
    if association.dul.socket and association.dul.socket.socket:
        association.dul.socket._shutdown_socket()  # noqa: SLF001  closes without an event


def _fragment(context_id: int, value: bytes) -> P_DATA:
    primitive = P_DATA()
    primitive.presentation_data_value_list.append((context_id, value))
    return primitive
