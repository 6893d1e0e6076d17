"""Reports: a physician's document, from the machine's draft or an empty page to a signature.

Hides permission, state, revision and audit: they are checked here and nowhere else. Each verb works in the caller's
transaction and locks the study first, then the report. Text is append-only; what was signed is exactly what was seen.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from record import audit, deliveries, said, studies, written
from record.access import SYSTEM, Action, Principal, require, visible
from record.body import EMPTY, Body
from record.claims import touch_study
from record.errors import Conflict, IllegalMove, InvalidRequest, NewImages, NotAuthenticated, NotFound, StaleRevision
from record.models import (
    Draft,
    Reading,
    Report,
    ReportOffer,
    ReportRevision,
    Signature,
    Study,
    StudyRevision,
)
from record.origins import settle
from record.sessions import Reauthentication
from record.states import LIVE_REPORT, OPEN_REPORT, Guard, Purpose, ReportState, StudyState, move
from record.written import Written

MAX_REASON = 2000


def live(session: Session, study_id: uuid.UUID) -> Report | None:
    """The one live report of a study, locked."""
    return session.scalar(
        select(Report)
        .where(Report.study_id == study_id, Report.state.in_(LIVE_REPORT))
        .with_for_update()
        .execution_options(populate_existing=True)
    )


def open_draft(session: Session, reading: Reading, draft: Draft) -> Report | None:
    """A primary is done: open its report, or offer the draft beside one that somebody has touched.

    The caller holds the study's lock.
    """
    if reading.purpose != Purpose.PRIMARY:
        return None
    revision = session.scalar(select(StudyRevision.number).where(StudyRevision.id == reading.revision_id)) or 0
    former = live(session, reading.study_id)
    if former is not None and is_touched(former):
        session.add(ReportOffer(report_id=former.id, draft_id=draft.id))
        audit.write(
            session,
            "draft_offered",
            site_id=reading.site_id,
            study_id=reading.study_id,
            report_id=former.id,
            draft_id=draft.id,
        )
        return None
    if former is not None:
        _end(session, former, ReportState.SUPERSEDED, SYSTEM, "a newer draft")
    return _open(session, reading.site_id, reading.study_id, revision, Body.from_canonical(draft.body), draft, SYSTEM)


def begin_by_hand(session: Session, study_id: uuid.UUID, *, by: Principal) -> Report:
    """A physician begins an empty report: the reading abstained or failed, the study was skipped, or nothing is there.

    Raises
    ------
    Conflict
        A report is there already: a draft of this revision, or one that somebody has touched.
    IllegalMove
        The study has never been complete, or it is erased.
    """
    require(by, Action.BEGIN_REPORT)
    study = studies.lock(session, study_id, by)
    if study.erased_at is not None:
        message = "The study is erased: there is nothing to report."
        raise IllegalMove(message)
    if study.revision == 0:
        message = "The study is still receiving for the first time; wait until it is complete, or have it closed."
        raise IllegalMove(message)
    former = live(session, study_id)
    if former is not None:
        if is_touched(former) or former.study_revision == study.revision:
            message = "The study has a report already; edit that one."
            raise Conflict(message, report_id=str(former.id))
        _end(session, former, ReportState.SUPERSEDED, by, "begun by hand on a newer revision")
    return _open(session, study.site_id, study.id, study.revision, EMPTY, None, by)


def save(session: Session, report_id: uuid.UUID, body: Body | Written, *, by: Principal, seen: int) -> ReportRevision:
    """Save a text on top of the revision that was seen. Origins are settled here, not believed.

    Raises
    ------
    InvalidRequest
        The text is longer than a report may be, or holds what nobody sees.
    StaleRevision
        Somebody saved in between; the text is not lost: it is still with the caller, to be rebased.
    IllegalMove
        The report is not open for editing.
    """
    require(by, Action.SAVE_REPORT)
    if isinstance(body, Body):
        body = written.taken(body)
    report = _locked(session, report_id, by)
    if report.state not in OPEN_REPORT:
        message = f"A report that is {report.state} is not changed by saving; begin an addendum or a correction."
        raise IllegalMove(message, report_id=str(report.id), state=report.state)
    _require_seen(report, seen)
    former = revision_of(session, report)
    if former.erased_at is not None:
        message = "The words of this report are erased; nothing is saved on top of them."
        raise IllegalMove(message)
    settled = settle(body, Body.from_canonical(former.body), said.of_study(session, report))
    if settled.canonical() == former.body and is_touched(report):
        audit.write(
            session, "report_shown", by, study_id=report.study_id, report_id=report.id, revision=former.number
        )  # nothing is saved, and the door gives the words back
        return former
    move(report, ReportState(report.state))
    revision = _append(session, report, "save", settled, former, by)
    report.touched_at = report.touched_at or func.now()
    _touch(session, report)
    audit.write(
        session,
        "report_saved",
        by,
        study_id=report.study_id,
        report_id=report.id,
        revision=revision.number,
        body_sha256=revision.body_sha256,
    )
    return revision


def declare_preliminary(session: Session, report_id: uuid.UUID, *, by: Principal, seen: int) -> None:
    """A resident or attending declares the text they have seen a preliminary report."""
    require(by, Action.DECLARE_PRELIMINARY)
    report = _locked(session, report_id, by)
    _require_seen(report, seen)
    studies.require_decided(session, report.study_id)
    if report.state != ReportState.DRAFT:
        message = f"A report that is {report.state} cannot be declared preliminary."
        raise IllegalMove(message, state=report.state)
    _require_words(session, report)
    move(report, ReportState.PRELIMINARY)
    report.touched_at = report.touched_at or func.now()
    _touch(session, report)
    audit.write(
        session, "report_preliminary", by, study_id=report.study_id, report_id=report.id, revision=report.revision
    )


def cancel(session: Session, report_id: uuid.UUID, *, by: Principal, seen: int, reason: str) -> None:
    """A physician cancels an unsigned report, with a reason."""
    require(by, Action.CANCEL_REPORT)
    report = _locked(session, report_id, by)
    _require_seen(report, seen)
    if not reason.strip():
        message = "Say why the report is cancelled."
        raise InvalidRequest(message)
    if report.state not in OPEN_REPORT:
        message = f"A report that is {report.state} cannot be cancelled."
        raise IllegalMove(message, state=report.state)
    _end(session, report, ReportState.CANCELLED, by, reason)


def sign(
    session: Session,
    report_id: uuid.UUID,
    *,
    by: Principal,
    seen: int,
    shown: int,
    proof: Reauthentication,
    reasons: Mapping[Guard, str],
) -> Signature:
    """Make the report final, under one's own name, exactly as seen.

    Parameters
    ----------
    seen
        The report revision whose text the signer has seen.
    shown
        The study revision whose images the signer was shown.
    proof
        Fresh proof of identity, of this very user.
    reasons
        A written reason for each guard that is passed.

    Raises
    ------
    StaleRevision, NewImages, Conflict, IllegalMove, NotAuthenticated
        As the house says; nothing is written.
    """
    require(by, Action.SIGN_REPORT)
    if by.id is None or proof.user_id != by.id:
        message = "The proof of identity is another person's."
        raise NotAuthenticated(message)
    report = _locked(session, report_id, by)
    study = session.get_one(Study, report.study_id)
    if report.state not in OPEN_REPORT:
        message = f"A report that is {report.state} cannot be signed again; begin an addendum or a correction."
        raise IllegalMove(message, state=report.state)
    _require_seen(report, seen)
    studies.require_decided(session, study.id)
    _require_same_images(study, report, shown, reasons)
    _require_words(session, report)
    revision = revision_of(session, report)
    move(report, ReportState.FINAL)
    report.signed_revision = revision.number
    report.touched_at = report.touched_at or func.now()
    head = audit.head(session)
    signature = Signature(
        report_id=report.id,
        report_revision=revision.number,
        study_revision=shown,
        body_sha256=revision.body_sha256,
        user_id=by.id,
        printed_name=by.printed_name,
        role=str(by.role),
        meaning="authorship and approval",
        method=proof.method,
        proven_at=proof.proven_at,
        client_address=proof.client_address,
        reasons={str(guard): text.strip() for guard, text in reasons.items() if text.strip()},
        seal_head=f"{head.position}:{head.hash}",
    )
    session.add(signature)
    session.flush()
    queued = deliveries.queue(session, report, "final", revision.number)
    _touch(session, report)
    audit.write(
        session,
        "report_signed",
        by,
        study_id=study.id,
        report_id=report.id,
        signature_id=signature.id,
        signature_sha256=audit.signature_digest(signature),
        revision=revision.number,
        study_revision=shown,
        body_sha256=revision.body_sha256,
        guards=sorted(str(g) for g in reasons),
        deliveries=queued,
    )
    return signature


def find(session: Session, report_id: uuid.UUID, by: Principal) -> Report:
    """A report that `by` may know of.

    Raises
    ------
    NotFound
        No such report, or another site's.
    """
    report = session.scalar(visible(select(Report).where(Report.id == report_id), by))
    if report is None:
        message = "There is no such report."
        raise NotFound(message)
    return report


def revision_of(session: Session, report: Report, number: int | None = None) -> ReportRevision:
    """One revision's text; the newest where no number is given."""
    return session.scalars(
        select(ReportRevision).where(
            ReportRevision.report_id == report.id, ReportRevision.number == (number or report.revision)
        )
    ).one()


