"""A workbench of real worker processes on a real database, for tests that watch or kill them.

Instances are put into the store and admitted directly, so these tests need no network; the readings are done by
`python -m worker cpu|gpu` as in production. The model behind the remote engine is a small HTTP server that answers at
once, so that a killed worker is back in a second: what is tried here is the queue, not the model.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from sqlalchemy import Engine, text

from gateway.headers import read_header
from record import admission, studies
from record.admission import Arrival
from record.db import transaction
from record.ids import new_id
from record.part10 import data_set_digest, data_set_offset
from record.store import Kind, Store
from tests.records import study_of
from worker.phantom.anatomy import sample
from worker.phantom.dicom import Order, fresh_uids, write

MODEL = "small-server"
ANSWER = "Findings: The lungs are clear. The heart is normal in size.\nImpression: No abnormality."
FAST = {
    "COUNTERSIGN_SWEEP_S": "0.2",
    "COUNTERSIGN_LEASE_S": "1.5",
    "COUNTERSIGN_BACKOFF_S": "0.1",
    "COUNTERSIGN_STALL_S": "5",
    "COUNTERSIGN_GRACE_S": "5",
    "COUNTERSIGN_CPU_PROCESSES": "1",
    "COUNTERSIGN_STABLE_AFTER_S": "0.3",
    "COUNTERSIGN_LOG_LEVEL": "INFO",
}


class SmallServer:
    """An OpenAI-compatible server that streams one answer; `before` may delay, refuse or do worse."""

    def __init__(self, before: Callable[[str], int | None] = lambda _: None, port: int = 0) -> None:
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                self._json({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked += 1
                status = before(json.dumps(body["messages"])[-2000:])
                if status:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                for piece, finish in ((ANSWER, None), ("", "stop")):
                    chunk = {
                        "model": MODEL,
                        "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": finish}],
                    }
                    self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                self.wfile.write(b"data: [DONE]\n\n")
                self.close_connection = True

            def _json(self, value: object) -> None:
                content = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:  # a killed worker breaks its connection: expected here
                pass

        self._server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Bench:
    """Parts as processes of their own; whoever dies is started again, as a supervisor would."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.store = Store(folder / "store")
        self.environment = (
            {k: v for k, v in os.environ.items() if not k.startswith("COUNTERSIGN_")}
            | FAST
            | {"COUNTERSIGN_STORE": str(folder / "store"), "PYTHONUNBUFFERED": "1"}
            | environment
        )
        self._wanted: dict[str, list[str]] = {}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.starts: dict[str, int] = {}
        self.exits: dict[str, list[int]] = {}
        threading.Thread(target=self._supervise, daemon=True).start()

    def start(self, name: str, *argv: str) -> None:
        with self._lock:
            self._wanted[name] = [sys.executable, "-P", "-m", *argv]
            self._spawn(name)

    def kill(self, name: str) -> None:
        """kill -9 of one process; its children are left to themselves."""
        self.signal(name, signal.SIGKILL)

    def signal(self, name: str, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.running[name].pid, number)

    def kill_child_of(self, name: str) -> bool:
        """kill -9 of one forked child."""
        children = ""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it was killed itself, and is not back yet
            children = Path(f"/proc/{self.running[name].pid}/task/{self.running[name].pid}/children").read_text()
        for child in children.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
                return True
        return False

    def stop(self, name: str, timeout_s: float = 20) -> int:
        """SIGTERM, and no restart."""
        with self._lock:
            self._wanted.pop(name)
            process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        self._closing.set()
        with self._lock:
            self._wanted.clear()
            for process in self.running.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            for process in self.running.values():
                process.wait()

    def _spawn(self, name: str) -> None:
        self.starts[name] = self.starts.get(name, 0) + 1
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                self._wanted[name],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    def _supervise(self) -> None:
        while not self._closing.wait(0.1):
            with self._lock:
                for name in list(self._wanted):
                    status = self.running[name].poll()
                    if status is not None:
                        self.exits.setdefault(name, []).append(status)
                        self._spawn(name)


def admit_phantoms(
    engine: Engine, store: Store, folder: Path, count: int, *, close: bool = True, description: str | None = None
) -> list[str]:
    """Put `count` phantom studies of one instance into the store and the record; returns their UIDs."""
    rng = np.random.default_rng(7)
    uids = []
    for number in range(1, count + 1):
        (path,) = write(Order(sample(rng), number=number), fresh_uids(), folder / f"study-{number}-{new_id().hex}")
        with path.open("rb") as stream:
            sha256, size = data_set_digest(stream)
            stream.seek(0)
            offset = data_set_offset(stream)
        content = path.read_bytes()
        header = read_header(content, "1.2.840.10008.1.2.1", offset)
        arrival = Arrival(new_id(), header, sha256, size, _now(engine), "dicom")
        store.put(Kind.INSTANCE, arrival.instance_id.hex, path)
        with transaction(engine) as session:
            admission.admit(session, [arrival])
            study = study_of(session, header.study_instance_uid)
            if description is not None:
                study.history = description
            if close:
                session.refresh(study, with_for_update=True)
                studies.freeze(session, study, "test", {})
        uids.append(header.study_instance_uid)
    return uids


def _now(engine: Engine):  # type: ignore[no-untyped-def]
    with engine.connect() as connection:
        return connection.execute(text("SELECT now()")).scalar_one()


def states(engine: Engine) -> dict[str, int]:
    """How many readings are in which state."""
    with engine.connect() as connection:
        return dict(connection.execute(text("SELECT state, count(*) FROM readings GROUP BY state")).all())


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll until a condition holds; the servers behind it may be away meanwhile."""
    from record.db import AWAY

    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(*AWAY):
            if condition():
                return
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s} s: {what}")


@contextlib.contextmanager
def small_server(before: Callable[[str], int | None] = lambda _: None, port: int = 0) -> Iterator[SmallServer]:
    server = SmallServer(before, port)
    try:
        yield server
    finally:
        server.close()
