"""A canary of a patient goes in by every door, good and broken, and comes out where it belongs only.

Its name, id and accession number, a login and words of a report may lie in the database, in the store and in the spool.
They appear in no log of any part, no metric, no message or key of the queue, no command line of a process of ours, and on
the page or in the answer of nobody who may not see them.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import httpx
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from redis import Redis

from gateway.launcher.folder import DataFolder
from tests.line import COMMAND, PASSWORD, Line, files_of, phantoms, running
from tests.listeners import associate, store_raw

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
CANARY = "CANARY"
NAME, PATIENT_ID, NUMBER, LOGIN, WORDS = "CANARYNAME^X", "CANARYID", "CANARYACC", "CANARYLOGIN", "CANARYWORDS"
PARTS = {"listener.log", "indexer.log", "sweep.log", "api.log", "postgres.log"}


class Watch:
    """Looks all the time at the command lines of a process and of all that descend from it."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.lines: set[str] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            waiting = [self._root]
            while waiting:
                pid = waiting.pop()
                with contextlib.suppress(OSError):
                    self.lines.add(Path(f"/proc/{pid}/cmdline").read_text(errors="replace"))
                    for thread in Path(f"/proc/{pid}/task").iterdir():  # a child belongs to the thread that started it
                        waiting += map(int, (thread / "children").read_text().split())


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    with running("--open-peers", "--stable-after", "1", "--quiet") as started:
        yield started


@pytest.fixture(scope="module")
def watch(line: Line) -> Iterator[Watch]:
    with Watch(line.process.pid) as looking:
        yield looking


