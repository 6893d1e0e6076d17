"""What peers ask and tell besides images: storage commitment, availability notifications, performed procedure steps.

Knows the data sets of PS3.4 annexes F, J and R as far as a receiver of images needs them, and which status tells what is wrong
with one. Does not know what becomes of a notice (`gateway.notices` keeps it, the record takes it up).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from gateway import notices
from gateway.dicom.association import SUCCESS, UNRECOGNIZED_OPERATION, Accepted, Answer, Association
from gateway.dicom.contexts import AVAILABILITY, PROCEDURE_STEP, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from gateway.dicom.wire import N_ACTION_RQ, N_CREATE_RQ, N_SET_RQ, Command
from gateway.elements import Leaf, leaves
from gateway.headers import UID
from record.errors import InvalidInstance

MAX_BYTES = 8 << 20
MAX_REFERENCES = 50_000
MAX_STUDIES = 100
NO_SUCH_INSTANCE, INVALID_VALUE, MISSING_VALUE, NO_SUCH_ACTION, NOT_AUTHORIZED, NO_ROOM = (
    *(0x0112, 0x0115, 0x0121, 0x0123, 0x0124, 0x0213),
)
_REQUEST_COMMITMENT = 1
_TRANSACTION, _STUDY, _STATUS = 0x00081195, 0x0020000D, 0x00400252
_CLASS, _INSTANCE = 0x00081150, 0x00081155
_REFERENCED, _SERIES, _SCHEDULED = 0x00081199, 0x00081115, 0x00400270
_IN_PERFORMED = frozenset({(0x00400340, 0x00081140), (0x00400340, 0x00400220)})
_WANTED = frozenset({_TRANSACTION, _STUDY, _STATUS, _CLASS, _INSTANCE})
_CODE = re.compile(r"[A-Z ]{1,16}")
_logger = structlog.get_logger()


class Told:
    """The data set of a request that is no C-STORE. No call raises."""

    def __init__(self, spool_folder: Path, association: Association, command: Command, accepted: Accepted) -> None:
        self._folder, self._association, self._command, self._accepted = spool_folder, association, command, accepted
        self._content = bytearray()
        self._is_too_long = False

    @classmethod
    def takes(cls, command: Command, accepted: Accepted) -> bool:
        """Whether this is one of the requests that are taken."""
        return (accepted.abstract_syntax, command.field) in READ

    def take(self, views: Sequence[memoryview]) -> None:
        """Bytes of the data set, up to what such a request may have."""
        for view in views:
            if len(self._content) + view.nbytes > MAX_BYTES:
                self._is_too_long = True
            if not self._is_too_long:
                self._content += view

    def drop(self) -> None:
        """Nothing was kept yet."""
        self._content.clear()

    def finish(self) -> Answer:
        """Read it, keep it durably, and answer."""
        peer = self._association.peer
        if self._is_too_long:
            return Answer(NO_ROOM, "the data set is too long")
        if peer is None:
            return Answer(NOT_AUTHORIZED, "no known sender")
        read = READ.get((self._accepted.abstract_syntax, self._command.field))
        if read is None:
            return Answer(UNRECOGNIZED_OPERATION)
        try:
            syntax = self._accepted.transfer_syntax_uid
            found = [leaf for leaf in leaves(self._content, syntax) if leaf.tag in _WANTED]
        except InvalidInstance:
            return Answer(INVALID_VALUE, "the data set cannot be read")
        said = read(self._command, found)
        if isinstance(said, Answer):
            return said
        if said["kind"] == "commitment" and not (peer.port and peer.address):
            return Answer(NOT_AUTHORIZED, "no port is known to report to")
        notice = {
            **said,
            "peer_id": peer.peer_id,
            "ae_title": peer.ae_title,
            "address": peer.address,
            "certificate_name": peer.certificate_name,
            "site": peer.site,
            "association_id": self._association.id,
            "received_at": datetime.now(UTC).isoformat(),
        }
        try:
            notices.keep(self._folder, notice)
        except OSError:
            _logger.warning("notice_refused", code="store_full")
            return Answer(NO_ROOM, "no room to keep the request")
        return Answer(SUCCESS)


_Said = Mapping[str, Any] | Answer


def _commitment(command: Command, found: Sequence[Leaf]) -> _Said:
    """PS3.4, J.3.2: a transaction, and what shall be kept."""
    if command.sop_instance_uid != STORAGE_COMMITMENT_INSTANCE:
        return Answer(NO_SUCH_INSTANCE)
    if command.action_type != _REQUEST_COMMITMENT:
        return Answer(NO_SUCH_ACTION)
    transaction = _one(found, (), _TRANSACTION)
    if not UID.fullmatch(transaction):
        return Answer(MISSING_VALUE, "no Transaction UID")
    items: dict[int, dict[int, str]] = {}
    for leaf in found:
        if leaf.tags == (_REFERENCED,) and leaf.tag in {_CLASS, _INSTANCE}:
            items.setdefault(leaf.path[0][1], {})[leaf.tag] = leaf.text
    references = [[item.get(_CLASS, ""), item.get(_INSTANCE, "")] for item in items.values()]
    if not references or not all(UID.fullmatch(uid) for pair in references for uid in pair):
        return Answer(INVALID_VALUE, "a reference lacks its UIDs")
    if len(references) > MAX_REFERENCES:
        return Answer(NO_ROOM, "too many references")
    return {"kind": "commitment", "transaction_uid": transaction, "references": references}


def _availability(command: Command, found: Sequence[Leaf]) -> _Said:
    """PS3.4, R.3.2: a study's instances, and that they can be had."""
    study = _one(found, (), _STUDY)
    return _announcement(command, "availability", [study], "COMPLETED", _uids(found, {(_SERIES, _REFERENCED)}))


