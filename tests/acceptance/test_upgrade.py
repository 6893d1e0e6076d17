"""From the former release to this one: its programs work on the new schema beside ours, and its data become ours.

The former release is a commit of this repository, unpacked into a folder that its processes find first. In a shallow
clone there is nothing to try.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets as random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import Engine, text

from gateway.launcher.processes import free_port
from gateway.web.app import create_app
from record.db import connect, transaction
from record.migrate import own_revision
from record.settings import ApiSettings
from record.states import Role
from record.store import Store
from tests.bench import MODEL, Bench, SmallServer, small_server, wait_for
from tests.conftest import FreshDatabase, RunningServers, _create, _drop, _named, _role, missing
from tests.keeping import Keeping
from tests.line import PASSWORD, dcmtk
from tests.records import study_of
from tests.web_records import Desk
from worker.phantom.anatomy import sample
from worker.phantom.dicom import Order, fresh_uids, write

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
FORMER, FORMER_REVISION = "e6e560c", "0001"
ROOT = Path(__file__).parents[2]
PARTS = {name: ("gateway", "gateway", name) for name in ("listener", "indexer", "api", "sweep")} | {
    name: ("worker", name) for name in ("cpu", "gpu")
}


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The former release's tree."""
    git = ["git", "-C", str(ROOT)]
    if subprocess.run([*git, "cat-file", "-e", FORMER], capture_output=True, check=False).returncode:
        asked = subprocess.run([*git, "rev-parse", "--is-shallow-repository"], capture_output=True, check=False)
        if asked.stdout.strip() == b"true":
            pytest.skip(f"this clone is shallow: it does not hold {FORMER}, the former release")
        missing(f"the history is not at hand: there is no commit {FORMER}, the former release")
    archive = subprocess.run([*git, "archive", FORMER], capture_output=True, check=True).stdout
    folder = tmp_path_factory.mktemp("former")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


@contextlib.contextmanager
def bare_database(servers: RunningServers) -> Iterator[FreshDatabase]:
    """A database without a schema."""
    name = f"countersign_bare_{random.token_hex(4)}"
    _create(servers, name, f'OWNER "{_role(servers.owner_url)}"')
    yield FreshDatabase(_named(servers.database_url, name), _named(servers.owner_url, name))
    _drop(servers, name)


@pytest.fixture
def bare(servers: RunningServers) -> Iterator[FreshDatabase]:
    with bare_database(servers) as made:
        yield made


@pytest.fixture
def engine(bare: FreshDatabase) -> Iterator[Engine]:
    made = connect(bare.url)
    yield made
    made.dispose()


def revision(engine: Engine) -> str:
    with engine.connect() as connection:
        return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())


@dataclass
class Release:
    """One release's parts on a machine of their own."""

    bench: Bench
    dicom_port: int
    url: str

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Run one of its commands."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "gateway", *arguments],
            env=self.bench.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        for name, argv in PARTS.items():
            self.bench.start(name, *argv)
        wait_for(lambda: "listener_started" in self.bench.log("listener"), 120, "the listener is up")
        wait_for(self.is_ready, 120, "the api is up")

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def send(self, files: list[Path]) -> None:
        argv = [dcmtk("storescu"), "-aec", "COUNTERSIGN", "127.0.0.1", str(self.dicom_port), *map(str, files)]
        subprocess.run(argv, check=True, timeout=60)

    @contextlib.contextmanager
    def door(self) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=self.url, timeout=30, trust_env=False) as client:
            opened = client.post("/api/v1/session", json={"login": "lee", "password": PASSWORD})
            assert opened.status_code == 200, opened.text
            client.headers["X-CSRF-Token"] = opened.json()["csrf"]
            yield client

    def drafted(self, uid: str) -> dict[str, Any]:
        """The study's line in the worklist, once its draft is there."""
        found: dict[str, Any] = {}

        def is_there() -> bool:
            items = client.get("/api/v1/studies?limit=200").json()["items"]
            found.update(next((item for item in items if item["study_instance_uid"] == uid), {}))
            return found.get("reading_state") == "done"

        with self.door() as client:
            wait_for(is_there, 60, f"a draft of study {uid}")
        return found

    def sign(self, item: dict[str, Any]) -> str:
        """Edit and sign a draft; returns the signed text."""
        where = f"/api/v1/reports/{item['report_id']}"
        with self.door() as doctor:
            seen = doctor.get(where).json()
            words = {"seen": seen["text_revision"], "text": seen["text"] + "Compared with nothing.\n"}
            saved = doctor.put(f"{where}/text", json=words)
            assert saved.status_code == 200, saved.text
            asked = {"seen": saved.json()["text_revision"], "shown": item["revision"], "password": PASSWORD}
            signed = doctor.post(f"{where}/sign", json=asked)
            assert signed.status_code == 200, signed.text
            assert signed.json()["state"] == "final"
            return str(signed.json()["text"])

    def text_of(self, item: dict[str, Any]) -> str:
        with self.door() as doctor:
            return str(doctor.get(f"/api/v1/reports/{item['report_id']}").json()["text"])


