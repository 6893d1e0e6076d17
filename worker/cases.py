"""What a reading starts from: the frozen images, their headers, and what is known besides.

Knows which rows of the record a reading needs, read in one transaction before the work begins. Does not know what is made of
them.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from record import readings
from record.claims import Claim
from record.instances import InstanceHeader, StoredInstance
from record.models import Instance, Reading, ReadingPicture, Site, Study
from record.priors import PriorReport, last_signed
from worker.protocols import Protocol
from worker.references import KEY_OBJECTS, PRESENTATION_STATES
from worker.site_protocols import protocol_of_digest, protocols_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a reading starts from: the frozen images, their headers, and what is known besides.

    Attributes
    ----------
    protocols
        What the site reads by, in the order in which they are tried.
    bound
        The protocol that the pictures were made under, if this release can load it.
    beside
        The study's key object selections and presentation states.
    prior
        The patient's last signed report of such an examination.
    """

    reading_id: uuid.UUID
    study_id: uuid.UUID
    site: str
    language: str
    instances: tuple[StoredInstance, ...]
    pictures: tuple[ReadingPicture, ...] = ()
    protocols: tuple[Protocol, ...] = ()
    bound: Protocol | None = None
    beside: tuple[StoredInstance, ...] = ()
    omitted: tuple[dict[str, Any], ...] = ()
    history: str = ""
    prior: PriorReport | None = None


def load_case(session: Session, claim: Claim) -> Case:
    """Everything a claimed reading needs from the record, at the moment the work begins."""
    reading = session.get_one(Reading, claim.reading_id)
    digest = reading.protocol_digest
    return case_of(
        session,
        session.get_one(Study, claim.study_id),
        revision_id=claim.revision_id,
        reading_id=claim.reading_id,
        pictures=readings.pictures_of(session, claim.reading_id),
        bound=protocol_of_digest(session, digest) if digest else None,
        omitted=reading.omitted or (),
    )


def case_of(
    session: Session,
    study: Study,
    *,
    revision_id: uuid.UUID,
    reading_id: uuid.UUID,
    pictures: Sequence[ReadingPicture] = (),
    bound: Protocol | None = None,
    omitted: Sequence[dict[str, Any]] = (),
) -> Case:
    """Gather what is known of a revision of a study, read or not."""
    site = session.get_one(Site, study.site_id)
    return Case(
        reading_id=reading_id,
        study_id=study.id,
        site=site.name,
        language=site.language,
        instances=_stored(readings.instances_of(session, revision_id)),
        pictures=tuple(pictures),
        protocols=protocols_of(session, study.site_id),
        bound=bound,
        beside=_stored(readings.beside(session, study.id, (KEY_OBJECTS, *PRESENTATION_STATES))),
        omitted=tuple(omitted),
        history=study.history,
        prior=last_signed(session, study),
    )


def _stored(rows: Sequence[Instance]) -> tuple[StoredInstance, ...]:
    return tuple(
        StoredInstance(row.id.hex, row.sha256, InstanceHeader.from_dict(row.header)) for row in rows if row.header
    )
