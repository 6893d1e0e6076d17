"""Which associations each receiving process has, in memory that they share: one limit for all, one for each peer, and who is busier.

Knows numbers and marks. Does not know associations. A process writes its own places alone, so nothing is ever locked; two that
take the last seat at once may be one too many, which does no harm. A process that died leaves its places; its successor begins
anew.
"""

from __future__ import annotations

import hashlib
import mmap

MAX_ASSOCIATIONS = 400
_WORD = 8
_ROW = (1 + MAX_ASSOCIATIONS) * _WORD
"""A process's count, then a mark for each seat; 0 is a free one."""


class Full(Exception):
    """No seat is left; `of_peer` says that it is this peer's own limit."""

    def __init__(self, *, of_peer: bool) -> None:
        super().__init__()
        self.of_peer = of_peer


class Seats:
    """The seats of `processes` processes; made before they are forked, `of` in each of them."""

    def __init__(self, processes: int, most: int, memory: mmap.mmap | None = None, place: int = 0) -> None:
        self._processes, self._most, self._place = processes, most, place
        self._memory = memory or mmap.mmap(-1, processes * _ROW)
        self._words = memoryview(self._memory).cast("Q")

    def of(self, place: int) -> Seats:
        """The same seats for the process at `place`, which begins with none taken."""
        mine = Seats(self._processes, self._most, self._memory, place)
        mine.clear()
        return mine

    def clear(self) -> None:
        """Nobody sits here."""
        first = self._row(self._place)
        self._words[first : first + 1 + MAX_ASSOCIATIONS] = memoryview(bytes(_ROW)).cast("Q")

    @property
    def taken(self) -> int:
        """How many are taken, in all processes."""
        return sum(map(self._count, range(self._processes)))

    def take(self, who: str = "", most_of_it: int | None = None) -> int:
        """A seat for `who`; its number gives it back. The caller holds its own lock.

        Raises
        ------
        Full
            All together, or this one in all processes, have as many as they may.
        """
        if self.taken >= self._most:
            raise Full(of_peer=False)
        mark = int.from_bytes(hashlib.blake2b(who.encode(), digest_size=_WORD).digest(), "little") or 1
        if (
            most_of_it is not None
            and sum(self._marks(each).count(mark) for each in range(self._processes)) >= most_of_it
        ):
            raise Full(of_peer=True)
        try:
            seat = self._marks(self._place).index(0)
        except ValueError:
            raise Full(of_peer=False) from None
        first = self._row(self._place)
        self._words[first + 1 + seat] = mark
        self._words[first] += 1
        return seat

    def leave(self, seat: int) -> None:
        """Give a seat back."""
        first = self._row(self._place)
        self._words[first + 1 + seat] = 0
        self._words[first] -= 1

    def is_busier(self) -> bool:
        """Whether another process has fewer."""
        return self._processes > 1 and self._count(self._place) > min(map(self._count, range(self._processes)))

    def _row(self, place: int) -> int:
        return place * (1 + MAX_ASSOCIATIONS)

    def _count(self, place: int) -> int:
        return self._words[self._row(place)]

    def _marks(self, place: int) -> list[int]:
        first = self._row(place) + 1
        return self._words[first : first + MAX_ASSOCIATIONS].tolist()