@pytest.fixture(scope="module")
def sent(line: Line, watch: Watch, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The canary's study, sent well and badly; returns its UID once it is drafted."""
    folder = tmp_path_factory.mktemp("canary")
    (study,) = phantoms(folder, "--count", "1")
    paths = files_of(study)
    for path in paths:
        ds = pydicom.dcmread(path)
        ds.PatientName, ds.PatientID, ds.AccessionNumber = NAME, PATIENT_ID, NUMBER
        ds.StudyDescription = f"{ds.StudyDescription} CANARY"
        ds.save_as(path)
    assert line.send(paths).returncode == 0
    uid = str(study["study_instance_uid"])
    assert line.wait_until_ended([uid])[uid]["reading_state"] == "done"
    whole = paths[0].read_bytes()
    cut = folder / "cut.dcm"
    cut.write_bytes(whole[: len(whole) // 2])
    line.send([cut])
    line.send_as_is([cut])
    announced_as_another(line, paths[0])
    cut_off_in_the_middle(line, paths[0])
    for name, change in (("bytes", {"PixelData": None}), ("identity", {"PatientID": PATIENT_ID + "2"})):
        other = folder / f"{name}.dcm"
        altered(paths[0], change).save_as(other)
        assert line.send([other]).returncode == 0
    return uid


def altered(path: Path, change: dict[str, Any]) -> pydicom.Dataset:
    ds = pydicom.dcmread(path)
    for keyword, value in change.items():
        setattr(ds, keyword, value if value is not None else bytes(reversed(ds.PixelData)))
    if "PatientID" in change:
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return ds


def encoded(path: Path) -> tuple[bytes, str]:
    ds = pydicom.dcmread(path)
    bare, out = pydicom.Dataset(), io.BytesIO()
    bare.update(ds)  # without preamble and file meta, as it goes over the wire
    pydicom.dcmwrite(out, bare, implicit_vr=False, little_endian=True)
    return out.getvalue(), str(ds.SOPClassUID)


def announced_as_another(line: Line, path: Path) -> None:
    content, sop_class_uid = encoded(path)
    peer = associate(
        SimpleNamespace(port=line.dicom_port), called=line.aet, contexts=((sop_class_uid, ExplicitVRLittleEndian),)
    )
    assert store_raw(peer, content, sop_class_uid=sop_class_uid, sop_instance_uid="1.2.3.4") == 0xA900
    peer.release()


def cut_off_in_the_middle(line: Line, path: Path) -> None:
    content, sop_class_uid = encoded(path)
    peer = associate(
        SimpleNamespace(port=line.dicom_port), called=line.aet, contexts=((sop_class_uid, ExplicitVRLittleEndian),)
    )
    store_raw(peer, content, sop_class_uid=sop_class_uid, part=0.5)
    peer.abort()


def machine(line: Line, role: str) -> httpx.Client:
    token = line.command("tokens", "add", f"canary-{role}", "--role", role).strip().splitlines()[-1]
    return httpx.Client(base_url=line.url, headers={"Authorization": f"Bearer {token}"}, timeout=20)


def person(line: Line, login: str, role: str) -> httpx.Client:
    line.command("users", "add", login, "--role", role, "--name", "Dr. Ana Lee", stdin=PASSWORD + "\n")
    client = httpx.Client(base_url=line.url, timeout=20)
    opened = client.post("/api/v1/session", json={"login": login, "password": PASSWORD})
    assert opened.status_code == 200, opened.text
    client.headers["X-CSRF-Token"] = opened.json()["csrf"]
    return client


@pytest.fixture(scope="module")
def used(line: Line, sent: str) -> str:
    """Whatever people and machines do with the canary over HTTP, right and wrong; returns the study's UID."""
    with machine(line, "operator") as operator, contextlib.closing(person(line, "dr.lee", "attending")) as doctor:
        found = operator.post("/api/v1/studies/search", json={"patient_name": CANARY, "patient_id": PATIENT_ID})
        assert [item["patient_name"] for item in found.json()["items"]] == [NAME]
        assert doctor.get(f"/api/v1/studies/{sent}").json()["identity"]["accession_number"] == NUMBER
        _as_wrongly_as_can_be(operator, sent)
        _read_and_written_by(doctor, sent)
        assert operator.get("/metrics").status_code == 200
    with httpx.Client(base_url=line.url, timeout=20) as stranger:
        for login in (LOGIN, LOGIN + "\x00", CANARY * 40):
            asked = {"login": login, "password": CANARY}
            assert stranger.post("/api/v1/session", json=asked).status_code in {401, 422}
            assert stranger.post("/sign-in", data=asked).status_code in {401, 422}
        stranger.cookies.set("countersign_session", CANARY)
        assert stranger.get("/api/v1/studies", headers={"Authorization": f"Bearer {CANARY}"}).status_code == 401
        assert stranger.get("/").status_code in {303, 401}
    return sent


def _as_wrongly_as_can_be(client: httpx.Client, uid: str) -> None:
    path = "/api/v1/studies/search"
    wrong: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", path, {"json": {"patient_name": [CANARY]}}),
        ("POST", path, {"json": {CANARY: CANARY}}),
        ("POST", path, {"json": {"patient_id": CANARY, "cursor": CANARY}}),
        ("POST", path, {"json": {"patient_id": CANARY + "\x00"}}),
        ("POST", path, {"content": b'{"patient_name": "CANARY', "headers": {"Content-Type": "application/json"}}),
        ("POST", path, {"content": b"CANARY", "headers": {"Content-Type": "text/plain"}}),
        ("POST", path, {"content": b"\xff\xfeCANARY", "headers": {"Content-Type": "application/json"}}),
        ("GET", f"/api/v1/studies?patient_name={NAME}", {}),
        ("GET", f"/api/v1/studies?state={CANARY}", {}),
        ("GET", f"/api/v1/studies?cursor={CANARY}&{CANARY}={CANARY}", {}),
        ("GET", f"/api/v1/studies/{CANARY}", {}),
        ("GET", f"/{CANARY}/{NAME}?{CANARY}", {}),
        ("PATCH", f"/api/v1/studies/{CANARY}", {}),
        ("GET", f"/api/v1/pictures/{CANARY}", {}),
        ("GET", f"/static/{CANARY}.css", {}),
        ("POST", f"/api/v1/studies/{uid}/conflicts/{CANARY}", {"json": {"keep": CANARY, "reason": CANARY}}),
        ("PUT", f"/api/v1/reports/{CANARY}/text", {"json": {"text": CANARY}}),
    ]
    for method, address, options in wrong:
        answer = client.request(method, address, **options)
        assert 400 <= answer.status_code < 500, f"{method} {address}: {answer.status_code}"
    assert client.post(f"/api/v1/studies/{uid}/report", json={CANARY: CANARY}).status_code == 403


def _read_and_written_by(doctor: httpx.Client, uid: str) -> None:
    page = doctor.get("/")
    csrf = page.text.partition('name="csrf" value="')[2].partition('"')[0]
    assert doctor.get(f"/studies/{uid}").status_code == 200
    found = doctor.post("/search", data={"csrf": csrf, "patient_name": CANARY}, follow_redirects=True)
    assert "CANARYNAME" in found.text
    assert CANARY not in str(found.url)
    doctor.post("/search", data={"csrf": csrf, "patient_name": CANARY * 40, "study_date_from": CANARY})
    doctor.get(f"/?modality={CANARY}&state={CANARY}")
    report_id = doctor.get(f"/api/v1/studies/{uid}").json()["report_id"]
    opened = doctor.get(f"/api/v1/reports/{report_id}")
    assert opened.status_code == 200, opened.text
    shown = opened.json()
    saved = doctor.put(
        f"/api/v1/reports/{report_id}/text", json={"seen": shown["text_revision"], "text": shown["text"] + WORDS}
    )
    assert saved.status_code == 200, saved.text
    stale = doctor.put(f"/api/v1/reports/{report_id}/text", json={"seen": shown["text_revision"], "text": WORDS})
    assert stale.status_code == 409
    wrong = {"seen": saved.json()["text_revision"], "shown": 1, "password": CANARY, "reasons": {"new_images": WORDS}}
    assert doctor.post(f"/api/v1/reports/{report_id}/sign", json=wrong).status_code == 401


@pytest.fixture(scope="module")
def told(line: Line, sent: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What commands say that were given the canary, by their names."""
    folder = tmp_path_factory.mktemp("more")
    (study,) = phantoms(folder, "--count", "1", "--seed", "9", "--fresh-uids")
    for path in files_of(study):
        ds = pydicom.dcmread(path)
        ds.PatientName, ds.PatientID, ds.AccessionNumber = NAME, PATIENT_ID, "CANARYACC9"
        ds.save_as(path)
    (folder / "broken.dcm").write_bytes(files_of(study)[0].read_bytes()[:600])
    done = {"send": command(line, "send", str(folder))}
    for verb in ("close", "retry", "read", "show"):
        done[f"studies {verb}"] = command(line, "studies", verb, "CANARYNOWHERE")
    done["studies show"] = command(line, "studies", "show", NUMBER)
    done["status"] = command(line, "status") + command(line, "status", "--json")
    done["verify"] = command(line, "verify")
    done["studies list"] = command(line, "studies", "list") + command(line, "studies", "list", "--json")
    return done


def command(line: Line, *arguments: str) -> str:
    done = subprocess.run(
        [*COMMAND, *arguments, "--data-dir", str(line.folder / "data")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "No such option" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def test_no_part_s_log_holds_it(line: Line, used: str, told: dict[str, str]) -> None:
    logs = [*(line.folder / "data" / "logs").iterdir(), line.folder / "up.err", line.folder / "up.out"]
    names = {path.name for path in logs}
    assert names >= PARTS, names
    contents = {path.name: path.read_bytes() for path in logs}
    assert b"request_served" in contents["api.log"]
    assert [name for name, content in contents.items() if CANARY.encode() in content] == []
    assert [name for name, content in contents.items() if used.encode() in content] == [], "nor the study's UID"


def test_no_command_repeats_it(told: dict[str, str]) -> None:
    assert [name for name, said in told.items() if CANARY in said] == []
    assert "accepted" in told["send"] or "sent" in told["send"]


def test_no_metric_and_no_status_holds_it(line: Line, used: str) -> None:
    with httpx.Client(base_url=line.url, headers={"Authorization": f"Bearer {line.token}"}, timeout=20) as dashboard:
        figures = dashboard.get("/metrics")
        assert figures.status_code == 200
        assert figures.text.count("\n") > 20
        seen = figures.text + dashboard.get("/api/v1/studies").text + dashboard.get(f"/api/v1/studies/{used}").text
    assert CANARY not in seen
    assert used not in figures.text


def test_no_key_and_no_message_of_the_queue_holds_it(line: Line, used: str, told: dict[str, str]) -> None:
    state = DataFolder(line.folder / "data").read_state()
    with Redis.from_url(state.environment["REDIS_URL"], decode_responses=False) as redis:
        kept = {key: _content_of(redis, key) for key in redis.keys("*")}
    assert kept, "the workers' queues are there"
    dumped = repr(kept)
    assert CANARY not in dumped
    assert used not in dumped


def _content_of(redis: Redis, key: bytes) -> object:
    match redis.type(key):
        case b"list":
            return redis.lrange(key, 0, -1)
        case b"set":
            return redis.smembers(key)
        case b"zset":
            return redis.zrange(key, 0, -1)
        case b"hash":
            return redis.hgetall(key)
        case b"string":
            return redis.get(key)
        case kind:
            raise AssertionError(f"a key of another kind: {kind!r}")


def test_no_process_of_ours_was_started_with_it(watch: Watch, used: str, told: dict[str, str]) -> None:
    assert len(watch.lines) > 5
    assert any("worker.decoding" in started for started in watch.lines)
    assert [started for started in watch.lines if CANARY in started or used in started] == []


def test_no_event_holds_it(line: Line, used: str, told: dict[str, str]) -> None:
    with machine(line, "auditor") as auditor:
        items: list[dict[str, Any]] = []
        cursor: int | None = 0
        while cursor is not None:
            page = auditor.get(f"/api/v1/events?limit=200&cursor={cursor}").json()
            items += page["items"]
            cursor = page["next"]
    kinds = {item["kind"] for item in items}
    assert kinds >= {"study_closed", "studies_searched", "study_opened", "report_saved", "sign_in_refused"}
    assert CANARY not in json.dumps(items)
