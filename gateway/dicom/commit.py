"""Storage commitment, reported: an N-EVENT-REPORT on an association of our own (PS3.4, J.3.3).

Knows the data set and the role that we take. Does not know what is kept: it is told.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom import uid
from pydicom.dataset import Dataset

from gateway.dicom.calling import Destination, Refusal, associate, cut, end
from gateway.dicom.contexts import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from record.errors import PeerUnavailable

_ALL_KEPT, _SOME_FAILED = 1, 2
_KINDS = [(STORAGE_COMMITMENT, str(uid.ExplicitVRLittleEndian)), (STORAGE_COMMITMENT, str(uid.ImplicitVRLittleEndian))]


def report(
    to: Destination, transaction_uid: str, kept: Sequence[tuple[str, str]], failed: Sequence[tuple[str, str, int]]
) -> None:
    """Tell a peer what became of its request.

    Parameters
    ----------
    kept, failed
        SOP Class UID and SOP Instance UID of each; of those that are not kept the failure reason (PS3.3, C.14.1.1).

    Raises
    ------
    PeerUnavailable
        It does not answer, or refuses; `reason_code` says in a word how.
    """
    opened = associate(to, _KINDS, as_provider=[STORAGE_COMMITMENT])
    if isinstance(opened, Refusal):
        raise PeerUnavailable(f"{to.ae_title} cannot be told: {opened.why}.", reason_code="no_association")
    whole = False
    try:
        taken = [each for each in opened.accepted_contexts if each.abstract_syntax == STORAGE_COMMITMENT]
        if not taken:
            raise PeerUnavailable(f"{to.ae_title} takes no report from us.", reason_code="not_accepted")
        for each in taken:
            each._as_scp = True  # noqa: SLF001  who asked and says nothing of roles takes the report all the same
        event = _SOME_FAILED if failed else _ALL_KEPT
        status, _ = opened.send_n_event_report(
            _told(transaction_uid, kept, failed),
            event,
            uid.UID(STORAGE_COMMITMENT),
            uid.UID(STORAGE_COMMITMENT_INSTANCE),
        )
        if "Status" not in status:
            raise PeerUnavailable(f"{to.ae_title} fell silent while it was told.", reason_code="silent")
        whole = True
        if status.Status != 0:
            told = f"{to.ae_title} answers the report with 0x{status.Status:04X}."
            raise PeerUnavailable(told, reason_code=f"status_{status.Status:04x}")
    except (RuntimeError, ValueError):
        raise PeerUnavailable(f"{to.ae_title} was lost while it was told.", reason_code="lost") from None
    finally:
        end(opened) if whole else cut(opened)


def _told(transaction_uid: str, kept: Sequence[tuple[str, str]], failed: Sequence[tuple[str, str, int]]) -> Dataset:
    told = Dataset()
    told.TransactionUID = transaction_uid
    if kept:
        told.ReferencedSOPSequence = [_reference(*pair) for pair in kept]
    if failed:
        told.FailedSOPSequence = [_reference(class_uid, instance_uid) for class_uid, instance_uid, _ in failed]
        for item, (_, _, why) in zip(told.FailedSOPSequence, failed, strict=True):
            item.FailureReason = why
    return told


def _reference(class_uid: str, instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = class_uid, instance_uid
    return item
