"""C-MOVE as a user of somebody's archive: it sends us a study, at our own door, as it always does (PS3.4, C.4.2).

Knows the study root model. Does not know why a study is wanted, nor what becomes of it here: it comes in as any other image.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom import uid
from pydicom.dataset import Dataset

from gateway.dicom.calling import Destination, Refusal, associate, cut, end
from record.errors import PeerUnavailable

STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
_KINDS = [(STUDY_ROOT_MOVE, str(uid.ExplicitVRLittleEndian)), (STUDY_ROOT_MOVE, str(uid.ImplicitVRLittleEndian))]
_PENDING = frozenset({0xFF00, 0xFF01})
_WHY = {
    0xA701: "it cannot count what there is",
    0xA702: "it could not send any of it: see its log",
    0xA801: "it does not know where {to} is: enter our AE title, address and port there",
    0xA900: "it does not understand the request",
    0xFE00: "it cancelled the sending",
    0x0124: "it may not",
}


@dataclass(frozen=True, slots=True)
class Moved:
    """How many instances the archive says it has sent, and could not send."""

    completed: int
    failed: int


def fetch(peer: Destination, study_instance_uid: str) -> Moved:
    """Have an archive send a study to us, by the AE title under which we call it.

    Raises
    ------
    PeerUnavailable
        It does not answer, refuses, or does not know where we are.
    """
    opened = associate(peer, _KINDS)
    if isinstance(opened, Refusal):
        raise PeerUnavailable(f"{peer.ae_title} cannot be asked: {opened.why}.")
    whole = False
    done = Moved(0, 0)
    try:
        if not any(context.abstract_syntax == STUDY_ROOT_MOVE for context in opened.accepted_contexts):
            raise PeerUnavailable(f"{peer.ae_title} answers no C-MOVE of the study root model from us.")
        wanted = Dataset()
        wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "STUDY", study_instance_uid
        for status, _ in opened.send_c_move(wanted, peer.calling_ae_title, STUDY_ROOT_MOVE):
            if "Status" not in status:
                raise PeerUnavailable(f"{peer.ae_title} fell silent while it sent.")
            completed = int(status.get("NumberOfCompletedSuboperations", 0) or 0)
            warned = int(status.get("NumberOfWarningSuboperations", 0) or 0)
            failed = int(status.get("NumberOfFailedSuboperations", 0) or 0)
            done = Moved(completed + warned, failed)
            if status.Status not in _PENDING:
                whole = True
                if status.Status not in {0x0000, 0xB000}:
                    why = _WHY.get(status.Status, f"0x{status.Status:04X}").format(to=peer.calling_ae_title)
                    raise PeerUnavailable(f"{peer.ae_title} does not send it: {why}.")
    except (RuntimeError, ValueError):
        raise PeerUnavailable(f"{peer.ae_title} was lost while it sent.") from None
    finally:
        end(opened) if whole else cut(opened)
    return done
