"""The decoding child's answers to selection, and pictures made of more than one frame.

Knows how surveys, glances, references, tissue, regions of slides and montages are read from files. Does not know the pipe
(`decoding`), nor why they are asked for (`selection`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread

from worker import presentation, references, regions, surveys
from worker.attributes import FrameAttributes
from worker.looks import look, reduced
from worker.opened import Opened, open_instance
from worker.rendering import Rendering, fitted, is_blank, levels_of, named_window, render

_TISSUE_SIDE = 1024
"""Pixels of the picture of a whole slide on which tissue is looked for."""
_MONTAGE_PAPER = 0

Answer = tuple[dict[str, Any], bytes]


def survey_file(request: Mapping[str, Any]) -> Answer:
    """What the header says of each frame."""
    ds = dcmread(Path(request["path"]), stop_before_pixels=True, specific_tags=list(surveys.TAGS))
    return {}, json.dumps(surveys.survey(ds)).encode()


def refer_file(request: Mapping[str, Any]) -> Answer:
    """What a key object selection or presentation state names."""
    ds = dcmread(Path(request["path"]), stop_before_pixels=True)
    return {}, json.dumps(references.refer(ds)).encode()


def look_at_files(request: Mapping[str, Any]) -> Answer:
    """A glance at each of many frames; one that cannot be decoded is null among them."""
    window = named_window(request["window"]) if request.get("window") else None
    told: list[dict[str, float] | None] = []
    thumbs = b""
    for path, index in request["frames"]:
        try:
            opened = open_instance(Path(path), int(index))
            levels, _ = levels_of(
                reduced(opened.frame(int(index))), opened.attributes(int(index)), window, native=opened.is_native
            )
        except Exception:  # noqa: BLE001  # any decoder's complaint is an answer
            told.append(None)
            continue
        seen = look(levels)
        told.append({"content": round(seen.content, 4), "sharpness": round(seen.sharpness, 4)})
        thumbs += seen.thumb.tobytes()
    return {"looks": told}, thumbs


def tissue_of_file(request: Mapping[str, Any]) -> Answer:
    """How many percent of each cell of a slide's level are tissue."""
    opened = open_instance(Path(request["path"]), 0)
    columns, rows = (int(opened.ds.get(f"TotalPixelMatrix{s}") or opened.ds.get(s)) for s in ("Columns", "Rows"))
    picture, _ = regions.region_of(
        opened.ds, (0, 0, columns, rows), _TISSUE_SIDE, lambda frames: _levels(opened, frames)
    )
    parts = regions.tissue_of(picture, int(request["rows"]), int(request["columns"]))
    return {}, json.dumps({"parts": parts}).encode()


def render_region(opened: Opened, rectangle: Sequence[int], max_side: int) -> Rendering:
    """A part of a whole slide's level as one picture."""
    left, top, width, height = (int(v) for v in rectangle)
    picture, factor = regions.region_of(
        opened.ds, (left, top, width, height), max_side, lambda frames: _levels(opened, frames)
    )
    picture, resize = fitted(picture, 1.0, max_side)
    steps = {
        "photometric_interpretation": opened.attributes(0).photometric_interpretation,
        "region": {"left": left, "top": top, "width": width, "height": height},
        "reduced_by": factor,
        "resize": resize,
    }
    return Rendering(picture, steps, is_blank(picture))


def render_montage(request: Mapping[str, Any], first: Rendering, max_side: int, window: Any) -> Rendering:
    """Several frames on one picture, row by row; `first` is the one in the corner."""
    columns = max(1, int(request.get("columns") or 1))
    others = [
        render(
            opened.frame(n), opened.attributes(n), window=window, max_side=max_side // columns, native=opened.is_native
        )
        for opened, n in _opened(request["more"])
    ]
    cells = [Image.fromarray(one.levels).convert("RGB") for one in (first, *others)]
    width, height = max(c.width for c in cells), max(c.height for c in cells)
    sheet = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), (_MONTAGE_PAPER,) * 3)
    for number, cell in enumerate(cells):
        sheet.paste(cell, (number % columns * width, number // columns * height))
    steps = {**first.transform, "montage": {"columns": columns, "cells": len(cells), "height": height, "width": width}}
    return Rendering(np.asarray(sheet), steps, first.blank and all(one.blank for one in others))


def state_of(request: Mapping[str, Any], opened: Opened, index: int) -> presentation.Presentation | None:
    """The presentation state that is asked for, as it applies to a frame."""
    if not request.get("state"):
        return None
    ds = dcmread(Path(request["state"]), stop_before_pixels=True, specific_tags=list(presentation.TAGS))
    shape = int(opened.ds.Rows), int(opened.ds.Columns)
    return presentation.presentation_of(
        ds, str(opened.ds.get("SOPInstanceUID") or ""), index, opened.attributes(index), shape
    )


def _opened(frames: Sequence[Sequence[Any]]) -> Iterator[tuple[Opened, int]]:
    for path, index in frames:
        yield open_instance(Path(path), int(index)), int(index)


def _levels(opened: Opened, frames: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    attributes: FrameAttributes = opened.attributes(0)
    for frame in opened.frames(frames):
        yield levels_of(frame, attributes, None, native=opened.is_native)[0]
