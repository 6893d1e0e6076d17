"""Real parts: they tell, fall silent when they are killed, and are not missed when they stop in good order."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from gateway import heartbeat
from gateway.launcher.processes import free_port
from record.queue import CPU, GPU, Bell
from tests.bench import Bench, wait_for
from tests.conftest import FreshDatabase
from tests.listeners import listening
from tests.situations import codes, seen

REPORT_S = 0.3


@contextlib.contextmanager
def part(folder: Path, database: FreshDatabase, kind: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A part as a process of its own, that nobody starts again."""
    told = {
        "DATABASE_URL": database.url, "COUNTERSIGN_STORE": str(folder / "store"), "COUNTERSIGN_REPORT_S": str(REPORT_S),
        "COUNTERSIGN_SPOOL": str(folder / "spool"), "COUNTERSIGN_SWEEP_S": "0.1", **settings,
    }  # fmt: skip
    clean = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERSIGN_")}
    with (folder / f"{kind}-{uuid.uuid4().hex[:4]}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gateway", "gateway", kind],
            env=clean | told,
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def verdicts(engine: Engine) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in seen(engine).parts:
        found.setdefault(one.kind, []).append(str(one.verdict))
    return found


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_real_parts_tell_fall_silent_when_they_are_killed_and_are_not_missed_when_they_stop(
    engine: Engine, database: FreshDatabase, tmp_path: Path
) -> None:
    all_up = {"listener": ["up"], "indexer": ["up"], "api": ["up"], "sweep": ["up"]}
    with (
        listening(tmp_path / "spool", report_s=REPORT_S) as listener,
        part(tmp_path, database, "indexer") as indexer,
        part(tmp_path, database, "sweep") as sweep,
        part(tmp_path, database, "api", COUNTERSIGN_HTTP_PORT=str(free_port())) as api,
    ):
        wait_for(lambda: verdicts(engine) == all_up, 60, "four parts up")
        found = seen(engine)
        assert found.missing == ("cpu", "gpu", "courier")
        assert next(one for one in found.parts if one.kind == "listener").port == listener.port
        assert [(spool.spool, spool.files) for spool in found.spools] == [("00", 0)]
        assert {disk.place for disk in found.disks} == {"spool", "store"}

        indexer.kill()
        began = time.monotonic()
        wait_for(lambda: verdicts(engine)["indexer"] == ["silent"], 10, "the killed indexer silent")
        assert time.monotonic() - began < 3 * REPORT_S + 2
        assert verdicts(engine)["listener"] == ["unknown"]
        assert "part_silent" in codes(seen(engine))
        with part(tmp_path, database, "indexer"):
            wait_for(lambda: verdicts(engine) == all_up, 60, "another indexer in its place")

            listener.process.kill()
            wait_for(lambda: verdicts(engine)["listener"] == ["silent"], 10, "the killed listener silent")
            with listening(tmp_path / "spool", report_s=REPORT_S) as again:
                wait_for(lambda: verdicts(engine) == all_up, 20, "another listener in its place")
                again.process.terminate()
                assert again.process.wait(20) == 0
                wait_for(lambda: "no_listener" in codes(seen(engine)), 10, "the listener stopped")
                assert not (tmp_path / "spool" / "00" / heartbeat.HEARTBEAT).exists()

        for process, kind in ((sweep, "sweep"), (api, "api")):
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert kind not in verdicts(engine)
            assert f"no_{kind}" in codes(seen(engine))


@pytest.mark.slow
def test_a_worker_that_stops_in_good_order_is_not_missed(
    engine: Engine, database: FreshDatabase, tmp_path: Path, redis_url: str
) -> None:
    bench = Bench(tmp_path, {"DATABASE_URL": database.url, "REDIS_URL": redis_url})
    try:
        bench.start("cpu", "worker", "cpu")
        wait_for(lambda: verdicts(engine) == {"cpu": ["up"]}, 60, "the worker up")
        (shown,) = seen(engine).parts
        assert (shown.model, shown.busy, shown.slots) == ("phantom", 0, 1)
        assert "no_sweep" not in codes(seen(engine))  # a worker sweeps as well
        assert bench.stop("cpu") == 0
        assert verdicts(engine) == {}
        assert seen(engine).missing == ("indexer", "api", "sweep", "cpu", "gpu", "courier")
    finally:
        bench.close()


@pytest.mark.slow
def test_redis_is_asked_how_many_wake_ups_lie_there(engine: Engine, redis_url: str) -> None:
    bell = Bell(SecretStr(redis_url))
    bell.top_up(CPU, 3)
    found = seen(engine, bell=bell)
    assert (found.redis, found.wakeups) == (True, {CPU: 3, GPU: 0})
    gone = seen(engine, bell=Bell(SecretStr("redis://127.0.0.1:9/0")))
    assert (gone.redis, gone.wakeups) == (False, {})
    assert "redis_away" in codes(gone)
