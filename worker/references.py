"""Which frames a key object selection or a presentation state is about.

Knows Key Object Selection documents (PS3.3 C.17.6.2; titles of CID 7010) and the references of softcopy presentation states
(C.11.11). `refer` runs in the decoding child; `Reference` is its answer, on this side of the pipe. Does not know what
follows from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
PRESENTATION_STATES = tuple(f"1.2.840.10008.5.1.4.1.1.11.{n}" for n in (1, 2, 3))
"""Greyscale, colour and pseudo-colour softcopy presentation state."""
POINTING_TITLES = frozenset(
    {"113000", "113002", "113003", "113004", "113005", "113006", "113007", "113008", "113009", "113013"}
)
"""Titles that point at what matters (of interest, for a physician, best in set …): not rejections, quality issues or manifests."""
MAX_REFERENCES = 10_000


@dataclass(frozen=True, slots=True)
class Reference:
    """One document: its title's code (of a key object selection), when it was made, and what it names.

    `frames` are pairs of a SOP Instance UID and the frames (counted from 0) that are meant; none means all.
    """

    title: str
    made: str
    frames: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Reference:
        """Back from what crossed the pipe."""
        frames = tuple((str(uid), tuple(map(int, numbers))) for uid, numbers in plain["frames"])
        return cls(str(plain["title"]), str(plain["made"]), frames)


def refer(ds: Dataset) -> dict[str, Any]:
    """Say what a document names, as plain values."""
    title = str((ds.get("ConceptNameCodeSequence") or [Dataset()])[0].get("CodeValue") or "")
    made = str(ds.get("PresentationCreationDate") or ds.get("ContentDate") or "")
    made += str(ds.get("PresentationCreationTime") or ds.get("ContentTime") or "")
    items = _named(ds) if ds.get("SOPClassUID") == KEY_OBJECTS else _presented(ds)
    frames = [[uid, numbers] for uid, numbers in (pair for _, pair in zip(range(MAX_REFERENCES), items, strict=False))]
    return {"title": title[:16], "made": made[:32], "frames": frames}


def _named(ds: Dataset) -> Iterator[tuple[str, list[int]]]:
    """The images of a content tree, whatever its depth (a key object selection has one level: PS3.3 A.35.4)."""
    waiting = [ds]
    while waiting:
        for item in waiting.pop().get("ContentSequence") or []:
            if item.get("ValueType") == "IMAGE":
                for reference in item.get("ReferencedSOPSequence") or []:
                    yield _pair(reference)
            if "ContentSequence" in item:
                waiting.append(item)


def _presented(ds: Dataset) -> Iterator[tuple[str, list[int]]]:
    for series in ds.get("ReferencedSeriesSequence") or []:
        for reference in series.get("ReferencedImageSequence") or []:
            yield _pair(reference)


def _pair(reference: Dataset) -> tuple[str, list[int]]:
    told = reference.get("ReferencedFrameNumber")
    numbers = [told] if isinstance(told, int | str) else list(told or ())
    return str(reference.get("ReferencedSOPInstanceUID") or ""), [int(n) - 1 for n in numbers if int(n) > 0]
