"""Any process may be killed at any moment: no reading is lost, none is done twice.

The servers here are this module's own, since they are killed too. Each test counts: every reading ends, every reading
has exactly one draft, every study exactly one live report, and `verify` finds nothing.
"""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, text

from gateway.launcher.processes import free_port
from record import verification
from record.db import connect, transaction
from tests.bench import MODEL, Bench, SmallServer, admit_phantoms, small_server, states, wait_for
from tests.line import dcmtk
from tests.own_servers import OwnServers, own_servers
from worker.phantom.anatomy import sample
from worker.phantom.dicom import Order, fresh_uids, write

pytestmark = [pytest.mark.kill, pytest.mark.timeout(240)]
READINGS = 24


@pytest.fixture
def servers() -> Iterator[OwnServers]:
    with own_servers() as made:
        yield made


@pytest.fixture
def engine(servers: OwnServers) -> Iterator[Engine]:
    made = connect(servers.url)
    yield made
    made.dispose()


@pytest.fixture
def answers() -> Iterator[SmallServer]:
    with small_server(lambda _: time.sleep(0.05)) as server:
        yield server


def workbench(servers: OwnServers, folder: Path, engine_url: str, **more: str) -> Bench:
    secrets = folder / "secrets"
    secrets.mkdir(exist_ok=True)
    (secrets / "seal.key").write_text("ab" * 32)
    return Bench(
        folder,
        {
            "DATABASE_URL": servers.url,
            "REDIS_URL": servers.redis_url,
            "COUNTERSIGN_SECRETS": str(secrets),
            "COUNTERSIGN_SPOOL": str(folder / "spool"),
            "COUNTERSIGN_MODEL": MODEL,
            "COUNTERSIGN_ENGINE_URL": engine_url,
            **more,
        },
    )


@pytest.fixture
def bench(servers: OwnServers, tmp_path: Path, answers: SmallServer) -> Iterator[Bench]:
    made = workbench(servers, tmp_path, answers.url)
    yield made
    made.close()


def all_ended(engine: Engine, count: int, state: str = "done") -> bool:
    return states(engine) == {state: count}


def assert_nothing_lost_nothing_twice(engine: Engine, bench: Bench, count: int) -> None:
    with transaction(engine) as session:
        totals = session.execute(
            text(
                "SELECT (SELECT count(*) FROM drafts), (SELECT count(DISTINCT reading_id) FROM drafts),"
                " (SELECT count(*) FROM reports), (SELECT count(DISTINCT study_id) FROM reports),"
                " (SELECT count(*) FROM draft_steps)"
            )
        ).one()
    assert tuple(totals) == (count, count, count, count, count)
    wait_for(lambda: unsealed(engine) == 0, 20, "the sweep sealed every event")
    key = bytes.fromhex("ab" * 32)
    assert [str(f) for f in verification.verify(engine, bench.store, key)] == []


