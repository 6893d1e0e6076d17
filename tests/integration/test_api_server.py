"""The web door as a process: it starts without a database, serves, logs templates only, and ends cleanly."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from record.states import Role
from tests.conftest import FreshDatabase
from tests.web_records import PASSWORD, desk_on


def test_a_taken_port_is_told_in_a_sentence(database: FreshDatabase, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = {"DATABASE_URL": database.url, "COUNTERSIGN_STORE": str(tmp_path), "COUNTERSIGN_HTTP_PORT": str(port)}
        done = subprocess.run(
            [sys.executable, "-P", "-m", "gateway", "gateway", "api"],
            env=os.environ | told,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode != 0
    assert f"Port {port} on 127.0.0.1 is taken by another program." in done.stderr
    assert "Traceback" not in done.stderr


class Server:
    """`countersign gateway api` in a process of its own."""

    def __init__(self, database_url: str, folder: Path) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        self.log = folder / "api.log"
        code = "import sys; from gateway.web.server import main; from record.settings import *; sys.exit(main(load(ApiSettings)))"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", code],
                env=os.environ
                | {
                    "DATABASE_URL": database_url,
                    "COUNTERSIGN_STORE": str(folder / "store"),
                    "COUNTERSIGN_HTTP_PORT": str(port),
                    "REDIS_URL": "redis://127.0.0.1:9/0",
                    "PYTHONPATH": str(Path(__file__).parents[2]),
                },
                stdout=out,
                stderr=out,
            )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.http.get("/healthz")
                return
            except httpx.HTTPError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def served(database: FreshDatabase, tmp_path: Path) -> Iterator[Server]:
    server = Server(database.url, tmp_path)
    yield server
    server.http.close()
    if server.process.poll() is None:
        server.process.kill()
        server.process.wait()


def test_it_serves_signs_in_and_logs_no_path(served: Server, database: FreshDatabase, tmp_path: Path) -> None:
    with desk_on(database, tmp_path / "store") as desk:
        study_uid = desk.study(patient_name="CANARY^NAME", patient_id="CANARY1")
        login = desk.user(Role.ATTENDING, login="CANARYLOGIN")
    assert served.http.get("/readyz").json() == {"database": "up", "redis": "down"}
    opened = served.http.post("/api/v1/session", json={"login": login, "password": PASSWORD})
    served.http.headers["X-CSRF-Token"] = opened.json()["csrf"]
    assert served.http.get(f"/api/v1/studies/{study_uid}").status_code == 200
    assert served.http.get(f"/studies/{study_uid}?done=saved").status_code == 200
    assert served.http.get("/CANARY/../x?CANARY").status_code == 404
    assert served.http.get("/api/v1/studies?cursor=CANARY").status_code == 422
    assert "server" not in served.http.get("/healthz").headers
    assert served.stop() == 0
    told = served.log.read_text()
    assert "CANARY" not in told
    assert study_uid not in told
    assert login not in told
    assert '"route": "/api/v1/studies/{study_instance_uid}"' in told
    assert "api_stopped" in told


def test_it_starts_without_a_database_and_says_so(tmp_path: Path) -> None:
    server = Server("postgresql://nobody:CANARY@127.0.0.1:9/none", tmp_path)
    assert server.http.get("/readyz").status_code == 503
    assert server.http.get("/healthz").status_code == 200
    answer = server.http.get("/api/v1/studies", headers={"Authorization": "Bearer cs_x"})
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert server.stop(signal.SIGINT) == 0
    assert "CANARY" not in server.log.read_text()
