"""What selection hands on: the pictures to be made, and what is left out, each with its reason.

Knows shapes alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from record.instances import StoredInstance
from worker.selection.eyes import Region


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """One picture to be made.

    Attributes
    ----------
    frame
        Counted from 0.
    window
        A named window, or None for the file's own.
    caption
        What the model is told the picture is: codes and counts, never free text of the header.
    edges
        Where the picture's left, right, top and bottom edge face in the patient (L, R, A, P, H, F), or empty.
    more
        The frames that follow the first one on a montage.
    region
        The part of a whole slide's level that is shown.
    state
        The presentation state that is applied.
    top
        The count that is shown black, where counts of a series are shown on one scale.
    """

    instance: StoredInstance
    frame: int
    window: str | None
    caption: str
    reason: str
    edges: tuple[str, ...] = ()
    more: tuple[tuple[StoredInstance, int], ...] = ()
    columns: int = 1
    region: Region | None = None
    state: StoredInstance | None = None
    top: float | None = None


@dataclass(frozen=True, slots=True)
class Omitted:
    """An instance of which the model is shown nothing."""

    instance_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Every instance of the revision stands in exactly one of the first two.

    Attributes
    ----------
    missing
        Roles of the protocol that nothing in the study plays.
    """

    chosen: tuple[Chosen, ...]
    omitted: tuple[Omitted, ...]
    missing: tuple[str, ...] = ()
