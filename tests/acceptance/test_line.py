"""From C-STORE to a signed report: separate processes, real servers, dcmtk as the sender."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.line import COMMAND, PASSWORD, Line, files_of, phantoms, running

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    with running("--open-peers", "--stable-after", "1", "--quiet") as started:
        yield started


def text_of(line: Line, uid: str) -> str:
    study = line.study(uid)
    assert study is not None
    (draft,) = study["drafts"]
    assert draft["banner"] in draft["labelled_text"].splitlines()[0]
    return str(draft["labelled_text"])


def test_drafts_name_the_right_side_and_mirroring_the_pixels_flips_it(line: Line, tmp_path: Path) -> None:
    label = ("--label", "left-upper", "--count", "1", "--seed", "5", "--fresh-uids")
    (straight,) = phantoms(tmp_path / "a", *label)
    (mirrored,) = phantoms(tmp_path / "b", *label, "--mirror")
    (inverted,) = phantoms(tmp_path / "c", *label, "--photometric", "MONOCHROME1")
    studies = [straight, mirrored, inverted]
    for study in studies:
        done = line.send(files_of(study))
        assert done.returncode == 0, done.stderr
    uids = [s["study_instance_uid"] for s in studies]
    items = line.wait_until_ended(uids)
    assert {items[u]["reading_state"] for u in uids} == {"done"}
    assert "left upper zone" in text_of(line, uids[0])
    assert "right upper zone" in text_of(line, uids[1])
    assert "left" not in text_of(line, uids[1]).lower()
    assert "left upper zone" in text_of(line, uids[2])


def test_a_physician_edits_and_signs_and_nobody_sees_it_before(line: Line, tmp_path: Path) -> None:
    (study,) = phantoms(tmp_path, "--count", "1")
    assert line.send(files_of(study)).returncode == 0
    uid = study["study_instance_uid"]
    item = line.wait_until_ended([uid])[uid]
    line.command("users", "add", "dr.lee", "--role", "attending", "--name", "Dr. Ana Lee", stdin=PASSWORD + "\n")
    with httpx.Client(base_url=line.url, timeout=10) as doctor:
        opened = doctor.post("/api/v1/session", json={"login": "dr.lee", "password": PASSWORD})
        doctor.headers["X-CSRF-Token"] = opened.json()["csrf"]
        where = f"/api/v1/reports/{item['report_id']}"
        seen = doctor.get(where).json()
        assert line.get(where)["text"] is None, "a dashboard sees no unsigned words"
        words = seen["text"] + "Compared with nothing.\n"
        saved = doctor.put(f"{where}/text", json={"seen": seen["text_revision"], "text": words})
        assert saved.status_code == 200, saved.text
        stale = doctor.put(f"{where}/text", json={"seen": seen["text_revision"], "text": "Impression:\nOther."})
        assert stale.status_code == 409
        assert stale.json()["code"] == "stale_revision"
        shown = {"seen": saved.json()["text_revision"], "shown": item["revision"]}
        wrong = doctor.post(f"{where}/sign", json={**shown, "password": "not the password"})
        assert wrong.status_code in {401, 403}
        signed = doctor.post(f"{where}/sign", json={**shown, "password": PASSWORD})
        assert signed.status_code == 200, signed.text
    final = line.get(where)
    assert final["state"] == "final"
    assert "Compared with nothing." in final["text"]
    assert "NOT REVIEWED" not in final["text"]
    assert line.command("verify").strip().endswith("nothing is wrong")


def test_a_second_up_on_the_same_folder_says_so(line: Line) -> None:
    done = subprocess.run(
        [*COMMAND, "up", "--data-dir", str(line.folder / "data")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert str(line.folder / "data") in done.stderr


def test_no_canary_of_a_patient_reaches_any_output(line: Line, tmp_path: Path) -> None:
    import pydicom

    (study,) = phantoms(tmp_path, "--count", "1")
    for path in files_of(study):
        ds = pydicom.dcmread(path)
        ds.PatientName, ds.PatientID, ds.AccessionNumber = "CANARYNAME^X", "CANARYID", "CANARYACC"
        ds.save_as(path)
    broken = tmp_path / "broken.dcm"
    content = files_of(study)[0].read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    line.send(files_of(study))
    line.send([broken])
    uid = study["study_instance_uid"]
    line.wait_until_ended([uid])
    logs = list((line.folder / "data" / "logs").iterdir())
    assert {"listener.log", "api.log", "indexer.log"} <= {p.name for p in logs}
    found = [p.name for p in [*logs, line.folder / "up.err", line.folder / "up.out"] if b"CANARY" in p.read_bytes()]
    assert found == []
    assert [p.name for p in logs if uid.encode() in p.read_bytes()] == []
