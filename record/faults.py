"""What a check of the record finds, one thing at a time, and how a check outlives what it finds.

Does not know what is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from record.errors import CountersignError

_UNREADABLE = (OSError, CountersignError, KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""What is raised over a row or a file that holds something else than was ever written. An absent PostgreSQL is none."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it was written; `expected` where a restore explains it."""

    what: str
    where: str
    expected: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(slots=True)
class Walked:
    """How much a check has looked at: whoever reads that nothing is wrong learns what was there to be wrong."""

    position: int = 0
    """Of the last sealed event; 0 where the seals were not checked."""
    reports: int = 0
    signatures: int = 0
    instances: int = 0


def guarded(where: str, look: Callable[[], Iterable[Fault]]) -> Iterator[Fault]:
    """The faults of one row or file; that it cannot be read is one as well, and the next one has its turn."""
    try:
        yield from look()
    except _UNREADABLE as error:
        why = (error.strerror if isinstance(error, OSError) else "") or type(error).__name__
        yield Fault(f"it cannot be read: {why}", where)
