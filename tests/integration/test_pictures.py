"""From stored files to pictures on record: real files, a real child, a real database."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import Engine, select, text

from gateway.headers import read_header
from record import reports
from record.admission import Arrival
from record.db import transaction
from record.errors import Abstained
from record.ids import new_id
from record.models import Event
from record.part10 import data_set_offset
from record.priors import last_signed
from record.settings import WorkerSettings, load
from record.states import Role
from record.store import Kind, Store
from tests.conftest import FreshDatabase
from tests.records import arrival, closed, drafted, person, proof, study_of, uid
from worker import cli
from worker.cases import case_of
from worker.protocols import load as load_protocol
from worker.reading import PreparingRoom

pytestmark = pytest.mark.integration
CT, KO = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.59"
PROTOCOL = """
name: tried
version: 1
title: Tried
priority: 90
match: {modalities: [CT]}
pictures: {max: 4, windows: {CT: [soft_tissue]}}
steps: [{name: draft}]
sections: [findings]
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def settings(database: FreshDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerSettings:
    for name in list(os.environ):
        if name.startswith("COUNTERSIGN_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", database.url)
    monkeypatch.setenv("COUNTERSIGN_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("COUNTERSIGN_MODEL", "phantom")
    return load(WorkerSettings)


def written(store: Store, folder: Path, ds: Dataset, *, cut: bool = False) -> Arrival:
    """Put a data set into the store as a door would; what is returned is to be admitted."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    path = folder / f"{ds.SOPInstanceUID}.dcm"
    ds.save_as(path, enforce_file_format=True)
    content = path.read_bytes()
    with path.open("rb") as opened:
        header = read_header(content, ExplicitVRLittleEndian, data_set_offset(opened))
    one = arrival(header.study_instance_uid)
    made = Arrival(new_id(), header, one.sha256, len(content), one.received_at, "dicom", "TEST", "127.0.0.1")
    store.put(Kind.INSTANCE, made.instance_id.hex, content[: len(content) // 2] if cut else content)
    return made


def ct_slice(study: str, n: int) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CT, f"{study}.{n}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, study + ".1"
    ds.Modality, ds.PatientID, ds.PatientName, ds.InstanceNumber = "CT", "P1", "Phantom^One", n
    ds.AccessionNumber = "A77"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 5.0 * n], [1, 0, 0, 0, 1, 0]
    ds.Rows = ds.Columns = 64
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation, ds.RescaleSlope, ds.RescaleIntercept = 15, 1, 1, -1024
    rng = np.random.default_rng(n)
    ds.PixelData = rng.integers(900, 1300, (64, 64)).astype("<i2").tobytes()
    return ds


def ct_study(
    engine: Engine, store: Store, folder: Path, *, bad: tuple[int, ...] = (), beside: list[Dataset] | None = None
) -> str:
    study = uid()
    made = [written(store, folder, ct_slice(study, n), cut=n in bad) for n in range(10)]
    for ds in beside or []:
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study, study + ".2"
        if ds.SOPClassUID == KO:
            item = ds.ContentSequence[0].ReferencedSOPSequence[0]
            item.ReferencedSOPInstanceUID = f"{study}.{item.ReferencedSOPInstanceUID}"
        made.append(written(store, folder, ds))
    with transaction(engine) as session:
        closed(session, made)
    return study


def shown(engine: Engine, store: Store, settings: WorkerSettings, study: str, yaml: str = PROTOCOL):  # type: ignore[no-untyped-def]
    with transaction(engine) as session:
        row = study_of(session, study)
        revision = session.execute(
            text("SELECT id FROM study_revisions WHERE study_id = :s"), {"s": row.id}
        ).scalar_one()
        case = case_of(session, row, revision_id=revision, reading_id=row.id)
    room = PreparingRoom(store, settings)
    try:
        return room.show(case, load_protocol(yaml), threading.Event())
    finally:
        room.close()


def numbers(made) -> list[int]:  # type: ignore[no-untyped-def]
    return [int(chosen.instance.header.sop_instance_uid.rsplit(".", 1)[1]) for chosen, _ in made]


def test_a_slice_that_cannot_be_decoded_is_replaced_and_named(
    engine: Engine, store: Store, settings: WorkerSettings, tmp_path: Path
) -> None:
    yaml = PROTOCOL.replace("max: 4", "max: 4, slices: even")
    whole, _ = shown(engine, store, settings, ct_study(engine, store, tmp_path), yaml)
    bad = numbers(whole)[1]
    made, omitted = shown(engine, store, settings, ct_study(engine, store, tmp_path, bad=(bad,)), yaml)
    assert len(made) == 4
    assert bad not in numbers(made)
    assert sum("cannot be decoded" in one["reason"] for one in omitted) == 1
    assert len(omitted) == 6


def test_a_stack_of_which_nothing_can_be_decoded_is_not_analysed(
    engine: Engine, store: Store, settings: WorkerSettings, tmp_path: Path
) -> None:
    with pytest.raises(Abstained) as told:
        shown(engine, store, settings, ct_study(engine, store, tmp_path, bad=tuple(range(10))))
    assert told.value.reason_code == "undecodable"


def test_a_key_object_selection_of_the_study_is_read_from_its_file(
    engine: Engine, store: Store, settings: WorkerSettings, tmp_path: Path
) -> None:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality, ds.PatientID, ds.PatientName = KO, uid(), "KO", "P1", "Phantom^One"
    title, item, reference = Dataset(), Dataset(), Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = "113000", "DCM", "Of Interest"
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, "8"
    item.ValueType, item.RelationshipType, item.ReferencedSOPSequence = "IMAGE", "CONTAINS", [reference]
    ds.ConceptNameCodeSequence, ds.ContentSequence, ds.ValueType = [title], [item], "CONTAINER"
    made, _ = shown(engine, store, settings, ct_study(engine, store, tmp_path, beside=[ds]))
    assert {n: chosen.reason for n, (chosen, _) in zip(numbers(made), made, strict=True)}[
        8
    ] == "named in a key object selection"


def test_the_command_shows_a_sheet_and_keeps_nothing_but_that_it_was_opened(
    engine: Engine, store: Store, settings: WorkerSettings, tmp_path: Path
) -> None:
    ct_study(engine, store, tmp_path)
    own = tmp_path / "own.yaml"
    own.write_text(PROTOCOL)
    tables = ("events", "readings", "reading_pictures", "drafts", "reports", "instances", "site_protocols")

    def counts() -> dict[str, int]:
        with transaction(engine) as session:
            return {t: session.execute(text(f"SELECT count(*) FROM {t}")).scalar_one() for t in tables}

    before, pictures = counts(), len(list(store.list(Kind.PICTURE)))
    sheet = tmp_path / "out.png"
    done = CliRunner().invoke(cli.cli, ["pictures", "A77", "--protocol", str(own), "--sheet", str(sheet)])
    assert done.exit_code == 0, done.output
    assert "CT, axial, slice" in done.output
    assert "4 of 10 slices of this series are shown" in done.output
    with Image.open(sheet) as opened:
        assert opened.width > 1000
    after = counts()
    assert after.pop("events") == before.pop("events") + 1
    assert after == before
    assert len(list(store.list(Kind.PICTURE))) == pictures
    with transaction(engine) as session:
        kinds = set(session.scalars(select(Event.kind)))
    assert "study_opened" in kinds
    told = CliRunner().invoke(cli.cli, ["pictures", "A77", "--protocol", str(own), "--json"])
    facts = json.loads(told.stdout)["pictures"][0]
    assert {"sop_instance_uid", "frame", "window", "transform", "height", "width", "sha256", "pixel_digest"} <= set(
        facts
    )
    tried = CliRunner().invoke(cli.cli, ["protocols", "try", str(own), "--study", "A77", "--prompt-only"])
    assert tried.exit_code == 0, tried.output
    assert "--- draft" in tried.output
    assert "Phantom^One" not in tried.output


def test_the_last_signed_report_of_the_same_patient_and_modality_is_the_prior(engine: Engine) -> None:
    with transaction(engine) as session:
        doctor = person(session, Role.ATTENDING)
        older = closed(session, [arrival(uid(), study_date="20250101")])
        report = drafted(session, older)
        assert report is not None
        reports.sign(session, report.id, by=doctor, seen=1, shown=1, proof=proof(session, doctor), reasons={})
        newer = closed(session, [arrival(uid(), study_date="20260101")])
        other = closed(session, [arrival(uid(), study_date="20260101", modality="CT")])
        stranger = closed(session, [arrival(uid(), study_date="20260101", patient_id="P2", patient_name="Phantom^Two")])
        before = closed(session, [arrival(uid(), study_date="20240101")])
        found = last_signed(session, newer)
        assert found is not None
        assert found.report_id == report.id
        assert "opacity in the left upper zone" in found.text
        assert [last_signed(session, one) for one in (other, stranger, before, older)] == [None] * 4
