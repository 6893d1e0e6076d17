"""What selection may ask about files: everything that the header row does not hold.

Knows four questions. Does not know who answers them (the decoding child, in the reading; a table, in tests).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from record.instances import StoredInstance
from worker.looks import Look
from worker.references import Reference
from worker.surveys import Survey


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of a whole slide's level, in its pixels."""

    left: int
    top: int
    width: int
    height: int


class Eyes(Protocol):
    """Whoever looks into files. A file that cannot be read is an empty answer, never an error."""

    def survey(self, instance: StoredInstance) -> Survey:
        """What the header says of each frame."""

    def look(self, frames: Sequence[tuple[StoredInstance, int]], window: str | None) -> list[Look | None]:
        """A glance at each frame, through a named window; None for one that cannot be decoded."""

    def refer(self, instance: StoredInstance) -> Reference | None:
        """What a key object selection or a presentation state names."""

    def tissue(self, instance: StoredInstance, rows: int, columns: int) -> NDArray[np.float64] | None:
        """How much of each cell of a slide's level is tissue: float64 (rows, columns), 0 to 1."""


class HeadersOnly:
    """Eyes that see nothing: what is chosen follows from the header rows alone."""

    def survey(self, instance: StoredInstance) -> Survey:  # noqa: ARG002  the contract's names
        """Nothing."""
        return Survey()

    def look(self, frames: Sequence[tuple[StoredInstance, int]], window: str | None) -> list[Look | None]:  # noqa: ARG002
        """Nothing."""
        return [None] * len(frames)

    def refer(self, instance: StoredInstance) -> Reference | None:  # noqa: ARG002
        """Nothing."""
        return None

    def tissue(self, instance: StoredInstance, rows: int, columns: int) -> NDArray[np.float64] | None:  # noqa: ARG002
        """Nothing."""
        return None
