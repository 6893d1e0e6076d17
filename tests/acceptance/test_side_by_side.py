"""Two of everything on one database: nothing is lost, nothing is done twice, also while one of each is killed.

Two machines, each with a listener and an indexer on a spool of its own, an api, a sweep, a cpu worker and a gpu worker
(the first has two of those), one store and one database. dcmtk sends to both listeners at once: studies to the one, to the
other, whole studies to both, and studies whose images are divided between them.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import Engine, text

from gateway.launcher.processes import free_port
from record import accounts
from record.db import transaction
from record.states import Role
from tests.bench import MODEL, Bench, SmallServer, small_server, wait_for
from tests.conftest import FreshDatabase
from tests.line import dcmtk
from worker.phantom.anatomy import sample
from worker.phantom.dicom import Order, fresh_uids, write

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
STUDIES, VIEWS = 12, 2
PARTS = {name: ("gateway", "gateway", name) for name in ("listener", "indexer", "api", "sweep", "courier")} | {
    name: ("worker", name) for name in ("cpu", "gpu")
}
PASSWORD = "correct horse battery"
ONCE = ("study_closed", "reading_prepared", "draft_written", "report_opened")
"""Events of which a study that was read once has one each."""


@dataclass
class Machine:
    """One machine's parts, on its own spool and ports."""

    bench: Bench
    spool: Path
    dicom_port: int
    url: str
    failed: int = 0
    sent: list[Path] = field(default_factory=list)

    def send(self, files: Sequence[Path]) -> None:
        """Send until Success, as a PACS does."""
        where = ("-aec", "COUNTERSIGN", "127.0.0.1", str(self.dicom_port))
        patience = ("-to", "5", "-td", "10", "-ta", "10")
        deadline = time.monotonic() + 90
        while True:
            argv = [dcmtk("storescu"), *patience, *where, *map(str, files)]
            if subprocess.run(argv, capture_output=True, check=False, timeout=60).returncode == 0:
                self.sent += files
                return
            self.failed += 1
            assert time.monotonic() < deadline, self.bench.log("listener")[-2000:]
            time.sleep(0.2)


@pytest.fixture
def answers() -> Iterator[SmallServer]:
    with small_server(lambda _: time.sleep(0.2)) as server:
        yield server


@pytest.fixture
def machines(
    database: FreshDatabase, redis_url: str, answers: SmallServer, tmp_path: Path
) -> Iterator[tuple[Machine, Machine]]:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "seal.key").write_text("ab" * 32)
    made = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        dicom, http = free_port(), free_port()
        bench = Bench(
            folder,
            {
                "DATABASE_URL": database.url,
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
                "COUNTERSIGN_SLOTS": "2",
                "COUNTERSIGN_STABLE_AFTER_S": "4",
            },
        )
        made.append(Machine(bench, folder / "spool", dicom, f"http://127.0.0.1:{http}"))
    one, two = made
    try:
        for machine in made:
            for name, argv in PARTS.items():
                machine.bench.start(name, *argv)
        one.bench.start("gpu-2", *PARTS["gpu"])
        for machine in made:
            wait_for(lambda m=machine: "listener_started" in m.bench.log("listener"), 120, "the listeners are up")
            wait_for(lambda m=machine: _is_ready(m.url), 120, "the apis are up")
        yield one, two
    finally:
        for machine in made:
            machine.bench.close()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@dataclass(frozen=True)
class Sendings:
    """Who gets which files, study by study; both lists go out side by side."""

    to_one: list[list[Path]]
    to_two: list[list[Path]]


def prepare(folder: Path) -> Sendings:
    """Studies for the one, for the other, whole for both, and divided between them, in turn."""
    rng = np.random.default_rng(11)
    to_one: list[list[Path]] = []
    to_two: list[list[Path]] = []
    for number in range(1, STUDIES + 1):
        files = write(Order(sample(rng), number=number, views=VIEWS), fresh_uids(), folder / str(number))
        match number % 4:
            case 0:
                to_one.append(files)
            case 1:
                to_two.append(files)
            case 2:
                to_one.append(files)
                to_two.append(files)
            case _:
                to_one.append(files[:1])
                to_two.append(files[1:])
    return Sendings(to_one, to_two)


