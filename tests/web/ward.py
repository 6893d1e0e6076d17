"""A ward full of studies behind a real server, for the browser: every state, real pixels, names that are hard to show.

Knows how each study comes to its state: by the record's own verbs, as the parts would do it. Does not know pages.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from pydicom.dataset import Dataset
from sqlalchemy import text

from gateway.headers import read_header
from gateway.launcher.processes import wait_until
from record import admission, audit, parts, readings, studies
from record.admission import Arrival
from record.body import Body, Origin, Section, SectionCode, Sentence
from record.db import transaction
from record.ids import new_id
from record.models import Instance
from record.states import Lane, Role
from record.store import Kind
from tests.conftest import FreshDatabase
from tests.instances import EXPLICIT, encoded, instance, saved, uid
from tests.records import study_of
from tests.web_records import PASSWORD, Desk, desk_on

DX, CT, US, SR = (f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("1.1.1", "2", "3.1", "88.11"))
LONG_ID = "HOSPITAL-CENTRAL-2026-000000000000000000000000000000000123456789"
SAID = """Findings:
There is a focal opacity in the right upper zone, about 2 cm.
The cardiomediastinal silhouette is within normal limits.
Old healed rib fractures on the right.

Impression:
Focal opacity in the right upper zone.
"""
"""What physicians write here."""


@dataclass
class Ward:
    """The desk, where it is served, and the studies by what is the matter with them."""

    desk: Desk
    folder: Path
    url: str = ""
    uids: dict[str, str] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    """What belongs to patients and may stand in no address."""

    def study(
        self,
        name: str = "PATIENT^SOME",
        *,
        ends: str = "done",
        lane: Lane = Lane.ROUTINE,
        minutes: int = 5,
        **said: Any,
    ) -> str:
        """A study that is closed and read; returns its UID."""
        study_uid = self.send(images(name, **said))
        self.close(study_uid, ends=ends)
        with transaction(self.desk.engine) as session:
            session.execute(
                text(
                    "UPDATE studies SET lane = :lane, created_at = now() - make_interval(mins => :minutes)"
                    " WHERE study_instance_uid = :uid"
                ),
                {"lane": lane, "minutes": minutes, "uid": study_uid},
            )
        return study_uid

    def send(self, sent: Sequence[Dataset]) -> str:
        """Instances arrive: into the store and on record, as the indexer does it; returns the study's UID."""
        arrivals = [self._arrival(ds) for ds in sent]
        with transaction(self.desk.engine) as session:
            admission.admit(session, arrivals)
        for ds in sent:
            self.secrets |= {str(ds.PatientName), str(ds.PatientID), str(ds.get("AccessionNumber", ""))} - {""}
        return arrivals[0].header.study_instance_uid

    def close(self, study_uid: str, *, ends: str = "done") -> None:
        """The study is taken as complete and its reading ends as said; one that stays queued is kept from the others."""
        with transaction(self.desk.engine) as session:
            study = study_of(session, study_uid)
            session.refresh(study, with_for_update=True)
            studies.freeze(session, study, "test", {})
            session.flush()
            self.desk.read(session, study_uid, ends=ends, body=draft())
            if ends == "queued":
                session.execute(
                    text("UPDATE readings SET not_before = now() + interval '1 day' WHERE state = 'queued'")
                )

    def more_images(self, study_uid: str, *, ends: str = "done") -> None:
        """Another image of the same patient comes, and the study is closed again."""
        with transaction(self.desk.engine) as session:
            study = study_of(session, study_uid)
            who = {"PatientID": study.patient_id, "PatientName": study.patient_name}
        self.send(images(who["PatientName"], StudyInstanceUID=study_uid, PatientID=who["PatientID"]))
        self.close(study_uid, ends=ends)

    def conflicting(self, name: str, **said: Any) -> str:
        """A study with an instance whose UID is known and whose bytes are not the same; returns its UID."""
        study_uid = self.study(name, **said)
        _another_patient_in(self, study_uid)
        return study_uid

    def write(self, study_uid: str, words: str, *, then: str | None = None, role: Role = Role.ATTENDING) -> None:
        """A physician saves these words through the API, and then declares them preliminary or signs."""
        client = self.desk.signed_in(role)
        report = self.desk.report_of(study_uid)
        seen = {"seen": report.revision}
        saved_as = client.put(f"/api/v1/reports/{report.id}/text", json={**seen, "text": words})
        assert saved_as.status_code == 200, saved_as.text
        if then == "preliminary":
            done = client.post(f"/api/v1/reports/{report.id}/preliminary", json={"seen": report.revision + 1})
            assert done.status_code == 200, done.text
        if then == "sign":
            with transaction(self.desk.engine) as session:
                shown = study_of(session, study_uid).revision
            asked = {"seen": report.revision + 1, "shown": shown, "password": PASSWORD}
            done = client.post(f"/api/v1/reports/{report.id}/sign", json=asked)
            assert done.status_code == 200, done.text

    def decide(self, study_uid: str, *, keep: bool, reason: str) -> None:
        """An attending decides every conflict of a study."""
        client = self.desk.signed_in(Role.ATTENDING)
        for side in client.get(f"/api/v1/studies/{study_uid}").json()["conflicts"]:
            address = f"/api/v1/studies/{study_uid}/conflicts/{side['instance_id']}"
            done = client.post(address, json={"keep": keep, "reason": reason})
            assert done.status_code == 200, done.text

    def cancel(self, study_uid: str, reason: str) -> None:
        """A physician cancels the report of a study."""
        report = self.desk.report_of(study_uid)
        asked = {"seen": report.revision, "reason": reason}
        done = self.desk.signed_in(Role.ATTENDING).post(f"/api/v1/reports/{report.id}/cancel", json=asked)
        assert done.status_code == 200, done.text

    def _arrival(self, ds: Dataset) -> Arrival:
        content = encoded(ds)
        header = read_header(content, EXPLICIT)
        arrival = Arrival(
            new_id(),
            header,
            hashlib.sha256(content).hexdigest(),
            len(content),
            datetime.now(UTC),
            "dicom",
            "TEST",
            "127.0.0.1",
        )
        kept = saved(self.folder, ds, f"{arrival.instance_id.hex}.dcm")
        self.desk.store.put(Kind.INSTANCE, arrival.instance_id.hex, kept)
        return arrival


