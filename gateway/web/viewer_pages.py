"""The viewer: one frame as large as the window, its series to step through, and how it is shown.

Knows addresses and what stands beside the picture. Does not know rows (`frames`), pixels (`decoders`) or how the picture is
served (`frames_api`). Everything works without a script; with one, `viewer.js` steps without loading the page anew.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BeforeValidator
from starlette.exceptions import HTTPException

from gateway.web import frames
from gateway.web.auth import Look, Visitor
from gateway.web.context import Door, Web
from gateway.web.frames import SENT, WINDOWS, ImageShown, Preset, View
from gateway.web.frames_api import WINDOW, note, view_asked
from gateway.web.languages import english
from gateway.web.schemas import Identity
from gateway.web.studies_api import Uid
from gateway.web.templating import page
from record import orientation, studies
from record.access import Action, may
from record.db import transaction
from record.errors import InvalidInstance, NotFound
from record.models import Instance, Study
from record.store import Kind

router = APIRouter(include_in_schema=False)
LARGE = 2048
"""Pixels of the longer side of a picture that is fitted into the window: more than a window has, less than a film."""
NAMES: Mapping[Preset, str] = {
    Preset.AS_SENT: english("As sent"),
    Preset.AUTO: english("Automatic"),
    Preset.FULL: english("Full range"),
    Preset.LUNG: english("Lung"),
    Preset.MEDIASTINUM: english("Mediastinum"),
    Preset.BONE: english("Bone"),
    Preset.BRAIN: english("Brain"),
    Preset.SUBDURAL: english("Subdural"),
    Preset.ABDOMEN: english("Abdomen"),
    Preset.LIVER: english("Liver"),
    Preset.STROKE: english("Stroke"),
    Preset.ANGIOGRAPHY: english("Angiography"),
    Preset.TEMPORAL_BONE: english("Temporal bone"),
}
_KEYS = (
    *(Preset.AS_SENT, Preset.AUTO, Preset.LUNG, Preset.MEDIASTINUM, Preset.BONE),
    *(Preset.BRAIN, Preset.SUBDURAL, Preset.ABDOMEN, Preset.LIVER),
)
"""What the keys 1 to 9 choose, always the same ones."""
_Number = Annotated[float | None, BeforeValidator(lambda typed: typed or None), Query(ge=-1e6, le=1e6)]


@dataclass(frozen=True, slots=True)
class Choice:
    """A link to another view of the same frame."""

    name: str
    detail: str
    address: str
    chosen: bool
    key: int | None = None


@dataclass(frozen=True, slots=True)
class Whose:
    """The study as the bar above the picture names it."""

    study_instance_uid: str
    modality: str
    identity: Identity | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a frame stands among the pictures of its series; addresses are None at the ends."""

    number: int
    of: int
    previous: str | None
    next: str | None
    first: str | None
    last: str | None


