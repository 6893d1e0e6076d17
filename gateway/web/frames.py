"""The images of a study as people look at them: which there are, in reading order, and how one frame is to be shown.

Knows rows, views and addresses of frames. Does not know pixels (`decoders`), nor who may look: the doors ask.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

from sqlalchemy import Select, and_, func, select
from sqlalchemy.orm import Session

from record.errors import InvalidInstance, InvalidRequest, NotFound
from record.models import Instance, Reading, ReadingPicture, Series, Study
from record.models.studies import KEEPS_A_FILE
from record.states import InstanceKind, Purpose, ReasonCode

THUMBNAIL = 256
"""Pixels of a thumbnail's longer side."""
MAX_FRAMES = 100_000
"""Frames of one image that can be asked for: a header may claim two billion, and a page counts them."""


class Preset(StrEnum):
    """How grey values become grey levels. Those named after a part of the body need Hounsfield units (CT)."""

    AS_SENT = "as-sent"
    AS_SENT_2 = "as-sent-2"
    AS_SENT_3 = "as-sent-3"
    AS_SENT_4 = "as-sent-4"
    AS_SENT_5 = "as-sent-5"
    AS_SENT_6 = "as-sent-6"
    AUTO = "auto"
    FULL = "full"
    LUNG = "lung"
    MEDIASTINUM = "mediastinum"
    BONE = "bone"
    BRAIN = "brain"
    SUBDURAL = "subdural"
    ABDOMEN = "abdomen"
    LIVER = "liver"
    STROKE = "stroke"
    ANGIOGRAPHY = "angiography"
    TEMPORAL_BONE = "temporal-bone"


SENT = tuple(preset for preset in Preset if preset.startswith("as-sent"))
"""The views that the file itself brings, in its order."""
WINDOWS: Mapping[Preset, tuple[float, float]] = {
    Preset.LUNG: (-600.0, 1500.0),
    Preset.MEDIASTINUM: (40.0, 350.0),
    Preset.BONE: (400.0, 1800.0),
    Preset.BRAIN: (40.0, 80.0),
    Preset.SUBDURAL: (75.0, 215.0),
    Preset.ABDOMEN: (40.0, 400.0),
    Preset.LIVER: (60.0, 160.0),
    Preset.STROKE: (35.0, 30.0),
    Preset.ANGIOGRAPHY: (300.0, 600.0),
    Preset.TEMPORAL_BONE: (600.0, 2800.0),
}
"""Centre and width in Hounsfield units, as they are in common use."""
_SPANS: Mapping[Preset, tuple[float, float]] = {Preset.AUTO: (0.5, 99.5), Preset.FULL: (0.0, 100.0)}
"""From one percentile of the frame's values, padding left out, to another."""
REFUSALS: Mapping[str, str] = {
    "not_hounsfield": "This preset is a window in Hounsfield units; the values of this frame are none. Take as-sent or auto.",
    "not_sent": "The file does not bring so many windows of its own. Take as-sent.",
    "colour": "A frame in colour has no window and is not inverted.",
}
"""Why a view does not fit a frame, by the decoder's code."""


@dataclass(frozen=True, slots=True)
class View:
    """How one frame is to be rendered; `window` is centre and width in modality values, `size` pixels of the longer side."""

    preset: Preset | None = None
    window: tuple[float, float] | None = None
    invert: bool = False
    size: int | None = None

    def request(self) -> dict[str, Any]:
        """As the decoder is asked."""
        return {"view": self._kind(), "invert": self.invert, "max_side": self.size}

    def query(self) -> dict[str, str]:
        """As it stands in an address; what is usual is left out."""
        said = {
            "preset": str(self.preset) if self.preset and not self.window else None,
            "window": ",".join(map(decimal, self.window)) if self.window else None,
            "invert": "true" if self.invert else None,
            "size": str(self.size) if self.size else None,
        }
        return {name: value for name, value in said.items() if value}

    def _kind(self) -> dict[str, Any]:
        if self.window:
            return {"kind": "window", "center": self.window[0], "width": self.window[1]}
        preset = self.preset or Preset.AS_SENT
        if preset in _SPANS:
            return {"kind": "span", "low": _SPANS[preset][0], "high": _SPANS[preset][1]}
        if preset in WINDOWS:
            center, width = WINDOWS[preset]
            return {"kind": "window", "center": center, "width": width, "hounsfield": True}
        return {"kind": "sent", "number": SENT.index(preset) + 1}