@contextlib.contextmanager
def served_ward(database: FreshDatabase, folder: Path) -> Iterator[Ward]:
    """A ward without studies, served on loopback."""
    (folder / "files").mkdir()
    with desk_on(database, folder / "store") as desk, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        host, port = listening.getsockname()
        server = uvicorn.Server(uvicorn.Config(desk.app, log_config=None, access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            assert wait_until(lambda: server.started, within_s=20)
            yield Ward(desk, folder / "files", f"http://{host}:{port}")
        finally:
            server.should_exit = True
            thread.join(20)


def furnish(ward: Ward) -> None:
    """Twenty-eight studies: every state that a page may have to show."""
    chest: dict[str, Any] = {"StudyDescription": "Chest PA", "StudyDate": "20261120", "StudyTime": "093015"}
    add = ward.uids.__setitem__
    add("draft", ward.study("García Márquez^Ana María", minutes=47, AccessionNumber="RIS-2026-000001", **chest))
    add("stat", ward.study("DOE^JANE", lane=Lane.STAT, minutes=12, PatientSex="F", PatientAge="045Y", **chest))
    add("chinese", ward.study("Wang^Xiaodong=王^小东", minutes=190, StudyDescription="胸部正侧位", PatientSex="M"))
    add("long id", ward.study("O'Brien-Fitzgerald^Maximilian Alexander", minutes=3, PatientID=LONG_ID, **chest))
    for name in (
        "edited",
        "preliminary",
        "final",
        "late",
        "outdated",
        "arriving late",
        "conflict",
        "decided",
        "cancelled",
    ):
        add(name, ward.study(f"{name.replace(' ', '')}^Lucía".title(), minutes=1500, PatientAge="081Y", **chest))
    ward.write(ward.uids["edited"], SAID)
    ward.write(ward.uids["preliminary"], SAID, then="preliminary", role=Role.RESIDENT)
    for name in ("final", "late"):
        ward.write(ward.uids[name], SAID, then="sign")
    ward.more_images(ward.uids["late"])
    ward.more_images(ward.uids["outdated"], ends="failed")
    for name in ("conflict", "decided"):
        _another_patient_in(ward, ward.uids[name])
    ward.decide(ward.uids["decided"], keep=True, reason="Relabelled at the console.")
    ward.write(ward.uids["cancelled"], SAID)
    ward.cancel(ward.uids["cancelled"], "Dictated on the wrong study.")
    add(
        "CT",
        ward.study("Müller^Jörg", ends="abstained", sent="CT", StudyDescription="CT abdomen and pelvis", minutes=61),
    )
    add("US", ward.study("NGUYEN^THI", ends="abstained", sent="US", StudyDescription="US thyroid", minutes=30))
    add("failed", ward.study("SMITH^JOHN^^Dr", ends="failed", lane=Lane.STAT, minutes=90, **chest))
    add("skipped", ward.study("REPORT^ONLY", sent="SR", minutes=4000))
    for number in range(8):
        lane = Lane.BACKFILL if number % 4 == 0 else Lane.ROUTINE
        ward.study(
            f"WAITING^NUMBER {number}", lane=lane, minutes=10 * number, AccessionNumber=f"A{number:06d}", **chest
        )
    add("receiving", ward.send(images("Arriving^Now", StudyDescription="Chest AP bedside")))
    _another_image(ward, ward.uids["arriving late"])
    add("queued", ward.study("Li^Wei", ends="queued", minutes=1, **chest))
    with transaction(ward.desk.engine) as session:
        for kind in ("indexer", "api", "sweep", "courier"):
            parts.report(session, f"{kind}-of-the-ward", kind, {"every_s": 600.0})
        readings.report_worker(session, "ward:1", "cpu", model="phantom", slots=1, identity={})
        readings.report_worker(session, "ward:2", "gpu", model="phantom", slots=4, identity={"where": "GPU"})
    with transaction(ward.desk.engine) as session:
        while audit.seal(session, b"k" * 32):
            pass


def draft() -> Body:
    """A draft of three sections with flagged sentences."""

    def section(code: SectionCode, *said: tuple[str, tuple[str, ...]]) -> Section:
        made = [
            Sentence(f"{code.value}-m{number}", words, Origin.MACHINE, f"{code.value}-m{number}", (), flags)
            for number, (words, flags) in enumerate(said, 1)
        ]
        return Section(code, tuple(made))

    return Body(
        sections=(
            section(
                SectionCode.FINDINGS,
                ("There is a focal opacity in the left upper zone, about 2 cm.", ("laterality",)),
                ("The cardiomediastinal silhouette is within normal limits.", ()),
                ("Compared with the prior study, the opacity has grown.", ("prior",)),
            ),
            section(SectionCode.IMPRESSION, ("Focal opacity in the left upper zone.", ())),
            section(SectionCode.RECOMMENDATIONS, ("CT of the chest is recommended.", ())),
        )
    )


def images(name: str, *, sent: str = "DX", **said: Any) -> list[Dataset]:
    """The instances of a study: a chest film, nine CT slices, an ultrasound loop in colour, or a report alone."""
    study_uid = said.pop("StudyInstanceUID", uid())
    common = {
        "StudyInstanceUID": study_uid,
        "SeriesInstanceUID": uid(),
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientName": name,
        "PatientID": f"P-{name.partition('^')[0].upper()}-{hashlib.sha256(name.encode()).hexdigest()[:6]}",
        "SeriesNumber": 1,
        "Modality": sent,
        **said,
    }
    match sent:
        case "DX":
            film = _film(512)
            shown = {"WindowCenter": 2048, "WindowWidth": 4096, "SeriesDescription": "PA", "BodyPartExamined": "CHEST"}
            return [_instance(DX, film, **common, **shown, PixelSpacing=[0.5, 0.5])]
        case "CT":
            return [
                _instance(
                    CT,
                    _slice(number),
                    **common,
                    InstanceNumber=number + 1,
                    SeriesDescription="Abdomen axial",
                    BodyPartExamined="ABDOMEN",
                    RescaleSlope=1,
                    RescaleIntercept=-1024,
                    PixelSpacing=[1.6, 1.6],
                    ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                    ImagePositionPatient=[0, 0, 5 * number],
                )
                for number in range(9)
            ]
        case "US":
            loop = _loop()
            colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
            depth = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
            return [_instance(US, loop, **common, **colour, **depth, NumberOfFrames=len(loop), PixelSpacing=None)]
        case _:
            bare = dict.fromkeys(("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PixelSpacing"))
            more = dict.fromkeys(("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"))
            return [instance(SOPClassUID=SR, SOPInstanceUID=uid(), **{**common, **bare, **more})]


def _instance(sop_class_uid: str, pixels: np.ndarray, **said: Any) -> Dataset:
    rows, columns = pixels.shape[1:3] if said.get("NumberOfFrames") else pixels.shape[:2]
    said = {"SOPInstanceUID": uid(), **said, "Rows": rows, "Columns": columns}
    ds = instance(1, **{"SOPClassUID": sop_class_uid, **said})
    del ds.PixelData
    ds.add_new(0x7FE00010, "OW", pixels.tobytes())
    return ds


@cache
def _film(side: int) -> np.ndarray:
    """A chest film, 12 bits; shape (side, side)."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]  # each (side, side)
    body = 150 * np.exp(-((x / 0.85) ** 6 + (y / 1.05) ** 8))
    lungs = sum(np.exp(-(((x - each * 0.4) / 0.27) ** 4 + ((y + 0.05) / 0.6) ** 4)) for each in (-1, 1))
    heart = 60 * np.exp(-(((x - 0.14) / 0.25) ** 2 + ((y - 0.35) / 0.3) ** 2))
    ribs = 9 * np.sin(22 * (y + 0.25 * np.abs(x))) * (lungs > 0.2)
    noise = np.random.default_rng(5).normal(0, 3, x.shape)
    return np.clip(16 * (body - 105 * lungs + heart + ribs + noise), 0, 4095).astype("<u2")


def _slice(number: int) -> np.ndarray:
    """One CT slice through a belly, in stored values (HU + 1024); shape (256, 256)."""
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    hu = np.full(x.shape, -1000.0)
    hu[(x / 0.85) ** 2 + (y / 0.65) ** 2 < 1] = -90  # fat
    hu[(x / 0.78) ** 2 + (y / 0.57) ** 2 < 1] = 45  # muscle, bowel
    hu[((x + 0.36) / 0.34) ** 2 + ((y + 0.08) / (0.34 - 0.015 * number)) ** 2 < 1] = 95  # liver
    hu[((x + 0.45) / 0.06) ** 2 + ((y + 0.02 * number) / 0.06) ** 2 < 1] = 55  # a lesion in it
    hu[((x - 0.46) / 0.16) ** 2 + ((y + 0.1) / 0.2) ** 2 < 1] = 110  # spleen
    hu[(x / 0.11) ** 2 + ((y - 0.36) / 0.11) ** 2 < 1] = 500  # vertebra
    hu[((x + 0.08) / 0.05) ** 2 + ((y - 0.2) / 0.05) ** 2 < 1] = 160  # aorta
    noise = np.random.default_rng(number).normal(0, 12, x.shape)
    return np.clip(hu + noise + 1024, 0, 4095).astype("<u2")


def _loop() -> np.ndarray:
    """Six colour frames of an ultrasound; shape (6, 180, 240, 3)."""
    y, x = np.mgrid[0:1:180j, -1:1:240j]
    fan = np.abs(x) < 0.15 + 0.75 * y
    grey = np.random.default_rng(3).gamma(2.0, 28, (6, *x.shape)) * fan
    grey *= ((x / 0.2) ** 2 + ((y - 0.5) / 0.16) ** 2 > 1) * 0.8 + 0.2
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=3)


def _another_image(ward: Ward, study_uid: str) -> None:
    with transaction(ward.desk.engine) as session:
        known = study_of(session, study_uid)
        who = {"name": known.patient_name, "PatientID": known.patient_id}
    ward.send(images(**who, StudyInstanceUID=study_uid))


def _another_patient_in(ward: Ward, study_uid: str) -> None:
    """An instance comes whose UID is known and whose bytes are not the same."""
    with transaction(ward.desk.engine) as session:
        study = study_of(session, study_uid)
        known = session.query(Instance).filter_by(study_id=study.id).first()
        assert known is not None
        who = {"name": study.patient_name, "PatientID": study.patient_id, "SOPInstanceUID": known.sop_instance_uid}
    ward.send(images(**who, StudyInstanceUID=study_uid))