def is_touched(report: Report) -> bool:
    """Saved, claimed, begun by hand, preliminary or signed."""
    return report.touched_at is not None or report.begun_by_id is not None or report.state != ReportState.DRAFT


def _locked(session: Session, report_id: uuid.UUID, by: Principal) -> Report:
    study_id = session.scalar(visible(select(Report.study_id).where(Report.id == report_id), by))
    if study_id is None:
        message = "There is no such report."
        raise NotFound(message)
    studies.lock(session, study_id, by)
    return session.scalars(
        select(Report).where(Report.id == report_id).with_for_update().execution_options(populate_existing=True)
    ).one()


def _open(
    session: Session,
    site_id: uuid.UUID,
    study_id: uuid.UUID,
    study_revision: int,
    body: Body,
    draft: Draft | None,
    by: Principal,
) -> Report:
    report = Report(
        site_id=site_id,
        study_id=study_id,
        study_revision=study_revision,
        draft_id=draft.id if draft else None,
        begun_by_id=by.id,
        revision=0,
        state="",
    )
    move(report, ReportState.DRAFT)
    session.add(report)
    session.flush()
    revision = _append(session, report, "draft" if draft else "begun", body, None, by)
    _touch(session, report)
    audit.write(
        session,
        "report_opened",
        by,
        site_id=site_id,
        study_id=study_id,
        report_id=report.id,
        draft_id=draft.id if draft else None,
        revision=revision.number,
        study_revision=study_revision,
        body_sha256=revision.body_sha256,
    )
    return report


