"""Studies: when one is complete, and what its closing freezes.

Does not know how instances came (`admission`), sockets or models. Every function works in the caller's transaction.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from record import audit, readings, sessions
from record.access import SYSTEM, Action, Principal, require, visible
from record.errors import Conflict, IllegalMove, InvalidRequest, NotFound
from record.ids import new_id
from record.models import (
    Instance,
    Reading,
    RevisionInstance,
    Study,
    StudyRevision,
)
from record.models.studies import UNDECIDED
from record.states import InstanceKind, Purpose, ReadingState, ReasonCode, StudyState, move

_NAMED = 10
"""Studies of one accession number that a refusal names."""
_ELIGIBLE = (
    Instance.kind == InstanceKind.IMAGE,
    Instance.duplicate_of_id.is_(None),
    Instance.conflict_of_id.is_(None),
    Instance.rejected.is_(False),
    Instance.erased_at.is_(None),
    ~UNDECIDED,
)
"""What makes an instance one of the images that a closing looks at; those that are no priors are frozen."""


_COUNT_AGREES = (Study.expected_instances == Study.instances) & (
    Study.expected_at >= func.coalesce(Study.last_image_at, Study.created_at)
)
"""The peer was asked after the last image came, and has as many as we."""


def reopen(study: Study) -> None:
    """Back to receiving: the set of images changed, or an operator wants a skipped study read."""
    move(study, StudyState.RECEIVING)
    study.last_image_at = func.now()
    study.receiving_since = func.now()
    study.expected_instances = study.expected_at = study.count_asked_at = study.announced_at = None


def due(stable_after_s: float, max_wait_s: float) -> Any:  # a SQL condition
    """The SQL condition under which a receiving study may be closed."""
    seconds = func.make_interval(0, 0, 0, 0, 0, 0, func.coalesce(Study.stable_after_s, stable_after_s))
    longest = func.make_interval(0, 0, 0, 0, 0, 0, func.coalesce(Study.max_wait_s, max_wait_s))
    last = func.coalesce(Study.last_image_at, Study.created_at)
    return (Study.state == StudyState.RECEIVING) & (
        (last + seconds <= func.now())
        | (Study.receiving_since + longest <= func.now())
        | _COUNT_AGREES
        | Study.announced_at.is_not(None)
    )


def next_due_s(session: Session, stable_after_s: float) -> float | None:
    """Seconds until the first receiving study will have been quiet for long enough; None while none is receiving."""
    seconds = func.make_interval(0, 0, 0, 0, 0, 0, func.coalesce(Study.stable_after_s, stable_after_s))
    first = func.min(func.coalesce(Study.last_image_at, Study.created_at) + seconds)
    waits = session.scalar(
        select(func.extract("epoch", first - func.clock_timestamp())).where(Study.state == StudyState.RECEIVING)
    )
    return None if waits is None else float(waits)


def due_now(session: Session, stable_after_s: float, max_wait_s: float) -> Sequence[uuid.UUID]:
    """The studies that may be closed, the longest quiet first."""
    condition = due(stable_after_s, max_wait_s)
    return session.scalars(select(Study.id).where(condition).order_by(Study.last_image_at)).all()


def close_if_due(session: Session, study_id: uuid.UUID, stable_after_s: float, max_wait_s: float) -> bool:
    """Close a study that is stable, tested again under its lock; False when it is not, or somebody is at it."""
    condition = due(stable_after_s, max_wait_s)
    study = session.scalar(
        select(Study).where(Study.id == study_id, condition).with_for_update(skip_locked=True, of=Study)
    )
    if study is None:
        return False
    quiet_s, counted = session.execute(
        select(func.extract("epoch", func.now() - study.last_image_at), _COUNT_AGREES).where(Study.id == study.id)
    ).one()
    kind = "quiet"
    if counted:
        kind = "count"
    elif study.announced_at is not None:
        kind = "announced"
    elif quiet_s is not None and float(quiet_s) < (
        stable_after_s if study.stable_after_s is None else study.stable_after_s
    ):
        kind = "max_wait"
    evidence: dict[str, Any] = {"quiet_s": round(float(quiet_s or 0)), "instances": study.instances}
    if study.expected_instances is not None:
        evidence["expected"] = study.expected_instances
    freeze(session, study, kind, evidence)
    return True


def close(session: Session, study_id: uuid.UUID, *, by: Principal) -> None:
    """An operator says that a receiving study is complete."""
    require(by, Action.CLOSE_STUDY)
    study = lock(session, study_id, by)
    if study.state != StudyState.RECEIVING:
        message = "Only a study that is still receiving can be closed."
        raise IllegalMove(message)
    freeze(session, study, "operator", {"instances": study.instances}, by)


def freeze(session: Session, study: Study, kind: str, evidence: dict[str, Any], by: Principal = SYSTEM) -> None:
    """Freeze the revision of a locked, receiving study; open its primary reading, or skip it with a reason."""
    images = session.execute(
        select(Instance.id, Instance.sha256, Instance.prior)
        .where(Instance.study_id == study.id, *_ELIGIBLE)
        .order_by(Instance.id)
    ).all()
    own = [row for row in images if not row.prior]
    study.revision += 1
    revision = StudyRevision(
        study_id=study.id,
        number=study.revision,
        images=len(own),
        images_sha256=hashlib.sha256("".join(sorted(r.sha256 for r in own)).encode()).hexdigest(),
        evidence_kind=kind,
        evidence=evidence,
    )
    session.add(revision)
    session.flush()
    for row in own:
        session.add(RevisionInstance(revision_id=revision.id, instance_id=row.id))
    readings.supersede_older(session, study.id)
    study.updated_at = func.now()
    if own:
        move(study, StudyState.READY)
        study.skipped_code = None
        reading = readings.open_primary(session, study, revision)
        audit.write(
            session,
            "study_closed",
            by,
            site_id=study.site_id,
            study_id=study.id,
            reading_id=reading.id,
            revision=study.revision,
            images=len(own),
            evidence=kind,
            digest=revision.images_sha256,
        )
        return
    move(study, StudyState.SKIPPED)
    study.skipped_code = ReasonCode.FETCHED_AS_PRIOR if images else ReasonCode.NO_IMAGES
    audit.write(
        session,
        "study_skipped",
        by,
        site_id=study.site_id,
        study_id=study.id,
        revision=study.revision,
        reason_code=study.skipped_code,
        evidence=kind,
    )


def find(session: Session, study_instance_uid: str, by: Principal) -> Study:
    """The study of this UID that `by` may see.

    Raises
    ------
    NotFound
        No such study, or another site's.
    """
    study = session.scalar(visible(select(Study).where(Study.study_instance_uid == study_instance_uid), by))
    if study is None:
        message = "There is no such study."
        raise NotFound(message)
    return study


def locate(session: Session, named: str, site_ids: Sequence[uuid.UUID]) -> Study:
    """The one study at these sites that has this Study Instance UID or, where no study has it, this accession number.

    Accession numbers need not be unique, and two sites may hold the same study: what names several is refused, and the
    refusal tells the latest by their UIDs, where they are of one site.

    Raises
    ------
    NotFound
        No such study.
    InvalidRequest
        Several; the fact `sites` counts where they are.
    """
    named = named.strip()
    for column in (Study.study_instance_uid, Study.accession_number) if named and "\0" not in named else ():
        where = (Study.site_id.in_(site_ids), column == named)
        found = session.scalars(select(Study).where(*where).order_by(Study.updated_at.desc()).limit(_NAMED)).all()
        if len(found) == 1:
            return found[0]
        if found:
            sites = session.scalar(select(func.count(Study.site_id.distinct())).where(*where)) or 0
            message = (
                "This names studies of several sites: say which with --site."
                if sites > 1
                else "This accession number names several studies: name one by its Study Instance UID: "
                + ", ".join(sorted(each.study_instance_uid for each in found))
                + (", …" if len(found) == _NAMED else ".")
            )
            raise InvalidRequest(message, sites=sites)
    message = "There is no such study."
    raise NotFound(message)


def counts_of(session: Session, site_id: uuid.UUID, study_instance_uids: Sequence[str]) -> dict[str, int]:
    """How many instances each of these studies has at a site; those that are not there are left out."""
    found: dict[str, int] = {}
    for start in range(0, len(study_instance_uids), 1000):
        some = study_instance_uids[start : start + 1000]
        rows = select(Study).where(Study.site_id == site_id, Study.study_instance_uid.in_(some))
        found |= {study.study_instance_uid: study.instances for study in session.scalars(rows)}
    return found


def retriable(session: Session, study: Study) -> uuid.UUID:
    """The reading that a retry is about: the live primary one of the study's newest revision.

    Raises
    ------
    IllegalMove
        There is none: the study is still receiving, was skipped, or its readings are superseded.
    """
    reading_id = session.scalar(
        select(Reading.id)
        .join(StudyRevision, StudyRevision.id == Reading.revision_id)
        .where(
            Reading.study_id == study.id,
            StudyRevision.number == study.revision,
            Reading.purpose == Purpose.PRIMARY,
            Reading.state != ReadingState.SUPERSEDED,
        )
    )
    if reading_id is None:
        message = f"There is no reading to do again: the study is {study.state}."
        raise IllegalMove(message, state=study.state)
    return reading_id


def read_skipped(session: Session, study_id: uuid.UUID, *, by: Principal) -> None:
    """An operator wants a skipped study read: it is no prior any more, and closes anew after its quiet time.

    Raises
    ------
    IllegalMove
        The study was not skipped, or holds no image that could be read.
    """
    require(by, Action.CLOSE_STUDY)
    study = lock(session, study_id, by)
    if study.state != StudyState.SKIPPED:
        message = f"Only a skipped study can be taken up again; this one is {study.state}."
        raise IllegalMove(message, state=study.state)
    images = session.scalars(select(Instance).where(Instance.study_id == study.id, *_ELIGIBLE)).all()
    if not images:
        message = "This study holds no image that could be read."
        raise IllegalMove(message, reason_code=study.skipped_code)
    for image in images:
        image.prior = False
    reopen(study)
    study.updated_at = func.now()
    audit.write(session, "study_reopened", by, site_id=study.site_id, study_id=study.id, revision=study.revision)


def lock(session: Session, study_id: uuid.UUID, by: Principal) -> Study:
    """The study, locked; the first lock of every verb that also touches its reports.

    Raises
    ------
    NotFound
        No such study, or another site's.
    """
    study = session.scalar(
        visible(select(Study).where(Study.id == study_id), by)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if study is None:
        message = "There is no such study."
        raise NotFound(message)
    return study


def require_decided(session: Session, study_id: uuid.UUID) -> None:
    """Refuse while a conflict of bytes or identity is undecided.

    Raises
    ------
    Conflict
        Somebody has to decide first; no reason overrides it.
    """
    undecided = session.scalar(
        select(func.count())
        .select_from(Instance)
        .where(
            Instance.study_id == study_id,
            UNDECIDED,
        )
    )
    if undecided:
        message = f"{undecided} instance(s) of this study conflict in bytes or identity; decide that first."
        raise Conflict(message, count=undecided)


def erase(session: Session, study_id: uuid.UUID, *, by: Principal) -> None:
    """Blank the words of a study for good; hashes, events and seals stay, and the store's files are queued to go."""
    require(by, Action.ERASE_STUDY)
    lock(session, study_id, by)
    session.execute(select(func.erase_study(study_id, new_id(), by.kind, by.id)))
    sessions.forget_searches(session, every=True)  # one may hold this patient's words
    session.expire_all()
