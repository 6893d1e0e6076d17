"""Receiving processes, the indexer and PostgreSQL are killed at random while eight senders send: a ledger of what was
acknowledged is held against what is stored afterwards. `make endure` does the same for longer.

COUNTERSIGN_KILLS says how often, COUNTERSIGN_OUTAGE_S how long PostgreSQL and Redis are away in the second test, and
COUNTERSIGN_SEED repeats a run.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import Engine, text

from gateway.dicom.send import send
from gateway.launcher.processes import free_port
from record.db import connect
from record.part10 import data_set_digest
from record.store import Kind
from tests.bench import Bench, wait_for
from tests.instances import encoded, instance, saved, uid
from tests.listeners import AET
from tests.own_servers import OwnServers, own_servers

KILLS = int(os.environ.get("COUNTERSIGN_KILLS", "20"))
OUTAGE_S = float(os.environ.get("COUNTERSIGN_OUTAGE_S", "4"))
SEED = int(os.environ.get("COUNTERSIGN_SEED") or time.time_ns() % 1_000_000)
SENDERS = 8
LEASE_S = 1.5  # of `tests.bench`
pytestmark = [pytest.mark.kill, pytest.mark.timeout(120 + 6 * KILLS + 4 * int(OUTAGE_S))]


@dataclass
class Ledger:
    """What was acknowledged: SOP Instance UID and hash of the data set; and everything that was ever tried."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)


@dataclass
class Senders:
    """Senders that each send a study after the other, and an image again until it is acknowledged, as a PACS does."""

    port: int
    folder: Path
    ledger: Ledger
    stop: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self.threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(SENDERS)]
        for each in self.threads:
            each.start()

    def end(self) -> None:
        """Let each finish the study it is at."""
        self.stop.set()
        for each in self.threads:
            each.join(90)
        assert not any(each.is_alive() for each in self.threads)

    def _run(self, number: int) -> None:
        folder = self.folder / str(number)
        folder.mkdir(parents=True)
        while not self.stop.is_set():
            study = uid()
            self._send(folder, [instance(side=96, StudyInstanceUID=study) for _ in range(12)])

    def _send(self, folder: Path, images: list[Dataset]) -> None:
        waiting = {saved(folder, ds): hashlib.sha256(encoded(ds)).hexdigest() for ds in images}
        self.ledger.tried |= {path.stem for path in waiting}

        def note(path: Path, status: int | None) -> None:
            if status == 0:
                self.ledger.acknowledged[path.stem] = waiting.pop(path)

        while waiting:
            send(list(waiting), "127.0.0.1", self.port, AET, note, timeout_s=5)
            if waiting:
                time.sleep(0.1)
        for path in folder.iterdir():
            path.unlink()


@pytest.fixture(scope="module")
def servers() -> Iterator[OwnServers]:
    with own_servers() as made:
        yield made


@pytest.fixture(scope="module")
def engine(servers: OwnServers) -> Iterator[Engine]:
    made = connect(servers.url)
    yield made
    made.dispose()


@pytest.fixture(scope="module")
def bench(servers: OwnServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    tmp_path = tmp_path_factory.mktemp("bench")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "seal.key").write_text("ab" * 32)
    made = Bench(
        tmp_path,
        {
            "DATABASE_URL": servers.url,
            "REDIS_URL": servers.redis_url,
            "COUNTERSIGN_SPOOL": str(tmp_path / "spool"),
            "COUNTERSIGN_SECRETS": str(tmp_path / "secrets"),
            "COUNTERSIGN_DICOM_PORT": str(free_port()),
            "COUNTERSIGN_OPEN_PEERS": "1",
            "COUNTERSIGN_MIN_FREE_BYTES": "1",
            "COUNTERSIGN_RECEIVERS": "2",
            "COUNTERSIGN_LOG_LEVEL": "WARNING",
        },
    )
    for name in ("listener", "indexer", "sweep"):
        made.start(name, "gateway", "gateway", name)
    yield made
    made.close()


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    """Of all tests here: they follow each other on one record."""
    return Ledger()


