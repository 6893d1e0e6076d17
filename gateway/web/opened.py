"""One study or report, opened: all that a role may see of it, as the API and the pages show it.

Knows which table says what and asks `record.access` for each part. Does not write the event of an opening: the door does,
in the same transaction.
"""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.web import schemas, sides
from gateway.web.worklist import row_of
from record import reports, timeline
from record.access import Action, Principal, may
from record.body import BANNER_DRAFT, BANNER_UNSIGNED, Body
from record.models import (
    Draft,
    Event,
    Instance,
    Reading,
    ReadingPicture,
    Report,
    ReportOffer,
    ReportRevision,
    Series,
    Signature,
    Study,
    StudyRevision,
    User,
)
from record.states import LIVE_REPORT, SIGNED_REPORT, Purpose, ReportState


def show_study(session: Session, study: Study, by: Principal) -> schemas.StudyShown:
    """A study with everything `by` may see of it."""
    closings = select(StudyRevision.id, StudyRevision.number).where(StudyRevision.study_id == study.id)
    numbers = {row.id: row.number for row in session.execute(closings)}
    readings = session.scalars(
        select(Reading)
        .where(Reading.study_id == study.id, Reading.purpose != Purpose.SHADOW)
        .order_by(Reading.created_at.desc(), Reading.id.desc())
    ).all()
    lines = [_report_line(report, study) for report in _reports(session, study)]
    identified = may(by, Action.READ_IDENTITY)
    seen = may(by, Action.READ_PICTURE)
    undecided = sides.undecided_shown(session, study, identified=identified, seen=seen)
    return schemas.StudyShown(
        **row_of(session, study, by).item().model_dump(),
        outdated=any(line.outdated for line in lines if line.state in LIVE_REPORT),
        undecided_conflicts=len(undecided),
        conflicts=undecided,
        decided_conflicts=sides.decided_shown(session, study, identified=identified, seen=seen),
        erased_at=study.erased_at,
        identity=_identity(study) if identified else None,
        revisions=_revisions(session, study),
        timeline=[
            schemas.MomentShown(at=one.at, until=one.until, code=one.code, facts=one.facts)
            for one in timeline.of_study(session, study)
        ],
        series=_series(session, study, identified=identified),
        readings=_readings(session, readings, numbers, pictures=seen),
        drafts=_drafts(session, readings, numbers) if may(by, Action.READ_DRAFT) else None,
        reports=lines,
    )


def show_report(session: Session, report: Report, by: Principal) -> schemas.ReportShown:
    """A report with the words `by` may see: physicians the newest, everybody else the last signed ones."""
    study = session.get_one(Study, report.study_id)
    signed = _signed_revision(session, report)
    number = _revision_for(report, signed, by)
    revision = reports.revision_of(session, report, number) if number else None
    erased = (revision or reports.revision_of(session, report)).erased_at is not None
    body = None if revision is None or erased else Body.from_canonical(revision.body)
    banner = None if number is not None and number == signed else banner_of(report)
    signatures = may(by, Action.READ_SIGNED)
    return schemas.ReportShown(
        **_report_line(report, study).model_dump() | {"signed_revision": signed},
        erased=erased,
        study_instance_uid=study.study_instance_uid,
        banner=banner if body else None,
        text_revision=number,
        text=body.plain() if body else None,
        labelled_text=labelled(body.plain(), banner) if body else None,
        body=body.as_dict() if body else None,
        body_sha256=revision.body_sha256 if revision else None,
        **_ending(session, report, by),
        signatures=_signatures(session, report) if signatures else [],
    )


def report_history(session: Session, report: Report) -> list[schemas.ReportRevisionShown]:
    """Every saved text of a report, newest first; only for those who may read unsigned words."""
    rows = session.execute(
        select(ReportRevision, User.printed_name, Signature.id)
        .outerjoin(User, User.id == ReportRevision.author_id)
        .outerjoin(Signature, _COVERS)
        .where(ReportRevision.report_id == report.id)
        .order_by(ReportRevision.number.desc())
    ).all()
    return [
        schemas.ReportRevisionShown(
            number=revision.number,
            kind=revision.kind,
            author=author,
            body_sha256=revision.body_sha256,
            text="" if revision.erased_at else Body.from_canonical(revision.body).plain(),
            signed=signature_id is not None,
            created_at=revision.created_at,
        )
        for revision, author, signature_id in rows
    ]


def banner_of(report: Report) -> str:
    """What stands over a report's unsigned words."""
    by_a_person = report.touched_at or report.begun_by_id or report.state == ReportState.PRELIMINARY
    return BANNER_UNSIGNED if by_a_person else BANNER_DRAFT


def labelled(text: str, banner: str | None) -> str:
    """A plain text with its banner in the first line, for whoever shows or sends it."""
    return f"{banner}\n\n{text}" if banner else text


_COVERS = (
    (Signature.report_id == ReportRevision.report_id)
    & (Signature.report_revision == ReportRevision.number)
    & (Signature.body_sha256 == ReportRevision.body_sha256)
)
"""Whether a signature is under exactly these words."""


def _signed_revision(session: Session, report: Report) -> int | None:
    """The last signed revision, if its signature is there: what the report says of itself is not enough."""
    return session.scalar(
        select(ReportRevision.number)
        .join(Signature, _COVERS)
        .where(ReportRevision.report_id == report.id, ReportRevision.number == report.signed_revision)
    )


def _revision_for(report: Report, signed: int | None, by: Principal) -> int | None:
    if not may(by, Action.READ_REPORT):
        return signed
    pending = report.pending_kind is not None and report.pending_author_id != by.id
    return signed if pending else report.revision


