"""What was refused and kept aside: which files there are, what each says of itself, and how one is taken after all.

Knows the quarantine of every spool below a folder. Does not know why a reason was given (`intake`, `indexer`), nor who asks.
A file that is taken after all goes through the intake like any other, under the identity that its own data set names.
"""

from __future__ import annotations

import contextlib
import re
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from gateway.headers import Identity, read_identity
from gateway.intake import Intake, Receipt
from gateway.spool import META_AT, Spool, Spooled, find, mapped, read
from record.errors import InvalidInstance, NotFound

REASONS = {
    "mismatched_sop_class_uid": "its data set is of another SOP class than the sender announced",
    "mismatched_sop_instance_uid": "its data set is another instance than the sender announced",
    "damaged": "it has other bytes than were received: the disk, or somebody, changed them",
    "not_spooled": "it is no file of a receiver's",
    "unstorable": "PostgreSQL takes no such value",
    "bad_length": "an element of it is longer than the data set",
}
"""What the commonest reasons mean; of the others the code itself says which identifier is missing or malformed."""
_NAME = re.compile(r"([0-9a-f]{32})\.([a-z_]{1,64})\.dcm")


@dataclass(frozen=True, slots=True)
class Kept:
    """One file that is kept aside. `spooled` is what it says of itself; None where it cannot be read."""

    instance_id: uuid.UUID
    reason: str
    spool_id: str
    path: Path
    size_bytes: int
    kept_at: datetime
    spooled: Spooled | None

    @property
    def why(self) -> str:
        """The reason in words."""
        return REASONS.get(self.reason, self.reason.replace("_", " "))


def kept(root: Path) -> Iterator[Kept]:
    """Everything that the spools below a folder keep aside, the oldest first."""
    found = [(path, spool) for spool in find(root) for path in _listed(spool)]
    for path, spool in sorted(found, key=lambda one: one[0].name):
        named = _NAME.fullmatch(path.name)
        if named is None:
            continue
        with contextlib.suppress(FileNotFoundError):  # an indexer may trim it meanwhile
            told = path.stat()
            yield Kept(
                uuid.UUID(hex=named[1]),
                named[2],
                spool.spool_id,
                path,
                told.st_size,
                datetime.fromtimestamp(told.st_ctime, UTC),
                _spooled(path, named[1]),
            )


def find_kept(root: Path, begins: str) -> Kept:
    """The one whose id begins so.

    Raises
    ------
    NotFound
        None does, or several do.
    """
    wanted = begins.replace("-", "").lower()
    found = [each for each in kept(root) if wanted and each.instance_id.hex.startswith(wanted)]
    if len(found) != 1:
        message = f"{len(found) or 'No'} kept file{'s begin' if len(found) > 1 else ' begins'} with {begins!r:.40}."
        raise NotFound(message)
    return found[0]


def identity_of(one: Kept) -> Identity | None:
    """What the data set itself says that it is; None where that cannot be read."""
    if one.spooled is None:
        return None
    with contextlib.suppress(InvalidInstance), mapped(one.path) as view:
        return read_identity(view, one.spooled.sop.transfer_syntax_uid, one.spooled.data_set_at)
    return None


def release(root: Path, one: Kept) -> Receipt:
    """Take a kept file after all, under the identity that its data set names; it is durable in a spool when this returns.

    Raises
    ------
    InvalidInstance
        It cannot be taken: its bytes are not those that were received, its data set cannot be read, or lacks an identifier.
    StoreFull
        There is no room.
    """
    identity = identity_of(one)
    if one.spooled is None or identity is None or not (identity.sop_class_uid and identity.sop_instance_uid):
        raise InvalidInstance(
            "Its data set says of no class and instance: it can only be sent again.", reason_code=one.reason
        )
    with mapped(one.path) as view:
        if zlib.crc32(view[META_AT:]) != one.spooled.crc:  # taken anew it would pass for whole
            raise InvalidInstance("It has other bytes than were received: have it sent again.", reason_code="damaged")
    sop = replace(one.spooled.sop, sop_class_uid=identity.sop_class_uid, sop_instance_uid=identity.sop_instance_uid)
    spool = Spool.claim(root)
    try:
        with mapped(one.path) as view, Intake(spool).begin(one.spooled.source, sop) as incoming:
            with view[one.spooled.data_set_at :] as data_set:
                incoming.write(data_set)
            receipt = incoming.commit()
    finally:
        spool.release()
    one.path.unlink(missing_ok=True)
    return receipt


def _listed(spool: Spool) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return list(spool.quarantine.iterdir())
    return []


def _spooled(path: Path, key: str) -> Spooled | None:
    with contextlib.suppress(InvalidInstance, OSError), mapped(path) as view:
        return read(path.with_name(f"{key}.dcm"), view)
    return None
