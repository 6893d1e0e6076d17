"""The seal heads that are kept outside the database: what the chain must still contain, whatever became of the tables.

A line is `position hash`. After a restore from an older backup the chain ends before the last head that was kept; then a
line `restored position` says from where on the earlier heads are void, and stays to be seen. Knows the file. Does not know
what is sealed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ARRAY, BigInteger, bindparam, func, select
from sqlalchemy.orm import Session

from record.audit import GENESIS, head, keep_head
from record.durable import append_line
from record.models import Seal

_RESTORED = "restored"
_POSITION = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class SetBack:
    """The chain was set back to `position`; heads up to `kept` had been kept before."""

    position: int
    kept: int

    @property
    def lost(self) -> int:
        """How many sealed events at least are lost: those that the kept heads covered."""
        return self.kept - self.position


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads that count, by position, and the restores that were noted."""

    kept: Mapping[int, str]
    set_back: tuple[SetBack, ...] = ()


def read(heads_file: Path | None) -> Heads:
    """What the file holds; nothing where there is none."""
    if heads_file is None or not heads_file.exists():
        return Heads({})
    kept: dict[int, str] = {}
    set_back = []
    for line in heads_file.read_text(encoding="ascii", errors="replace").splitlines():
        first, _, rest = line.partition(" ")
        if first == _RESTORED and _POSITION.fullmatch(rest):
            set_back.append(SetBack(int(rest), max(kept, default=int(rest))))
            kept = {position: value for position, value in kept.items() if position <= int(rest)}
        elif _POSITION.fullmatch(first) and len(rest) == len(GENESIS):
            kept[int(first)] = rest
    return Heads(kept, tuple(set_back))


def ahead(session: Session, heads: Heads) -> SetBack | None:
    """From where on the chain is not the one whose heads were kept; None where it holds them all."""
    positions = sorted(heads.kept)
    asked = bindparam("positions", positions, type_=ARRAY(BigInteger))  # one a minute for years: too many for IN
    rows = session.execute(select(Seal.position, Seal.hash).where(Seal.position == func.any(asked)))
    present = {row.position: row.hash for row in rows}
    good = 0
    for position in positions:
        if position not in present:
            return SetBack(max(good, head(session).position), positions[-1])
        if present[position] != heads.kept[position]:
            return SetBack(good, positions[-1])
        good = position
    return None


def note_restore(session: Session, heads_file: Path) -> SetBack | None:
    """Write down, durably, that the chain was set back, where it was; the heads after that are void."""
    found = ahead(session, read(heads_file))
    if found is None:
        return None
    append_line(heads_file, f"{_RESTORED} {found.position}")
    last = head(session)
    if last.position > found.position:
        keep_head(heads_file, last)
    return found
