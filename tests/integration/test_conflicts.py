"""Two patients, two sides, and the person who decides."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from record import admission, conflicts, reports, studies
from record.access import Principal
from record.body import sha256
from record.errors import Conflict, IllegalMove, InvalidRequest, NotPermitted
from record.instances import KEY_OBJECT_SELECTION
from record.models import ConflictDecision, Instance, RevisionInstance, Study, StudyRevision
from record.states import Role, StudyState
from tests.records import again, arrival, closed, count, drafted, person, proof, study_of, uid


def test_the_first_instance_that_names_a_patient_speaks_for_the_study(session: Session) -> None:
    study_uid = uid()
    admission.admit(session, [arrival(study_uid, patient_id="")])
    admission.admit(session, [arrival(study_uid, patient_id="P1", patient_name="One")])
    study = study_of(session, study_uid)
    assert (study.patient_id, study.patient_name) == ("P1", "Phantom^One")
    assert admission.admit(session, [arrival(study_uid, patient_id="P2")]).conflicts == 1


def test_a_second_side_sent_again_is_no_third_one(session: Session) -> None:
    one = arrival(uid())
    other = arrival(one.header.study_instance_uid, sop_instance_uid=one.header.sop_instance_uid)
    admission.admit(session, [one])
    assert admission.admit(session, [other]).conflicts == 1
    assert admission.admit(session, [again(other)]).duplicates == 1


def test_keeping_the_other_side_changes_the_set_and_lets_the_study_be_signed(session: Session) -> None:
    one = arrival(uid())
    study = closed(session, [one])
    other = arrival(study.study_instance_uid, sop_instance_uid=one.header.sop_instance_uid)
    admission.admit(session, [other])
    (side,) = conflicts.undecided(session, study.id)
    doctor, resident = person(session, Role.ATTENDING), person(session, Role.RESIDENT)
    with pytest.raises(NotPermitted):
        conflicts.decide(session, side.id, keep=True, by=resident, reason="x")
    with pytest.raises(InvalidRequest):
        conflicts.decide(session, side.id, keep=True, by=doctor, reason=" ")
    conflicts.decide(session, side.id, keep=True, by=doctor, reason="the second has the whole lung")
    assert study.state == StudyState.RECEIVING
    studies.freeze(session, study, "test", {})
    assert count(session, "revision_instances", f"instance_id = '{other.instance_id}'") == 1
    assert count(session, "revision_instances", "revision_id = (SELECT id FROM study_revisions WHERE number = 2)") == 1
    report = drafted(session, study)
    reports.sign(session, report.id, by=doctor, seen=1, shown=2, proof=proof(session, doctor), reasons={})
    with pytest.raises(IllegalMove, match="meanwhile"):
        conflicts.decide(session, side.id, keep=False, by=doctor, reason="again")


def test_deciding_a_side_out_changes_nothing_else(session: Session) -> None:
    one = arrival(uid())
    study = closed(session, [one])
    report = drafted(session, study)
    admission.admit(session, [arrival(study.study_instance_uid, patient_id="P2")])
    doctor = person(session, Role.ATTENDING)
    with pytest.raises(Conflict):
        reports.sign(session, report.id, by=doctor, seen=1, shown=1, proof=proof(session, doctor), reasons={})
    (side,) = conflicts.undecided(session, study.id)
    conflicts.decide(session, side.id, keep=False, by=doctor, reason="another patient's film")
    assert study.state == StudyState.READY
    reports.sign(session, report.id, by=doctor, seen=1, shown=1, proof=proof(session, doctor), reasons={})


def overrule(session: Session, study: Study, *, keep: bool, by: Principal, reason: str = "looked again") -> None:
    """Decide anew about the one side that is decided."""
    (one,) = conflicts.decided(session, study.id)
    conflicts.decide(session, one.side.id, keep=keep, by=by, reason=reason, overrules=one.side.conflict_decided_at)
    session.commit()  # a transaction each, as the doors have it: now() is another one


def images_in(session: Session, study: Study) -> set[uuid.UUID]:
    """What a closing freezes now."""
    session.refresh(study)
    if study.state == StudyState.RECEIVING:
        studies.freeze(session, study, "test", {})
    frozen = select(RevisionInstance.instance_id).join(StudyRevision)
    return set(
        session.scalars(frozen.where(StudyRevision.study_id == study.id, StudyRevision.number == study.revision))
    )


def test_an_image_that_was_replaced_can_be_put_back_and_who_decided_stays_to_be_read(session: Session) -> None:
    one = arrival(uid())
    study = closed(session, [one])
    other = arrival(study.study_instance_uid, sop_instance_uid=one.header.sop_instance_uid)
    admission.admit(session, [other])
    doctor, operator = person(session, Role.ATTENDING), person(session, Role.OPERATOR)
    conflicts.decide(session, other.instance_id, keep=True, by=doctor, reason="the newer one")
    session.commit()
    assert images_in(session, study) == {other.instance_id}
    admission.admit(session, [again(one)])
    (replaced,) = conflicts.decided(session, study.id)
    assert (replaced.side.id, replaced.kept, replaced.came_again) == (one.instance_id, False, 1)
    with pytest.raises(IllegalMove, match="already"):
        overrule(session, study, keep=False, by=operator)
    session.rollback()
    overrule(session, study, keep=True, by=operator, reason="the newer one cannot be decoded")
    assert images_in(session, study) == {one.instance_id}
    (replaced,) = conflicts.decided(session, study.id)
    assert replaced.side.id == other.instance_id
    told = [(r.decision.instance_id, r.decision.reason, r.decided_by) for r in replaced.rulings]
    assert told == [
        (one.instance_id, "the newer one cannot be decoded", operator.printed_name),
        (other.instance_id, "the newer one", doctor.printed_name),
    ]
    with pytest.raises(IllegalMove, match="meanwhile"):
        conflicts.decide(session, other.instance_id, keep=True, by=doctor, reason="late", overrules=datetime.now(UTC))
    at = session.get_one(Instance, one.instance_id).conflict_decided_at
    with pytest.raises(IllegalMove, match="take that one"):
        conflicts.decide(session, one.instance_id, keep=False, by=doctor, reason="out", overrules=at)


def test_an_image_of_another_patient_goes_out_and_in_again(session: Session) -> None:
    one = arrival(uid())
    study = closed(session, [one])
    stranger = arrival(study.study_instance_uid, patient_id="P2")
    admission.admit(session, [stranger])
    doctor = person(session, Role.ATTENDING)
    conflicts.decide(session, stranger.instance_id, keep=False, by=doctor, reason="another patient's")
    session.commit()
    assert images_in(session, study) == {one.instance_id}
    overrule(session, study, keep=True, by=doctor)
    assert images_in(session, study) == {one.instance_id, stranger.instance_id}
    overrule(session, study, keep=False, by=doctor)
    assert images_in(session, study) == {one.instance_id}
    assert count(session, "conflict_decisions") == 3
    assert count(session, "events", "kind = 'conflict_decided'") == 3


def test_what_a_rejection_note_took_out_comes_back_when_the_note_is_none_of_the_study(session: Session) -> None:
    one, two = arrival(study_uid := uid()), arrival(study_uid)
    study = closed(session, [one, two])
    rejected = (one.header.sop_instance_uid,)
    note = arrival(
        study_uid,
        sop_class_uid=KEY_OBJECT_SELECTION,
        document_title_code="113001",
        has_pixels=False,
        patient_id="P2",
        referenced_sop_instance_uids=rejected,
    )
    admission.admit(session, [note])
    doctor = person(session, Role.ATTENDING)
    conflicts.decide(session, note.instance_id, keep=True, by=doctor, reason="the same patient")
    session.commit()
    assert images_in(session, study) == {two.instance_id}
    overrule(session, study, keep=False, by=doctor, reason="another one after all")
    assert images_in(session, study) == {one.instance_id, two.instance_id}


def test_an_erasure_takes_the_reasons_of_decisions_and_leaves_their_hashes(session: Session) -> None:
    study = closed(session, [arrival(uid())])
    admission.admit(session, [arrival(study.study_instance_uid, patient_id="P2")])
    (side,) = conflicts.undecided(session, study.id)
    doctor = person(session, Role.ATTENDING)
    conflicts.decide(session, side.id, keep=False, by=doctor, reason="CANARY's film")
    studies.erase(session, study.id, by=person(session, Role.ADMIN))
    (decision,) = session.scalars(select(ConflictDecision))
    assert (decision.reason, decision.reason_sha256) == ("", sha256("CANARY's film"))
