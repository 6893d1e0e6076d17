"""Associations that we ask for: is somebody there, what do they accept, and what does a refusal mean.

Knows pynetdicom as a client, and where it has to be helped. Does not know what is said on an association: files (`send`),
questions (`find`), reports (`commit`).
"""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import uid
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE, SCP_SCU_RoleSelectionNegotiation
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from gateway.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

CALLING_AE_TITLE = "COUNTERSIGN"
MAX_PDU_BYTES = 1 << 17
_LAST_WORD_S = 2.0
_PERMANENT = 1  # result of a rejection, PS3.8, table 9-21; beside it source and reason:
_REJECTIONS = {
    (1, 2): "it knows no DICOM application context",
    (1, 3): "it does not know the calling AE title {calling}: let that in there (ours: `countersign peers add`)",
    (1, 7): "it is not called {called}, or does not know {calling}: compare both titles with what it is told there",
    (2, 2): "it speaks another version of the protocol",
    (3, 1): "it is congested",
    (3, 2): "it has as many associations as it takes",
}

Kind = tuple[str, str]  # SOP class and transfer syntax: what one presentation context is for
_USUAL: Sequence[Kind] = [
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
class Destination:
    """Whom to send to, and as whom; `secure`, where TLS is spoken there."""

    host: str
    port: int
    ae_title: str
    calling_ae_title: str = CALLING_AE_TITLE
    timeout_s: float = 60.0
    secure: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no association, in a phrase; `permanent`, if it will be so another time as well."""

    why: str
    permanent: bool = False


def unreachable(to: Destination, *, as_sender: bool = False) -> str:
    """Why a C-ECHO is not answered with Success, in a phrase; empty when it is.

    `as_sender` asks for leave to send images as well: a listener may answer the C-ECHO of a stranger.
    """
    opened = associate(to, _USUAL if as_sender else [])
    if isinstance(opened, Refusal):
        return opened.why
    try:
        status = opened.send_c_echo().get("Status", -1)
        takes_images = bool(accepted(opened).keys() & set(_USUAL))
    except (RuntimeError, ValueError):  # it was lost in between, or Verification was not accepted
        return "it takes no C-ECHO"
    finally:
        end(opened)
    if status != 0:
        return "it does not answer the C-ECHO" if status == -1 else f"it answers 0x{status:04X}"
    return "it answers the C-ECHO, and takes no images from us" if as_sender and not takes_images else ""


def echo(host: str, port: int, aet: str, timeout_s: float = 5.0, *, calling_aet: str = CALLING_AE_TITLE) -> bool:
    """Whether a listener accepts an association and answers a C-ECHO with Success."""
    return not unreachable(Destination(host, port, aet, calling_aet, timeout_s))


def associate(to: Destination, kinds: Sequence[Kind], as_provider: Sequence[str] = ()) -> Association | Refusal:
    """An association that was answered; it may be over already, when it accepts nothing of what was asked for.

    Parameters
    ----------
    as_provider
        SOP classes of which we want to be the provider, though we ask for the association (PS3.7, D.3.3.4).
    """
    ae = AE(to.calling_ae_title)
    ae.implementation_class_uid = uid.UID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = MAX_PDU_BYTES
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = to.timeout_s
    ae.add_requested_context(Verification, [uid.ImplicitVRLittleEndian])
    for class_uid, syntax_uid in kinds:
        ae.add_requested_context(class_uid, syntax_uid)  # one context each: else the acceptor would choose one syntax
    roles: list[Any] = []
    for class_uid in as_provider:
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = uid.UID(class_uid), False, True
        roles.append(role)
    connected = []

    def note(event: evt.Event) -> None:
        connected.append(True)
        _without_delay(event)

    try:
        association = ae.associate(
            to.host,
            to.port,
            ae_title=to.ae_title,
            ext_neg=roles or None,
            evt_handlers=[(evt.EVT_CONN_OPEN, note)],
            tls_args=(to.secure, to.host) if to.secure else None,
        )
    except (OSError, ValueError):
        return Refusal(f"the name {to.host} leads nowhere", permanent=True)
    if association.is_established or association.rejected_contexts:
        hold(association)
        return association
    if (answer := answer_of(association)) is not None and answer.result:
        return _rejection(answer, to)
    if not connected:
        return Refusal(f"nothing answers at {to.host} port {to.port}")
    return Refusal(f"what answers at {to.host} port {to.port} opens no DICOM association")


class _Held(threading.Event):
    """A checkpoint that tells when somebody has come to it."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        """Say so, and wait."""
        self.reached.set()
        return super().wait(timeout)


def hold(association: Association) -> None:
    """Keep pynetdicom's own thread from taking the answer to the next request.

    Its `send_c_*` ask that thread to pause and look at a flag, which now and then still tells of its last pause: the thread
    then takes the answer away as a message that nobody expects. Here it has come to a halt before this returns.
    """
    former, held = association._reactor_checkpoint, _Held()  # noqa: SLF001
    association._reactor_checkpoint = held  # noqa: SLF001
    former.set()  # whoever waits there comes over
    while association.is_alive() and not held.reached.wait(0.05):
        continue


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


def _rejection(answer: A_ASSOCIATE, to: Destination) -> Refusal:
    reason = (answer.result_source or 0, answer.diagnostic or 0)
    told = _REJECTIONS.get(reason, "it gives no reason").format(calling=to.calling_ae_title, called=to.ae_title)
    told = f"{to.host} port {to.port} rejects the association: {told}"
    return Refusal(told, permanent=answer.result == _PERMANENT)


def accepted(association: Association) -> dict[Kind, int]:
    """The presentation contexts that were accepted, by what each is for."""
    return {
        (str(cx.abstract_syntax), str(cx.transfer_syntax[0])): cx.context_id or 0
        for cx in association.accepted_contexts
    }


def end(association: Association) -> None:
    """Release an association that is idle."""
    if association.is_established:
        association.release()


def cut(association: Association) -> None:
    """End an association in the middle of a message: nothing that could be said would be understood."""
    connection = association.dul.socket
    if connection and connection.socket:
        with contextlib.suppress(OSError):  # gone already; else a peer that does not read would hold us here
            connection.socket.shutdown(socket.SHUT_RDWR)
    association.abort()


def _without_delay(event: evt.Event) -> None:
    connection = event.assoc.dul.socket
    if connection and connection.socket:  # else each instance's last packet waits 40 ms for an acknowledgement
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
