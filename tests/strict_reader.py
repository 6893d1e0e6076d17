"""What a strict reader of PS3.8 and PS3.7 makes of bytes within an association: the second opinion of the fuzz tests.

Shares nothing with the listener's own way through PDUs and fragments; command sets and data sets are read by the product.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from gateway.dicom import wire
from gateway.dicom.listener import MAX_PDU_BYTES
from gateway.dicom.wire import Broken, Command
from gateway.headers import check, read_identity
from record.errors import InvalidInstance
from tests.instances import EXPLICIT
from tests.pdus import ECHOES, RELEASE, RELEASED, STORES


@dataclass
class Opinion:
    """The data sets that are stored, the status of every answer (None: any refusal), and the PDU that comes last."""

    stored: list[bytes] = field(default_factory=list)
    statuses: list[int | None] = field(default_factory=list)
    last: int | None = None


class _Over(Exception):
    """The association ends here; the PDU that says so, if one does."""


def opinion_on(said: bytes) -> Opinion:
    made = Opinion()
    command, request, data_set = b"", None, b""
    try:
        for context_id, control, piece in _fragments(said):
            if control & 1:
                command += piece
                if request or len(command) > wire.MAX_COMMAND_BYTES:
                    raise _Over(wire.ABORT)
                if not control & 2:
                    continue
                request, command = _request(context_id, command), b""
                if request and not request.has_data_set:
                    made.statuses.append({wire.C_ECHO_RQ: 0, wire.C_STORE_RQ: 0xC000}.get(request.field, 0x0211))
                    request = None
                asked_in = context_id
                continue
            if request is None or command or context_id != asked_in:
                raise _Over(wire.ABORT)
            data_set += piece
            if control & 2:
                made.statuses.append(_status(request, data_set))
                if request.field == wire.C_STORE_RQ and made.statuses[-1] == 0:
                    made.stored.append(data_set)
                request, data_set = None, b""
    except _Over as over:
        made.last = over.args[0]
    return made


def _fragments(said: bytes):
    at = 0
    while len(said) - at >= 6:
        kind, length = struct.unpack_from(">BxI", said, at)
        if length > MAX_PDU_BYTES:
            raise _Over(wire.ABORT)
        content = said[at + 6 : at + 6 + length]
        if len(content) < length:
            break
        at += 6 + length
        if kind != wire.DATA_TF:
            raise _Over({RELEASE[0]: RELEASED, wire.ABORT: None}.get(kind, wire.ABORT))
        while content:
            if len(content) < 6:
                raise _Over(wire.ABORT)
            length, context_id, control = struct.unpack_from(">IBB", content)
            if not 2 <= length <= len(content) - 4:
                raise _Over(wire.ABORT)
            yield context_id, control, content[6 : 4 + length]
            content = content[4 + length :]
    raise _Over(None)


def _request(context_id: int, command: bytes) -> Command | None:
    try:
        request = wire.command_of(command)
    except Broken:
        raise _Over(wire.ABORT) from None
    if context_id not in {STORES, ECHOES} or request.field & wire.RESPONSE:
        raise _Over(wire.ABORT)
    return None if request.field == wire.C_CANCEL_RQ else request


def _status(request: Command, data_set: bytes) -> int | None:
    if request.field != wire.C_STORE_RQ:
        return 0 if request.field == wire.C_ECHO_RQ else 0x0211
    try:
        identity = read_identity(data_set, EXPLICIT)
        check(identity)
    except InvalidInstance:
        return None
    announced = (request.sop_class_uid, request.sop_instance_uid)
    return 0 if (identity.sop_class_uid, identity.sop_instance_uid) == announced else None
