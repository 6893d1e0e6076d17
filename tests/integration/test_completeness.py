"""Complete or not, with evidence: the peer's own count, what it announced, what it has and we do not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.sop_class import InstanceAvailabilityNotification, ModalityPerformedProcedureStep
from sqlalchemy import Engine, select, text

from gateway import cli
from gateway.dicom.contexts import AVAILABILITY, PROCEDURE_STEP
from gateway.indexer import Indexer
from gateway.launcher.processes import free_port, wait_until
from gateway.outbound.courier import Courier
from record import peers, studies, timeline
from record.db import connect, transaction
from record.errors import NotFound
from record.models import Study, StudyRevision
from record.settings import CourierSettings
from record.store import Store
from tests.archives import ARCHIVE, archive
from tests.conftest import FreshDatabase
from tests.instances import CT, EXPLICIT, encoded, instance, saved, uid
from tests.listeners import AET, Running, associate, listening, store_raw

MR = "1.2.840.10008.5.1.4.1.1.4"
QUIET_S, LONGEST_S = 3600.0, 7200.0


@pytest.fixture
def engine(database: FreshDatabase) -> Iterator[Engine]:
    made = connect(database.url)
    yield made
    made.dispose()


class Ward:
    """A listener, its record, and whoever sends to it."""

    def __init__(self, listener: Running, engine: Engine, database: FreshDatabase, folder: Path) -> None:
        self.listener, self.engine, self.database, self.folder = listener, engine, database, folder
        self.store = Store(folder / "store")
        self.environment = {"DATABASE_URL": database.url, "COUNTERSIGN_STORE": str(self.store.root)}
        settings = CourierSettings(database_url=database.url, store=folder / "store", call_timeout_s=5, count_after_s=0)
        self.courier = Courier(engine, self.store, settings)
        self.indexer = Indexer(engine, self.store, listener.root)
        self.index()

    def index(self) -> None:
        while self.indexer.run_once().instances:
            continue
        self.indexer._peers_due = 0.0
        self.indexer.run_once()

    def receive(self, *many: Dataset, calling: str = ARCHIVE) -> None:
        paths = [saved(self.folder, ds) for ds in many]
        assert set(self.listener.send(*paths, calling_aet=calling).values()) == {0}
        self.index()

    def closed(self) -> list[tuple[str, dict[str, Any]]]:
        """Close what is due; the evidence of every revision."""
        with transaction(self.engine) as session:
            for study_id in studies.due_now(session, QUIET_S, LONGEST_S):
                assert studies.close_if_due(session, study_id, QUIET_S, LONGEST_S)
            rows = session.scalars(select(StudyRevision).order_by(StudyRevision.created_at, StudyRevision.number))
            return [(row.evidence_kind, row.evidence) for row in rows]

    def command(self, *arguments: str) -> tuple[int, str]:
        done = CliRunner(env=self.environment).invoke(cli.cli, arguments)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout


@pytest.fixture
def ward(tmp_path: Path, engine: Engine, database: FreshDatabase) -> Iterator[Ward]:
    with listening(tmp_path / "spool", open_peers=0) as listener:
        yield Ward(listener, engine, database, tmp_path)


def of_study(count: int, **attributes: object) -> list[Dataset]:
    study, series = uid(), uid()
    return [
        instance(side=64, StudyInstanceUID=study, SeriesInstanceUID=series, StudyDate="20260102", **attributes)
        for _ in range(count)
    ]


def known(ward: Ward, **options: Any) -> None:
    with transaction(ward.engine) as session:
        peers.add_peer(session, site=None, ae_title=ARCHIVE, address="127.0.0.1", **options)
    ward.index()


def test_a_study_closes_as_soon_as_the_peer_has_no_more_than_we(ward: Ward, tmp_path: Path) -> None:
    first, second, late = of_study(3)
    with archive(tmp_path / "archive") as there:
        known(ward, port=there.port, asks_count=True)
        there.store(*(saved(tmp_path, ds) for ds in (first, second)))
        ward.receive(first)
        assert ward.courier.run_once()
        assert ward.closed() == [], "it has two, we have one"
        ward.receive(second)
        assert ward.closed() == [], "nobody has asked since"
        assert ward.courier.run_once()
        ((kind, evidence),) = ward.closed()
        assert (kind, evidence["expected"], evidence["instances"]) == ("count", 2, 2)
        ward.receive(late)
        assert ward.courier.run_once()
        assert len(ward.closed()) == 1, "now we have more than it: that is no agreement"
        there.store(saved(tmp_path, late))
        with ward.engine.begin() as connection:
            connection.execute(text("UPDATE studies SET count_asked_at = count_asked_at - interval '1 minute'"))
            connection.execute(text("UPDATE studies SET last_image_at = last_image_at - interval '1 minute'"))
        assert ward.courier.run_once(), "it is asked again after a while"
        assert [kind for kind, _ in ward.closed()] == ["count", "count"]


def test_a_peer_that_does_not_answer_costs_the_study_nothing_but_its_quiet_time(ward: Ward) -> None:
    known(ward, port=free_port(), asks_count=True, stable_after_s=0)
    ward.receive(*of_study(1))
    assert ward.courier.run_once()
    assert ward.courier.failed == 1
    assert not ward.courier.run_once(), "not at once again"
    assert [kind for kind, _ in ward.closed()] == ["quiet"]
    with transaction(ward.engine) as session:
        codes = [one.code for one in timeline.of_study(session, session.scalars(select(Study)).one())]
    assert codes == ["arrived", "count_unanswered", "closed"]


def announce(ward: Ward, class_uid: str, told: Dataset, sop_instance_uid: str, *, update: bool = False) -> int:
    """N-CREATE or N-SET at our door; the status."""
    ae = AE(ARCHIVE)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
    for context in (InstanceAvailabilityNotification, ModalityPerformedProcedureStep):
        ae.add_requested_context(context)
    association = ae.associate("127.0.0.1", ward.listener.port, ae_title=AET)
    assert association.is_established
    send = association.send_n_set if update else association.send_n_create
    status, _ = send(told, UID(class_uid), UID(sop_instance_uid))
    association.release()
    ward.index()
    return int(status.Status)


def referenced(*many: Dataset, **more: object) -> list[Dataset]:
    found = []
    for ds in many:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, ds.SOPInstanceUID
        for name, value in more.items():
            setattr(item, name, value)
        found.append(item)
    return found


def availability(*many: Dataset) -> Dataset:
    told, series = Dataset(), Dataset()
    told.StudyInstanceUID = many[0].StudyInstanceUID
    series.SeriesInstanceUID = many[0].SeriesInstanceUID
    series.ReferencedSOPSequence = referenced(*many, InstanceAvailability="ONLINE", RetrieveAETitle=ARCHIVE)
    told.ReferencedSeriesSequence = [series]
    return told


def test_a_notification_that_all_can_be_had_closes_the_study_when_all_are_here(ward: Ward) -> None:
    known(ward)
    first, second, late = of_study(3)
    ward.receive(first)
    assert announce(ward, AVAILABILITY, availability(first, second), uid()) == 0
    assert ward.closed() == []
    ward.receive(second)
    assert [kind for kind, _ in ward.closed()] == ["announced"]
    ward.receive(late)
    assert len(ward.closed()) == 1, "what was said before it came says nothing of it"
    assert announce(ward, AVAILABILITY, availability(first, second, late), uid()) == 0
    assert [kind for kind, _ in ward.closed()] == ["announced", "announced"]


@pytest.mark.parametrize("told_first", [True, False])
def test_a_procedure_step_holds_its_study_open_and_closes_it_when_it_is_complete(
    ward: Ward, *, told_first: bool
) -> None:
    known(ward)
    images = of_study(2)
    step = uid()
    begun, scheduled = Dataset(), Dataset()
    scheduled.StudyInstanceUID = images[0].StudyInstanceUID
    begun.ScheduledStepAttributesSequence, begun.PerformedProcedureStepStatus = [scheduled], "IN PROGRESS"
    complete, series = Dataset(), Dataset()
    series.ReferencedImageSequence = referenced(*images)
    complete.PerformedProcedureStepStatus, complete.PerformedSeriesSequence = "COMPLETED", [series]
    if told_first:
        assert announce(ward, PROCEDURE_STEP, begun, step) == 0
        ward.receive(images[0])
        assert ward.closed() == []
        assert announce(ward, PROCEDURE_STEP, complete, step, update=True) == 0
        assert ward.closed() == []
        ward.receive(images[1])
    else:
        ward.receive(*images)
        assert announce(ward, PROCEDURE_STEP, complete, step, update=True) == 0, "by another process, it may come first"
        assert ward.closed() == []
        assert announce(ward, PROCEDURE_STEP, begun, step) == 0
        with transaction(ward.engine) as session:
            assert session.scalars(select(Study)).one().announced_at is None, "it begins later than it ended"
        return
    assert [kind for kind, _ in ward.closed()] == ["announced"]


def test_a_step_of_two_studies_closes_both_with_the_last_image_of_either(ward: Ward) -> None:
    known(ward)
    (one,), (two,) = of_study(1), of_study(1)
    step = uid()
    begun, complete, series = Dataset(), Dataset(), Dataset()
    begun.ScheduledStepAttributesSequence, begun.PerformedProcedureStepStatus = [], "IN PROGRESS"
    for ds in (one, two):
        scheduled = Dataset()
        scheduled.StudyInstanceUID = ds.StudyInstanceUID
        begun.ScheduledStepAttributesSequence.append(scheduled)
    series.ReferencedImageSequence = referenced(one, two)
    complete.PerformedProcedureStepStatus, complete.PerformedSeriesSequence = "COMPLETED", [series]
    assert announce(ward, PROCEDURE_STEP, begun, step) == 0
    ward.receive(one)
    assert announce(ward, PROCEDURE_STEP, complete, step, update=True) == 0
    assert ward.closed() == []
    ward.receive(two)
    assert [kind for kind, _ in ward.closed()] == ["announced", "announced"]


def test_what_announces_nothing_is_refused(ward: Ward) -> None:
    known(ward)
    nothing = Dataset()
    nothing.PatientID = "X"
    assert announce(ward, AVAILABILITY, nothing, uid()) == 0x0121
    assert announce(ward, PROCEDURE_STEP, nothing, uid()) == 0x0121


def test_what_the_peer_has_and_we_do_not_is_listed_and_fetched_at_the_ordinary_door(ward: Ward, tmp_path: Path) -> None:
    whole, part, lacking = of_study(1), of_study(2), of_study(2)
    with archive(tmp_path / "archive", sends_to=[(AET, ward.listener.port)]) as there:
        known(ward, port=there.port)
        there.store(*(saved(tmp_path, ds) for ds in (*whole, *part, *lacking)))
        ward.receive(*whole, part[0])
        code, told = ward.command("reconcile", "--peer", ARCHIVE, "--since", "2026-01-01", "--json")
        assert code == 1
        found = {one["study_instance_uid"]: (one["theirs"], one["ours"]) for one in json.loads(told)}
        assert found == {part[0].StudyInstanceUID: (2, 1), lacking[0].StudyInstanceUID: (None, 0)}
        assert ward.command("reconcile", "--peer", ARCHIVE, "--since", "1d")[0] == 0, (
            "of the last day nothing is lacking"
        )
        code, told = ward.command("reconcile", "--peer", ARCHIVE, "--since", "2026-01-01", "--fetch")
        assert code == 0, told
        ward.index()
        assert ward.command("reconcile", "--peer", ARCHIVE, "--since", "2026-01-01")[0] == 0
        with ward.engine.connect() as connection:
            priors = connection.execute(text("SELECT count(*) FROM instances WHERE prior")).scalar_one()
            assert priors == 0, "an ordinary door"
        assert ward.command("reconcile", "--peer", ARCHIVE, "--since", "all")[0] == 0
        assert ward.command("peers", "test", ARCHIVE)[0] == 0
    assert ward.command("peers", "test", ARCHIVE)[0] == 1


def test_a_study_s_way_can_be_traced(ward: Ward) -> None:
    known(ward)
    images = of_study(3, AccessionNumber="A-77")
    ward.receive(*images[:2])
    ward.receive(images[1], images[2])
    with transaction(ward.engine) as session:
        study = session.scalars(select(Study)).one()
        session.refresh(study, with_for_update=True)
        studies.freeze(session, study, "quiet", {"expected": 4})
    with transaction(ward.engine) as session:
        moments = timeline.of_study(session, session.scalars(select(Study)).one())
    assert [(one.code, one.facts.get("instances"), one.facts.get("again")) for one in moments] == [
        ("arrived", 2, 0),
        ("arrived", 2, 1),
        ("closed", None, None),
    ]
    assert all(one.facts["outcome"] == "released" for one in moments[:2])
    code, told = ward.command("trace", "A-77")
    assert code == 0
    assert max(map(len, told.splitlines())) <= 80
    told = " ".join(told.split())
    assert "2 objects" in told
    assert f"came from {ARCHIVE} (127.0.0.1); the same bytes came again (1)" in told
    assert "revision 1 with 3 images (quiet); the sender's own count is 4" in told


def test_what_was_refused_whole_can_be_traced_to_its_association(ward: Ward) -> None:
    known(ward)
    (ds,) = of_study(1)
    association = associate(ward.listener, calling=ARCHIVE, contexts=((MR, EXPLICIT),))
    assert store_raw(association, encoded(ds), sop_class_uid=MR, sop_instance_uid=ds.SOPInstanceUID) == 0xA900
    association.release()
    assert wait_until(
        lambda: (ward.index(), ward.command("associations", "list", "--json")[1])[1] != "[]\n", within_s=5
    )
    (line,) = json.loads(ward.command("associations", "list", "--json")[1])
    for uid_ in (ds.StudyInstanceUID, ds.SOPInstanceUID):
        done = CliRunner(env=ward.environment).invoke(cli.cli, ("trace", uid_))
        assert isinstance(done.exception, NotFound)
        assert f"countersign associations show {line['id'][:13]}" in done.stderr
    shown = " ".join(ward.command("associations", "show", line["id"])[1].split())
    assert f"{ds.SOPInstanceUID}, of study {ds.StudyInstanceUID}: mismatched sop class uid" in shown


def test_announcements_of_any_length_hold_up_no_image(ward: Ward) -> None:
    known(ward)
    (image,) = of_study(1)
    for half in range(2):
        many = []
        for number in range(40_000):
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, f"2.25.{half}.{number + 1}"
            many.append(item)
        told, series = Dataset(), Dataset()
        told.StudyInstanceUID, series.ReferencedSOPSequence = image.StudyInstanceUID, many
        told.ReferencedSeriesSequence = [series]
        assert announce(ward, AVAILABILITY, told, uid()) == 0
    ward.receive(image)
    assert ward.closed() == [], "what was announced is not here"
    with ward.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM instances")).scalar_one() == 1
    begun = Dataset()
    begun.ScheduledStepAttributesSequence = []
    for number in range(200):
        step = Dataset()
        step.StudyInstanceUID = f"2.25.7.{number + 1}"
        begun.ScheduledStepAttributesSequence.append(step)
    assert announce(ward, PROCEDURE_STEP, begun, uid()) == 0x0213
