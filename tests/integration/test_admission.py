"""What an arrival means: another patient, other bytes, a rejection note; and what a person decides of a conflict."""

from __future__ import annotations

from hashlib import sha256

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from record import admission, claims, conflicts, reports, studies
from record.admission import PRIOR_SOURCE, Arrival
from record.errors import Conflict, IllegalMove, InvalidRequest, NotFound, NotPermitted
from record.instances import KEY_OBJECT_SELECTION
from record.models import Event, Instance, Patient, Site, Study
from record.states import Role, StudyState
from tests.records import again, arrival, closed, count, drafted, person, proof, study_of, uid

WHY = "The first side lacks its last rows."


def note(study_uid: str, *rejected: Arrival, title: str = "113001", **attributes: object) -> Arrival:
    """A rejection note on the named arrivals."""
    return arrival(
        study_uid,
        sop_class_uid=KEY_OBJECT_SELECTION,
        has_pixels=False,
        modality="KO",
        document_title_code=title,
        referenced_sop_instance_uids=tuple(each.header.sop_instance_uid for each in rejected),
        **attributes,
    )


def other_side(former: Arrival, **attributes: object) -> Arrival:
    """Other bytes under the same UID."""
    header = former.header
    return arrival(header.study_instance_uid, sop_instance_uid=header.sop_instance_uid, **attributes)


def row(session: Session, came: Arrival) -> Instance:
    return session.get_one(Instance, came.instance_id, populate_existing=True)


def images(session: Session, study: Study) -> set[object]:
    """The images of the study, closed once more."""
    session.refresh(study, with_for_update=True)
    if study.state != StudyState.RECEIVING:
        studies.reopen(study)
    studies.freeze(session, study, "test", {})
    session.flush()
    newest = text(
        "SELECT i.instance_id FROM revision_instances i JOIN study_revisions r ON r.id = i.revision_id"
        " WHERE r.study_id = :study AND r.number = :number"
    )
    return set(session.scalars(newest, {"study": study.id, "number": study.revision}))


# --- whose study it is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [True, False])
def test_a_study_is_the_first_patient_s_that_is_named_though_the_first_instance_names_none(
    session: Session, together: bool
) -> None:
    study_uid = uid()
    came = [
        arrival(study_uid, patient_id="", patient_name=""),
        arrival(study_uid, patient_id="P1", patient_name="One^A", patient_sex="F", issuer_of_patient_id="X"),
        arrival(study_uid, patient_id="P2", patient_name="Two^B"),
    ]
    for batch in [came] if together else [[each] for each in came]:
        admission.admit(session, batch)
    study = study_of(session, study_uid)
    assert (study.patient_id, study.issuer_of_patient_id) == ("P1", "X")
    assert (study.patient_name, study.patient_sex) == ("One^A", "F")
    patient = session.get_one(Patient, study.patient_id_key)
    assert (patient.patient_id, patient.issuer_of_patient_id) == ("P1", "X")
    assert [row(session, each).conflict_kind for each in came] == [None, None, "identity"]
    assert count(session, "patients") == 1, "an undecided side makes no patient"


def test_two_issuers_of_the_same_id_are_two_patients_though_the_first_instance_names_no_issuer(
    session: Session,
) -> None:
    study_uid = uid()
    came = [arrival(study_uid, issuer_of_patient_id=issuer) for issuer in ("", "A", "B")]
    admission.admit(session, came)
    assert [row(session, each).conflict_kind for each in came] == [None, None, "identity"]


def test_what_was_erased_and_is_sent_again_is_no_duplicate_of_the_file_that_is_gone(session: Session) -> None:
    one = arrival(uid())
    study = closed(session, [one])
    studies.erase(session, study.id, by=person(session, Role.ADMIN))
    assert admission.admit(session, [again(one)]).new == 1


# --- rejection notes -------------------------------------------------------------------------------------------------


def test_a_rejection_note_takes_images_out_and_reopens_the_study(session: Session) -> None:
    kept = arrival(uid())
    bad = arrival(kept.header.study_instance_uid)
    study = closed(session, [kept, bad])
    admission.admit(session, [note(study.study_instance_uid, bad)])
    session.refresh(study)
    assert study.state == StudyState.RECEIVING
    assert row(session, bad).rejected
    assert images(session, study) == {kept.instance_id}


def test_an_image_that_comes_after_its_rejection_note_is_rejected_at_once_and_changes_nothing(
    session: Session,
) -> None:
    kept = arrival(uid())
    late = arrival(kept.header.study_instance_uid)
    study = closed(session, [kept, note(kept.header.study_instance_uid, late)])
    admission.admit(session, [late])
    session.refresh(study)
    assert (study.state, row(session, late).rejected) == (StudyState.READY, True)
    assert images(session, study) == {kept.instance_id}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_a_note_and_its_images_in_one_batch_come_in_any_order(session: Session, order: tuple[int, ...]) -> None:
    kept = arrival(uid())
    bad = arrival(kept.header.study_instance_uid)
    came = [kept, bad, note(kept.header.study_instance_uid, bad)]
    study = closed(session, [came[i] for i in order])
    assert images(session, study) == {kept.instance_id}


