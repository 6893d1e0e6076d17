"""The images of a study as a page shows them: a grid of thumbnails for each series.

Knows how many thumbnails a series gets. Does not know pixels, nor which images there are (`frames`).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from sqlalchemy.orm import Session

from gateway.web import frames
from gateway.web.frames import ImageShown, View
from record.models import Study

MOST_THUMBNAILS = 12
"""Of one series; more are spread evenly over it."""
MOST_IN_ALL = 360
"""Of a study: where there would be more, each series gets fewer, but one at least."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One image of a series; `frame` (from 1) is the one that is shown."""

    instance_id: uuid.UUID
    frame: int
    frames: int
    label: str
    flags: Sequence[str]
    address: str


@dataclass(frozen=True, slots=True)
class ShownSeries:
    """A series with some of its images; `more` are not shown."""

    number: int | None
    modality: str
    description: str
    shown: Sequence[Thumbnail]
    more: int


def series_shown(session: Session, study: Study, *, identified: bool) -> list[ShownSeries]:
    """Every series of a study that has images."""
    images = frames.images_of(session, study, identified=identified, per_series=MOST_THUMBNAILS, limit=MOST_IN_ALL + 1)
    if len(images) > MOST_IN_ALL:
        each = max(1, MOST_IN_ALL // len(frames.series_of(session, study)))
        images = frames.images_of(session, study, identified=identified, per_series=each)
    return [
        _series(study.study_instance_uid, list(of_series))
        for _, of_series in groupby(images, key=lambda image: image.series_id)
    ]


def _series(study_instance_uid: str, images: Sequence[ImageShown]) -> ShownSeries:
    first = images[0]
    return ShownSeries(
        number=first.series_number,
        modality=first.modality,
        description=first.series_description,
        shown=[_thumbnail(study_instance_uid, image) for image in images],
        more=first.of - len(images),
    )


def _thumbnail(study_instance_uid: str, image: ImageShown) -> Thumbnail:
    frame = image.opening_frame
    view = View(size=frames.THUMBNAIL)
    address = frames.address(study_instance_uid, image.instance_id, frame, view)
    return Thumbnail(image.instance_id, frame, image.frames, image.label, image.flags, address)
