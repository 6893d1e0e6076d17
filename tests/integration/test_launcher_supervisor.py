"""The supervisor, with small parts of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from gateway.launcher import supervisor as module
from gateway.launcher.processes import StopRequest, is_alive, wait_until
from gateway.launcher.supervisor import Part, Supervisor
from record.errors import Misconfigured

STEADY = "import time; print('here', flush=True); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(600)"
CRASHING = "import sys; print('cannot open the thing', flush=True); sys.exit(3)"


def part(name, code, stage=1, stop_s=5.0):
    return Part(name, (sys.executable, "-c", code), stage, stop_s)


@pytest.fixture
def told():
    return []


@pytest.fixture
def supervisor(tmp_path, told):
    made = Supervisor(
        tmp_path,
        os.environ,
        say=told.append,
        echo=lambda name, line: told.append(f"{name} | {line}"),
        stop=StopRequest(),
    )
    yield made
    made.stop()


def test_output_is_passed_on_with_the_parts_name_and_kept(supervisor, told, tmp_path):
    supervisor.start(part("listener", STEADY))
    assert wait_until(lambda: "listener | here" in told, within_s=10)
    assert (tmp_path / "listener.log").read_text() == "here\n"


def test_the_log_of_a_part_is_bounded(supervisor, told, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOG_LIMIT_BYTES", 2_000)
    supervisor.start(
        part("talker", "for n in range(500): print(f'line {n:04}', flush=True)\nimport time; time.sleep(600)")
    )
    assert wait_until(lambda: "talker | line 0499" in told, within_s=10)
    kept = sum(path.stat().st_size for path in tmp_path.glob("talker*.log"))
    assert 1_000 < kept < 5_000


@pytest.mark.kill
def test_a_killed_part_is_started_again(supervisor, told):
    supervisor.start(part("indexer", STEADY))
    former = supervisor.pids()["indexer"]
    os.kill(former, signal.SIGKILL)
    assert wait_until(supervisor.tend, within_s=10)
    assert supervisor.pids()["indexer"] != former
    assert "indexer ended (killed by SIGKILL); it is started again" in told


def test_a_part_that_dies_five_times_ends_everything_with_its_last_words(supervisor, told):
    supervisor.start(part("api", CRASHING))
    supervisor.start(part("sweep", STEADY))
    began = time.monotonic()
    with pytest.raises(Misconfigured, match="api ended 5 times within 60 s") as ended:
        wait_until(lambda: supervisor.tend() and False, within_s=30)
    assert "cannot open the thing" in str(ended.value)
    assert time.monotonic() - began < 20
    pid = supervisor.pids()["sweep"]
    supervisor.stop()
    assert not is_alive(pid)


def test_stages_stop_one_after_the_other(supervisor, told):
    leaving = "import signal, sys, time\ndef go(*_):\n time.sleep(0.3); print('gone', flush=True); sys.exit()\nsignal.signal(signal.SIGTERM, go)\nprint('here', flush=True)\ntime.sleep(600)"
    for name, stage in (("sweep", 3), ("worker", 2), ("listener", 1)):
        supervisor.start(part(name, leaving, stage))
    assert wait_until(lambda: len(told) == 3, within_s=10)
    supervisor.stop()
    assert wait_until(lambda: len(told) == 6, within_s=5)
    assert told[3:] == ["listener | gone", "worker | gone", "sweep | gone"]


def test_a_part_that_will_not_leave_is_killed_in_time(supervisor, told):
    supervisor.start(part("worker", DEAF, stop_s=0.3))
    assert wait_until(lambda: "worker | here" in told, within_s=10)
    pid = supervisor.pids()["worker"]
    began = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - began < 3
    assert not is_alive(pid)
    assert "worker: did not finish in time; it is killed" in told


def test_a_second_request_to_stop_waits_for_nobody(tmp_path, told):
    stop = StopRequest(count=2)
    hurried = Supervisor(tmp_path, os.environ, say=told.append, echo=lambda *line: told.append(line), stop=stop)
    hurried.start(part("worker", DEAF, stop_s=60))
    assert wait_until(lambda: ("worker", "here") in told, within_s=10)
    hurried.stop()
    assert "worker: not waiting any longer; it is killed" in told


def test_a_dead_parts_children_go_with_it(supervisor, told):
    forking = "import subprocess, sys, time\nchild = subprocess.Popen(['sleep', '600'])\nprint(child.pid, flush=True)\ntime.sleep(600)"
    supervisor.start(part("worker", forking))
    assert wait_until(lambda: bool(told), within_s=10)
    child = int(told[0].split("|")[1])
    os.kill(supervisor.pids()["worker"], signal.SIGKILL)
    assert wait_until(lambda: supervisor.tend() or not is_alive(child), within_s=10)
    assert wait_until(lambda: not is_alive(child), within_s=5)


@pytest.mark.kill
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a parent-death signal")
def test_kill_9_of_the_supervisor_leaves_no_orphans(tmp_path):
    script = f"""
import os, sys, time
from pathlib import Path
from gateway.launcher.processes import StopRequest
from gateway.launcher.supervisor import Part, Supervisor
made = Supervisor(Path({str(tmp_path)!r}), os.environ, say=print, echo=lambda *_: None, stop=StopRequest())
for name in ("one", "two"):
    made.start(Part(name, (sys.executable, "-c", {DEAF!r}), 1, 5))
print(*made.pids().values(), flush=True)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert wait_until(lambda: all((tmp_path / f"{name}.log").exists() for name in ("one", "two")), within_s=10)
    process.kill()
    process.wait()
    assert wait_until(lambda: not any(is_alive(pid) for pid in pids), within_s=5)
