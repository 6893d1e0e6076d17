"""The record's verbs on a real PostgreSQL: studies, readings, reports."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from record import admission, audit, claims, conflicts, leases, migrate, readings, reports, studies
from record.body import Body, Origin
from record.db import connect, transaction
from record.errors import Conflict, IllegalMove, LeaseLost, NewImages, NotFound, NotPermitted, StaleRevision
from record.models import APPEND_ONLY, Reading, Report, Site
from record.states import Guard, ReadingState, ReportState, Role, StudyState
from record.written import read
from tests.conftest import FreshDatabase
from tests.records import SR, again, arrival, closed, count, draft_body, drafted, person, proof, study_of, uid


def test_models_and_migrations_agree(database: FreshDatabase) -> None:
    migrate.check(database.owner_url)


# --- studies ---------------------------------------------------------------------------------------------------------


def test_the_same_file_admitted_twice_is_one_row(session: Session) -> None:
    one = arrival(uid())
    assert admission.admit(session, [one]).new == 1
    assert admission.admit(session, [one]).known == 1
    assert count(session, "instances") == 1


def test_the_same_bytes_sent_again_change_nothing_and_leave_no_file(session: Session) -> None:
    one = arrival(uid())
    study = closed(session, [one])
    assert admission.admit(session, [again(one)]).duplicates == 1
    session.refresh(study)
    assert (study.state, study.instances) == (StudyState.READY, 1)
    assert count(session, "store_deletions") == 1


def test_other_bytes_under_a_known_uid_are_a_conflict_that_blocks_signing(session: Session) -> None:
    one = arrival(uid())
    study = closed(session, [one])
    other = arrival(study.study_instance_uid, sop_instance_uid=one.header.sop_instance_uid)
    assert admission.admit(session, [other]).conflicts == 1
    session.refresh(study)
    assert study.state == StudyState.READY, "an undecided side changes no revision"
    report = drafted(session, study)
    doctor = person(session, Role.ATTENDING)
    with pytest.raises(Conflict):
        reports.sign(session, report.id, by=doctor, seen=1, shown=1, proof=proof(session, doctor), reasons={})


def test_another_patient_under_the_same_study_uid_is_kept_apart(session: Session) -> None:
    study_uid = uid()
    admission.admit(session, [arrival(study_uid, patient_id="P1")])
    assert admission.admit(session, [arrival(study_uid, patient_id="P2")]).conflicts == 1
    study = study_of(session, study_uid)
    session.refresh(study, with_for_update=True)
    studies.freeze(session, study, "test", {})
    assert count(session, "revision_instances") == 1


def test_a_late_image_reopens_the_study_and_supersedes_the_unfinished_reading(session: Session) -> None:
    study = closed(session, [arrival(uid())])
    first = session.query(Reading).one()
    admission.admit(session, [arrival(study.study_instance_uid)])
    session.refresh(study)
    assert study.state == StudyState.RECEIVING
    studies.freeze(session, study, "test", {})
    session.refresh(first)
    assert (first.state, study.revision) == (ReadingState.SUPERSEDED, 2)
    assert count(session, "readings", "state = 'queued'") == 1


def test_what_holds_no_image_is_skipped_with_its_reason(session: Session) -> None:
    study = closed(session, [arrival(uid(), sop_class_uid=SR, has_pixels=False)])
    assert (study.state, study.skipped_code) == (StudyState.SKIPPED, "no_images")
    assert count(session, "readings") == 0


def test_a_report_that_comes_home_reopens_nothing(session: Session) -> None:
    study = closed(session, [arrival(uid())])
    admission.admit(session, [arrival(study.study_instance_uid, sop_class_uid=SR, has_pixels=False)])
    session.refresh(study)
    assert (study.state, study.instances) == (StudyState.READY, 2)


def test_quiet_time_alone_makes_a_study_due(session: Session) -> None:
    admission.admit(session, [arrival(study_uid := uid())])
    session.commit()
    study = study_of(session, study_uid)
    assert studies.due_now(session, 60, 3600) == []
    assert not studies.close_if_due(session, study.id, 60, 3600)
    assert studies.due_now(session, 0, 3600) == [study.id]
    assert studies.close_if_due(session, study.id, 0, 3600)


def test_endless_images_do_not_keep_a_study_open_for_ever(session: Session) -> None:
    admission.admit(session, [arrival(study_uid := uid())])
    session.commit()
    assert studies.close_if_due(session, study_of(session, study_uid).id, 60, 0)
    assert session.scalar(text("SELECT evidence_kind FROM study_revisions")) == "max_wait"


# --- readings --------------------------------------------------------------------------------------------------------


def test_a_lost_lease_fences_whoever_had_it(session: Session) -> None:
    closed(session, [arrival(uid())])
    old = claims.claim_prepare(session, "one", 0, max_prepared=64, model="phantom")
    session.commit()
    assert leases.take_back(session, max_failures=5, backoff_s=0) == 1
    session.commit()
    new = claims.claim_prepare(session, "two", 30, max_prepared=64, model="phantom")
    assert new.token == old.token + 1
    assert new.failures == 1
    with pytest.raises(LeaseLost):
        claims.release(session, old)
    assert leases.extend(session, [old, new], 30) == {new.reading_id}


def test_failures_are_spent_and_the_reading_stays_failed(session: Session) -> None:
    closed(session, [arrival(uid())])
    for expected in (ReadingState.QUEUED, ReadingState.QUEUED, ReadingState.FAILED):
        session.commit()
        claim = claims.claim_prepare(session, "one", 30, max_prepared=64, model="phantom")
        assert claims.fail(session, claim, "x", "x", max_failures=3, backoff_s=0) == expected
    assert claims.claim_prepare(session, "one", 30, max_prepared=64, model="phantom") is None


def test_an_operator_may_retry_what_failed(session: Session) -> None:
    closed(session, [arrival(uid())])
    claim = claims.claim_prepare(session, "one", 30, max_prepared=64, model="phantom")
    claims.abstain(session, claim, "no_protocol", "nothing matches")
    operator, doctor = person(session, Role.OPERATOR), person(session, Role.ATTENDING)
    with pytest.raises(NotPermitted):
        readings.retry(session, claim.reading_id, by=doctor)
    readings.retry(session, claim.reading_id, by=operator)
    assert count(session, "readings", "state = 'queued' AND failures = 0") == 1


def test_two_sites_are_served_in_turn_and_stat_first(session: Session) -> None:
    main = session.query(Site).one()
    other = Site(name="other")
    session.add(other)
    session.flush()
    order = []
    for site, lane, n in ((main, "routine", 4), (other, "routine", 2), (main, "stat", 1)):
        for _ in range(n):
            one = arrival(uid())
            admission.admit(session, [one])
            study = study_of(session, one.header.study_instance_uid)
            study.site_id, study.lane = site.id, lane
            session.flush()
            studies.freeze(session, study, "test", {})
    while claim := claims.claim_prepare(session, "one", 30, max_prepared=64, model="phantom"):
        reading = session.get_one(Reading, claim.reading_id)
        order.append("stat" if reading.lane == "stat" else "main" if reading.site_id == main.id else "other")
    assert order[0] == "stat"
    assert order[1:5] in (["main", "other"] * 2, ["other", "main"] * 2)


def test_eight_claimers_never_take_the_same_reading(engine: Engine) -> None:
    with transaction(engine) as session:
        for _ in range(40):
            closed(session, [arrival(uid())])
    taken: list[object] = []

    def work() -> None:
        while True:
            with transaction(engine) as mine:
                claim = claims.claim_prepare(mine, "w", 30, max_prepared=64, model="phantom")
            if claim is None:
                return
            taken.append(claim.reading_id)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 40


# --- reports ---------------------------------------------------------------------------------------------------------


def test_a_draft_becomes_a_report_that_is_edited_and_signed(session: Session) -> None:
    study = closed(session, [arrival(uid())])
    report = drafted(session, study)
    doctor = person(session, Role.ATTENDING)
    text_seen = draft_body().plain().replace("left", "right")
    saved = reports.save(session, report.id, read(text_seen), by=doctor, seen=1)
    assert saved.number == 2
    signature = reports.sign(session, report.id, by=doctor, seen=2, shown=1, proof=proof(session, doctor), reasons={})
    assert (report.state, report.signed_revision) == (ReportState.FINAL, 2)
    assert signature.body_sha256 == saved.body_sha256
    assert signature.printed_name == doctor.printed_name
    first = reports.revision_of(session, report, 1)
    assert first.body == draft_body().canonical(), "the machine's words stay what they were"
    assert saved.previous_sha256 == first.body_sha256
    with pytest.raises(IllegalMove):
        reports.save(session, report.id, draft_body(), by=doctor, seen=2)


def test_nobody_signs_what_they_have_not_seen(session: Session) -> None:
    study = closed(session, [arrival(uid())])
    report = drafted(session, study)
    doctor, colleague = person(session, Role.ATTENDING), person(session, Role.RESIDENT)
    reports.save(session, report.id, draft_body("Clear."), by=colleague, seen=1)
    with pytest.raises(StaleRevision):
        reports.sign(session, report.id, by=doctor, seen=1, shown=1, proof=proof(session, doctor), reasons={})
    with pytest.raises(StaleRevision):
        reports.save(session, report.id, draft_body("Other."), by=doctor, seen=1)
    with pytest.raises(NotPermitted):
        reports.sign(session, report.id, by=colleague, seen=2, shown=1, proof=proof(session, colleague), reasons={})


def test_new_images_stop_a_signature_until_a_reason_is_given(session: Session) -> None:
    study = closed(session, [arrival(uid())])
    report = drafted(session, study)
    doctor = person(session, Role.ATTENDING)
    admission.admit(session, [arrival(study.study_instance_uid)])
    evidence = proof(session, doctor)
    with pytest.raises(NewImages):
        reports.sign(session, report.id, by=doctor, seen=1, shown=1, proof=evidence, reasons={})
    with pytest.raises(NewImages):
        reports.sign(session, report.id, by=doctor, seen=1, shown=1, proof=evidence, reasons={Guard.NEW_IMAGES: "  "})
    signature = reports.sign(
        session, report.id, by=doctor, seen=1, shown=1, proof=evidence, reasons={Guard.NEW_IMAGES: "same view"}
    )
    assert signature.reasons == {"new_images": "same view"}


def test_a_newer_draft_replaces_an_untouched_one_and_is_only_offered_beside_a_touched_one(session: Session) -> None:
    study = closed(session, [arrival(uid())])
    first = drafted(session, study)
    admission.admit(session, [arrival(study.study_instance_uid)])
    session.refresh(study)
    studies.freeze(session, study, "test", {})
    second = drafted(session, study)
    session.refresh(first)
    assert first.state == ReportState.SUPERSEDED
    doctor = person(session, Role.RESIDENT)
    reports.save(session, second.id, draft_body("Mine."), by=doctor, seen=1)
    admission.admit(session, [arrival(study.study_instance_uid)])
    session.refresh(study)
    studies.freeze(session, study, "test", {})
    assert drafted(session, study) is None
    assert count(session, "report_offers") == 1
    assert session.get_one(Report, second.id).state == ReportState.DRAFT


def test_a_skipped_study_is_reported_by_hand_with_nothing_of_the_machine_in_it(session: Session) -> None:
    study = closed(session, [arrival(uid(), sop_class_uid=SR, has_pixels=False)])
    doctor = person(session, Role.ATTENDING)
    report = reports.begin_by_hand(session, study.id, by=doctor)
    saved = reports.save(session, report.id, read("Findings:\nSeen elsewhere."), by=doctor, seen=1)
    assert [s.origin for _, s in Body.from_canonical(saved.body).sentences()] == [Origin.HUMAN]
    assert '"origin":"machine"' not in saved.body
    with pytest.raises(Conflict):
        reports.begin_by_hand(session, study.id, by=doctor)
    reports.cancel(session, report.id, by=doctor, seen=2, reason="wrong study")
    assert reports.begin_by_hand(session, study.id, by=doctor).revision == 1


def test_another_sites_report_is_not_there(session: Session) -> None:
    report = drafted(session, closed(session, [arrival(uid())]))
    session.add(Site(name="elsewhere"))
    session.flush()
    stranger = person(session, Role.ATTENDING, site="elsewhere")
    with pytest.raises(NotFound):
        reports.find(session, report.id, stranger)
    with pytest.raises(NotFound):
        reports.save(session, report.id, draft_body(), by=stranger, seen=1)


# --- what the database refuses -----------------------------------------------------------------------------------------


def test_programs_and_even_the_owner_cannot_change_history(database: FreshDatabase, engine: Engine) -> None:
    with transaction(engine) as session:
        study = closed(session, [arrival(uid())])
        report = drafted(session, study)
        doctor = person(session, Role.ATTENDING)
        reports.sign(session, report.id, by=doctor, seen=1, shown=1, proof=proof(session, doctor), reasons={})
        admission.admit(session, [arrival(study.study_instance_uid, patient_id="P2")])
        (side,) = conflicts.undecided(session, study.id)
        conflicts.decide(session, side.id, keep=False, by=doctor, reason="another patient's")
        audit.seal(session, b"k" * 32)
        assert all(count(session, table) for table in APPEND_ONLY)
    owner = connect(database.owner_url)
    statements = ("UPDATE {t} SET {c} = {c}", "DELETE FROM {t}", "TRUNCATE {t} CASCADE")
    for table in APPEND_ONLY:
        column = "position" if table == "seals" else "id"
        for statement in statements:
            sql = text(statement.format(t=table, c=column))
            with owner.connect() as connection:
                connection.execute(text("RESET ROLE"))
                with pytest.raises(DBAPIError):
                    connection.execute(sql)
            with pytest.raises(DBAPIError), transaction(engine) as session:
                session.execute(sql)
    owner.dispose()


def test_readings_bound_to_a_model_that_is_gone_are_bound_anew(session: Session) -> None:
    closed(session, [arrival(uid())])
    claim = claims.claim_prepare(session, "one", 30, max_prepared=64, model="old")
    claims.finish_prepare(
        session,
        claim,
        protocol="p",
        protocol_version="1",
        protocol_digest="d",
        model="old",
        pictures=[],
        omitted=[],
    )
    session.commit()
    assert readings.rebind(session, after_s=0) == 0, "nobody is there who could bind it"
    readings.report_worker(session, "w", "cpu", model="new", slots=1, identity={})
    session.commit()
    assert readings.rebind(session, after_s=60) == 0, "it was prepared just now"
    session.execute(text("UPDATE readings SET prepared_at = now() - interval '2 minutes'"))
    assert readings.rebind(session, after_s=60) == 1
    assert count(session, "readings", "state = 'queued' AND model IS NULL") == 1
