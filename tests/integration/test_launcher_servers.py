"""The embedded servers: real ones, started, killed, started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gateway.launcher.binaries import ServerProgram
from gateway.launcher.folder import State
from gateway.launcher.grounds import settle
from gateway.launcher.postgres import Postgres
from gateway.launcher.processes import StopRequest, command_line, is_alive, wait_until
from gateway.launcher.servers import Servers
from record.errors import Misconfigured

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster():
    """A data folder with a cluster in it, nothing running; and the state that goes with it."""
    root = Path(tempfile.mkdtemp(prefix="countersign-launcher-"))
    root.chmod(0o711)
    (root / "logs").mkdir()
    state = State()
    servers = Servers(root, root / "logs", state)
    servers.start(StopRequest())
    with psycopg.connect(plain(servers.owner_database_url())) as session:
        session.execute("CREATE TABLE kept (number int)")
        session.execute("GRANT ALL ON kept TO countersign_app")
    servers.stop(StopRequest())
    yield root, state
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def running(cluster):
    root, state = cluster
    servers = Servers(root, root / "logs", state)
    servers.start(StopRequest())
    yield servers
    servers.stop(StopRequest())


def plain(url):
    return url.replace("postgresql+psycopg:", "postgresql:")


def write_rows(servers, count=50):
    """Rows and marks, each one acknowledged before the next."""
    with psycopg.connect(plain(servers.database_url()), autocommit=True) as session:
        for number in range(count):
            session.execute("INSERT INTO kept VALUES (%s)", [number])
        return session.execute("SELECT count(*) FROM kept").fetchone()[0]


def rows(servers):
    with psycopg.connect(plain(servers.database_url())) as session:
        return session.execute("SELECT count(*) FROM kept").fetchone()[0]


def test_programs_log_in_as_a_role_that_owns_nothing(running):
    with psycopg.connect(plain(running.database_url())) as session:
        session.execute("SET ROLE countersign_app")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("CREATE TABLE mine (number int)")
    with psycopg.connect(plain(running.owner_database_url())) as session:
        may = session.execute("SELECT rolcreaterole, rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
        assert may == (True, False)


def test_without_the_password_nobody_comes_in(running):
    wrong = plain(running.database_url()).replace(":" + running.database_url().split(":")[2].split("@")[0], ":guessed")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(wrong)
    port = int(running.redis_url().rsplit(":", 1)[1].split("/")[0])
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=port, retry=Retry(NoBackoff(), 0)).ping()


def test_valkey_keeps_nothing_on_disk(running):
    with contextlib.closing(redis.Redis.from_url(running.redis_url())) as bell:
        bell.lpush("ring", "once")
        assert bell.config_get("appendonly")["appendonly"] == "no"
        assert bell.config_get("save")["save"] == ""
        assert bell.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
    assert sorted(path.name for path in (running.home / "valkey").iterdir()) == ["valkey.conf"]


def test_passwords_stand_in_no_command_line(running):
    for process in (running.postgres.process, running.valkey.process):
        told = command_line(process.pid)
        assert told
        assert "requirepass" not in told
        assert running.redis_url().split(":")[2].split("@")[0] not in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the servers to another account")
def test_as_root_the_servers_run_as_somebody_else(running):
    for process in (running.postgres.process, running.valkey.process):
        assert os.stat(f"/proc/{process.pid}").st_uid != 0


@pytest.mark.kill
@pytest.mark.parametrize("victim", ["postgres", "valkey"])
def test_a_killed_server_comes_back_on_its_port_with_everything_acknowledged(running, victim):
    urls, written = (running.database_url(), running.redis_url()), write_rows(running)
    server = getattr(running, victim)
    server.process.kill()
    assert wait_until(lambda: running.dead() == [server], within_s=10)
    server.restart(StopRequest())
    assert (running.database_url(), running.redis_url()) == urls
    assert rows(running) == written
    with contextlib.closing(redis.Redis.from_url(running.redis_url())) as bell:
        assert bell.ping()


@pytest.mark.kill
def test_everything_killed_at_once_starts_again(cluster):
    root, state = cluster
    servers = Servers(root, root / "logs", state)
    servers.start(StopRequest())
    written = write_rows(servers)
    for process in (servers.postgres.process, servers.valkey.process):
        process.kill()
        process.wait()
    again = Servers(root, root / "logs", state)
    again.start(StopRequest())
    assert rows(again) == written
    again.stop(StopRequest())


OWNER_SCRIPT = """
import sys, time
from pathlib import Path
from gateway.launcher.folder import DataFolder
from gateway.launcher.processes import StopRequest
from gateway.launcher.servers import Servers
folder = DataFolder(Path(sys.argv[1]))
folder.prepare()
with folder.locked():
    state = folder.read_state()
    servers = Servers(folder.root, folder.logs, state)
    servers.start(StopRequest())
    state.pids = {"postgres": servers.postgres.process.pid, "valkey": servers.valkey.process.pid}
    folder.write_state(state)
    print(*state.pids.values(), servers.database_url(), flush=True)
    time.sleep(600)
