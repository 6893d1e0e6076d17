"""The eyes of a reading: questions about stored files, put to the warm decoding child.

Knows the child's operations and the store. Does not know why something is asked. A file that cannot be read is an empty
answer: whether that ends the reading is decided where pictures are made.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from record.errors import InvalidInstance, UnsupportedInstance
from record.instances import StoredInstance
from record.pipes import DecodingChild, Rendered
from record.store import Kind, Store
from worker.looks import THUMB_SIDE, Look
from worker.references import Reference
from worker.selection import Chosen
from worker.surveys import Survey

_TOGETHER = 16
"""Frames that are looked at by one question: a frame that ends the child takes no more with it."""


class ChildEyes:
    """`worker.selection.Eyes` over a store and a decoding child.

    Parameters
    ----------
    halt
        Called before every question; raises where nobody wants the answer any more.
    """

    def __init__(
        self, store: Store, child: DecodingChild, timeout_s: float, halt: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self._child = child
        self._timeout_s = timeout_s
        self._halt = halt
        self._surveys: dict[str, Survey] = {}

    def survey(self, instance: StoredInstance) -> Survey:
        """What the header says of each frame."""
        if instance.instance_id not in self._surveys:
            told = self._told({"op": "survey"}, instance)
            self._surveys[instance.instance_id] = Survey.of(told) if told else Survey()
        return self._surveys[instance.instance_id]

    def look(self, frames: Sequence[tuple[StoredInstance, int]], window: str | None) -> list[Look | None]:
        """A glance at each frame."""
        looks: list[Look | None] = []
        for first in range(0, len(frames), _TOGETHER):
            part = frames[first : first + _TOGETHER]
            try:
                looks += self._look(part, window)
            except (InvalidInstance, UnsupportedInstance):  # one of them ended the child
                for frame in part:
                    try:
                        looks += self._look([frame], window)
                    except (InvalidInstance, UnsupportedInstance):
                        looks.append(None)
        return looks

    def refer(self, instance: StoredInstance) -> Reference | None:
        """What a key object selection or a presentation state names."""
        told = self._told({"op": "refer"}, instance)
        return Reference.of(told) if told else None

    def tissue(self, instance: StoredInstance, rows: int, columns: int) -> NDArray[np.float64] | None:
        """How much of each cell of a slide's level is tissue."""
        told = self._told({"op": "tissue", "rows": rows, "columns": columns}, instance)
        return np.array(told["parts"], float).reshape(rows, columns) / 100 if told else None  # (rows, columns)

    def render(self, chosen: Chosen, max_side: int) -> Rendered:
        """Make the picture.

        Raises
        ------
        InvalidInstance, UnsupportedInstance
            It cannot be made; the fact `instance_id` says of which file.
        """
        self._halt()
        with contextlib.ExitStack() as held:
            more = [(self._path(held, other), frame) for other, frame in chosen.more]
            try:
                return self._child.render(
                    self._path(held, chosen.instance),
                    frame=chosen.frame,
                    window=chosen.window if chosen.top is None else [chosen.window or "counts", chosen.top],
                    max_side=max_side,
                    timeout_s=self._timeout_s,
                    more=more,
                    columns=chosen.columns,
                    region=_rectangle(chosen),
                    state=self._path(held, chosen.state) if chosen.state else None,
                )
            except (InvalidInstance, UnsupportedInstance) as error:
                error.facts.setdefault("instance_id", self._to_blame(chosen))
                raise

    def _to_blame(self, chosen: Chosen) -> str:
        """Our id of the instance that cannot be shown: of a montage, the first that cannot be alone."""
        parts = [(chosen.instance, chosen.frame), *chosen.more]
        for instance, frame in parts if chosen.more else ():
            with contextlib.ExitStack() as held:
                try:
                    self._child.render(self._path(held, instance), frame=frame, max_side=64, timeout_s=self._timeout_s)
                except (InvalidInstance, UnsupportedInstance):
                    return instance.instance_id
        return chosen.instance.instance_id

    def _look(self, frames: Sequence[tuple[StoredInstance, int]], window: str | None) -> list[Look | None]:
        self._halt()
        with contextlib.ExitStack() as held:
            asked = [[str(self._path(held, instance)), frame] for instance, frame in frames]
            header, thumbs = self._child.call({"op": "look", "frames": asked, "window": window}, self._timeout_s)
        size = THUMB_SIDE * THUMB_SIDE
        parts = [thumbs[n : n + size] for n in range(0, len(thumbs), size)]
        return [Look.of(p, parts.pop(0)) if p else None for p in header["looks"]]

    def _told(self, question: dict[str, Any], instance: StoredInstance) -> dict[str, Any] | None:
        self._halt()
        with contextlib.ExitStack() as held:
            asked = {**question, "path": str(self._path(held, instance))}
            try:
                _, payload = self._child.call(asked, self._timeout_s)
            except (InvalidInstance, UnsupportedInstance):
                return None
        told = json.loads(payload)
        return told if isinstance(told, dict) else None

    def _path(self, held: contextlib.ExitStack, instance: StoredInstance) -> Any:
        return held.enter_context(self._store.local(Kind.INSTANCE, instance.instance_id))


def _rectangle(chosen: Chosen) -> list[int] | None:
    region = chosen.region
    return [region.left, region.top, region.width, region.height] if region else None
