"""Two patients, two sides, and the person who decides."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from record import admission, conflicts, reports, studies
from record.errors import Conflict, IllegalMove, InvalidRequest, NotPermitted
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
    with pytest.raises(IllegalMove):
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
