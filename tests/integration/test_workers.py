"""Both workers as real processes: pictures from pixels, drafts from pictures, and an end for every study."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from record import claims, leases, readings, studies
from record.db import transaction
from record.errors import IllegalMove, LeaseLost
from record.models import Reading, Study
from record.states import Role
from record.store import Kind, Store
from tests.bench import FAST, MODEL, Bench, admit_phantoms, small_server, states, wait_for
from tests.conftest import FreshDatabase
from tests.records import arrival, closed, person, uid
from worker.desk import EXIT_DEAF, EXIT_WEDGED


@pytest.fixture
def bench(tmp_path: Path, database: FreshDatabase, redis_url: str) -> Iterator[Bench]:
    made = Bench(tmp_path, {"DATABASE_URL": database.url, "REDIS_URL": redis_url})
    yield made
    made.close()


@pytest.mark.slow
def test_phantoms_are_drafted_by_the_phantom_model(engine: Engine, bench: Bench, tmp_path: Path) -> None:
    admit_phantoms(engine, bench.store, tmp_path, 3)
    bench.start("cpu", "worker", "cpu")
    bench.start("gpu", "worker", "gpu")
    wait_for(lambda: states(engine) == {"done": 3}, 60, "three drafts")
    with transaction(engine) as session:
        row = session.execute(
            text(
                "SELECT d.body, d.provenance, s.prompt, s.completion FROM drafts d JOIN draft_steps s ON s.draft_id = d.id"
            )
        ).first()
    assert row is not None
    assert "Impression" in row.completion
    assert "<|user|>" in row.prompt
    assert len(row.provenance["engine"]["weights_digest"]) == 64
    picture = row.provenance["pictures"][0]
    assert picture["rendering"]["transform"]
    assert bench.stop("gpu") == 0
    assert bench.stop("cpu") == 0


def test_what_no_protocol_is_for_abstains_with_its_reason(engine: Engine, bench: Bench) -> None:
    bench.store.put(Kind.INSTANCE, uuid.uuid4().hex, b"whatever")  # an empty store would be refused
    with transaction(engine) as session:
        closed(session, [arrival(uid(), modality="OT")])
        closed(session, [arrival(uid(), modality="CT")])
    bench.start("cpu", "worker", "cpu")
    wait_for(lambda: states(engine) == {"abstained": 2}, 30, "both abstained")
    with transaction(engine) as session:
        codes = set(session.scalars(text("SELECT reason_code FROM readings")))
    assert codes == {"no_protocol", "unsupported"}


def test_an_engine_that_comes_late_costs_no_failure(
    engine: Engine, tmp_path: Path, database: FreshDatabase, redis_url: str
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bench = Bench(
        tmp_path,
        {
            "DATABASE_URL": database.url,
            "REDIS_URL": redis_url,
            "COUNTERSIGN_MODEL": MODEL,
            "COUNTERSIGN_ENGINE_URL": f"http://127.0.0.1:{port}",
        },
    )
    try:
        admit_phantoms(engine, bench.store, tmp_path, 2)
        bench.start("cpu", "worker", "cpu")
        bench.start("gpu", "worker", "gpu")
        wait_for(lambda: states(engine) == {"prepared": 2}, 30, "prepared while the engine is away")
        with small_server(port=port):
            wait_for(lambda: states(engine) == {"done": 2}, 30, "drafted once the engine is there")
        with transaction(engine) as session:
            assert session.scalar(text("SELECT sum(failures) FROM readings")) == 0
    finally:
        bench.close()


def remote_bench(tmp_path: Path, database: FreshDatabase, redis_url: str, engine_url: str, **more: str) -> Bench:
    environment = {"COUNTERSIGN_MODEL": MODEL, "COUNTERSIGN_ENGINE_URL": engine_url, **more}
    return Bench(tmp_path, {"DATABASE_URL": database.url, "REDIS_URL": redis_url, **environment})


@pytest.mark.slow
def test_a_wrong_key_costs_no_reading_anything(
    engine: Engine, tmp_path: Path, database: FreshDatabase, redis_url: str
) -> None:
    refusing = threading.Event()
    refusing.set()
    with small_server(lambda _: 401 if refusing.is_set() else None) as server:
        bench = remote_bench(tmp_path, database, redis_url, server.url)
        try:
            admit_phantoms(engine, bench.store, tmp_path, 2)
            bench.start("cpu", "worker", "cpu")
            bench.start("gpu", "worker", "gpu")
            wait_for(lambda: server.asked >= 3, 30, "the server refused several times")
            refusing.clear()
            wait_for(lambda: states(engine) == {"done": 2}, 30, "drafted once the key is right")
        finally:
            bench.close()
    with transaction(engine) as session:
        assert session.scalar(text("SELECT sum(failures) FROM readings")) == 0


@pytest.mark.slow
def test_a_prompt_that_the_server_fails_on_ends_alone(
    engine: Engine, tmp_path: Path, database: FreshDatabase, redis_url: str
) -> None:
    with small_server(lambda messages: 500 if "POISON" in messages else None) as server:
        bench = remote_bench(tmp_path, database, redis_url, server.url, COUNTERSIGN_MAX_FAILURES="2")
        try:
            uids = admit_phantoms(engine, bench.store, tmp_path, 4)
            with transaction(engine) as session:  # the general protocol quotes the history; phantom-chest does not
                session.execute(text("""UPDATE instances SET header = header || '{"study_description": "CHEST"}'"""))
                session.execute(
                    text("UPDATE studies SET history = 'POISON' WHERE study_instance_uid = :uid"), {"uid": uids[0]}
                )
            bench.start("cpu", "worker", "cpu")
            bench.start("gpu", "worker", "gpu")
            wait_for(lambda: states(engine) == {"done": 3, "failed": 1}, 40, "three done, one failed")
        finally:
            bench.close()


def test_a_model_that_the_server_lacks_keeps_nobody_from_sweeping(
    engine: Engine, tmp_path: Path, database: FreshDatabase, redis_url: str
) -> None:
    with small_server() as server:
        bench = remote_bench(tmp_path, database, redis_url, server.url, COUNTERSIGN_MODEL="another")
        try:
            admit_phantoms(engine, bench.store, tmp_path, 1, close=False)
            bench.start("gpu", "worker", "gpu")
            wait_for(lambda: states(engine) == {"queued": 1}, 30, "the study was closed by this worker's sweep")
            wait_for(lambda: seen(engine) == 1, 10, "the worker is reported")
            assert bench.log("gpu").count("engine_refused") == 1
            assert bench.starts["gpu"] == 1
        finally:
            bench.close()


def seen(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM workers WHERE model IS NULL")).scalar_one())


@pytest.mark.slow
def test_what_another_release_prepared_is_prepared_anew(
    engine: Engine, tmp_path: Path, database: FreshDatabase, redis_url: str
) -> None:
    with small_server() as server:
        bench = remote_bench(tmp_path, database, redis_url, server.url)
        try:
            admit_phantoms(engine, bench.store, tmp_path, 1)
            bench.start("cpu", "worker", "cpu")
            wait_for(lambda: states(engine) == {"prepared": 1}, 30, "prepared")
            with transaction(engine) as session:
                session.execute(text("UPDATE readings SET protocol_digest = 'of another release'"))
            bench.start("gpu", "worker", "gpu")
            wait_for(lambda: states(engine) == {"done": 1}, 30, "prepared anew, and drafted")
        finally:
            bench.close()
    with transaction(engine) as session:
        assert session.scalar(text("SELECT failures FROM readings")) == 0
        assert session.scalar(text("SELECT count(*) FROM events WHERE kind = 'reading_sent_back'")) == 1
        assert session.scalar(text("SELECT count(*) FROM events WHERE kind = 'reading_prepared'")) == 2


def against_a_closing(engine: Engine, study_id: uuid.UUID, work: Callable[[Session], object]) -> list[Exception]:
    """Do `work` while the study is being closed again: it starts when the study is held and its reading is not yet.

    Whoever held the reading then and wanted the study would end in a deadlock.
    """
    raised: list[Exception] = []

    def beside() -> None:
        try:
            with transaction(engine) as session:
                work(session)
        except Exception as error:  # noqa: BLE001 - the caller looks at it
            raised.append(error)

    thread = threading.Thread(target=beside)
    with transaction(engine) as session:
        study = session.get_one(Study, study_id, with_for_update=True)
        thread.start()
        wait_for(lambda: waiting_for_locks(engine) == 1, 10, "the other waits")
        studies.reopen(study)
        session.flush()
        studies.freeze(session, study, "test", {})
    thread.join(10)
    return raised


def a_claim(engine: Engine) -> claims.Claim:
    with transaction(engine) as session:
        closed(session, [arrival(uid())])
        claim = claims.claim_prepare(session, "w", 30, max_prepared=64, model="phantom")
    assert claim is not None
    return claim


def fail(session: Session, claim: claims.Claim, *, for_good: bool = False) -> None:
    claims.fail(session, claim, "error", "It broke.", max_failures=5, backoff_s=0, for_good=for_good)


@pytest.mark.parametrize(
    "end",
    [fail, lambda session, claim: claims.abstain(session, claim, "no_protocol", "Nothing matches.")],
    ids=["failed", "abstained"],
)
def test_a_reading_that_ends_while_its_study_closes_again_is_no_deadlock(
    engine: Engine, end: Callable[[Session, claims.Claim], object]
) -> None:
    claim = a_claim(engine)
    raised = against_a_closing(engine, claim.study_id, lambda session: end(session, claim))
    assert [type(error) for error in raised] == [LeaseLost]
    assert states(engine) == {"superseded": 1, "queued": 1}


def test_a_reading_retried_while_its_study_closes_again_is_no_deadlock(engine: Engine) -> None:
    claim = a_claim(engine)
    with transaction(engine) as session:
        fail(session, claim, for_good=True)
        operator = person(session, Role.OPERATOR)
    raised = against_a_closing(
        engine, claim.study_id, lambda session: readings.retry(session, claim.reading_id, by=operator)
    )
    assert [type(error) for error in raised] == [IllegalMove]
    assert states(engine) == {"superseded": 1, "queued": 1}


def waiting_for_locks(engine: Engine) -> int:
    query = (
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE NOT granted AND datname = current_database()"
    )
    with engine.connect() as connection:
        return int(connection.execute(text(query)).scalar_one())


def test_the_sweep_takes_no_lease_back_while_somebody_holds_its_study(engine: Engine) -> None:
    with transaction(engine) as session:
        study_id = closed(session, [arrival(uid())]).id
        other_id = closed(session, [arrival(uid())]).id
        for _ in range(2):
            assert claims.claim_prepare(session, "w", 0, max_prepared=64, model="phantom") is not None
    with transaction(engine) as session:
        session.get_one(Study, study_id, with_for_update=True)
        with transaction(engine) as sweeping:
            assert leases.take_back(sweeping, max_failures=5, backoff_s=0) == 1
        assert session.scalars(select(Reading.study_id).where(Reading.state == "queued")).all() == [other_id]
    with transaction(engine) as session:
        assert leases.take_back(session, max_failures=5, backoff_s=0) == 1


@pytest.mark.slow
def test_a_wedged_worker_ends_and_another_does_the_reading(
    engine: Engine, tmp_path: Path, database: FreshDatabase, redis_url: str
) -> None:
    hang = threading.Event()
    with small_server(lambda _: hang.wait(60) and None) as server:
        bench = remote_bench(tmp_path, database, redis_url, server.url, COUNTERSIGN_DEADLINE_S="2")
        try:
            admit_phantoms(engine, bench.store, tmp_path, 1)
            bench.start("cpu", "worker", "cpu")
            bench.start("gpu", "worker", "gpu")
            wait_for(lambda: "reading_wedged" in bench.log("gpu"), 40, "the watchdog saw it")
            hang.set()
            wait_for(lambda: states(engine) == {"done": 1}, 40, "done by the restarted worker")
            assert bench.exits["gpu"][0] == EXIT_WEDGED
        finally:
            bench.close()


@pytest.mark.slow
def test_shutdown_hands_back_what_does_not_end_within_its_grace(
    engine: Engine, tmp_path: Path, database: FreshDatabase, redis_url: str
) -> None:
    asked = threading.Event()

    def slowly(_: str) -> None:
        asked.set()
        time.sleep(20)

    with small_server(slowly) as server:
        bench = remote_bench(
            tmp_path, database, redis_url, server.url, COUNTERSIGN_GRACE_S="1", COUNTERSIGN_LEASE_S="30"
        )
        try:
            admit_phantoms(engine, bench.store, tmp_path, 1)
            bench.start("cpu", "worker", "cpu")
            bench.start("gpu", "worker", "gpu")
            assert asked.wait(40)
            assert bench.stop("gpu", timeout_s=15) == 0
            wait_for(lambda: states(engine) == {"prepared": 1}, 5, "handed back at once, not after its lease")
            with transaction(engine) as session:
                assert session.scalar(text("SELECT failures FROM readings")) == 0
        finally:
            bench.close()


@pytest.mark.slow
def test_a_consumer_that_hears_no_bell_is_ended_and_no_strangers_process(
    engine: Engine, tmp_path: Path, database: FreshDatabase, redis_url: str
) -> None:
    script = (
        "import sys, threading\n"
        "from record.settings import WorkerSettings, load\n"
        "from worker.desk import Desk\n"
        "from worker.tasks import Preparing\n"
        "settings = load(WorkerSettings)\n"
        "Desk(Preparing(settings), settings, lambda: False, parent=int(sys.argv[1]))\n"
        "threading.Event().wait(60)\n"
    )
    admit_phantoms(engine, Store(tmp_path / "store"), tmp_path, 1)
    environment = {
        **FAST,
        "DATABASE_URL": database.url,
        "REDIS_URL": redis_url,
        "COUNTERSIGN_STORE": str(tmp_path / "store"),
        "COUNTERSIGN_STALL_S": "1",
        "PATH": "/usr/bin:/bin",
    }
    stranger = subprocess.Popen(["sleep", "60"])  # the parent's number, given to somebody else meanwhile
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", script, str(stranger.pid)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == EXIT_DEAF, done.stderr[-800:]
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
