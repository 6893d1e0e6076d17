"""C-STORE as a user of somebody's listener: here are some files.

Knows which presentation contexts they need, and when it is worth trying again. Does not know how an association is had
(`calling`), whose files they are, nor how one is read (`outgoing`). Files go out in their own transfer syntaxes,
straight from the disk, one at a time; what comes next is looked at only a little ahead, so that a whole archive can be
sent.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import uid
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE

from gateway.dicom.calling import CALLING_AE_TITLE, Destination, Kind, accepted, associate, cut, end
from gateway.dicom.outgoing import Found, Outcome, Outgoing, Told, describe, find
from gateway.dicom.statuses import NO_ROOM, is_stored, meaning

MAX_CONTEXTS = 127
"""Odd identifiers from 1 to 255 (PS3.8, 9.3.2.2), less one for Verification, which nearly every receiver accepts."""
LOOK_AHEAD = 128
_MAX_WAITING = 16
"""PDUs of one file in memory."""
_LOW_PRIORITY = 2
_ESTABLISHED = "Sta6"  # PS3.8, table 9-10


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the files."""

    sent: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a file or a connection is tried again, and the pause before, which doubles each time."""

    most: int = 3
    pause_s: float = 0.5
    longest_s: float = 30.0

    def wait(self, failures: int) -> None:
        """Pause after so many failures in a row."""
        time.sleep(min(self.longest_s, self.pause_s * 2 ** (failures - 1)))


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
        self._known: dict[Kind, None] = {}  # what was asked for before, the newest last
        self._accepted: dict[Kind, int] = {}
        self._refused: set[Kind] = set()
        self._failures = 0  # to connect, in a row
        self._away = ""  # why nothing more is tried
        self._for_good = False  # whether that will be so another time, too
        self._full = False  # the receiver had no room, however often it was asked
        self._numbers = itertools.count()

    def close(self) -> None:
        """Release the association."""
        if self._association is not None:
            end(self._association)
        self._association = None

    def send(self, one: Outgoing, ahead: Sequence[Kind]) -> Told:
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

    def _connect(self, kind: Kind, ahead: Sequence[Kind]) -> bool:
        """Have an association that answered for this kind; False when the receiver cannot be had any more."""
        while not self._away:
            if self._association is not None and self._association.is_established and kind in self._accepted:
                return True
            self.close()
            opened = associate(self._to, asked := self._to_ask(kind, ahead))
            if isinstance(opened, Association):
                self._association, self._failures = opened, 0
                self._accepted = accepted(opened)
                self._refused |= set(asked) - self._accepted.keys()
                return True
            self._failures += 1
            if opened.permanent or self._failures > self._retries.most:
                self._away, self._for_good = opened.why, opened.permanent
            else:
                self._retries.wait(self._failures)
        return False

    def _to_ask(self, kind: Kind, ahead: Sequence[Kind]) -> list[Kind]:
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
        try:
            if association.dul.state_machine.current_state != _ESTABLISHED:  # the peer has left meanwhile
                return None
            for fragment in message.encode_msg(context_id, association.dimse.maximum_pdu_size):
                if not self._has_room(association):
                    return None
                association.dul.send_pdu(fragment)
            _, response = association.dimse.get_msg(block=True)
            whole = response is not None
        finally:
            if not whole:
                cut(association)
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
    kinds: set[Kind] = set()
    for each in ahead:
        new = {_kind(each)} - kinds if isinstance(each, Outgoing) else set()
        if len(window) == LOOK_AHEAD or len(kinds) + len(new) > MAX_CONTEXTS:
            yield window
            window, kinds = [], set()
        window.append(each)
        kinds |= new
    if window:
        yield window


def _kind(one: Outgoing) -> Kind:
    return one.sop_class_uid, one.transfer_syntax_uid


def kind_of(one: Outgoing) -> str:
    """What an instance is and how it is encoded, in words."""
    return f"{_name(one.sop_class_uid)} in {_name(one.transfer_syntax_uid)}"


def _name(value: str) -> str:
    return str(uid.UID(value).name)


def _told(one: Outgoing, outcome: Outcome, why: str, status: int | None = None) -> Told:
    return Told(one.path, outcome, why, status, one.size_bytes)
