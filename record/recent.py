"""The studies of the last days with the headers of their images, one study after the other.

Knows which parts of a header differ from image to image of one series: these are left out, so that a study of thousands of
slices is a few headers. Does not know what anybody looks for in them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import ARRAY, Select, Text, cast, func, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from record.instances import InstanceHeader
from record.models import Instance, RevisionInstance, Study, StudyRevision

OF_ONE_IMAGE = (
    *("sop_instance_uid", "series_instance_uid", "transfer_syntax_uid", "instance_number", "acquisition_number"),
    *("acquisition_time", "content_time", "trigger_time", "temporal_position_identifier"),
    *("image_position_patient", "echo_numbers", "diffusion_b_value", "referenced_sop_instance_uids"),
)
"""What tells images of one series apart, and nothing of what a study is of."""
_IDENTIFYING = (
    *("patient_id", "issuer_of_patient_id", "patient_name", "accession_number", "referring_physician_name"),
    *("reason_for_study", "additional_patient_history"),
)  # the dates stay: an age is worked out from them where none is told
_NEEDED = {"series_instance_uid": "", "sop_instance_uid": "", "transfer_syntax_uid": ""}
_STUDIES = 50  # of one statement, which has to end in time however many images there are


@dataclass(frozen=True, slots=True)
class RecentStudy:
    """A study whose images are frozen, and the different headers of these, without what is of one image, names or words."""

    study_instance_uid: str
    first_image_at: datetime
    headers: tuple[InstanceHeader, ...]


def recent_studies(session: Session, site_id: uuid.UUID, *, days: float) -> Iterator[RecentStudy]:
    """A site's studies whose first image came in the last days, the earliest first: their present revision, where it has images.

    They are read some at a time, and those that come or go meanwhile may be missed.
    """
    since = session.scalars(select(func.now())).one() - timedelta(days=days)
    wanted = (
        select(Study.id, Study.study_instance_uid, Study.first_image_at, StudyRevision.id.label("revision_id"))
        .join(StudyRevision, (StudyRevision.study_id == Study.id) & (StudyRevision.number == Study.revision))
        .where(Study.site_id == site_id, Study.first_image_at >= since, StudyRevision.images > 0)
        .where(Study.erased_at.is_(None))
        .order_by(Study.first_image_at, Study.id)
        .limit(_STUDIES)
    )
    after: tuple[datetime, uuid.UUID] | None = None
    while True:
        page = wanted if after is None else wanted.where(tuple_(Study.first_image_at, Study.id) > tuple_(*after))
        studies = {row.revision_id: row for row in session.execute(page)}
        if not studies:
            return
        rows = session.execute(_headers([*studies]).execution_options(yield_per=500))
        for revision_id, group in groupby(rows, lambda row: row.revision_id):
            headers = tuple(InstanceHeader.from_dict(_NEEDED | row.header) for row in group)
            yield RecentStudy(studies[revision_id].study_instance_uid, studies[revision_id].first_image_at, headers)
        last = [*studies.values()][-1]
        after = (last.first_image_at, last.id)


def _headers(revision_ids: list[uuid.UUID]) -> Select[uuid.UUID, Any]:
    left_out = cast([*OF_ONE_IMAGE, *_IDENTIFYING], ARRAY(Text()))
    header = Instance.header.op("-", return_type=JSONB())(left_out).label("header")
    return (
        select(RevisionInstance.revision_id, header)
        .join(Instance, Instance.id == RevisionInstance.instance_id)
        .where(RevisionInstance.revision_id.in_(revision_ids), Instance.erased_at.is_(None))
        .distinct()
        .order_by(RevisionInstance.revision_id, header)
    )