def test_a_note_on_images_that_did_not_count_reopens_nothing(session: Session) -> None:
    one = arrival(uid())
    study = closed(session, [one])
    elsewhere = arrival(uid())
    admission.admit(session, [elsewhere])
    admission.admit(session, [note(study.study_instance_uid, elsewhere)])
    session.refresh(study)
    assert (study.state, row(session, elsewhere).rejected) == (StudyState.READY, False)


def test_an_ordinary_key_object_selection_rejects_nothing(session: Session) -> None:
    one = arrival(uid())
    study = closed(session, [one])
    admission.admit(session, [note(study.study_instance_uid, one, title="113000")])
    session.refresh(study)
    assert (study.state, row(session, one).rejected) == (StudyState.READY, False)


# --- sides -----------------------------------------------------------------------------------------------------------


def test_a_side_that_is_sent_again_is_its_own_duplicate_and_no_new_conflict(session: Session) -> None:
    one = arrival(uid())
    other = other_side(one)
    admission.admit(session, [one, other])
    assert admission.admit(session, [again(other)]).duplicates == 1
    assert count(session, "instances", "conflict_kind IS NOT NULL") == 1


def test_other_bytes_by_another_door_clear_the_mark_of_a_prior(session: Session) -> None:
    from dataclasses import replace

    fetched = replace(arrival(uid()), source=PRIOR_SOURCE)
    study = closed(session, [fetched])
    assert study.skipped_code == "fetched_as_prior"
    admission.admit(session, [other_side(fetched)])
    session.refresh(study)
    assert (study.state, row(session, fetched).prior) == (StudyState.RECEIVING, False)


# --- deciding --------------------------------------------------------------------------------------------------------


def test_deciding_for_the_first_side_changes_no_image_and_lets_the_report_be_signed(session: Session) -> None:
    one = arrival(uid())
    study = closed(session, [one])
    report = drafted(session, study)
    other = other_side(one)
    admission.admit(session, [other])
    doctor = person(session, Role.ATTENDING)
    conflicts.decide(session, other.instance_id, keep=False, by=doctor, reason=WHY)
    session.refresh(study)
    assert study.state == StudyState.READY
    assert row(session, other).conflict_decided_at
    reports.sign(session, report.id, by=doctor, seen=1, shown=1, proof=proof(session, doctor), reasons={})
    assert images(session, study) == {one.instance_id}


def test_deciding_for_the_other_side_makes_it_the_first_and_reopens_the_study(session: Session) -> None:
    one = arrival(uid())
    study = closed(session, [one])
    other = other_side(one)
    admission.admit(session, [other])
    conflicts.decide(session, other.instance_id, keep=True, by=person(session, Role.OPERATOR), reason=WHY)
    session.refresh(study)
    assert study.state == StudyState.RECEIVING
    assert row(session, one).conflict_of_id == other.instance_id
    assert row(session, other).conflict_of_id is None
    assert images(session, study) == {other.instance_id}
    assert admission.admit(session, [again(one), again(other)]).duplicates == 2
    session.refresh(study)
    assert study.state == StudyState.READY
    studies.require_decided(session, study.id)


def test_of_three_sides_the_third_stays_undecided(session: Session) -> None:
    one = arrival(uid())
    study = closed(session, [one])
    second, third = other_side(one), other_side(one)
    admission.admit(session, [second, third])
    doctor = person(session, Role.ATTENDING)
    conflicts.decide(session, second.instance_id, keep=True, by=doctor, reason=WHY)
    assert row(session, third).conflict_of_id == second.instance_id
    with pytest.raises(Conflict):
        studies.require_decided(session, study.id)
    conflicts.decide(session, third.instance_id, keep=True, by=doctor, reason=WHY)
    studies.require_decided(session, study.id)
    assert images(session, study) == {third.instance_id}
    assert {row(session, each).conflict_of_id for each in (one, second)} == {third.instance_id}


def test_another_patient_s_side_is_not_smuggled_in_by_a_decision_about_bytes(session: Session) -> None:
    one = arrival(uid())
    study = closed(session, [one])
    other = other_side(one, patient_id="P2")
    admission.admit(session, [other])
    doctor = person(session, Role.ATTENDING)
    conflicts.decide(session, other.instance_id, keep=True, by=doctor, reason=WHY)
    assert row(session, other).conflict_kind == "identity"
    with pytest.raises(Conflict):
        studies.require_decided(session, study.id)
    assert images(session, study) == set()
    conflicts.decide(session, other.instance_id, keep=True, by=doctor, reason=WHY)
    assert images(session, study) == {other.instance_id}


