"""Turns a drawing into 12-bit stored values with a window, and such values into the picture the worker sends.

The second half is the linear window of PS3.3 C.11.2.1.2.1, so that the model trains on what a worker will show it.
Does not know data sets or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.phantom.anatomy import Brightness, Phantom, draw

BITS_STORED = 12
LARGEST = 2**BITS_STORED - 1


@dataclass(frozen=True, slots=True)
class Exposure:
    """Stored values and the window that shows them.

    Attributes
    ----------
    stored
        uint16, shape (rows, columns), 0 to `LARGEST`.
    centre, width
        As Window Center and Window Width, in stored values.
    inverted
        Low values are bright (MONOCHROME1).
    """

    stored: NDArray[np.uint16]
    centre: int
    width: int
    inverted: bool = False


def expose(brightness: Brightness, rng: np.random.Generator, *, inverted: bool = False) -> Exposure:
    """Store a drawing in 12 bits, at a level and contrast that vary as detectors do.

    Parameters
    ----------
    brightness
        Shape (rows, columns); 0 to 255 fills the window, the rest lies outside it.
    """
    level, span = int(rng.integers(300, 900)), int(rng.integers(1800, 2800))
    stored = np.clip(np.rint(level + brightness / 255 * span), 0, LARGEST).astype(np.uint16)  # (rows, columns)
    centre, width = level + (span + 1) // 2, span + 1
    if inverted:
        stored, centre = (LARGEST - stored).astype(np.uint16), LARGEST + 1 - centre
    return Exposure(stored, centre, width, inverted)


def exposed(phantom: Phantom, *, view: int = 0, inverted: bool = False) -> Exposure:
    """Return one view of a phantom as its detector stores it."""
    rng = np.random.default_rng([phantom.seed, 2, view])
    return expose(draw(phantom, view=view), rng, inverted=inverted)


def displayed(exposure: Exposure) -> NDArray[np.uint8]:
    """Return the picture of an exposure: windowed, bright where dense, uint8 of shape (rows, columns, 3)."""
    stored = exposure.stored.astype(np.float64)
    grey = (stored - (exposure.centre - 0.5)) / (exposure.width - 1) + 0.5  # (rows, columns), 0 to 1
    grey = np.clip(grey, 0, 1)
    if exposure.inverted:
        grey = 1 - grey
    grey8 = np.rint(grey * 255).astype(np.uint8)  # (rows, columns)
    return np.repeat(grey8[:, :, None], 3, axis=2)  # (rows, columns, 3)