def _append(
    session: Session, report: Report, kind: str, body: Body, former: ReportRevision | None, by: Principal
) -> ReportRevision:
    report.revision += 1
    canonical = body.canonical()
    revision = ReportRevision(
        report_id=report.id,
        number=report.revision,
        kind=kind,
        body=canonical,
        body_sha256=body.digest(),
        previous_sha256=former.body_sha256 if former else None,
        author_id=by.id if by.kind == "user" else None,
    )
    session.add(revision)
    session.flush()
    return revision


def _end(session: Session, report: Report, to: ReportState, by: Principal, reason: str) -> None:
    move(report, to)
    report.ended_reason = reason.strip()[:MAX_REASON]
    _touch(session, report)
    session.flush()
    audit.write(session, f"report_{to}", by, site_id=report.site_id, study_id=report.study_id, report_id=report.id)


def _touch(session: Session, report: Report) -> None:
    report.updated_at = func.now()
    touch_study(session, report.study_id)


def _require_seen(report: Report, seen: int) -> None:
    if seen != report.revision:
        message = f"Revision {seen} was seen, but the report is at revision {report.revision}. Look at it, then go on."
        raise StaleRevision(message, report_id=str(report.id), revision=report.revision)


def _require_words(session: Session, report: Report) -> None:
    body = Body.from_canonical(revision_of(session, report).body)
    if not any(sentence.text.strip() for _, sentence in body.sentences()):
        message = "The report has no words yet."
        raise InvalidRequest(message, report_id=str(report.id))


def _require_same_images(study: Study, report: Report, shown: int, reasons: Mapping[Guard, str]) -> None:
    if reasons.get(Guard.NEW_IMAGES, "").strip():
        if shown not in {study.revision, report.study_revision}:
            message = f"Revision {shown} of the study was shown, which is neither the report's nor the newest one."
            raise NewImages(message, revision=study.revision)
        return
    if study.state == StudyState.RECEIVING:
        message = "New images are arriving. Wait, or sign with a reason."
        raise NewImages(message, revision=study.revision)
    if shown != study.revision or report.study_revision != study.revision:
        message = (
            f"The study is at revision {study.revision}; {shown} was shown, and the report rests on "
            f"{report.study_revision}. Look at the images, or sign with a reason."
        )
        raise NewImages(message, revision=study.revision)
