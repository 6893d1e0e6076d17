"""The API's images: which a study has, and any frame of them as a picture for people.

Knows the routes, what may be asked of a frame and which event is written before a picture goes out. Does not know rows
(`frames`) nor pixels (`decoders`). No transaction is open while a frame is decoded.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sqlalchemy.orm import Session

from gateway.web import frames
from gateway.web.auth import Visitor, allow
from gateway.web.context import Door, Web
from gateway.web.frames import ImageShown, Preset, View
from gateway.web.problems import NOT_MODIFIED, answers
from gateway.web.schemas import Given
from gateway.web.studies_api import Uid
from record import audit, studies
from record.access import Action, Principal, may
from record.db import transaction
from record.errors import InvalidInstance, InvalidRequest
from record.models import Instance, Study
from record.store import Kind

router = APIRouter(prefix="/api/v1", tags=["studies"])
MAX_IMAGES = 2000
MIN_SIZE, MAX_SIZE = 16, 8192
_NUMBER = r"-?\d{1,7}(\.\d{1,4})?"
_WIDTH = r"\d{1,7}(\.\d{1,4})?"
WINDOW = rf"^{_NUMBER},{_WIDTH}$"
"""Centre and width, with a comma."""


class ImageItem(Given):
    """An image: `place` of `of` in its series, in reading order. `rows` and `columns` are 0 where the header has none.

    `flags` are codes: `conflict` (nobody has decided yet whether it belongs here), `rejected`, `prior`. `href` is its
    first frame as a picture; the others differ in their number alone.
    """

    instance_id: uuid.UUID
    sop_instance_uid: str
    series_instance_uid: str
    series_number: int | None
    series_description: str | None
    modality: str
    instance_number: int | None
    place: int
    of: int
    frames: int
    rows: int
    columns: int
    flags: list[str]
    href: str


class ImagePage(Given):
    """A part of a study's images; `next` is what `start` is for the part after it, or null."""

    items: list[ImageItem]
    next: int | None


EXAMPLE: dict[str, Any] = {
    "items": [
        {
            "instance_id": "01923f5e-7a00-7b20-8b30-21d2e3f4a501",
            "sop_instance_uid": "1.2.826.0.1.3680043.8.498.1.1.1",
            "series_instance_uid": "1.2.826.0.1.3680043.8.498.1.1",
            "series_number": 1,
            "series_description": "PA",
            "modality": "CR",
            "instance_number": 1,
            "place": 1,
            "of": 2,
            "frames": 1,
            "rows": 2140,
            "columns": 1760,
            "flags": [],
            "href": "/api/v1/studies/1.2.826.0.1.3680043.8.498.1/instances/01923f5e-7a00-7b20-8b30-21d2e3f4a501"
            "/frames/1/rendered",
        }
    ],
    "next": None,
}