@dataclass(frozen=True, slots=True)
class Viewed:
    """One frame and all that its page shows beside it."""

    whose: Whose
    instance: Instance
    frame: int
    view: View
    is_full: bool
    series: Sequence[ImageShown]
    strip: Sequence[ImageShown]
    seen_by_model: Sequence[str]
    described: Mapping[str, Any]
    fault: str | None = None

    @property
    def image(self) -> ImageShown | None:
        """The image among those of its series; None for one that was left out of the study."""
        return next((image for image in self.strip if image.instance_id == self.instance.id), None)

    @property
    def picture(self) -> str:
        """Where the picture is served."""
        header = self.instance.header
        longer = max(int(header.get("rows") or 0), int(header.get("columns") or 0))
        size = LARGE if longer > LARGE and not self.is_full else None
        return frames.address(
            self.whose.study_instance_uid, self.instance.id, self.frame, replace(self.view, size=size)
        )

    @property
    def flags(self) -> Sequence[str]:
        """What must be known of the image, as codes."""
        return frames.flags_of(self.instance)

    @property
    def frames(self) -> int:
        """How many frames the image has."""
        return frames.frames_in(self.instance)

    @property
    def images(self) -> int:
        """How many images the study has."""
        return sum(each.of for each in self.series)

    @property
    def pictures(self) -> str:
        """All pictures of the series, for the script: `id:frames`, in order."""
        return ",".join(f"{image.instance_id}:{image.frames}" for image in self.strip)

    @property
    def place(self) -> Place | None:
        """Where the frame stands in its series, counting every frame of every image."""
        if self.image is None:
            return None
        before = sum(image.frames for image in self.strip[: self.strip.index(self.image)])
        at, of = before + self.frame, sum(image.frames for image in self.strip)
        back = at > 1
        on = at < of
        return Place(
            at,
            of,
            self._at(at - 1) if back else None,
            self._at(at + 1) if on else None,
            self._at(1) if back else None,
            self._at(of) if on else None,
        )

    @property
    def choices(self) -> list[Choice]:
        """The views that fit this frame."""
        if not self.described.get("grey", True):
            return []
        sent = list(zip(SENT, self.described.get("sent", ()), strict=False)) or [(SENT[0], {})]
        found = [self._choice(preset, said) for preset, said in sent]
        found += [self._choice(preset) for preset in (Preset.AUTO, Preset.FULL)]
        if self.described.get("hounsfield"):
            found += [self._choice(preset) for preset in WINDOWS]
        return found

    @property
    def inverted(self) -> Choice | None:
        """The same in black for white; None for colour."""
        if not self.described.get("grey", True):
            return None
        return Choice(
            english("Invert"), "", self._as(replace(self.view, invert=not self.view.invert)), self.view.invert
        )

    @property
    def sizes(self) -> list[Choice]:
        """As large as the window, or a pixel for a pixel."""
        return [
            Choice(english("Fit"), "", self._as(self.view, is_full=False), not self.is_full),
            Choice(english("100 %"), "", self._as(self.view, is_full=True), self.is_full),
        ]

    @property
    def window(self) -> tuple[str, str]:
        """Centre and width to begin with in the form: those asked for, else the preset's or the file's."""
        sent = self.described.get("sent") or [{}]
        number = SENT.index(self.view.preset) if self.view.preset in SENT else 0
        of_file = sent[number] if number < len(sent) and self.view.preset in {None, *SENT} else {}
        chosen = self.view.window or WINDOWS.get(self.view.preset or Preset.AUTO)
        center, width = chosen or (of_file.get("center"), of_file.get("width"))
        return tuple("" if value is None else frames.decimal(value) for value in (center, width))  # type: ignore[return-value]

    @property
    def window_told(self) -> str:
        """Centre and width in force, where they are known before a pixel is: in the other views they are the frame's own."""
        center, width = self.window if self.described.get("grey") else ("", "")
        return f"{center} / {width}" if center and width else ""

    @property
    def is_lossy(self) -> bool:
        """Whether compression may have cost detail."""
        return bool(self.described.get("lossy"))

    @property
    def edges(self) -> orientation.Edges | None:
        """Which way the picture's edges face, where the header says so of all frames."""
        return orientation.edges(self.instance.header)

    @property
    def width_mm(self) -> float | None:
        """The width of the picture in the patient, where the header says so: cross sections only."""
        return orientation.width_mm(self.instance.header)

    def address(self, instance_id: uuid.UUID, frame: int = 1) -> str:
        """Another frame in the same view."""
        return _address(self.whose.study_instance_uid, instance_id, frame, self.view, is_full=self.is_full)

    def other_series(self, image: ImageShown) -> str:
        """Another series, as it was sent: its values may be of another kind."""
        return _address(
            self.whose.study_instance_uid, image.instance_id, image.opening_frame, View(), is_full=self.is_full
        )

    def thumbnail(self, image: ImageShown) -> str:
        """A small picture of a series."""
        view = View(size=frames.THUMBNAIL)
        return frames.address(self.whose.study_instance_uid, image.instance_id, image.opening_frame, view)

    def _at(self, number: int) -> str:
        return self.address(*step(self.strip, number))

    def _as(self, view: View, *, is_full: bool | None = None) -> str:
        full = self.is_full if is_full is None else is_full
        return _address(self.whose.study_instance_uid, self.instance.id, self.frame, view, is_full=full)

    def _choice(self, preset: Preset, said: Mapping[str, Any] | None = None) -> Choice:
        chosen = self.view.window is None and (self.view.preset or Preset.AS_SENT) == preset
        center, width = WINDOWS.get(preset, (None, None))
        if said:
            center, width = said["center"], said["width"]
        numbers = f"{center:g} / {width:g}" if center is not None and width is not None else ""
        which = str(SENT.index(preset) + 1) if preset in SENT[1:] else ""
        detail = " · ".join(part for part in (which, str(said["explanation"]) if said else "", numbers) if part)
        return Choice(
            NAMES.get(preset, NAMES[Preset.AS_SENT]),
            detail,
            self._as(replace(self.view, preset=preset, window=None)),
            chosen,
            _KEYS.index(preset) + 1 if preset in _KEYS else None,
        )