@pytest.fixture
def answers() -> Iterator[SmallServer]:
    with small_server() as server:
        yield server


@pytest.fixture
def releases(
    bare: FreshDatabase, redis_url: str, answers: SmallServer, former: Path, tmp_path: Path
) -> Iterator[tuple[Release, Release]]:
    """The former release and this one, on one database and one store; nothing is started."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "seal.key").write_text("ab" * 32)
    made = []
    for name, tree in (("former", former), ("present", ROOT)):
        folder = tmp_path / name
        folder.mkdir()
        dicom, http = free_port(), free_port()
        environment = {
            "PYTHONPATH": str(tree),
            "DATABASE_URL": bare.url,
            "COUNTERSIGN_OWNER_DATABASE_URL": bare.owner_url,
            "REDIS_URL": redis_url,
            "COUNTERSIGN_STORE": str(tmp_path / "store"),
            "COUNTERSIGN_SPOOL": str(folder / "spool"),
            "COUNTERSIGN_SECRETS": str(secrets),
            "COUNTERSIGN_HEADS_FILE": str(tmp_path / "heads.log"),
            "COUNTERSIGN_DICOM_PORT": str(dicom),
            "COUNTERSIGN_HTTP_PORT": str(http),
            "COUNTERSIGN_OPEN_PEERS": "1",
            "COUNTERSIGN_MIN_FREE_BYTES": "1",
            "COUNTERSIGN_MODEL": MODEL,
            "COUNTERSIGN_ENGINE_URL": answers.url,
        }
        made.append(Release(Bench(folder, environment), dicom, f"http://127.0.0.1:{http}"))
    yield made[0], made[1]
    for release in made:
        release.bench.close()


def test_the_former_releases_parts_work_on_our_schema_beside_ours(
    releases: tuple[Release, Release], engine: Engine, former: Path, tmp_path: Path
) -> None:
    before, now = releases
    rng = np.random.default_rng(3)
    studies = []
    for number in range(1, 6):
        uids = fresh_uids()
        files = write(Order(sample(rng), number=number), uids, tmp_path / "out" / str(number))
        studies.append((uid_of(files[0]), files))
    first, moved, alone, beside, last = studies

    before.run("migrate")
    assert revision(engine) == FORMER_REVISION
    before.run("users", "add", "lee", "--role", "attending", "--name", "Dr. Lee", stdin=PASSWORD + "\n")
    before.start()
    assert_runs_from(before, former)
    before.send(first[1])
    signed = before.drafted(first[0])
    words = before.sign(signed)

    now.run("migrate")  # while the former release works
    assert revision(engine) == own_revision() > FORMER_REVISION
    before.send(moved[1])
    before.sign(before.drafted(moved[0]))

    for name in PARTS:  # and it starts on it as well
        before.bench.kill(name)
    wait_for(lambda: all(before.bench.starts[name] > 1 for name in PARTS), 60, "every part was started again")
    wait_for(before.is_ready, 60, "the api is up again")
    wait_for(lambda: before.bench.log("listener").count("listener_started") == 2, 60, "the listener is up again")
    before.send(alone[1])
    before.sign(before.drafted(alone[0]))

    now.start()
    now.send(beside[1])
    before.sign(now.drafted(beside[0]))
    assert now.text_of(signed) == before.text_of(signed) == words

    for name in ("cpu", "gpu", "sweep", "indexer"):
        before.bench.stop(name)
    now.send(last[1])
    now.sign(now.drafted(last[0]))
    assert "reading_prepared" in now.bench.log("cpu")
    assert "draft_written" in now.bench.log("gpu")
    for release in releases:
        assert all(status == -9 for statuses in release.bench.exits.values() for status in statuses)
        assert "Traceback" not in "".join(release.bench.log(name) for name in PARTS)
        assert release.run("verify") == "nothing is wrong\n"
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM signatures")).scalar_one() == len(studies)


def uid_of(path: Path) -> str:
    from pydicom import dcmread

    return str(dcmread(path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)


def assert_runs_from(release: Release, tree: Path) -> None:
    """The processes' modules come from that tree, not from the present one."""
    told = subprocess.run(
        [
            sys.executable,
            "-P",
            "-c",
            "import gateway, record, worker, migrations\nprint(gateway.__file__, record.__file__)",
        ],
        env=release.bench.environment,
        cwd=release.bench.folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told.split() == [f"{tree}/gateway/__init__.py", f"{tree}/record/__init__.py"]


@pytest.mark.timeout(120)
def test_studies_of_the_former_release_in_every_state_become_ours(
    servers: RunningServers, bare: FreshDatabase, engine: Engine, former: Path, tmp_path: Path
) -> None:
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("COUNTERSIGN_", "DATABASE_URL", "REDIS_URL"))
    }
    environment |= {
        "PYTHONPATH": str(former),
        "DATABASE_URL": bare.url,
        "COUNTERSIGN_OWNER_DATABASE_URL": bare.owner_url,
        "COUNTERSIGN_STORE": str(tmp_path / "store"),
        "COUNTERSIGN_SPOOL": str(tmp_path / "spool"),
        "COUNTERSIGN_SECRETS": str(tmp_path / "secrets"),
        "COUNTERSIGN_HEADS_FILE": str(tmp_path / "heads.log"),
    }

    def run(*argv: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", *map(str, argv)],
            env=environment | more, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    assert run("-m", "gateway", "migrate").returncode == 0
    assert revision(engine) == FORMER_REVISION
    made = run(Path(__file__).parents[1] / "former_record.py", bare.url, tmp_path)
    assert made.returncode == 0, made.stderr
    uids = json.loads(made.stdout.splitlines()[-1])
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "seal.key").write_text("ab" * 32)
    present = {"PYTHONPATH": str(ROOT)}
    refused = run("-m", "gateway", "gateway", "api", **present)
    assert (refused.returncode, "Run: countersign migrate" in refused.stderr) == (1, True)
    assert run("-m", "gateway", "backup", "--to", "shelf", **present).returncode == 0  # the backup before the upgrade
    assert run("-m", "gateway", "migrate", **present).returncode == 0
    verified = run("-m", "gateway", "verify", **present)
    assert (verified.returncode, verified.stdout) == (0, "nothing is wrong\n"), verified.stdout
    store = Store(tmp_path / "store")
    desk = Desk(create_app(ApiSettings(database_url=bare.url, store=tmp_path / "store"), engine), engine, store)
    try:
        go_on(desk, uids)
    finally:
        desk.app.state.web.decoders.close()
    assert run("-m", "gateway", "verify", **present).stdout == "nothing is wrong\n"

    with bare_database(servers) as other:  # the way back, or to another machine: the backup from before
        elsewhere = Keeping(other, tmp_path / "elsewhere")
        code, told = elsewhere.command("restore", "--from", tmp_path / "shelf")
        assert code == 0, told
        assert revision(elsewhere.engine) == own_revision()
        assert elsewhere.count("studies") == len(uids)
        assert elsewhere.count("signatures") == 1
        elsewhere.engine.dispose()


