"""Studies in every state, made by the former release: run with its tree as PYTHONPATH, never by the present code.

Arguments: the database's URL, and a folder for spool and store. Prints the UIDs by state, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gateway.indexer import Indexer
from gateway.intake import Intake, SopIdentity, Source
from gateway.spool import Spool
from record import accounts, audit, studies
from record.db import transaction
from record.states import Role
from tests.conftest import FreshDatabase
from tests.instances import EXPLICIT, encoded, instance
from tests.records import study_of
from tests.web_records import PASSWORD, Desk, desk_on

SR = "1.2.840.10008.5.1.4.1.1.88.11"
ENDS = ("failed", "abstained")
STATES = ("receiving", "skipped", *ENDS, "draft", "saved", "preliminary", "cancelled", "signed", "erased", "queued")
"""`queued` comes last: a claim would take it."""
VERB = {"preliminary": "preliminary", "cancelled": "cancel", "signed": "sign"}
MORE = {"preliminary": {}, "cancelled": {"reason": "A test."}, "signed": {"shown": 1, "password": PASSWORD}}


def take(desk: Desk, folder: Path, state: str) -> str:
    """One study through the spool and the indexer, closed but for `receiving`."""
    ds = instance(Modality="CR", PatientName=f"Former^{state.title()}", AccessionNumber=f"F-{state}")
    if state == "skipped":
        ds.SOPClassUID, ds.Modality = SR, "SR"
        del ds.PixelData, ds.Rows, ds.Columns
    spool = Spool.claim(folder / "spool")
    source = Source("dicom", "MODALITY1", "COUNTERSIGN", "10.0.0.7", "main")
    with Intake(spool).begin(source, SopIdentity(ds.SOPClassUID, ds.SOPInstanceUID, EXPLICIT)) as incoming:
        incoming.write(memoryview(encoded(ds)))
        incoming.commit()
    spool.release()
    indexer = Indexer(desk.engine, desk.store, folder / "spool")
    assert indexer.run_once().instances == 1
    indexer.release()
    if state != "receiving":
        with transaction(desk.engine) as session:
            study = study_of(session, ds.StudyInstanceUID)
            session.refresh(study, with_for_update=True)
            studies.freeze(session, study, "test", {})
            session.flush()
            desk.read(session, ds.StudyInstanceUID, ends=state if state in {*ENDS, "queued"} else "done")
    return str(ds.StudyInstanceUID)


def main(url: str, folder: Path) -> None:
    with desk_on(FreshDatabase(url, url), folder / "store") as desk:
        uids = {state: take(desk, folder, state) for state in STATES}
        doctor = desk.signed_in(Role.ATTENDING, login="lee")
        for state in ("saved", "preliminary", "cancelled", "signed"):
            where = f"/api/v1/reports/{desk.report_of(uids[state]).id}"
            told = doctor.get(where).json()
            text = told["text"] + f"Seen by hand: {state}.\n"
            saved = doctor.put(f"{where}/text", json={"seen": told["text_revision"], "text": text})
            assert saved.status_code == 200, saved.text
            if state != "saved":
                asked = {"seen": saved.json()["text_revision"]} | MORE[state]
                done = doctor.post(f"{where}/{VERB[state]}", json=asked)
                assert done.status_code == 200, done.text
        with transaction(desk.engine) as session:
            admin = accounts.add_user(
                session, site="main", login="root", printed_name="Root", role=Role.ADMIN, password=PASSWORD
            )
            by = accounts.user_principal(admin)
            studies.erase(session, study_of(session, uids["erased"]).id, by=by)
        with transaction(desk.engine) as session:
            last = audit.seal(session, bytes.fromhex("ab" * 32))
            assert last is not None
            audit.keep_head(folder / "heads.log", last)
        print(json.dumps(uids))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
