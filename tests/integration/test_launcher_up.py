"""`countersign up` as a person or a service manager runs it: real parts, real doors."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import pytest

from gateway.launcher import demo
from gateway.launcher.processes import command_line, is_alive, wait_until
from record.db import transaction
from record.errors import Misconfigured
from record.states import Role
from tests.records import person

pytestmark = pytest.mark.acceptance
COUNTERSIGN = [sys.executable, "-P", "-m", "gateway"]
READY = re.compile(r"ready dicom=(\S+):(\d+) aet=(\S+) http=(\S+)\n")


@pytest.fixture
def environment():
    """A caller without servers and settings of their own."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in {"DATABASE_URL", "REDIS_URL"} and not name.startswith("COUNTERSIGN_")
    }


@pytest.fixture
def root():
    made = Path(tempfile.mkdtemp(prefix="countersign-up-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def start(root, environment):
    """Starts `up` and waits for its ready line."""
    started = []

    def go(*options):
        argv = [
            *COUNTERSIGN,
            "up",
            "--data-dir",
            root,
            "--dicom-port",
            "0",
            "--http-port",
            "0",
            "--open-peers",
            *options,
        ]
        with (root / "up.log").open("ab") as log:
            process = subprocess.Popen(
                argv, env=environment, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True
            )
        started.append(process)
        told = process.stdout.readline()
        assert READY.fullmatch(told), told + (root / "up.log").read_text()[-3000:]
        return process, READY.fullmatch(told)

    yield go
    for process in started:
        process.terminate()
        process.wait(60)


def parts_of(root):
    state = json.loads((root / "run/state.json").read_text())
    return state["pids"]


def everything_of(root):
    """Every process that was started for this folder: the parts and both servers."""
    found = set(parts_of(root).values())
    for entry in Path("/proc").iterdir():
        if (
            entry.name.isdigit()
            and str(root) in command_line(int(entry.name))
            and " up " not in command_line(int(entry.name))
        ):
            found.add(int(entry.name))
    return found


def run(environment, *arguments, given=""):
    return subprocess.run(
        [*COUNTERSIGN, *arguments],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        input=given,
        timeout=60,
    )


def test_the_doors_answer_when_it_says_ready_and_it_leaves_nothing_behind(start, root, environment):
    process, ready = start()
    host, _, aet, url = ready.groups()
    assert host == "127.0.0.1"
    assert aet == "COUNTERSIGN"
    assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 200

    second = run(environment, "up", "--data-dir", root)
    assert second.returncode == 1
    assert "already running" in second.stderr
    assert "Traceback" not in second.stderr

    assert f"kept in {root / 'logs'}" in (root / "up.log").read_text()
    bogus = ("tokens", "add", "typo", "--role", "dashboard", "--scope", "bogus", "--data-dir", root)
    assert "drafts:read" in run(environment, *bogus).stderr

    token = run(environment, "tokens", "add", "board", "--role", "dashboard", "--data-dir", root)
    assert token.returncode == 0, token.stderr
    asked = httpx.get(
        f"{url}/api/v1/studies", headers={"Authorization": f"Bearer {token.stdout.strip()}"}, trust_env=False
    )
    assert asked.status_code == 200, asked.text

    user = ("users", "add", "chief", "--role", "attending", "--name", "Chief Physician", "--data-dir", root)
    assert run(environment, *user, given="long enough to pass\n").stdout == ""
    twice = run(environment, *user, given="long enough to pass\n")
    assert twice.returncode == 1
    assert "taken" in twice.stderr

    verified = run(environment, "verify", "--data-dir", root)
    assert (verified.returncode, verified.stdout) == (0, "nothing is wrong\n"), verified.stderr

    everything = everything_of(root)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert not [pid for pid in everything if is_alive(pid)]
    assert process.stdout.read() == ""

    late = run(environment, "verify", "--data-dir", root)
    assert late.returncode == 1
    assert "countersign up --data-dir" in late.stderr


@pytest.mark.kill
def test_whatever_is_killed_comes_back_and_kill_9_of_the_supervisor_leaves_no_orphans(start, root):
    process, ready = start()
    url = ready[4]
    former = parts_of(root)
    for pid in everything_of(root):
        os.kill(pid, signal.SIGKILL)

    def healed():
        try:
            answers = httpx.get(f"{url}/readyz", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            answers = False
        return answers and not set(parts_of(root).values()) & set(former.values())

    assert wait_until(healed, within_s=60, every_s=0.2)
    everything = everything_of(root)
    process.kill()
    process.wait()
    assert wait_until(lambda: not [pid for pid in everything if is_alive(pid)], within_s=20)
    again, ready = start()
    assert ready[4] == url
    again.send_signal(signal.SIGINT)
    assert again.wait(60) == 0


def test_the_demo_adds_nothing_to_a_record_that_somebody_named_in_the_environment(
    database, engine, tmp_path, monkeypatch
):
    monkeypatch.setenv("DATABASE_URL", database.url)
    demo._refuse_anothers_record()  # nobody's yet
    with transaction(engine) as session:
        person(session, Role.ATTENDING)
    with pytest.raises(Misconfigured, match=r"DATABASE_URL names a record.*nothing was changed"):
        demo.run(tmp_path / "run", once=True, say=print)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_demo_signs_one_report_and_says_so_on_its_last_line(environment):
    shown = subprocess.run(
        [*COUNTERSIGN, "demo", "--once"], env=environment, check=False, capture_output=True, text=True, timeout=300
    )
    assert shown.returncode == 0, shown.stderr[-3000:]
    summary = json.loads(shown.stdout.splitlines()[-1])
    assert summary["studies"] == summary["drafts"] == 3
    assert summary["signed"]
    assert summary["draft_s"] > 0