CLIPS = frozenset({"US", "IVUS", "XA", "RF", "ES", "GM", "OP"})
"""Modalities whose frames follow one another in time: they are looked at from the first."""


@dataclass(frozen=True, slots=True)
class ImageShown:
    """One image of a study. `place` of `of` in its series, in reading order; `flags` are codes (`flags_of`)."""

    instance_id: uuid.UUID
    sop_instance_uid: str
    series_id: uuid.UUID
    series_instance_uid: str
    series_number: int | None
    series_description: str
    modality: str
    instance_number: int | None
    frames: int
    rows: int
    columns: int
    flags: tuple[str, ...]
    place: int
    of: int
    of_frames: int

    @property
    def opening_frame(self) -> int:
        """The frame it is opened at: a clip begins at its first, of a stack the middle says most."""
        return 1 if self.modality in CLIPS else self.frames // 2 + 1

    @property
    def label(self) -> str:
        """Where it stands in its series."""
        return f"{self.place}/{self.of}" if self.of > 1 else str(self.place)


def images_of(
    session: Session,
    study: Study,
    *,
    identified: bool = False,
    series_id: uuid.UUID | None = None,
    per_series: int | None = None,
    start: int = 0,
    limit: int | None = None,
) -> list[ImageShown]:
    """Every image of a study in reading order: by series number, then instance number. One query, however many there are.

    Copies, erased images and sides that a person decided to leave out are none of them.

    Parameters
    ----------
    identified
        With the series' description: free text, which may name whom it shows.
    series_id
        Of this series alone.
    per_series
        So many of each series at most, spread evenly; with 1 the middle one.
    start, limit
        A part of the list.
    """
    numbered = _numbered(study, series_id)
    asked = select(numbered).order_by(numbered.c.series_number.nulls_last(), numbered.c.series_id, numbered.c.place)
    if per_series is not None:
        asked = asked.where(
            func.ceil((2.0 * per_series * numbered.c.place / numbered.c.of - 1) / 2)
            > func.ceil((2.0 * per_series * (numbered.c.place - 1) / numbered.c.of - 1) / 2)
        )
    return [_shown(row, identified=identified) for row in session.execute(asked.offset(start).limit(limit))]


def series_of(session: Session, study: Study, *, identified: bool = False) -> list[ImageShown]:
    """The middle image of each series, which tells how many images (`of`) and frames (`of_frames`) the series has."""
    return images_of(session, study, identified=identified, per_series=1)


def find(session: Session, study: Study, instance_id: uuid.UUID, frame: int = 1) -> Instance:
    """The image of a study whose frame is asked for; for a copy, the image that came first.

    Raises
    ------
    NotFound
        The study has no such instance, its pixels are erased, or it has no frame of that number.
    InvalidInstance
        It is no image.
    """
    row = session.get(Instance, instance_id, populate_existing=True)
    if row is not None and row.duplicate_of_id is not None:
        row = session.get(Instance, row.duplicate_of_id, populate_existing=True)
    if row is None or row.study_id != study.id:
        message = "The study has no such instance."
        raise NotFound(message)
    if row.erased_at is not None:
        message = "The pixels of this instance are erased for good."
        raise NotFound(message)
    if row.kind != InstanceKind.IMAGE:
        message = "This instance is no image."
        raise InvalidInstance(message, reason_code=ReasonCode.NO_USABLE_FRAMES)
    if not 1 <= frame <= frames_in(row):
        message = "The instance has no frame of this number."
        raise NotFound(message)
    return row


def frames_in(instance: Instance) -> int:
    """How many frames an image says that it has, as far as they can be asked for."""
    return min(MAX_FRAMES, max(1, int(instance.header.get("number_of_frames") or 1)))