def _step_begun(command: Command, found: Sequence[Leaf]) -> _Said:
    """PS3.4, F.7.2.1: a procedure step begins, of these studies."""
    studies = [leaf.text for leaf in found if leaf.tags == (_SCHEDULED,) and leaf.tag == _STUDY]
    status = _one(found, (), _STATUS) or "IN PROGRESS"
    return _announcement(command, "procedure_step", studies, status, _uids(found, _IN_PERFORMED))


def _step_set(command: Command, found: Sequence[Leaf]) -> _Said:
    """PS3.4, F.7.2.2: what was made in it, or that it is complete."""
    return _announcement(command, "procedure_step", None, _one(found, (), _STATUS), _uids(found, _IN_PERFORMED))


def _announcement(
    command: Command, kind: str, studies: Sequence[str] | None, status: str, instances: Sequence[str]
) -> _Said:
    if not UID.fullmatch(command.sop_instance_uid):
        return Answer(INVALID_VALUE, "no SOP Instance UID")
    if studies is not None and not (studies and all(map(UID.fullmatch, studies))):
        return Answer(MISSING_VALUE, "no Study Instance UID")
    if len(instances) > MAX_REFERENCES or len(studies or ()) > MAX_STUDIES:
        return Answer(NO_ROOM, "too many references")
    return {
        "kind": kind,
        "sop_instance_uid": command.sop_instance_uid,
        "study_instance_uids": list(dict.fromkeys(studies or ())),
        "status": status if _CODE.fullmatch(status) else "",
        "instance_uids": instances,
    }


READ = {
    (STORAGE_COMMITMENT, N_ACTION_RQ): _commitment,
    (AVAILABILITY, N_CREATE_RQ): _availability,
    (PROCEDURE_STEP, N_CREATE_RQ): _step_begun,
    (PROCEDURE_STEP, N_SET_RQ): _step_set,
}
"""What reads a request, by its SOP class and its command."""


def _one(found: Iterable[Leaf], tags: tuple[int, ...], tag: int) -> str:
    return next((leaf.text for leaf in found if leaf.tags == tags and leaf.tag == tag), "")


def _uids(found: Iterable[Leaf], within: Iterable[tuple[int, ...]]) -> list[str]:
    paths = set(within)
    uids = dict.fromkeys(leaf.text for leaf in found if leaf.tag == _INSTANCE and leaf.tags in paths)
    return [uid for uid in uids if UID.fullmatch(uid)]
