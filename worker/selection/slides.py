"""A whole slide: one overview of the tissue, and details at the protocol's magnification where there is most of it.

Knows pyramids (PS3.3 C.8.12.4): levels, their spacing, what 10× means (about 1 µm a pixel). Does not know how a region is
put together from tiles (`worker.regions`), nor stains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from record.instances import StoredInstance
from worker.protocols.pictures import Tiles
from worker.selection.chosen import Chosen
from worker.selection.eyes import Eyes, Region
from worker.surveys import SlideLevel

MM_AT_1X = 0.01
"""Size of a pixel, in mm, that is called 1×: 10 µm."""
_LEAST_OVERVIEW = 64
_MAX_CELLS = 64
"""Cells along the longer side of the grid on which tissue is looked for."""


@dataclass(frozen=True, slots=True)
class Slide:
    """The levels of one slide, the coarsest first, with what is told of each."""

    levels: tuple[tuple[StoredInstance, SlideLevel], ...]

    @property
    def members(self) -> tuple[StoredInstance, ...]:
        """Every instance of the slide."""
        return tuple(instance for instance, _ in self.levels)


def slides_of(instances: Sequence[StoredInstance], eyes: Eyes) -> list[Slide]:
    """Group whole slide images by series: the levels of one pyramid share it, or their frame of reference."""
    series: dict[str, list[tuple[StoredInstance, SlideLevel]]] = {}
    for instance in instances:
        level = eyes.survey(instance).level or _from_header(instance)
        series.setdefault(instance.header.series_instance_uid, []).append((instance, level))
    return [Slide(tuple(sorted(found, key=lambda one: one[1].columns * one[1].rows))) for found in series.values()]


def choose_regions(slide: Slide, tiles: Tiles, count: int, max_side: int, eyes: Eyes) -> list[Chosen]:
    """Return an overview and up to `count` - 1 details, those with most tissue first but not beside each other."""
    overview = _overview(slide, max_side)
    instance, level = overview
    chosen = [
        Chosen(
            instance=instance,
            frame=0,
            window=None,
            caption=f"whole slide, overview{_times(level.spacing_mm, level.columns, max_side)}",
            reason="overview of the slide",
            region=Region(0, 0, level.columns, level.rows),
        )
    ]
    detail = _nearest_level(slide, MM_AT_1X / tiles.magnification)
    if detail is None or count < 2:
        return chosen
    where, finer = detail
    scale = (MM_AT_1X / tiles.magnification) / finer.spacing_mm if finer.spacing_mm else 1.0
    side = max(1, min(round(tiles.side * scale), finer.columns, finer.rows))
    if finer.columns <= side * 1.5 and finer.rows <= side * 1.5:
        return chosen  # the overview shows as much
    columns, rows = (max(1, min(_MAX_CELLS, length // side)) for length in (finer.columns, finer.rows))
    tissue = eyes.tissue(instance, rows, columns)
    for row, column, part in _spread(tissue, count - 1, tiles.min_tissue):
        left = min(int((column + 0.5) * finer.columns / columns - side / 2), finer.columns - side)
        top = min(int((row + 0.5) * finer.rows / rows - side / 2), finer.rows - side)
        region = Region(max(0, left), max(0, top), side, side)
        percent = round(100 * part)
        chosen.append(
            Chosen(
                instance=where,
                frame=0,
                window=None,
                caption=(
                    f"{_magnification(finer.spacing_mm, side, tiles.side)}, "
                    f"{round(100 * (column + 0.5) / columns)} % from the left and "
                    f"{round(100 * (row + 0.5) / rows)} % from the top of the slide"
                ),
                reason=f"a part of the slide of which {percent} % is tissue, apart from the others",
                region=region,
            )
        )
    return chosen


def _overview(slide: Slide, max_side: int) -> tuple[StoredInstance, SlideLevel]:
    """The smallest level that fills the picture; the largest there is where none does. A thumbnail is one too."""
    filling = [one for one in slide.levels if max(one[1].columns, one[1].rows) >= min(max_side, _LEAST_OVERVIEW * 8)]
    return filling[0] if filling else slide.levels[-1]


def _nearest_level(slide: Slide, spacing_mm: float) -> tuple[StoredInstance, SlideLevel] | None:
    """The coarsest level that is at least as fine as asked for, else the finest."""
    volume = [one for one in slide.levels if one[1].flavor != "THUMBNAIL"]
    fine = [one for one in volume if (one[1].spacing_mm or 0.0) <= spacing_mm * 1.05 and one[1].spacing_mm]
    return (fine[0] if fine else volume[-1]) if volume else None


def _spread(tissue: NDArray[np.float64] | None, count: int, least: float) -> list[tuple[int, int, float]]:
    """Cells (row, column, tissue): the fullest first, then whatever is full enough and farthest from those before."""
    if tissue is None:
        return []
    cells = [(int(r), int(c)) for r, c in zip(*np.nonzero(tissue >= least), strict=True)]
    if not cells:
        best = np.unravel_index(int(tissue.argmax()), tissue.shape)
        cells = [(int(best[0]), int(best[1]))] if tissue.max() > 0 else []
    chosen: list[tuple[int, int]] = []
    while cells and len(chosen) < count:
        if chosen:
            away = [min((r - i) ** 2 + (c - j) ** 2 for i, j in chosen) ** 0.5 * float(tissue[r, c]) for r, c in cells]
        else:
            away = [float(tissue[r, c]) for r, c in cells]
        chosen.append(cells.pop(int(np.argmax(away))))
    return [(r, c, float(tissue[r, c])) for r, c in chosen]


def _magnification(spacing_mm: float | None, side: int, shown: int) -> str:
    return f"detail at about {MM_AT_1X / (spacing_mm * side / min(side, shown)):.3g}×" if spacing_mm else "detail"


def _times(spacing_mm: float | None, columns: int, max_side: int) -> str:
    if not spacing_mm:
        return ""
    return f" at about {MM_AT_1X / (spacing_mm * max(1.0, columns / max_side)):.2g}×"


def _from_header(instance: StoredInstance) -> SlideLevel:
    header = instance.header
    return SlideLevel(header.columns, header.rows, header.columns, header.rows, None, "VOLUME")