@pytest.fixture
def senders(bench: Bench, ledger: Ledger, tmp_path: Path) -> Iterator[Senders]:
    made = Senders(int(bench.environment["COUNTERSIGN_DICOM_PORT"]), tmp_path / "out", ledger)
    yield made
    made.stop.set()


def waiting(bench: Bench) -> int:
    return sum(1 for _ in (bench.folder / "spool").glob("*/ready/*.dcm"))


def assert_ledger_holds(engine: Engine, bench: Bench, ledger: Ledger) -> None:
    """Everything acknowledged is on record once, with its bytes in the store; nothing was made up; every study is closed."""
    wait_for(lambda: waiting(bench) == 0, 120, "the spools are empty")
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT id, sop_instance_uid, sha256 FROM instances WHERE duplicate_of_id IS NULL")
        ).all()
        assert connection.execute(text("SELECT count(*) FROM instances WHERE conflict_kind IS NOT NULL")).scalar() == 0
    by_uid = {row.sop_instance_uid: row for row in rows}
    assert len(by_uid) == len(rows), "none twice"
    assert {uid: getattr(by_uid.get(uid), "sha256", None) for uid in ledger.acknowledged} == ledger.acknowledged
    assert set(by_uid) <= ledger.tried
    for row in rows:
        with bench.store.open(Kind.INSTANCE, row.id.hex) as stream:
            assert data_set_digest(stream)[0] == row.sha256
    assert not [path for path in (bench.folder / "spool").glob("*/quarantine/*") if path.is_file()]
    images = """SELECT coalesce(sum(r.images), 0) FROM studies s JOIN study_revisions r
                ON r.study_id = s.id AND r.number = s.revision WHERE s.state = 'ready'"""

    def frozen() -> bool:
        with engine.connect() as connection:
            return connection.execute(text(images)).scalar() == len(by_uid)

    wait_for(frozen, 60, "every study is closed with all its images")


def _await_images(senders: Senders) -> None:
    before = len(senders.ledger.acknowledged)
    wait_for(lambda: len(senders.ledger.acknowledged) > before + 20, 60, "images are coming in")


def test_nothing_acknowledged_is_lost_whoever_is_killed(
    engine: Engine, servers: OwnServers, bench: Bench, senders: Senders
) -> None:
    print(f"COUNTERSIGN_SEED={SEED}")  # noqa: T201  to repeat it
    chance = random.Random(SEED)
    senders.start()
    _await_images(senders)
    killed: dict[str, int] = {}
    for number in range(KILLS):
        before = len(senders.ledger.acknowledged)
        victim = chance.choices(("receiver", "indexer", "postgres", "listener"), (8, 6, 3, 3))[0]
        if victim == "receiver":
            wait_for(lambda: bench.kill_child_of("listener"), 30, "a receiver is there")
        elif victim == "postgres":
            servers.kill_postgres()
            time.sleep(chance.uniform(0.1, 0.6))
            servers.revive()
        else:
            bench.kill(victim)
        killed[victim] = killed.get(victim, 0) + 1
        time.sleep(chance.uniform(0.1, 0.5))
        wait_for(lambda: len(senders.ledger.acknowledged) > before, 60, f"images come in after kill {number}")  # noqa: B023
    senders.end()
    assert_ledger_holds(engine, bench, senders.ledger)
    print(f"{len(senders.ledger.acknowledged)} acknowledged, {killed}")  # noqa: T201


def test_images_are_taken_for_as_long_as_postgres_and_redis_are_away(
    engine: Engine, servers: OwnServers, bench: Bench, senders: Senders
) -> None:
    assert OUTAGE_S > 2 * LEASE_S
    senders.start()
    _await_images(senders)
    servers.kill_postgres()
    servers.kill_redis()
    before, until = len(senders.ledger.acknowledged), time.monotonic() + OUTAGE_S
    while time.monotonic() < until:
        time.sleep(0.2)
    during = len(senders.ledger.acknowledged) - before
    assert during > 20
    assert waiting(bench) >= during, "they wait in the spool"
    servers.revive()
    senders.end()
    assert_ledger_holds(engine, bench, senders.ledger)
