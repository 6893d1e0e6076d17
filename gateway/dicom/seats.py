"""How many associations each receiving process has, in memory that they share: one limit for all, and who is busier.

Knows numbers. Does not know associations. A process writes its own number alone, so nothing is ever locked; two that take the
last seat at once may be one too many, which does no harm. A process that died leaves its number; its successor begins anew.
"""

from __future__ import annotations

import mmap
import struct

_NUMBER = struct.Struct("<i")


class Seats:
    """The numbers of `processes` processes; made before they are forked, `of` in each of them."""

    def __init__(self, processes: int, most: int, memory: mmap.mmap | None = None, place: int = 0) -> None:
        self._processes, self._most, self._place = processes, most, place
        self._memory = memory or mmap.mmap(-1, max(mmap.PAGESIZE, processes * _NUMBER.size))

    def of(self, place: int) -> Seats:
        """The same numbers for the process at `place`, which begins with none."""
        mine = Seats(self._processes, self._most, self._memory, place)
        mine.clear()
        return mine

    def clear(self) -> None:
        """Nobody sits here."""
        self._write(0)

    def take(self) -> bool:
        """One more here; False when all together have as many as there may be. The caller holds its own lock."""
        if sum(self._all()) >= self._most:
            return False
        self._write(self._read() + 1)
        return True

    def leave(self) -> None:
        """One less."""
        self._write(self._read() - 1)

    def is_busier(self) -> bool:
        """Whether another process has fewer."""
        return self._processes > 1 and self._read() > min(self._all())

    def _all(self) -> list[int]:
        return [_NUMBER.unpack_from(self._memory, at * _NUMBER.size)[0] for at in range(self._processes)]

    def _read(self) -> int:
        return int(_NUMBER.unpack_from(self._memory, self._place * _NUMBER.size)[0])

    def _write(self, number: int) -> None:
        _NUMBER.pack_into(self._memory, self._place * _NUMBER.size, number)