def seen_by_model(session: Session, study: Study, instance_id: uuid.UUID, frame: int) -> list[str]:
    """The sha256 of the pictures that a reading made of a frame (from 1), the newest first."""
    rows = session.scalars(
        select(ReadingPicture.sha256)
        .join(Reading, Reading.id == ReadingPicture.reading_id)
        .where(
            Reading.study_id == study.id,
            Reading.purpose != Purpose.SHADOW,
            ReadingPicture.instance_id == instance_id,
            ReadingPicture.frame == frame - 1,
        )
        .order_by(Reading.created_at.desc(), ReadingPicture.position)
    )
    return list(dict.fromkeys(rows))


def flags_of(values: Any) -> tuple[str, ...]:  # an Instance, or a row with its columns
    """What somebody who looks at an image must know of it, as codes."""
    decided = values.conflict_decided_at is not None
    named_another = values.conflict_kind == "identity" and values.conflict_of_id is None
    left_out = decided and (values.conflict_of_id is not None or (named_another and values.rejected))
    told = {
        "conflict": values.conflict_kind is not None and not decided,
        "left_out": left_out,
        "rejected": values.rejected and not left_out,
        "prior": values.prior,
    }
    return tuple(code for code, holds in told.items() if holds)


def decimal(value: float) -> str:
    """A centre or width as it stands in an address: to four places, never as a power of ten."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def address(study_instance_uid: str, instance_id: uuid.UUID, frame: int, view: View | None = None) -> str:
    """Where a frame is served as a picture."""
    query = urlencode((view or View()).query(), safe=",")
    path = f"/api/v1/studies/{quote(study_instance_uid, safe='')}/instances/{instance_id}/frames/{frame}/rendered"
    return f"{path}?{query}" if query else path


def tag(instance: Instance, frame: int, view: View) -> str:
    """Another one for other bytes, another frame, another view or another release."""
    said = json.dumps([instance.sha256, frame, view.request(), _release()], sort_keys=True)
    return f'"{hashlib.sha256(said.encode()).hexdigest()[:32]}"'


def require_fit(answer: Mapping[str, Any]) -> None:
    """Refuse a view that does not fit the frame, as the decoder found.

    Raises
    ------
    InvalidRequest
        What to ask for instead.
    """
    if refused := answer.get("refused"):
        raise InvalidRequest(REFUSALS[refused])


@cache
def _release() -> str:
    return importlib.metadata.version("countersign")


def _numbered(study: Study, series_id: uuid.UUID | None) -> Any:
    """The study's images with their place in their series."""
    claimed = func.coalesce(Instance.header["number_of_frames"].as_integer(), 1)
    frames = func.least(MAX_FRAMES, func.greatest(1, claimed))
    decided = Instance.conflict_decided_at.is_not(None)
    listed: Select[Any] = (
        select(
            Instance.id.label("instance_id"),
            Instance.sop_instance_uid,
            Instance.series_id,
            Series.series_instance_uid,
            Series.series_number,
            Series.series_description,
            Series.modality,
            Instance.instance_number,
            frames.label("frames"),
            func.coalesce(Instance.header["rows"].as_integer(), 0).label("rows"),
            func.coalesce(Instance.header["columns"].as_integer(), 0).label("columns"),
            Instance.conflict_kind,
            Instance.conflict_of_id,
            Instance.conflict_decided_at,
            Instance.rejected,
            Instance.prior,
            func.row_number()
            .over(partition_by=Instance.series_id, order_by=(Instance.instance_number.nulls_last(), Instance.id))
            .label("place"),
            func.count().over(partition_by=Instance.series_id).label("of"),
            func.sum(frames).over(partition_by=Instance.series_id).label("of_frames"),
        )
        .join(Series, Series.id == Instance.series_id)
        .where(
            Instance.study_id == study.id,
            Instance.kind == InstanceKind.IMAGE,
            KEEPS_A_FILE,
            ~and_(decided, Instance.conflict_of_id.is_not(None)),
            ~and_(decided, Instance.conflict_kind == "identity", Instance.rejected),  # another patient's
        )
    )
    return (listed.where(Instance.series_id == series_id) if series_id else listed).subquery()


_KEPT = tuple(name for name in ImageShown.__dataclass_fields__ if name not in {"series_description", "flags"})


def _shown(row: Any, *, identified: bool) -> ImageShown:
    return ImageShown(
        **{name: getattr(row, name) for name in _KEPT},
        series_description=row.series_description if identified else "",
        flags=flags_of(row),
    )