def _report_line(report: Report, study: Study) -> schemas.ReportLine:
    return schemas.ReportLine(
        id=report.id,
        state=report.state,
        revision=report.revision,
        signed_revision=report.signed_revision,
        study_revision=report.study_revision,
        outdated=report.state in LIVE_REPORT - SIGNED_REPORT and report.study_revision < study.revision,
        created_at=report.created_at,
        updated_at=report.updated_at,
    )


def _ending(session: Session, report: Report, by: Principal) -> dict[str, Any]:
    """Who ended a report, when and why, for who may read unsigned words."""
    ended = None
    if may(by, Action.READ_REPORT) and report.state not in LIVE_REPORT:
        ended = session.execute(
            select(User.printed_name, Event.at)
            .select_from(Event)
            .outerjoin(User, User.id == Event.actor_id)
            .where(Event.report_id == report.id, Event.kind == f"report_{report.state}")
            .order_by(Event.at.desc())
            .limit(1)
        ).first()
    return {
        "ended_reason": report.ended_reason if may(by, Action.READ_REPORT) else None,
        "ended_by": ended.printed_name if ended else None,
        "ended_at": ended.at if ended else None,
    }


def _reports(session: Session, study: Study) -> Iterable[Report]:
    return session.scalars(
        select(Report).where(Report.study_id == study.id).order_by(Report.created_at.desc(), Report.id.desc())
    )


def _identity(study: Study) -> schemas.Identity:
    return schemas.Identity(**{name: getattr(study, name) for name in schemas.Identity.model_fields})


def _revisions(session: Session, study: Study) -> list[schemas.RevisionShown]:
    rows = session.scalars(
        select(StudyRevision).where(StudyRevision.study_id == study.id).order_by(StudyRevision.number.desc())
    )
    names = schemas.RevisionShown.model_fields
    return [schemas.RevisionShown(**{name: getattr(row, name) for name in names}) for row in rows]


def _series(session: Session, study: Study, *, identified: bool) -> list[schemas.SeriesShown]:
    counted = Counter(
        session.scalars(
            select(Instance.series_id).where(
                Instance.study_id == study.id, Instance.duplicate_of_id.is_(None), Instance.conflict_of_id.is_(None)
            )
        )
    )
    rows = session.scalars(
        select(Series).where(Series.study_id == study.id).order_by(Series.series_number.nulls_last(), Series.id)
    )
    return [
        schemas.SeriesShown(
            series_instance_uid=row.series_instance_uid,
            modality=row.modality,
            series_number=row.series_number,
            series_description=row.series_description if identified else None,
            body_part_examined=row.body_part_examined,
            instances=counted[row.id],
        )
        for row in rows
    ]


def _readings(
    session: Session, readings: Iterable[Reading], numbers: Mapping[uuid.UUID, int], *, pictures: bool
) -> list[schemas.ReadingShown]:
    shown: dict[uuid.UUID, list[schemas.PictureShown]] = defaultdict(list)
    if pictures:
        rows = session.scalars(
            select(ReadingPicture)
            .join(Instance, (Instance.id == ReadingPicture.instance_id) & Instance.erased_at.is_(None))
            .where(ReadingPicture.reading_id.in_([r.id for r in readings]))
            .order_by(ReadingPicture.reading_id, ReadingPicture.position)
        )
        for row in rows:
            shown[row.reading_id].append(
                schemas.PictureShown(
                    position=row.position,
                    instance_id=row.instance_id,
                    frame=row.frame + 1,
                    sha256=row.sha256,
                    height=row.height,
                    width=row.width,
                    caption=row.caption,
                    reason=row.reason,
                    href=f"/api/v1/pictures/{row.sha256}",
                )
            )
    return [
        schemas.ReadingShown(
            id=reading.id,
            revision=numbers.get(reading.revision_id, 0),
            purpose=reading.purpose,
            state=reading.state,
            lane=reading.lane,
            protocol=reading.protocol,
            protocol_version=reading.protocol_version,
            protocol_digest=reading.protocol_digest,
            model=reading.model,
            failures=reading.failures,
            reason_code=reading.reason_code,
            reason=reading.reason,
            omitted=reading.omitted,
            pictures=shown[reading.id] if pictures else None,
            created_at=reading.created_at,
            ended_at=reading.ended_at,
        )
        for reading in readings
    ]


def _drafts(
    session: Session, readings: Iterable[Reading], numbers: Mapping[uuid.UUID, int]
) -> list[schemas.DraftShown]:
    by_id = {reading.id: reading for reading in readings}
    rows = session.execute(
        select(Draft, ReportOffer.draft_id)
        .outerjoin(ReportOffer, ReportOffer.draft_id == Draft.id)
        .where(Draft.reading_id.in_(list(by_id)), Draft.erased_at.is_(None))
        .order_by(Draft.created_at.desc(), Draft.id.desc())
    ).all()
    shown = []
    for draft, offered in rows:
        body = Body.from_canonical(draft.body)
        shown.append(
            schemas.DraftShown(
                id=draft.id,
                reading_id=draft.reading_id,
                revision=numbers.get(by_id[draft.reading_id].revision_id, 0),
                banner=BANNER_DRAFT,
                labelled_text=labelled(body.plain(), BANNER_DRAFT),
                body=body.as_dict(),
                body_sha256=draft.body_sha256,
                flags=draft.flags,
                provenance=draft.provenance,
                offered=offered is not None,
                created_at=draft.created_at,
            )
        )
    return shown


def _signatures(session: Session, report: Report) -> list[schemas.SignatureShown]:
    rows = session.scalars(
        select(Signature)
        .join(ReportRevision, _COVERS)
        .where(Signature.report_id == report.id)
        .order_by(Signature.report_revision)
    )
    names = schemas.SignatureShown.model_fields
    return [schemas.SignatureShown(**{name: getattr(row, name) for name in names}) for row in rows]
