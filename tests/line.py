"""The whole line as its user runs it: `countersign up` in a process of its own, driven from outside.

Images go in through dcmtk's `storescu`, everything else through commands and the HTTP API. Knows nothing of the inside.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

COMMAND = (sys.executable, "-P", "-m", "gateway")
READY = re.compile(r"^ready dicom=(\S+):(\d+) aet=(\S+) http=(\S+)$", re.MULTILINE)
PASSWORD = "correct horse battery"


class Line:
    """A running `countersign up`; `token` is a dashboard's that its record knows already."""

    def __init__(self, folder: Path, *arguments: str, token: str = "", **environment: str) -> None:
        self.folder = folder
        self._environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("COUNTERSIGN_", "DATABASE_URL", "REDIS_URL"))
        } | environment
        self._out = folder / "up.out"
        with self._out.open("wb") as out, (folder / "up.err").open("wb") as err:
            self.process = subprocess.Popen(
                [
                    *COMMAND,
                    "up",
                    "--data-dir",
                    str(folder / "data"),
                    "--dicom-port",
                    "0",
                    "--http-port",
                    "0",
                    *arguments,
                ],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        self.host, self.dicom_port, self.aet, self.url = self._await_ready()
        self.token = (
            token or self.command("tokens", "add", "tests", "--role", "dashboard", "--scope", "drafts:read").strip()
        )

    def _await_ready(self, timeout_s: float = 90) -> tuple[str, int, str, str]:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if found := READY.search(self._out.read_text()):
                return found[1], int(found[2]), found[3], found[4]
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise AssertionError("not ready:\n" + (self.folder / "up.err").read_text()[-3000:])

    def command(self, *arguments: str, stdin: str = "") -> str:
        """Run one of the commands on this line's folder; returns what it printed."""
        done = subprocess.run(
            [*COMMAND, *arguments, "--data-dir", str(self.folder / "data")],
            input=stdin,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def send(self, files: Sequence[Path], *options: str) -> subprocess.CompletedProcess[str]:
        """Send files with dcmtk's storescu, in one association."""
        return self._run_dcmtk(
            "storescu", "-aec", self.aet, *options, self.host, str(self.dicom_port), *map(str, files)
        )

    def send_as_is(self, files: Sequence[Path]) -> subprocess.CompletedProcess[str]:
        """Send files with dcmtk's dcmsend, each in its own transfer syntax."""
        where = (self.host, str(self.dicom_port))
        return self._run_dcmtk("dcmsend", "-v", "-nh", "-dn", "-aec", self.aet, *where, *map(str, files))

    def _run_dcmtk(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [dcmtk(name), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def get(self, path: str) -> Any:
        answer = httpx.get(self.url + path, headers={"Authorization": f"Bearer {self.token}"}, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def study(self, uid: str) -> dict[str, Any] | None:
        answer = httpx.get(
            f"{self.url}/api/v1/studies/{uid}", headers={"Authorization": f"Bearer {self.token}"}, timeout=10
        )
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def items(self) -> dict[str, dict[str, Any]]:
        """Every line of the worklist, by UID."""
        found, cursor = {}, ""
        while True:
            page = self.get(f"/api/v1/studies?limit=200{cursor}")
            found |= {item["study_instance_uid"]: item for item in page["items"]}
            if not page["next"]:
                return found
            cursor = f"&cursor={page['next']}"

    def wait_until_ended(self, uids: Sequence[str], timeout_s: float = 90) -> dict[str, dict[str, Any]]:
        """Wait until every study is drafted, abstained, failed or skipped."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                items = self.items()
                if all(uid in items and has_ended(items[uid]) for uid in uids):
                    return items
            time.sleep(0.2)
        raise AssertionError(f"still open: {[items.get(u) for u in uids if u not in items or not has_ended(items[u])]}")

    def stop(self, timeout_s: float = 60) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def close(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def has_ended(item: dict[str, Any]) -> bool:
    """Whether a study needs nothing more from the machine."""
    return item["state"] == "skipped" or (
        item["state"] == "ready" and item["reading_state"] in {"done", "abstained", "failed"}
    )


def dcmtk(name: str) -> str:
    """One of dcmtk's programs, not the script of the same name that pynetdicom brings."""
    inside = Path(sys.executable).parent
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if Path(p) != inside)
    found = shutil.which(name, path=path)
    if found is None:
        from tests.conftest import missing

        missing(f"dcmtk's {name} is not installed")
    assert found is not None
    return found


@contextlib.contextmanager
def running(*arguments: str, **environment: str) -> Iterator[Line]:
    """A line on a folder of its own, stopped and removed at the end."""
    dcmtk("storescu")
    folder = Path(tempfile.mkdtemp(prefix="countersign-line-"))
    folder.chmod(0o711)
    line = None
    try:
        line = Line(folder, *arguments, **environment)
        yield line
    finally:
        if line is not None:
            line.close()
        shutil.rmtree(folder, ignore_errors=True)


def phantoms(folder: Path, *options: str) -> list[dict[str, Any]]:
    """Make phantom studies with the product's own command."""
    import json

    done = subprocess.run(
        [*COMMAND, "worker", "phantoms", str(folder), *options], capture_output=True, text=True, check=True, timeout=120
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def files_of(study: dict[str, Any]) -> list[Path]:
    """The DICOM files of one phantom study."""
    return sorted(Path(study["path"]).rglob("*.dcm"))