def unsealed(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM unsealed_events")).scalar_one())


def test_workers_killed_again_and_again(engine: Engine, bench: Bench, tmp_path: Path) -> None:
    for name, kind in (("cpu", "cpu"), ("gpu", "gpu"), ("gpu2", "gpu")):
        bench.start(name, "worker", kind)
    admit_phantoms(engine, bench.store, tmp_path, READINGS)
    chance = random.Random(1)
    for _ in range(10):
        time.sleep(chance.uniform(0.2, 0.8))
        match chance.choice(["cpu", "child", "gpu", "gpu2"]):
            case "child":
                bench.kill_child_of("cpu")
            case name:
                bench.kill(name)
    wait_for(lambda: all_ended(engine, READINGS), 90, "every reading done")
    assert_nothing_lost_nothing_twice(engine, bench, READINGS)
    assert sum(bench.starts.values()) > 3, "somebody was killed"


def test_redis_killed_again_and_again(engine: Engine, bench: Bench, servers: OwnServers, tmp_path: Path) -> None:
    bench.start("cpu", "worker", "cpu")
    bench.start("gpu", "worker", "gpu")
    for _ in range(4):
        admit_phantoms(engine, bench.store, tmp_path, READINGS // 4)
        time.sleep(0.4)
        servers.kill_redis()
        time.sleep(0.6)
        servers.revive()
    wait_for(lambda: all_ended(engine, READINGS // 4 * 4), 90, "every reading done")
    assert_nothing_lost_nothing_twice(engine, bench, READINGS // 4 * 4)


def test_redis_absent_from_start_to_end(
    engine: Engine, servers: OwnServers, tmp_path: Path, answers: SmallServer
) -> None:
    servers.kill_redis()
    bench = workbench(servers, tmp_path, answers.url)
    try:
        bench.start("cpu", "worker", "cpu")
        bench.start("gpu", "worker", "gpu")
        admit_phantoms(engine, bench.store, tmp_path, READINGS)
        wait_for(lambda: all_ended(engine, READINGS), 90, "every reading done without Redis")
        assert_nothing_lost_nothing_twice(engine, bench, READINGS)
        bench.stop("gpu")
        bench.stop("cpu")
    finally:
        bench.close()


def test_postgres_killed_again_and_again(engine: Engine, bench: Bench, servers: OwnServers, tmp_path: Path) -> None:
    bench.start("cpu", "worker", "cpu")
    bench.start("gpu", "worker", "gpu")
    admit_phantoms(engine, bench.store, tmp_path, READINGS)
    for _ in range(3):
        time.sleep(0.8)
        servers.kill_postgres()
        time.sleep(0.5)
        servers.revive()
    wait_for(lambda: all_ended(engine, READINGS), 90, "every reading done")
    assert_nothing_lost_nothing_twice(engine, bench, READINGS)


def test_everything_killed_at_once(engine: Engine, servers: OwnServers, tmp_path: Path, answers: SmallServer) -> None:
    """Gateway, workers, PostgreSQL and Redis together, while a sender keeps at it as a PACS does: until Success."""
    dicom, http = free_port(), free_port()
    bench = workbench(
        servers,
        tmp_path,
        answers.url,
        COUNTERSIGN_DICOM_PORT=str(dicom),
        COUNTERSIGN_HTTP_PORT=str(http),
        COUNTERSIGN_OPEN_PEERS="1",
        COUNTERSIGN_MIN_FREE_BYTES="1",
    )
    parts = {name: ("gateway", "gateway", name) for name in ("listener", "indexer", "api", "sweep")}
    parts |= {"cpu": ("worker", "cpu"), "gpu": ("worker", "gpu")}
    acknowledged: list[Path] = []
    rng = np.random.default_rng(3)
    files = [
        write(Order(sample(rng), number=number), fresh_uids(), tmp_path / "out" / str(number))[0]
        for number in range(1, READINGS + 1)
    ]

    def keep_sending() -> None:
        for path in files:
            while True:
                done = subprocess.run(
                    [
                        dcmtk("storescu"),
                        "-to",
                        "2",
                        "-td",
                        "5",
                        "-ta",
                        "5",
                        "-aec",
                        "COUNTERSIGN",
                        "127.0.0.1",
                        str(dicom),
                        str(path),
                    ],
                    capture_output=True,
                    check=False,
                    timeout=60,
                )
                if done.returncode == 0:
                    acknowledged.append(path)
                    break
                time.sleep(0.2)
            time.sleep(0.1)

    try:
        for name, argv in parts.items():
            bench.start(name, *argv)
        sender = threading.Thread(target=keep_sending, daemon=True)
        sender.start()
        for _ in range(3):
            time.sleep(2.0)
            for name in parts:
                bench.kill(name)
            servers.kill_postgres()
            servers.kill_redis()
            time.sleep(0.3)
            servers.revive()
        sender.join(90)
        assert len(acknowledged) == READINGS
        wait_for(lambda: states(engine).get("done", 0) >= READINGS, 90, "every reading done")
        with transaction(engine) as session:
            assert session.scalar(text("SELECT count(DISTINCT study_id) FROM drafts")) == READINGS
            assert session.scalar(text("SELECT count(*) FROM reports WHERE state = 'draft'")) == READINGS
            twice = "SELECT count(*) FROM (SELECT reading_id FROM drafts GROUP BY 1 HAVING count(*) > 1) d"
            assert session.scalar(text(twice)) == 0
        wait_for(lambda: unsealed(engine) == 0, 20, "the sweep sealed every event")
        spool = tmp_path / "spool"
        found = [str(f) for f in verification.verify(engine, bench.store, bytes.fromhex("ab" * 32), spool=spool)]
        assert found == []
    finally:
        bench.close()


def test_a_worker_frozen_longer_than_its_lease_is_fenced(engine: Engine, servers: OwnServers, tmp_path: Path) -> None:
    asked = threading.Event()

    def slowly(_: str) -> None:
        asked.set()
        time.sleep(1.0)

    with small_server(slowly) as server:
        bench = workbench(servers, tmp_path, server.url)
        try:
            admit_phantoms(engine, bench.store, tmp_path, 2)
            bench.start("cpu", "worker", "cpu")
            bench.start("gpu", "worker", "gpu")
            assert asked.wait(60)
            bench.signal("gpu", signal.SIGSTOP)  # it holds leases and its answers will come while it is frozen
            bench.start("gpu2", "worker", "gpu")
            wait_for(lambda: all_ended(engine, 2), 60, "another worker did what the frozen one held")
            bench.signal("gpu", signal.SIGCONT)
            wait_for(
                lambda: "reading_fenced" in bench.log("gpu") or "reading_dropped" in bench.log("gpu"), 20, "fenced"
            )
            assert_nothing_lost_nothing_twice(engine, bench, 2)
        finally:
            bench.close()


def test_a_poison_study_fails_alone_and_its_neighbours_are_done(
    engine: Engine, servers: OwnServers, tmp_path: Path
) -> None:
    benches: list[Bench] = []

    def kill_whoever_asks_for_poison(messages: str) -> None:
        if "POISON" in messages:
            benches[0].kill("gpu")
            time.sleep(1)

    with small_server(kill_whoever_asks_for_poison) as server:
        bench = workbench(servers, tmp_path, server.url, COUNTERSIGN_MAX_FAILURES="3", COUNTERSIGN_LEASE_S="1")
        benches.append(bench)
        try:
            admit_phantoms(engine, bench.store, tmp_path, 5)
            with transaction(engine) as session:  # the general protocol quotes the history; phantom-chest does not
                session.execute(text('UPDATE instances SET header = header || \'{"study_description": "CHEST"}\''))
            admit_phantoms(engine, bench.store, tmp_path, 1, close=False)
            with transaction(engine) as session:
                session.execute(text('UPDATE instances SET header = header || \'{"study_description": "CHEST"}\''))
                session.execute(text("UPDATE studies SET history = 'POISON' WHERE state = 'receiving'"))
            bench.start("sweep", "gateway", "gateway", "sweep")
            bench.start("cpu", "worker", "cpu")
            bench.start("gpu", "worker", "gpu")
            wait_for(lambda: states(engine) == {"done": 5, "failed": 1}, 120, "five done, one failed")
            with transaction(engine) as session:
                row = session.execute(
                    text(
                        "SELECT r.failures, r.reason_code, s.history FROM readings r JOIN studies s ON s.id = r.study_id"
                        " WHERE r.state = 'failed'"
                    )
                ).one()
            assert tuple(row) == (3, "lease_lost", "POISON")
        finally:
            bench.close()