@router.get(
    "/studies/{study_instance_uid}/images",
    responses={**answers(404), 200: {"content": {"application/json": {"example": EXAMPLE}}}},
    summary="List a study's images",
)
def images_listed(
    study_instance_uid: Uid,
    web: Door,
    by: Annotated[Visitor, Depends(allow(Action.READ_PICTURE))],
    start: Annotated[int, Query(ge=0, le=1_000_000, description="How many to leave out.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_IMAGES)] = 500,
) -> ImagePage:
    """Every image of a study in reading order (series number, instance number), also those the model was not shown.

    Reports, presentation states and the like are no images. Listing is an event.
    """
    identified = may(by.principal, Action.READ_IDENTITY)
    with transaction(web.engine) as session:
        study = studies.find(session, study_instance_uid, by.principal)
        found = frames.images_of(session, study, identified=identified, start=start, limit=limit + 1)
        audit.write(session, "images_listed", by.principal, study_id=study.id, count=len(found[:limit]))
    items = [_item(study_instance_uid, image, identified=identified) for image in found[:limit]]
    return ImagePage(items=items, next=start + limit if len(found) > limit else None)


def view_asked(
    preset: Annotated[
        Preset | None,
        Query(description="as-sent, the usual one, is the file's own window; as-sent-2 its second, and so on."),
    ] = None,
    window: Annotated[
        str | None,
        Query(pattern=WINDOW, examples=["40,400"], description="Instead of a preset: centre,width in modality values."),
    ] = None,
    invert: Annotated[bool, Query(description="Black for white.")] = False,
    size: Annotated[
        int | None, Query(ge=MIN_SIZE, le=MAX_SIZE, description="Pixels of the longer side at most; never enlarged.")
    ] = None,
) -> View:
    """How a frame is to be rendered, as it stands in an address."""
    if window is None:
        return View(preset, None, invert, size)
    if preset is not None:
        message = "Send either a preset or a window."
        raise InvalidRequest(message)
    center, width = (float(number) for number in window.split(","))
    if width <= 0:
        message = "A window has a width above 0."
        raise InvalidRequest(message)
    return View(None, (center, width), invert, size)


@router.get(
    "/studies/{study_instance_uid}/instances/{instance_id}/frames/{frame}/rendered",
    response_class=Response,
    responses={**answers(404, "invalid_instance"), 304: NOT_MODIFIED, 200: {"content": {"image/png": {}}}},
    summary="Any frame as a picture",
)
def frame_served(
    study_instance_uid: Uid,
    instance_id: uuid.UUID,
    frame: Annotated[int, Path(ge=1, le=100_000, description="Counted from 1.")],
    request: Request,
    web: Door,
    by: Annotated[Visitor, Depends(allow(Action.READ_PICTURE))],
    view: Annotated[View, Depends(view_asked)],
) -> Response:
    """One stored frame, rendered for people (PNG, 8 bits), whether the model was shown it or not.

    `auto` spreads the values from their 0.5th to their 99.5th percentile, `full` from the smallest to the largest, both
    without padding. The presets named after a part of the body are windows in Hounsfield units, so they are refused (422)
    where a frame has none, as is any window of a frame in colour. Not drawn: overlays, shutters, annotations and
    presentation states. A frame that cannot be shown is a 422 with a `reason_code`; 503 while too many are asked for at
    once. Serving one is an event, written before it goes out; a 304 is none.
    """
    with transaction(web.engine) as session:
        study = studies.find(session, study_instance_uid, by.principal)
        instance = frames.find(session, study, instance_id, frame)
    headers = {"ETag": frames.tag(instance, frame, view), "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(None, 304, headers)
    png = _rendered(web, by.principal, study, instance, frame, view)
    with transaction(web.engine) as session:
        frames.find(session, study, instance_id, frame)  # it may have been erased meanwhile
        note(session, "frame_served", by.principal, study, instance, frame, **view.query())
    return Response(png, 200, headers, media_type="image/png")


def note(
    session: Session, kind: str, by: Principal, study: Study, instance: Instance, frame: int, **facts: Any
) -> None:
    """Write that somebody had to do with a frame."""
    audit.write(session, kind, by, study_id=study.id, instance_id=instance.id, frame=frame, **facts)


def _rendered(web: Web, by: Principal, study: Study, instance: Instance, frame: int, view: View) -> bytes:
    try:
        with web.store.local(Kind.INSTANCE, instance.id.hex) as path:
            answer, png = web.decoders.ask("show", path, frame, **view.request())
    except InvalidInstance as error:
        facts = {name: str(error.facts.get(name, "")) for name in ("reason_code", "cause")}
        with transaction(web.engine) as session:
            note(session, "frame_not_shown", by, study, instance, frame, **facts)
        raise
    frames.require_fit(answer)
    return png


def _item(study_instance_uid: str, image: ImageShown, *, identified: bool) -> ImageItem:
    kept = ImageItem.model_fields.keys() - {"series_description", "flags", "href"}
    return ImageItem(
        **{name: getattr(image, name) for name in kept},
        series_description=image.series_description if identified else None,
        flags=list(image.flags),
        href=frames.address(study_instance_uid, image.instance_id, 1),
    )