"""


def start_owner(root):
    owner = subprocess.Popen([sys.executable, "-c", OWNER_SCRIPT, str(root)], stdout=subprocess.PIPE, text=True)
    postgres, valkey, url = owner.stdout.readline().split()
    return owner, int(postgres), int(valkey), url


@pytest.mark.kill
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a parent-death signal")
def test_kill_9_of_the_launcher_leaves_no_orphans_and_the_next_start_finds_everything():
    root = Path(tempfile.mkdtemp(prefix="countersign-launcher-"))
    root.chmod(0o711)
    try:
        owner, *pids, url = start_owner(root)
        with psycopg.connect(plain(url), autocommit=True) as session:
            session.execute("CREATE TEMPORARY TABLE busy (number int)")
            owner.kill()
            owner.wait()
        assert wait_until(lambda: not any(is_alive(pid) for pid in pids), within_s=15)

        again, *pids, same = start_owner(root)  # same passwords, same ports
        assert same == url
        second = subprocess.run(
            [sys.executable, "-c", OWNER_SCRIPT, str(root)], check=False, capture_output=True, text=True
        )
        assert second.returncode
        assert "already running" in second.stderr
        assert all(is_alive(pid) for pid in pids)

        for pid in (again.pid, *pids):
            os.kill(pid, signal.SIGKILL)
        again.wait()
        owner, *pids, same = start_owner(root)
        assert same == url
        owner.kill()
        owner.wait()
        assert wait_until(lambda: not any(is_alive(pid) for pid in pids), within_s=15)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def test_ports_that_strangers_took_are_left_to_them(cluster):
    root, state = cluster
    written = None
    with contextlib.ExitStack() as strangers:
        former = dict(state.ports)
        for port in (former["postgres"], former["redis"]):
            stranger = strangers.enter_context(socket.socket())
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stranger.bind(("127.0.0.1", port))
            stranger.listen()
        servers = Servers(root, root / "logs", state)
        servers.start(StopRequest())
        assert state.ports["postgres"] != former["postgres"]
        assert state.ports["redis"] != former["redis"]
        written = write_rows(servers, 1)
        assert rows(servers) == written
        servers.stop(StopRequest())


def test_a_cluster_of_another_major_version_is_told_and_left_alone(cluster):
    root, state = cluster
    mark = settle(root, root / "logs").home / "postgres" / "cluster" / "PG_VERSION"
    true = mark.read_text()
    mark.write_text("12\n")
    try:
        began = time.monotonic()
        with pytest.raises(Misconfigured, match="made by PostgreSQL 12"):
            Servers(root, root / "logs", state).start(StopRequest())
        assert time.monotonic() - began < 10
    finally:
        mark.write_text(true)


@pytest.mark.parametrize("damaged", [b"", b"eighteen\n", b"\xff\xfe", b"9.6\n", "²\n".encode(), b"1" * 5000])
def test_a_cluster_that_does_not_say_who_made_it_is_told_as_damaged_and_left_alone(cluster, damaged):
    root, state = cluster
    mark = settle(root, root / "logs").home / "postgres" / "cluster" / "PG_VERSION"
    true = mark.read_bytes()
    mark.write_bytes(damaged)
    try:
        with pytest.raises(Misconfigured, match="PG_VERSION names no major version"):
            Servers(root, root / "logs", state).start(StopRequest())
        assert mark.read_bytes() == damaged
    finally:
        mark.write_bytes(true)


def test_a_failed_initdb_leaves_no_half_cluster(tmp_path_factory):
    root = Path(tempfile.mkdtemp(prefix="countersign-launcher-"))
    root.chmod(0o711)
    (root / "logs").mkdir()
    (root / "bin").mkdir(mode=0o755)
    for name in ("postgres", "initdb"):
        (root / "bin" / name).write_text("#!/bin/sh\necho no space left >&2\nexit 1\n")
        (root / "bin" / name).chmod(0o755)
    try:
        program = ServerProgram(root / "bin" / "postgres", root / "bin", root, 18)
        broken = Postgres(settle(root, root / "logs"), program, State())
        with pytest.raises(Misconfigured, match="no space left"):
            broken.start(StopRequest())
        assert not list((root / "postgres").glob("*luster")), "nothing that looks like a cluster"
        assert not list((root / "postgres").glob("making-*"))
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the servers to another account")
def test_under_a_private_home_the_servers_files_go_elsewhere_and_the_home_stays_private():
    home = Path(tempfile.mkdtemp(prefix="countersign-home-"))  # 0700, as root's home is
    root = home / "data"
    root.mkdir(mode=0o711)
    grounds = settle(root, root)
    try:
        assert grounds.home != root
        assert grounds.home.is_relative_to("/var/lib/countersign")
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
    finally:
        shutil.rmtree(home)
        shutil.rmtree(grounds.home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the servers to another account")
def test_programs_under_a_private_home_are_copied_with_their_libraries(monkeypatch, tmp_path):
    home = Path(tempfile.mkdtemp(prefix="countersign-home-"))
    system = Path(tempfile.mkdtemp(prefix="countersign-system-"))
    monkeypatch.setattr("gateway.launcher.grounds.SYSTEM_STATE", system)
    executable = home / "site/wheel/install/bin/server"
    executable.parent.mkdir(parents=True)
    executable.write_text("#!/bin/sh\n")
    (home / "site/wheel.libs").mkdir()
    (home / "site/wheel.libs/libpart.so").write_text("")
    data = Path(tempfile.mkdtemp(prefix="countersign-launcher-"))
    data.chmod(0o711)
    try:
        program = ServerProgram(executable, executable.parent.parent, home / "site", 1)
        copy = settle(data, data).usable(program)
        assert copy.is_relative_to(system)
        assert (copy.parents[3] / "wheel.libs/libpart.so").exists()
        assert settle(data, data).usable(program) == copy
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
    finally:
        for folder in (home, system, data):
            shutil.rmtree(folder)
