"""The images of a study as a page shows them: a grid of thumbnails for each series, and the two sides of a conflict.

Knows how many thumbnails a series gets. Does not know pixels, nor which images there are (`frames`).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.web import frames
from gateway.web.frames import ImageShown, View
from gateway.web.schemas import ConflictShown
from record.models import Instance, Study
from record.models.studies import KEEPS_A_FILE
from record.states import InstanceKind

MOST_THUMBNAILS = 12
"""Of one series; more are spread evenly over it."""
MOST_IN_ALL = 360
"""Of a study: where there would be more, each series gets fewer, but one at least."""
SIDE = 512
"""Pixels of the longer side of an image in conflict: large enough to see whether it is the same body."""


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


@dataclass(frozen=True, slots=True)
class Side:
    """One image of a conflict, its first frame."""

    instance_id: uuid.UUID
    address: str


@dataclass(frozen=True, slots=True)
class Sides:
    """What whoever decides a conflict has to see: the image in question, and beside it one that stands in the study."""

    standing: Side | None
    asked: Side


def sides_shown(session: Session, study: Study, undecided: Sequence[ConflictShown]) -> Mapping[uuid.UUID, Sides]:
    """Both sides of the undecided conflicts of images, by the instance that is asked about.

    Other bytes stand beside the first that came under their UID; an image that names another patient beside the study's
    first image.
    """
    if not undecided:
        return {}
    images = select(Instance.id).where(Instance.study_id == study.id, Instance.kind == InstanceKind.IMAGE)
    asked = set(session.scalars(images.where(Instance.id.in_([one.instance_id for one in undecided]))))
    untroubled = images.where(KEEPS_A_FILE, Instance.conflict_kind.is_(None), ~Instance.rejected)
    first = session.scalar(untroubled.order_by(Instance.id).limit(1))

    def side(instance_id: uuid.UUID) -> Side:
        return Side(instance_id, frames.address(study.study_instance_uid, instance_id, 1, View(size=SIDE)))

    found = {}
    for one in undecided:
        if one.instance_id in asked:
            standing = one.beside or first
            found[one.instance_id] = Sides(side(standing) if standing else None, side(one.instance_id))
    return found
