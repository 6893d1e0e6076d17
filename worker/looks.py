"""A glance at a frame: how much there is on it, how sharp it is, and what it looks like from afar.

Knows small arithmetic on grey levels that were reduced first, cheap enough for every slice of a series. Runs in the decoding
child. Does not know which frame is chosen (`worker.selection`), nor anatomy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GLANCE_SIDE = 128
"""Pixels of the longer side at which a frame is looked at."""
THUMB_SIDE = 16
"""Pixels of both sides of what frames are compared by."""
_BACKGROUND = 16
"""Grey levels: what is darker (or, on an inverted picture, lighter) than this is air, film or nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What a glance gives.

    Attributes
    ----------
    content
        Bits of information in the grey levels, times the root of the part that is not background: 0 for an empty frame.
    sharpness
        Mean absolute Laplacian, in grey levels.
    thumb
        Grey levels, uint8 (16, 16).
    """

    content: float
    sharpness: float
    thumb: NDArray[np.uint8]

    @classmethod
    def of(cls, plain: Mapping[str, Any], thumb: bytes) -> Look:
        """Back from what crossed the pipe."""
        levels = np.frombuffer(thumb, np.uint8).reshape(THUMB_SIDE, THUMB_SIDE)
        return cls(float(plain["content"]), float(plain["sharpness"]), levels)


def look(levels: NDArray[np.uint8]) -> Look:
    """Glance at grey levels or colours, uint8 (H, W) or (H, W, 3), reduced already."""
    grey = levels.mean(axis=2) if levels.ndim == 3 else levels.astype(np.float64)  # (H, W)
    counts = np.bincount(np.minimum(grey.astype(np.int64).ravel() >> 3, 31), minlength=32)  # (32,)
    parts = counts[counts > 0] / counts.sum()  # (N,)
    entropy = float(-(parts * np.log2(parts)).sum())
    foreground = float(min(np.mean(grey > _BACKGROUND), np.mean(grey < 255 - _BACKGROUND)))
    inner = grey[1:-1, 1:-1]  # (H - 2, W - 2)
    laplacian = 4 * inner - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:] if inner.size else inner
    sharpness = float(np.abs(laplacian).mean()) if inner.size else 0.0
    return Look(entropy * foreground**0.5, sharpness, _shrunk(grey))


def reduced(frame: NDArray[Any]) -> NDArray[Any]:
    """Return a frame's stored values, (H, W) or (H, W, 3), as block means, the longer side near `GLANCE_SIDE`.

    Means of stored values are right wherever the modality transform is linear; for a glance they do everywhere.
    """
    factor = max(1, max(frame.shape[:2]) // GLANCE_SIDE)
    if factor == 1:
        return frame
    height, width = (side // factor for side in frame.shape[:2])
    if not height or not width:  # a strip
        return frame
    blocks = frame[: height * factor, : width * factor]
    rest = frame.shape[2:]
    means: NDArray[Any] = blocks.reshape(height, factor, width, factor, *rest).mean(axis=(1, 3))  # (height, width[, 3])
    return np.rint(means).astype(frame.dtype) if frame.dtype.kind in "iu" else means


def _shrunk(grey: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Grey levels at 16 × 16: means where there are enough pixels, else the nearest."""
    rows, columns = (np.linspace(0, side, THUMB_SIDE + 1).astype(int) for side in grey.shape)
    if min(grey.shape) < THUMB_SIDE:
        picked = (np.minimum(edge[:-1], side - 1) for edge, side in zip((rows, columns), grey.shape, strict=True))
        return grey[np.ix_(*picked)].astype(np.uint8)
    sums = np.add.reduceat(np.add.reduceat(grey, rows[:-1], axis=0), columns[:-1], axis=1)  # (16, 16)
    thumb: NDArray[np.uint8] = (sums / np.outer(np.diff(rows), np.diff(columns))).astype(np.uint8)
    return thumb
