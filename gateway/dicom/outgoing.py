"""What a file is before it goes out: an instance that can be sent, or the reason why it cannot.

Knows the frame of a file (PS3.10, section 7.1), also where it is missing, and what in a folder is no instance. Does not
know associations. Files are looked at one by one, never opened whole, and never decoded.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from gateway.elements import walk
from gateway.headers import UID, read_identity
from record.errors import InvalidInstance, UnsupportedInstance

DICOMDIR = "1.2.840.10008.1.3.10"
_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima"})
_EXPLICIT, _IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})


class Outcome(StrEnum):
    """What became of a file."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    NO_CONTEXT = "no_context"
    LOST = "lost"
    UNSENT = "unsent"
    UNUSABLE = "unusable"
    UNREADABLE = "unreadable"
    NOT_DICOM = "not_dicom"
    PASSED_OVER = "passed_over"
    SENT_BEFORE = "sent_before"
    LOOKED_AT = "looked_at"


FAILURES = frozenset(
    {Outcome.REFUSED, Outcome.NO_CONTEXT, Outcome.LOST, Outcome.UNSENT, Outcome.UNUSABLE, Outcome.UNREADABLE}
)


@dataclass(frozen=True, slots=True)
class Told:
    """One file, and what became of it; `why` is a phrase, `status` the receiver's answer where there was one.

    `permanent`: the receiver said that it will not have it another time either.
    """

    path: Path
    outcome: Outcome
    why: str = ""
    status: int | None = None
    size_bytes: int = 0
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A file that can be sent: the bytes from `data_set_at` on, as the instance they are, in their own syntax."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_at: int
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class Found:
    """A file to look at; `named` says that somebody named it, rather than its folder."""

    path: Path
    named: bool = False


def find(paths: Iterable[Path]) -> Iterator[Found | Told]:
    """Files, and everything in folders, in the order of their names, one folder at a time."""
    for path in paths:
        if os.path.isdir(path):  # which never raises, as Path's own does for a name that is too long or leads nowhere
            yield from _below(path)
        else:
            yield Found(path, named=True)


def describe(found: Found) -> Outgoing | Told:
    """What a file is; never raises for what is in it."""
    path = found.path
    try:
        with _opened(path) as stream:
            seen = os.fstat(stream.fileno())
            if not stat.S_ISREG(seen.st_mode):
                return Told(path, Outcome.UNUSABLE if found.named else Outcome.PASSED_OVER, "no regular file")
            if seen.st_size == 0:
                return _no_dicom(found, "the file is empty")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as pages, memoryview(pages) as view:
                return _describe(found, stream, view, seen)
    except OSError as error:
        return Told(path, Outcome.UNREADABLE, f"cannot be read: {error.strerror or type(error).__name__}")
    except ValueError:
        return Told(path, Outcome.UNREADABLE, "cannot be read: no name holds a NUL byte")


def _opened(path: Path) -> BinaryIO:
    # Never waits: a named pipe in a folder would, for somebody who writes.
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def _describe(found: Found, stream: BinaryIO, view: memoryview, seen: os.stat_result) -> Outgoing | Told:
    path = found.path
    framed = bytes(view[128:132]) == b"DICM"
    stream.seek(132 if framed else 0)
    try:
        meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=_behind_meta)
        start = stream.tell() if meta or framed else 0
        told = tuple(_value(meta, tag) for tag in (0x00020002, 0x00020003, 0x00020010))
    except Exception:  # noqa: BLE001  the door for one file: pydicom raises what it likes over a broken one
        return Told(path, Outcome.UNUSABLE, "its file meta information is broken") if framed else _no_dicom(found)
    class_uid, instance_uid, syntax_uid = told
    if class_uid == DICOMDIR:
        why = "a DICOMDIR lists what a medium holds: send its folder"
        return Told(path, Outcome.UNUSABLE if found.named else Outcome.PASSED_OVER, why)
    if not syntax_uid:
        guessed = _syntax_of(view, start)
        if guessed is None:
            return (
                _no_dicom(found) if not framed and not meta else _unusable(path, "it does not say its transfer syntax")
            )
        syntax_uid = guessed
    if start >= len(view):
        return _unusable(path, "it holds no data set")
    try:
        identity = read_identity(view, syntax_uid, start)
        class_uid = identity.sop_class_uid or class_uid  # the data set counts where the two differ
        instance_uid = identity.sop_instance_uid or instance_uid
    except UnsupportedInstance:  # deflated: its file meta is all we look at
        pass
    except (
        InvalidInstance
    ):  # a broken data set goes out under the names its file meta gives it, for the receiver to judge
        pass
    if not UID.fullmatch(class_uid) or not UID.fullmatch(instance_uid):
        return _unusable(path, "its SOP Class UID or SOP Instance UID is missing or malformed")
    if not UID.fullmatch(syntax_uid):
        return _unusable(path, "its transfer syntax is no UID")
    return Outgoing(path, class_uid, instance_uid, syntax_uid, start, len(view) - start, seen.st_mtime_ns)


def _behind_meta(tag: int, _vr: str | None, _length: int) -> bool:
    return tag >> 16 != 0x0002


def _value(meta: Dataset, tag: int) -> str:
    element = meta.get(tag)
    value = "" if element is None or element.value is None else str(element.value)
    return value.strip("\0 ")


def _syntax_of(view: memoryview, start: int) -> str | None:
    """The syntax of a data set that does not say it, from its first element; None where its pixels need to be told."""
    head = bytes(view[start : start + 6])
    if head[:2] == b"\x00\x08":
        return _BIG_ENDIAN
    if head[:2] != b"\x08\x00":
        return None
    syntax_uid = _EXPLICIT if head[4:6].isalpha() and head[4:6].isupper() else _IMPLICIT
    try:
        for element in walk(view, syntax_uid, start):
            if element.tag in _PIXELS and bytes(view[element.start - 4 : element.start]) == b"\xff\xff\xff\xff":
                return None  # compressed, by whom knows what
    except InvalidInstance:
        pass
    return syntax_uid


def _no_dicom(found: Found, why: str = "it is no DICOM file") -> Told:
    """In a folder such a file is nothing to worry about; one that was named, or is called so, should have been one."""
    if found.named or found.path.suffix.lower() in _SUFFIXES:
        return _unusable(found.path, why)
    return Told(found.path, Outcome.NOT_DICOM, why)


def _unusable(path: Path, why: str) -> Told:
    return Told(path, Outcome.UNUSABLE, why)


def _below(folder: Path) -> Iterator[Found | Told]:
    """Everything in a folder, however deep."""
    waiting = [iter([folder])]  # folders on the way down, each with what is still to be looked at
    while waiting:
        path = next(waiting[-1], None)
        if path is None:
            waiting.pop()
        elif path is not folder and path.name.startswith("."):
            yield Told(path, Outcome.PASSED_OVER, "hidden")
        elif not os.path.isdir(path):
            yield Found(path)
        elif path is not folder and os.path.islink(path):
            yield Told(path, Outcome.PASSED_OVER, "a link to a folder")
        else:
            try:
                names = sorted(os.listdir(path))
            except OSError as error:
                yield Told(path, Outcome.UNREADABLE, f"cannot be read: {error.strerror or type(error).__name__}")
            else:
                waiting.append(map(path.joinpath, names))
