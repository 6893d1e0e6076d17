"""C-ECHO and C-STORE as a user of somebody's listener: is it there, and here are some files.

Knows associations: which presentation contexts are asked for and accepted, what a refusal means, when it is worth trying
again. Does not know whose files they are nor how one is read (`outgoing`). Files go out in their own transfer syntaxes,
straight from the disk, one at a time; what comes next is looked at only a little ahead, so that a whole archive can be
sent.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import uid
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from gateway.dicom.outgoing import Found, Outcome, Outgoing, Told, describe, find
from gateway.dicom.statuses import NO_ROOM, is_stored, meaning
from gateway.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

CALLING_AE_TITLE = "COUNTERSIGN"
MAX_CONTEXTS = 127
"""Odd identifiers from 1 to 255 (PS3.8, 9.3.2.2), less one for Verification, which nearly every receiver accepts."""
LOOK_AHEAD = 128
_MAX_PDU_BYTES = 1 << 17
_LAST_WORD_S = 2.0
_MAX_WAITING = 16
"""PDUs of one file in memory."""
_LOW_PRIORITY = 2
_ESTABLISHED = "Sta6"  # PS3.8, table 9-10
_PERMANENT = 1  # result of a rejection, PS3.8, table 9-21; beside it source and reason:
_REJECTIONS = {
    (1, 2): "it knows no DICOM application context",
    (1, 3): "it does not know the calling AE title {calling}: let that in there (ours: `countersign peers add`)",
    (1, 7): "it is not called {called}: say its AE title with --aet",
    (2, 2): "it speaks another version of the protocol",
    (3, 1): "it is congested",
    (3, 2): "it has as many associations as it takes",
}

_Kind = tuple[str, str]  # SOP class and transfer syntax: what one presentation context is for
_USUAL: Sequence[_Kind] = [
    (class_uid, syntax_uid)
    for class_uid in (
        uid.ComputedRadiographyImageStorage,
        uid.DigitalXRayImageStorageForPresentation,
        uid.CTImageStorage,
        uid.MRImageStorage,
        uid.UltrasoundImageStorage,
        uid.SecondaryCaptureImageStorage,
    )
    for syntax_uid in (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)
]
"""Kinds of images of which every receiver of images takes some."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the files."""

    sent: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Destination:
    """Whom to send to, and as whom."""

    host: str
    port: int
    ae_title: str
    calling_ae_title: str = CALLING_AE_TITLE
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a file or a connection is tried again, and the pause before, which doubles each time."""

    most: int = 3
    pause_s: float = 0.5
    longest_s: float = 30.0

    def wait(self, failures: int) -> None:
        """Pause after so many failures in a row."""
        time.sleep(min(self.longest_s, self.pause_s * 2 ** (failures - 1)))


@dataclass(frozen=True, slots=True)
class _Refusal:
    why: str
    permanent: bool = False


def unreachable(to: Destination, *, as_sender: bool = False) -> str:
    """Why a C-ECHO is not answered with Success, in a phrase; empty when it is.

    `as_sender` asks for leave to send images as well: a listener may answer the C-ECHO of a stranger.
    """
    opened = _associate(to, _USUAL if as_sender else [])
    if isinstance(opened, _Refusal):
        return opened.why
    try:
        status = opened.send_c_echo().get("Status", -1)
        takes_images = bool(_accepted(opened).keys() & set(_USUAL))
    except (RuntimeError, ValueError):  # it was lost in between, or Verification was not accepted
        return "it takes no C-ECHO"
    finally:
        _end(opened)
    if status != 0:
        return "it does not answer the C-ECHO" if status == -1 else f"it answers 0x{status:04X}"
    return "it answers the C-ECHO, and takes no images from us" if as_sender and not takes_images else ""


def echo(host: str, port: int, aet: str, timeout_s: float = 5.0, *, calling_aet: str = CALLING_AE_TITLE) -> bool:
    """Whether a listener accepts an association and answers a C-ECHO with Success."""
    return not unreachable(Destination(host, port, aet, calling_aet, timeout_s))


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
    """Send files, and folders with all that is in them, once.

    Parameters
    ----------
    paths
        Files and folders.
    on_result
        Told each file's C-STORE status (PS3.4 table B.2-1); None when it is no DICOM file, when the peer takes its
        kind not at all, or when the connection failed.
    """
    sent = failed = 0
    for told in deliver(find(paths), Destination(host, port, aet, calling_aet, timeout_s), Retries(0)):
        sent, failed = (sent + 1, failed) if told.outcome is Outcome.ACCEPTED else (sent, failed + 1)
        on_result(told.path, told.status)
    return Counts(sent, failed)


def deliver(
    found: Iterable[Found | Told],
    to: Destination,
    retries: Retries = Retries(),
    *,
    is_wanted: Callable[[Outgoing], bool] = lambda _: True,
) -> Generator[Told]:
    """Send files as they are found, and tell what became of each, in order.

    A file whose connection falls is sent again, as is one that the receiver has no room for; when it cannot be reached any
    more, what is left is told as unsent.

    Parameters
    ----------
    found
        As `outgoing.find` gives them; what is told already is passed on.
    is_wanted
        Asked for each file before it is sent; one that is not wanted was sent before.
    """
    ahead = (each if isinstance(each, Told) else describe(each) for each in found)
    with contextlib.closing(_Sender(to, retries)) as sender:
        for window in _windows(ahead):
            kinds = [_kind(each) for each in window if isinstance(each, Outgoing)]
            for each in window:
                if isinstance(each, Told):
                    yield each
                elif is_wanted(each):
                    yield sender.send(each, kinds)
                else:
                    yield Told(each.path, Outcome.SENT_BEFORE, size_bytes=each.size_bytes)


class _Sender:
    """One association at a time, opened anew when it fell or when a file needs a context it does not have."""

    def __init__(self, to: Destination, retries: Retries) -> None:
        self._to, self._retries = to, retries
        self._association: Association | None = None
        self._known: dict[_Kind, None] = {}  # what was asked for before, the newest last
        self._accepted: dict[_Kind, int] = {}
        self._refused: set[_Kind] = set()
        self._failures = 0  # to connect, in a row
        self._away = ""  # why nothing more is tried
        self._for_good = False  # whether that will be so another time, too
        self._full = False  # the receiver had no room, however often it was asked
        self._numbers = itertools.count()

    def close(self) -> None:
        """Release the association."""
        if self._association is not None:
            _end(self._association)
        self._association = None

    def send(self, one: Outgoing, ahead: Sequence[_Kind]) -> Told:
        """Send one file; `ahead` are the kinds that it and its next ones need."""
        kind, tries = _kind(one), 0
        while True:
            if kind in self._refused:
                return _told(one, Outcome.NO_CONTEXT, f"the receiver takes no {kind_of(one)}")
            if not self._connect(kind, ahead):
                return replace(_told(one, Outcome.UNSENT, self._away), permanent=self._for_good)
            if kind in self._refused:
                continue
            try:
                status = self._store(one, self._accepted[kind])
            except OSError as error:
                return _told(one, Outcome.UNREADABLE, f"cannot be read: {error.strerror or type(error).__name__}")
            tries += 1
            passing = status is None or (status in NO_ROOM and not self._full)
            if passing and tries <= self._retries.most:
                self._retries.wait(tries)
                continue
            if status is None:
                return _told(one, Outcome.LOST, "the connection fell while it was sent")
            self._full = status in NO_ROOM
            outcome = Outcome.ACCEPTED if is_stored(status) else Outcome.REFUSED
            return _told(one, outcome, meaning(status), status)

    def _connect(self, kind: _Kind, ahead: Sequence[_Kind]) -> bool:
        """Have an association that answered for this kind; False when the receiver cannot be had any more."""
        while not self._away:
            if self._association is not None and self._association.is_established and kind in self._accepted:
                return True
            self.close()
            opened = _associate(self._to, asked := self._to_ask(kind, ahead))
            if isinstance(opened, Association):
                self._association, self._failures = opened, 0
                self._accepted = _accepted(opened)
                self._refused |= set(asked) - self._accepted.keys()
                return True
            self._failures += 1
            if opened.permanent or self._failures > self._retries.most:
                self._away, self._for_good = opened.why, opened.permanent
            else:
                self._retries.wait(self._failures)
        return False

    def _to_ask(self, kind: _Kind, ahead: Sequence[_Kind]) -> list[_Kind]:
        """What to ask for: this kind, those that come next, and as many of the former ones as there is room for, the newest first."""
        wanted = dict.fromkeys([kind, *ahead, *reversed(self._known)])
        asked = [each for each in wanted if each not in self._refused][:MAX_CONTEXTS]
        for each in reversed(asked):
            self._known.pop(each, None)
            self._known[each] = None
        return asked

    def _store(self, one: Outgoing, context_id: int) -> int | None:
        """Send one instance; its status, None when the connection fell.

        pynetdicom's own `send_c_store` goes by the file meta, which may be wrong or missing, and gathers a whole file
        in memory; this hands over the bytes of the data set as fast as they leave.
        """
        association = self._association
        if association is None:  # pragma: no cover  `_connect` was asked before
            return None
        request = C_STORE()
        request.MessageID, request.Priority = next(self._numbers) % 0xFFFF + 1, _LOW_PRIORITY
        request.AffectedSOPClassUID = uid.UID(one.sop_class_uid)
        request.AffectedSOPInstanceUID = uid.UID(one.sop_instance_uid)
        request._dataset_path = (one.path, one.data_set_at)  # noqa: SLF001  as send_c_store does
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        with one.path.open("rb"):  # before anything is said of it
            pass
        whole = False
        association._reactor_checkpoint.clear()  # noqa: SLF001  as send_c_store does, here and below
        try:
            while not association._is_paused and association.is_alive():  # noqa: SLF001
                time.sleep(0.0001)
            for fragment in message.encode_msg(context_id, association.dimse.maximum_pdu_size):
                if not self._has_room(association):
                    return None
                association.dul.send_pdu(fragment)
            _, response = association.dimse.get_msg(block=True)
            whole = response is not None
        finally:
            association._reactor_checkpoint.set()  # noqa: SLF001
            if not whole:
                _cut(association)
        if response is None:
            return None
        status = association._check_received_status(response)  # noqa: SLF001
        return int(status.Status) if "Status" in status else None

    def _has_room(self, association: Association) -> bool:
        """Wait until little of what was handed over is still here; False when the connection fell or stands still."""
        waiting = association.dul.to_provider_queue
        deadline = time.monotonic() + self._to.timeout_s
        while waiting.qsize() >= _MAX_WAITING:
            if association.dul.state_machine.current_state != _ESTABLISHED or time.monotonic() > deadline:
                return False
            time.sleep(0.0005)
        return True


def _windows(ahead: Iterable[Outgoing | Told]) -> Iterator[list[Outgoing | Told]]:
    """A few files at a time, no more kinds together than one association can have."""
    window: list[Outgoing | Told] = []
    kinds: set[_Kind] = set()
    for each in ahead:
        new = {_kind(each)} - kinds if isinstance(each, Outgoing) else set()
        if len(window) == LOOK_AHEAD or len(kinds) + len(new) > MAX_CONTEXTS:
            yield window
            window, kinds = [], set()
        window.append(each)
        kinds |= new
    if window:
        yield window


def _associate(to: Destination, kinds: Sequence[_Kind]) -> Association | _Refusal:
    """An association that was answered; it may be over already, when it accepts nothing of what was asked for."""
    ae = AE(to.calling_ae_title)
    ae.implementation_class_uid = uid.UID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = _MAX_PDU_BYTES
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = to.timeout_s
    ae.add_requested_context(Verification, [uid.ImplicitVRLittleEndian])
    for class_uid, syntax_uid in kinds:
        ae.add_requested_context(class_uid, syntax_uid)  # one context each: else the acceptor would choose one syntax
    connected = []

    def note(event: evt.Event) -> None:
        connected.append(True)
        _without_delay(event)

    try:
        association = ae.associate(to.host, to.port, ae_title=to.ae_title, evt_handlers=[(evt.EVT_CONN_OPEN, note)])
    except (OSError, ValueError):
        return _Refusal(f"the name {to.host} leads nowhere", permanent=True)
    if association.is_established or association.rejected_contexts:
        return association
    if (answer := answer_of(association)) is not None and answer.result:
        return _rejection(answer, to)
    if not connected:
        return _Refusal(f"nothing answers at {to.host} port {to.port}")
    return _Refusal(f"what answers at {to.host} port {to.port} opens no DICOM association")


def answer_of(association: Association) -> A_ASSOCIATE | None:
    """What came back for a request that opened no association: None if nothing did.

    pynetdicom takes a rejection that is read, and its connection closed, before its own thread wakes for a failure to
    connect; the answer then lies unread in its queue.
    """
    if association.is_alive():
        association.join(_LAST_WORD_S)
    with contextlib.suppress(queue.Empty):
        while association.acceptor.primitive is None:
            unread = association.dul.to_user_queue.get_nowait()
            if isinstance(unread, A_ASSOCIATE):
                return unread
    return association.acceptor.primitive


def _rejection(answer: A_ASSOCIATE, to: Destination) -> _Refusal:
    reason = (answer.result_source or 0, answer.diagnostic or 0)
    told = _REJECTIONS.get(reason, "it gives no reason").format(calling=to.calling_ae_title, called=to.ae_title)
    told = f"{to.host} port {to.port} rejects the association: {told}"
    return _Refusal(told, permanent=answer.result == _PERMANENT)


def _accepted(association: Association) -> dict[_Kind, int]:
    return {
        (str(cx.abstract_syntax), str(cx.transfer_syntax[0])): cx.context_id or 0
        for cx in association.accepted_contexts
    }


def _end(association: Association) -> None:
    """Release an association that is idle."""
    if association.is_established:
        association.release()


def _cut(association: Association) -> None:
    """End an association in the middle of a message: nothing that could be said would be understood."""
    connection = association.dul.socket
    if connection and connection.socket:
        with contextlib.suppress(OSError):  # gone already; else a peer that does not read would hold us here
            connection.socket.shutdown(socket.SHUT_RDWR)
    association.abort()


def _kind(one: Outgoing) -> _Kind:
    return one.sop_class_uid, one.transfer_syntax_uid


def kind_of(one: Outgoing) -> str:
    """What an instance is and how it is encoded, in words."""
    return f"{_name(one.sop_class_uid)} in {_name(one.transfer_syntax_uid)}"


def _name(value: str) -> str:
    return str(uid.UID(value).name)


def _told(one: Outgoing, outcome: Outcome, why: str, status: int | None = None) -> Told:
    return Told(one.path, outcome, why, status, one.size_bytes)


def _without_delay(event: evt.Event) -> None:
    connection = event.assoc.dul.socket
    if connection and connection.socket:  # else each instance's last packet waits 40 ms for an acknowledgement
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