def send_all(machines: tuple[Machine, Machine], sendings: Sendings) -> None:
    """Send to both listeners at once."""
    with ThreadPoolExecutor(2) as senders:
        queues = zip(machines, (sendings.to_one, sendings.to_two), strict=True)
        for done in [senders.submit(lambda m, q: [m.send(files) for files in q], machine, q) for machine, q in queues]:
            done.result()


def one_value(engine: Engine, statement: str) -> int:
    with transaction(engine) as session:
        return int(session.scalar(text(statement)))


def all_read(engine: Engine) -> bool:
    """Whether every study is there with all its images, closed, and its newest revision read."""
    waiting = (
        "SELECT count(*) FROM studies s WHERE s.state <> 'ready' OR NOT EXISTS (SELECT FROM readings r"
        " JOIN study_revisions v ON v.id = r.revision_id WHERE r.study_id = s.id AND r.state = 'done'"
        " AND v.number = (SELECT max(w.number) FROM study_revisions w WHERE w.study_id = s.id))"
    )
    images = "SELECT count(*) FROM instances WHERE duplicate_of_id IS NULL"
    return (
        one_value(engine, "SELECT count(*) FROM studies") == STUDIES
        and one_value(engine, images) == STUDIES * VIEWS
        and one_value(engine, waiting) == 0
    )


def assert_nothing_twice(engine: Engine, machines: tuple[Machine, Machine]) -> None:
    """What must hold whatever was killed: one of each, a chain of seals without a gap, and nothing that `verify` finds."""
    none = {
        "an image with two rows of its own": (
            "SELECT sop_instance_uid FROM instances WHERE duplicate_of_id IS NULL GROUP BY 1 HAVING count(*) > 1"
        ),
        "an image that conflicts with itself": "SELECT id FROM instances WHERE conflict_of_id IS NOT NULL",
        "two revisions of the same images": (
            "SELECT study_id FROM study_revisions GROUP BY study_id, images_sha256 HAVING count(*) > 1"
        ),
        "two readings of one revision": "SELECT revision_id FROM readings GROUP BY 1 HAVING count(*) > 1",
        "two drafts of one reading": "SELECT reading_id FROM drafts GROUP BY 1 HAVING count(*) > 1",
        "a call to the engine kept twice": "SELECT draft_id FROM draft_steps GROUP BY draft_id HAVING count(*) > 1",
        "two live reports of one study": (
            "SELECT study_id FROM reports WHERE state NOT IN ('superseded', 'cancelled') GROUP BY 1 HAVING count(*) > 1"
        ),
        "an event told twice": (
            "SELECT kind FROM events WHERE kind IN ('reading_prepared', 'draft_written', 'report_opened')"
            " GROUP BY kind, reading_id, report_id HAVING count(*) > 1"
        ),
        "an event sealed twice": "SELECT event_id FROM seals GROUP BY 1 HAVING count(*) > 1",
    }
    with transaction(engine) as session:
        found = {what: rows for what, query in none.items() if (rows := session.execute(text(query)).all())}
    assert found == {}
    assert one_value(engine, "SELECT count(*) FROM reports WHERE state = 'draft'") == STUDIES
    wait_for(lambda: one_value(engine, "SELECT count(*) FROM unsealed_events") == 0, 20, "every event is sealed")
    seals = "SELECT count(*) - max(position) + min(position) - 1 FROM seals"
    assert one_value(engine, seals) == 0, "the seals' positions have no gap"
    assert one_value(engine, "SELECT count(*) FROM events") == one_value(engine, "SELECT count(*) FROM seals")
    for machine in machines:
        assert sorted((machine.spool / "00" / "ready").iterdir()) == []
        assert verified(machine).endswith("nothing is wrong")


