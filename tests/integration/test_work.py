"""What is settled leaves the worklist's index, and comes back with every change: a tab never hides a study."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from record import admission, claims, conflicts, readings, reports, studies, work
from record.models import Study
from record.states import Role
from tests.records import arrival, closed, drafted, person, proof, study_of, uid


def places(session: Session, study: Study) -> set[str]:
    """The tabs a study stands in, by the conditions alone; each must stand in the index as well."""
    session.commit()
    found = set()
    for condition in (work.to_read, work.not_ready, work.preliminary, work.needs_attention):
        rows = work.joined(select(Study.id)).where(condition(), Study.id == study.id)
        if session.execute(rows).first():
            found.add(condition.__name__)
            assert session.execute(rows.where(work.unsettled())).first(), f"{condition.__name__} is hidden"
    return found


def is_settled(session: Session, study: Study) -> bool:
    session.commit()
    work.settle(session, 100)
    session.commit()
    return session.execute(select(Study.id).where(work.unsettled(), Study.id == study.id)).first() is None


def test_a_study_is_settled_by_its_signature_and_unsettled_by_new_images(session: Session) -> None:
    doctor = person(session, Role.ATTENDING)
    study = closed(session, [arrival(study_uid := uid())])
    assert places(session, study) == {"not_ready"}
    assert not is_settled(session, study)
    report = drafted(session, study)
    assert report is not None
    assert places(session, study) == {"to_read"}
    assert not is_settled(session, study)
    reports.declare_preliminary(session, report.id, by=doctor, seen=1)
    assert places(session, study) == {"preliminary"}
    assert not is_settled(session, study)
    reports.sign(session, report.id, by=doctor, seen=1, shown=1, proof=proof(session, doctor), reasons={})
    assert places(session, study) == set()
    assert is_settled(session, study)
    admission.admit(session, [arrival(study_uid)])
    studies.freeze(session, study_of(session, study_uid), "test", {})
    assert places(session, study) == {"needs_attention"}
    assert not is_settled(session, study)


def test_a_cancelled_report_settles_until_the_study_is_read_anew(session: Session) -> None:
    doctor = person(session, Role.ATTENDING)
    study = closed(session, [arrival(uid())])
    report = drafted(session, study)
    assert report is not None
    reports.cancel(session, report.id, by=doctor, seen=1, reason="Wrong patient.")
    assert places(session, study) == set()
    assert is_settled(session, study)
    reports.begin_by_hand(session, study.id, by=doctor)
    assert places(session, study) == {"to_read"}


def test_a_failed_reading_is_never_settled_and_its_retry_neither(session: Session) -> None:
    operator = person(session, Role.OPERATOR)
    study = closed(session, [arrival(uid())])
    claim = claims.claim_prepare(session, "w", 30, max_prepared=64, model="phantom")
    assert claim is not None
    claims.fail(session, claim, "error", "It broke.", max_failures=1, backoff_s=0)
    assert places(session, study) == {"to_read", "needs_attention"}
    assert not is_settled(session, study)
    readings.retry(session, claim.reading_id, by=operator)
    assert places(session, study) == {"not_ready"}


def test_a_conflict_brings_a_settled_study_back(session: Session) -> None:
    doctor = person(session, Role.ATTENDING)
    first = arrival(study_uid := uid())
    study = closed(session, [first])
    report = drafted(session, study)
    assert report is not None
    reports.sign(session, report.id, by=doctor, seen=1, shown=1, proof=proof(session, doctor), reasons={})
    assert is_settled(session, study)
    other = arrival(study_uid, sop_instance_uid=first.header.sop_instance_uid)
    admission.admit(session, [other])
    assert "needs_attention" in places(session, study)
    conflicts.decide(session, other.instance_id, keep=False, reason="A copy.", by=doctor)
    assert places(session, study) == set()
    assert is_settled(session, study)