def go_on(desk: Desk, uids: dict[str, str]) -> None:
    """What the former release left behind is what this one works on."""
    with transaction(desk.engine) as session:
        states = {state: study_of(session, uid).state for state, uid in uids.items()}
        assert states == dict.fromkeys(uids, "ready") | {"receiving": "receiving", "skipped": "skipped"}
        desk.read(session, uids["queued"])
    assert desk.report_of(uids["queued"]).state == "draft"
    doctor = desk.signed_in(Role.ATTENDING, login="lee")
    left = {
        "draft": "draft",
        "saved": "draft",
        "preliminary": "preliminary",
        "cancelled": "cancelled",
        "signed": "final",
    }
    for state, expected in left.items():
        report = desk.report_of(uids[state])
        assert report.state == expected
        shown = doctor.get(f"/api/v1/reports/{report.id}").json()
        assert (f"Seen by hand: {state}." in shown["text"]) == (state != "draft")
        if expected in {"draft", "preliminary"}:
            asked = {"seen": shown["text_revision"], "shown": 1, "password": PASSWORD}
            assert doctor.post(f"/api/v1/reports/{report.id}/sign", json=asked).status_code == 200
    for asked, found in (
        ({"accession_number": "F-signed"}, [uids["signed"]]),
        ({"patient_name": "former abstained"}, [uids["abstained"]]),
        ({"accession_number": "F-erased"}, []),
    ):
        items = doctor.post("/api/v1/studies/search", json=asked).json()["items"]
        assert [item["study_instance_uid"] for item in items] == found