def test_another_patient_s_image_is_kept_under_the_study_and_reopens_it(session: Session) -> None:
    one = arrival(uid())
    study = closed(session, [one])
    other = arrival(study.study_instance_uid, patient_id="P2")
    admission.admit(session, [other])
    session.refresh(study)
    assert study.state == StudyState.READY
    conflicts.decide(session, other.instance_id, keep=True, by=person(session, Role.ATTENDING), reason=WHY)
    session.refresh(study)
    assert study.state == StudyState.RECEIVING
    assert images(session, study) == {one.instance_id, other.instance_id}


def test_another_patient_s_image_is_taken_out_and_nothing_is_reopened(session: Session) -> None:
    one = arrival(uid())
    study = closed(session, [one])
    other = arrival(study.study_instance_uid, patient_id="P2")
    admission.admit(session, [other])
    conflicts.decide(session, other.instance_id, keep=False, by=person(session, Role.ATTENDING), reason=WHY)
    session.refresh(study)
    assert (study.state, row(session, other).rejected) == (StudyState.READY, True)
    studies.require_decided(session, study.id)
    assert images(session, study) == {one.instance_id}


def test_a_rejection_note_in_conflict_rejects_only_once_it_is_kept(session: Session) -> None:
    one = arrival(uid())
    study = closed(session, [one])
    doubtful = note(study.study_instance_uid, one, patient_id="P2")
    admission.admit(session, [doubtful])
    assert not row(session, one).rejected
    conflicts.decide(session, doubtful.instance_id, keep=True, by=person(session, Role.ATTENDING), reason=WHY)
    session.refresh(study)
    assert (study.state, row(session, one).rejected) == (StudyState.RECEIVING, True)


def test_a_decision_about_a_rejected_image_brings_it_not_back(session: Session) -> None:
    one = arrival(uid())
    study = closed(session, [one, note(one.header.study_instance_uid, one)])
    other, stranger = other_side(one), arrival(study.study_instance_uid, patient_id="P2")
    admission.admit(session, [other, stranger, note(study.study_instance_uid, stranger)])
    doctor = person(session, Role.ATTENDING)
    for each in (other, stranger):
        conflicts.decide(session, each.instance_id, keep=True, by=doctor, reason=WHY)
    session.refresh(study)
    assert study.state == StudyState.SKIPPED
    assert images(session, study) == set()


def test_a_decision_is_an_event_without_its_words(session: Session) -> None:
    one = arrival(uid())
    other = other_side(one)
    admission.admit(session, [one, other])
    doctor = person(session, Role.ATTENDING)
    conflicts.decide(session, other.instance_id, keep=True, by=doctor, reason=f"  {WHY} ")
    event = session.scalars(select(Event).where(Event.kind == "conflict_decided")).one()
    assert (event.actor_id, event.study_id) == (doctor.id, row(session, one).study_id)
    assert event.facts["reason_sha256"] == sha256(WHY.encode()).hexdigest()
    assert event.facts["instance_id"] == str(other.instance_id)
    assert (event.facts["conflict"], event.facts["kept"]) == ("bytes", True)
    assert WHY not in str(event.facts)


def test_who_may_not_decide_and_what_cannot_be_decided(session: Session) -> None:
    one = arrival(uid())
    other = other_side(one)
    admission.admit(session, [one, other])
    attending = person(session, Role.ATTENDING)
    for role in (Role.RESIDENT, Role.ADMIN, Role.DASHBOARD):
        with pytest.raises(NotPermitted):
            conflicts.decide(session, other.instance_id, keep=True, by=person(session, role), reason=WHY)
    for empty in ("", " \n"):
        with pytest.raises(InvalidRequest):
            conflicts.decide(session, other.instance_id, keep=True, by=attending, reason=empty)
    with pytest.raises(IllegalMove):
        conflicts.decide(session, one.instance_id, keep=True, by=attending, reason=WHY)
    session.add(Site(name="elsewhere"))
    session.flush()
    stranger = person(session, Role.ATTENDING, site="elsewhere")
    with pytest.raises(NotFound):
        conflicts.decide(session, other.instance_id, keep=True, by=stranger, reason=WHY)
    conflicts.decide(session, other.instance_id, keep=False, by=attending, reason=WHY)
    with pytest.raises(IllegalMove):
        conflicts.decide(session, other.instance_id, keep=True, by=attending, reason=WHY)


def test_bytes_that_are_erased_can_only_be_decided_out(session: Session) -> None:
    one = arrival(uid())
    study = closed(session, [one])
    other = other_side(one)
    admission.admit(session, [other])
    studies.erase(session, study.id, by=person(session, Role.ADMIN))
    doctor = person(session, Role.ATTENDING)
    with pytest.raises(IllegalMove):
        conflicts.decide(session, other.instance_id, keep=True, by=doctor, reason=WHY)
    conflicts.decide(session, other.instance_id, keep=False, by=doctor, reason=WHY)
    studies.require_decided(session, study.id)
    assert claims.claim_prepare(session, "one", 30, max_prepared=64, model="phantom") is None