def verified(machine: Machine) -> str:
    """What `countersign verify` says on one machine."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "gateway", "verify"],
        env=machine.bench.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return (done.stderr + done.stdout).strip()


def test_every_study_is_read_once_by_two_of_everything(
    machines: tuple[Machine, Machine], engine: Engine, tmp_path: Path
) -> None:
    send_all(machines, prepare(tmp_path / "out"))
    wait_for(lambda: all_read(engine), 90, "every study read")
    assert_nothing_twice(engine, machines)
    for table in ("study_revisions", "readings", "drafts", "draft_steps", "reports"):
        assert one_value(engine, f"SELECT count(*) FROM {table}") == STUDIES, table
    for kind in ONCE:
        assert one_value(engine, f"SELECT count(*) FROM events WHERE kind = '{kind}'") == STUDIES, kind
    sent = sum(len(machine.sent) for machine in machines)
    assert one_value(engine, "SELECT count(*) FROM instances") == sent, "what came twice is kept as a duplicate"
    for machine in machines:  # the work was shared
        assert "instances_indexed" in machine.bench.log("indexer")
        assert "reading_prepared" in machine.bench.log("cpu")
        assert "draft_written" in machine.bench.log("gpu")
    _both_doors_show_the_same_and_only_one_signs(machines, engine)
    assert all(set(machine.bench.starts.values()) == {1} for machine in machines), "nobody had to be started again"
    assert verified(machines[0]).endswith("nothing is wrong")


def _both_doors_show_the_same_and_only_one_signs(machines: tuple[Machine, Machine], engine: Engine) -> None:
    with transaction(engine) as session:
        accounts.add_user(
            session, site=None, login="lee", printed_name="Dr. Lee", role=Role.ATTENDING, password=PASSWORD
        )
    doors = [httpx.Client(base_url=machine.url, timeout=30, trust_env=False) for machine in machines]
    opened = [door.post("/api/v1/session", json={"login": "lee", "password": PASSWORD}).json() for door in doors]
    for door, session in zip(doors, opened, strict=True):
        door.headers["X-CSRF-Token"] = session["csrf"]
    shown = [door.get("/api/v1/studies?limit=200").json()["items"] for door in doors]
    assert shown[0] == shown[1]
    assert len(shown[0]) == STUDIES
    report = shown[0][0]["report_id"]
    together = threading.Barrier(2)

    def sign(door: httpx.Client) -> Any:
        together.wait()
        asked = {"seen": 1, "shown": 1, "password": PASSWORD}
        return door.post(f"/api/v1/reports/{report}/sign", json=asked).status_code

    with ThreadPoolExecutor(2) as both:
        assert sorted(both.map(sign, doors)) == [200, 409]
    assert [door.get(f"/api/v1/reports/{report}").json()["state"] for door in doors] == ["final", "final"]
    assert one_value(engine, "SELECT count(*) FROM signatures") == 1
    for door in doors:
        door.close()


@pytest.mark.kill
def test_nothing_is_lost_or_done_twice_while_one_of_each_is_killed(
    machines: tuple[Machine, Machine], engine: Engine, tmp_path: Path
) -> None:
    one, _ = machines
    sender = threading.Thread(target=send_all, args=(machines, prepare(tmp_path / "out")), daemon=True)
    sender.start()
    wait_for(lambda: bool(one.sent), 60, "the first study is on its way")
    for name in ("listener", "indexer", "sweep", "api"):
        one.bench.kill(name)
    one.bench.kill_child_of("cpu")
    wait_for(lambda: one_value(engine, "SELECT count(*) FROM drafts") > 1, 90, "drafts are being written")
    for name in ("gpu", "cpu", "indexer", "sweep"):
        one.bench.kill(name)
    sender.join(120)
    assert not sender.is_alive()
    wait_for(lambda: all_read(engine), 120, "every study read")
    assert_nothing_twice(engine, machines)
    drafts = one_value(engine, "SELECT count(*) FROM drafts")
    assert one_value(engine, "SELECT count(*) FROM events WHERE kind = 'draft_written'") == drafts
    wait_for(lambda: _is_ready(one.url), 60, "the killed api serves again")
    killed = {"listener", "indexer", "sweep", "api", "gpu", "cpu"}
    assert all(one.bench.starts[name] > 1 for name in killed)