@router.get("/studies/{study_instance_uid}/instances/{instance_id}")
def viewer(
    study_instance_uid: Uid,
    instance_id: uuid.UUID,
    request: Request,
    web: Door,
    visitor: Annotated[Visitor, Depends(Look(Action.READ_PICTURE))],
    frame: Annotated[int, Query(ge=1, le=100_000)] = 1,
    preset: Preset | None = None,
    window: Annotated[str | None, Query(pattern=WINDOW)] = None,
    center: _Number = None,
    width: _Number = None,
    size: Literal["fit", "full"] = "fit",
    number: Annotated[int | None, BeforeValidator(lambda typed: typed or None), Query(ge=1, le=1_000_000)] = None,
    *,
    invert: bool = False,
) -> Response:
    """One frame, as large as the window. Opening it is an event."""
    view = replace(view_asked(None if window else preset, window), invert=invert)
    is_full = size == "full"
    if center is not None and width is not None and width > 0:  # the form's two fields become one
        view = replace(view, preset=None, window=(center, width))
        return RedirectResponse(_address(study_instance_uid, instance_id, frame, view, is_full=is_full), 303)
    found = _load(web, visitor, study_instance_uid, instance_id, frame, view, is_full=is_full)
    if number is not None and found.strip:
        return RedirectResponse(found.address(*step(found.strip, number)), 303)
    described, fault = _describe(web, found.instance, frame)
    found = replace(found, described=described, fault=fault, view=_fitting(view, described))
    return page("viewer.html", request=request, visitor=visitor, viewed=found, study=found.whose)


def _load(
    web: Web,
    visitor: Visitor,
    study_instance_uid: str,
    instance_id: uuid.UUID,
    frame: int,
    view: View,
    *,
    is_full: bool,
) -> Viewed:
    identified = may(visitor.principal, Action.READ_IDENTITY)
    with transaction(web.engine) as session:
        study = studies.find(session, study_instance_uid, visitor.principal)
        instance = frames.find(session, study, instance_id, frame)
        strip = frames.images_of(session, study, identified=identified, series_id=instance.series_id)
        found = Viewed(
            whose=_whose(study, identified=identified),
            instance=instance,
            frame=frame,
            view=view,
            is_full=is_full,
            series=frames.series_of(session, study, identified=identified),
            strip=strip,
            seen_by_model=frames.seen_by_model(session, study, instance.id, frame),
            described={},
        )
        note(session, "image_opened", visitor.principal, study, instance, frame)
    return found


def _whose(study: Study, *, identified: bool) -> Whose:
    told = {name: getattr(study, name) for name in Identity.model_fields}
    return Whose(study.study_instance_uid, study.modality, Identity(**told) if identified else None)


def _describe(web: Web, instance: Instance, frame: int) -> tuple[Mapping[str, Any], str | None]:
    """What the decoder knows of the frame; without it the page still comes, with fewer views to choose from."""
    try:
        with web.store.local(Kind.INSTANCE, instance.id.hex) as path:
            described, _ = web.decoders.ask("describe", path, frame)
    except (InvalidInstance, NotFound) as error:
        return {}, error.message
    except HTTPException:
        return {}, None
    return described, None


def _fitting(view: View, described: Mapping[str, Any]) -> View:
    """The view, without what does not fit this frame: one steps from a CT to its scout, or from grey to colour."""
    if not described:
        return view
    if not described["grey"]:
        return View()
    number = SENT.index(view.preset) if view.preset in SENT else 0
    unfit = view.preset in WINDOWS and not described["hounsfield"]
    return replace(view, preset=None) if unfit or number >= max(1, len(described["sent"])) else view


def step(strip: Sequence[ImageShown], number: int) -> tuple[uuid.UUID, int]:
    """The image and frame that are the `number`th picture of a series; the last where there are fewer."""
    for image in strip:
        if number <= image.frames:
            return image.instance_id, number
        number -= image.frames
    return strip[-1].instance_id, strip[-1].frames


def _address(study_instance_uid: str, instance_id: uuid.UUID, frame: int, view: View, *, is_full: bool) -> str:
    said = {"frame": str(frame), **replace(view, size=None).query()} | ({"size": "full"} if is_full else {})
    return f"/studies/{quote(study_instance_uid, safe='')}/instances/{instance_id}?{urlencode(said, safe=',')}"
