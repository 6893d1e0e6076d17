"""The studies of the last days with the headers of their images, one study after the other.

Knows which parts of a header differ from image to image of one series: these are left out, so that a study of thousands of
slices is a few headers. Does not know what anybody looks for in them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ARRAY, Select, Text, cast, func, select
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
_STUDIES = 25  # of one statement, which has to end in time however many images there are


@dataclass(frozen=True, slots=True)
class RecentStudy:
    """A study whose images are frozen, and the different headers of these, without what is of one image, names or words."""

    study_instance_uid: str
    first_image_at: datetime
    headers: tuple[InstanceHeader, ...]


def recent_studies(session: Session, site_id: uuid.UUID, *, days: float) -> Iterator[RecentStudy]:
    """A site's studies whose first image came in the last days, the earliest first: their present revision, where it has images.

    They are read as they are asked for, a few at a time, however many there are.
    """
    since = session.scalars(select(func.now())).one() - timedelta(days=days)
    wanted = (
        select(Study.study_instance_uid, Study.first_image_at, StudyRevision.id.label("revision_id"))
        .join(StudyRevision, (StudyRevision.study_id == Study.id) & (StudyRevision.number == Study.revision))
        .where(Study.site_id == site_id, Study.first_image_at >= since, StudyRevision.images > 0)
        .where(Study.erased_at.is_(None))
        .order_by(Study.first_image_at, Study.id)
    )
    for page in session.execute(wanted.execution_options(yield_per=_STUDIES)).partitions():
        headers: dict[uuid.UUID, list[InstanceHeader]] = {}
        for row in session.execute(_headers([study.revision_id for study in page])):
            if row.header is not None:
                headers.setdefault(row.revision_id, []).append(InstanceHeader.from_dict(_NEEDED | row.header))
        for study in page:
            found = tuple(headers.get(study.revision_id, ()))
            if found:
                yield RecentStudy(study.study_instance_uid, study.first_image_at, found)


def _headers(revision_ids: list[uuid.UUID]) -> Select[uuid.UUID, Any]:
    left_out = cast([*OF_ONE_IMAGE, *_IDENTIFYING], ARRAY(Text()))
    header = (  # looked up one by one: whatever the planner believes of the tables, it reads none of them whole
        select(Instance.header.op("-", return_type=JSONB())(left_out))
        .where(Instance.id == RevisionInstance.instance_id, Instance.erased_at.is_(None))
        .scalar_subquery()
    )
    where = RevisionInstance.revision_id.in_(revision_ids)
    return select(RevisionInstance.revision_id, header.label("header")).where(where).distinct()
