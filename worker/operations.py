"""What the decoding child can be asked: each operation takes a request and gives a header and bytes.

Knows the requests' fields. Does not know the pipe or the limits of the process (`decoding`), nor how a file is opened
(`opened`) or a picture computed (`rendering`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from worker import png, sights
from worker.attributes import FrameAttributes, Window
from worker.codecs import LOSSY
from worker.opened import open_instance
from worker.rendering import LARGEST_SIDE, Span, named_window, render, show
from worker.tables import Lut
from worker.windows import NamedWindow

Answer = tuple[dict[str, Any], bytes]


def render_file(request: Mapping[str, Any]) -> Answer:
    """Decode and render for the model: the header of the answer and the PNG.

    One frame, a region of a whole slide's level, or several frames on a montage.
    """
    index = int(request.get("frame", 0))
    opened = open_instance(Path(request["path"]), index)
    max_side = int(request.get("max_side") or LARGEST_SIDE)
    if request.get("region"):
        rendering = sights.render_region(opened, request["region"], max_side)
        digest = hashlib.sha256(np.ascontiguousarray(rendering.levels).data).hexdigest()
    else:
        frame, window, columns = opened.frame(index), _window(request.get("window")), int(request.get("columns") or 1)
        plain = np.ascontiguousarray(frame, frame.dtype.newbyteorder("<"))  # (rows, columns) or (rows, columns, 3)
        digest = hashlib.sha256(plain.data).hexdigest()
        rendering = render(
            frame,
            opened.attributes(index),
            window=window,
            max_side=max_side // max(1, columns),
            native=opened.is_native,
            state=sights.state_of(request, opened, index),
        )
        if request.get("more"):
            rendering = sights.render_montage(request, rendering, max_side, window)
    height, width = rendering.levels.shape[:2]
    header = {
        "height": height,
        "width": width,
        "blank": rendering.blank,
        "pixel_digest": digest,
        "transform": {"transfer_syntax_uid": opened.syntax, "frame": index, **rendering.transform},
    }
    return header, png.encode(rendering.levels)


def show_file(request: Mapping[str, Any]) -> Answer:
    """Decode and render one frame of a file for a person: the header of the answer and the PNG.

    A view that does not fit the frame is an answer too: `refused` says why, and there is no PNG.
    """
    index = int(request.get("frame", 0))
    opened = open_instance(Path(request["path"]), index)
    attributes = opened.attributes(index)
    asked = request.get("view") or {}
    refused = _misfit(asked, attributes) or ("colour" if request.get("invert") and not attributes.is_grey else None)
    if refused:
        return {"refused": refused}, b""
    rendering = show(
        opened.frame(index),
        attributes,
        view=_view(asked, attributes),
        max_side=request.get("max_side"),
        invert=bool(request.get("invert")),
        native=opened.is_native,
    )
    height, width = rendering.levels.shape[:2]
    return {"height": height, "width": width}, png.encode(rendering.levels)


def describe_file(request: Mapping[str, Any]) -> Answer:
    """What can be asked of one frame, and what a person should know of it; no pixel is decoded."""
    index = int(request.get("frame", 0))
    opened = open_instance(Path(request["path"]), index)
    attributes = opened.attributes(index)
    stated = str(opened.ds.get("LossyImageCompression") or "").strip()
    sent = [
        {
            "explanation": explanation,
            "center": view.center if isinstance(view, Window) else None,
            "width": view.width if isinstance(view, Window) else None,
        }
        for view, explanation in zip(attributes.sent, attributes.explanations, strict=True)
    ]
    header = {
        "grey": attributes.is_grey,
        "hounsfield": attributes.hounsfield,
        "sent": sent if attributes.is_grey else [],
        "lossy": stated == "01" or (opened.syntax in LOSSY and stated != "00"),
    }
    return header, b""


def _misfit(asked: Mapping[str, Any], attributes: FrameAttributes) -> str | None:
    """Why a view does not fit a frame."""
    kind = asked.get("kind")
    if kind == "window" and not attributes.is_grey:
        return "colour"
    if kind == "window" and asked.get("hounsfield") and not attributes.hounsfield:
        return "not_hounsfield"
    if kind == "sent" and not 1 <= int(asked["number"]) <= max(1, len(attributes.sent)):
        return "not_sent"
    return None


def _view(asked: Mapping[str, Any], attributes: FrameAttributes) -> Window | Lut | Span | None:
    kind = asked.get("kind")
    if kind == "span":
        return Span(float(asked["low"]), float(asked["high"]))
    if kind == "window":
        center, width = float(asked["center"]), float(asked["width"])
        # LINEAR needs a width of 1 or more (PS3.3 C.11.2.1.2.1)
        return Window(center, width, "LINEAR" if width >= 1 else "LINEAR_EXACT", source="request")
    if kind == "sent" and attributes.sent:
        return attributes.sent[int(asked["number"]) - 1]
    return None


def _window(asked: Any) -> Window | NamedWindow | None:
    if asked is None:
        return None
    if isinstance(asked, str):
        return named_window(asked)
    first, second = asked
    if isinstance(first, str):  # a span of values from 0, on which a whole series is shown
        top = float(second)
        return replace(named_window(first), center=top / 2, width=top, percentiles=None)
    return Window(float(first), max(float(second), 1.0), source="request")


OPERATIONS: Mapping[str, Callable[[Mapping[str, Any]], Answer]] = {
    "render": render_file,
    "show": show_file,
    "describe": describe_file,
    "survey": sights.survey_file,
    "refer": sights.refer_file,
    "look": sights.look_at_files,
    "tissue": sights.tissue_of_file,
}
