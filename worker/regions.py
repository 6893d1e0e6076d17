"""A part of a whole slide's level, put together from its tiles; and where on a slide there is tissue.

Knows both ways in which tiles are laid out (PS3.3 C.7.6.17.3: in full, row by row; or sparse, each with its position). A tile
that is not there is white, as glass is. Runs in the decoding child. Does not know which part is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from record.errors import InvalidInstance, UnsupportedInstance
from record.states import ReasonCode

MAX_TILES = 4096
"""That are decoded for one picture: more would take minutes."""
MAX_PIXELS = 20_000_000
"""Of a region before it is reduced to a picture's size."""
_GLASS = 255
_LEAST_SATURATION, _MOST_LIGHT = 0.07, 0.92
"""Of tissue: stained things have a colour, and take light away."""

Tiles = Callable[[Sequence[int]], Iterator[NDArray[np.uint8]]]
"""Decodes frames and gives their levels, uint8 (rows, columns) or (rows, columns, 3)."""


def region_of(
    ds: Dataset, rectangle: tuple[int, int, int, int], max_side: int, tiles: Tiles
) -> tuple[NDArray[np.uint8], int]:
    """Return a rectangle (left, top, width, height) of a level as uint8 (H, W, 3), and by how much it is reduced already.

    Raises
    ------
    InvalidInstance
        The rectangle lies outside the level, or the level says no sizes.
    UnsupportedInstance
        It takes too many tiles.
    """
    left, top, width, height = rectangle
    columns, rows = (int(ds.get(f"TotalPixelMatrix{side}") or ds.get(side) or 0) for side in ("Columns", "Rows"))
    if width <= 0 or height <= 0 or left < 0 or top < 0 or left + width > columns or top + height > rows:
        raise InvalidInstance("The slide has no such region.", reason_code=ReasonCode.UNDECODABLE, cause="region")
    tile_width, tile_height = int(ds.Columns), int(ds.Rows)
    wanted = [
        (frame, x, y)
        for frame, x, y in _layout(ds, columns, rows)
        if x < left + width and y < top + height and x + tile_width > left and y + tile_height > top
    ]
    factor = max(1, max(width, height) // max(1, max_side))
    while (width // factor) * (height // factor) > MAX_PIXELS:
        factor += 1
    if len(wanted) > MAX_TILES:
        message = "The slide has no level that is small enough for such a picture."
        raise UnsupportedInstance(message, reason_code=ReasonCode.UNSUPPORTED, cause="tiles")
    canvas = np.full((-(-height // factor), -(-width // factor), 3), _GLASS, np.uint8)  # (H, W, 3)
    for (_, x, y), tile in zip(wanted, tiles([frame for frame, _, _ in wanted]), strict=True):
        _paste(canvas, tile, x - left, y - top, factor)
    return canvas, factor


def tissue_of(picture: NDArray[np.uint8], rows: int, columns: int) -> list[int]:
    """Return how many percent of each cell of a grid over a picture, uint8 (H, W, 3), are tissue; row by row."""
    values = picture.astype(np.float32) / 255  # (H, W, 3)
    light = values.max(axis=2)  # (H, W)
    saturation = (light - values.min(axis=2)) / np.maximum(light, 1e-6)  # (H, W)
    is_grey = float(saturation.max()) < _LEAST_SATURATION
    mask = (light < _MOST_LIGHT) if is_grey else (saturation > _LEAST_SATURATION) & (light < 1.0)  # (H, W)
    height, width = mask.shape
    edges = [np.linspace(0, side, count + 1).astype(int) for side, count in ((height, rows), (width, columns))]
    return [
        round(100 * float(mask[y : max(y + 1, bottom), x : max(x + 1, right)].mean()))
        for y, bottom in zip(edges[0][:-1], edges[0][1:], strict=True)
        for x, right in zip(edges[1][:-1], edges[1][1:], strict=True)
    ]


def _layout(ds: Dataset, columns: int, rows: int) -> list[tuple[int, int, int]]:
    """Frame, left and top (in pixels of the level, from 0) of every tile of the first optical path and focal plane."""
    across, down = -(-columns // int(ds.Columns)), -(-rows // int(ds.Rows))
    frames = int(ds.get("NumberOfFrames") or 1)
    groups = ds.get("PerFrameFunctionalGroupsSequence") or []
    if str(ds.get("DimensionOrganizationType") or "") == "TILED_FULL" or not groups:
        count = min(frames, across * down)
        return [(n, n % across * int(ds.Columns), n // across * int(ds.Rows)) for n in range(count)]
    places: dict[tuple[int, int], int] = {}
    for frame, group in enumerate(groups[:frames]):
        items: Any = group.get("PlanePositionSlideSequence") or []
        if items and "ColumnPositionInTotalImagePixelMatrix" in items[0]:
            x = int(items[0].ColumnPositionInTotalImagePixelMatrix) - 1
            y = int(items[0].RowPositionInTotalImagePixelMatrix) - 1
            places.setdefault((x, y), frame)
    return [(frame, x, y) for (x, y), frame in places.items()]


def _paste(canvas: NDArray[np.uint8], tile: NDArray[np.uint8], x: int, y: int, factor: int) -> None:
    """Lay a tile, whose corner is at (x, y) of the region before it is reduced, on the canvas."""
    colour = tile if tile.ndim == 3 else np.repeat(tile[:, :, None], 3, axis=2)  # (rows, columns, 3)
    cut_x, cut_y = max(0, -x), max(0, -y)
    colour = colour[cut_y:, cut_x:]
    if factor > 1 and min(colour.shape[:2]) >= 1:
        colour = np.asarray(Image.fromarray(np.ascontiguousarray(colour)).reduce(factor))
    left, top = max(0, x) // factor, max(0, y) // factor
    part = canvas[top : top + colour.shape[0], left : left + colour.shape[1]]
    part[:] = colour[: part.shape[0], : part.shape[1]]
