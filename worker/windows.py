"""The windows a protocol can name, each a picture of its own.

Knows what readers of CT look through, in Hounsfield units, and how PET and nuclear medicine are looked at: by uptake,
the hottest darkest. Does not know pixels, nor whether a frame's values are what a window is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Unit = Literal["HU", "SUV", ""]


@dataclass(frozen=True, slots=True)
class NamedWindow:
    """One way of looking.

    Attributes
    ----------
    center, width
        In `unit`; without them, `percentiles` of the frame's own values.
    inverted
        The greatest value is black, whatever the file's photometric interpretation.
    modalities
        Whose values it is meant for; empty: any.
    """

    name: str
    center: float | None = None
    width: float | None = None
    percentiles: tuple[float, float] | None = None
    unit: Unit = ""
    inverted: bool = False
    modalities: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """How the model is told of it."""
        return _WORDS.get(self.name) or f"{self.name.replace('_', ' ')} window"


def _ct(name: str, center: float, width: float) -> NamedWindow:
    return NamedWindow(name, center, width, unit="HU", modalities=("CT",))


WINDOWS: Mapping[str, NamedWindow] = {
    window.name: window
    for window in (
        _ct("soft_tissue", 40.0, 400.0),
        _ct("mediastinum", 50.0, 350.0),
        _ct("lung", -600.0, 1500.0),
        _ct("bone", 400.0, 1800.0),
        _ct("brain", 40.0, 80.0),
        _ct("stroke", 40.0, 40.0),
        _ct("subdural", 75.0, 215.0),
        _ct("liver", 60.0, 160.0),
        _ct("angio", 300.0, 600.0),
        NamedWindow("suv", 3.5, 7.0, unit="SUV", inverted=True, modalities=("PT",)),
        NamedWindow("counts", percentiles=(0.0, 99.5), inverted=True, modalities=("PT", "NM")),
        NamedWindow("full", percentiles=(0.0, 100.0)),
    )
}
"""By name. SUV 0 to 7 is the usual span for FDG; where the factor is not told, counts are shown instead."""
_WORDS = {
    "suv": "standardised uptake values from 0 to 7 with high uptake dark",
    "counts": "counts with high uptake dark",
    "full": "whole range of values",
}
