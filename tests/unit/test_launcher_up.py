"""What `up` decides before it starts anything."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway import cli
from gateway.launcher import demo, up
from gateway.launcher import folder as folders
from gateway.launcher.folder import DataFolder, State
from gateway.launcher.processes import free_port
from gateway.launcher.readiness import http_answers, http_url
from gateway.ports import bind_fault, why_not
from record.errors import Misconfigured


@pytest.fixture
def taken_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def own_servers(monkeypatch):
    for name in list(os.environ):
        if name.startswith("COUNTERSIGN_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", "postgresql://of-my-own/database")
    monkeypatch.setenv("REDIS_URL", "redis://of-my-own/0")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "pacs.example"])
def test_open_peers_never_leave_loopback(tmp_path, host):
    options = up.Options(tmp_path, dicom_host=host, open_peers=True)
    with pytest.raises(Misconfigured, match="loopback"):
        up.run(options, say=print, echo=print)
    assert not list(tmp_path.iterdir())


def test_a_taken_port_is_told_before_anything_starts(tmp_path, taken_port):
    with pytest.raises(Misconfigured, match="--http-port"):
        up._choose_ports(up.Options(tmp_path, dicom_port=0, http_port=taken_port), State())


@pytest.mark.parametrize("port", [0, 11112])
def test_an_address_that_this_machine_does_not_have_is_no_taken_port(tmp_path, port):
    options = up.Options(tmp_path / "new", dicom_host="192.0.2.7", dicom_port=port, http_port=0)
    with pytest.raises(Misconfigured, match=r"This machine has no address 192.0.2.7.*--dicom-host"):
        up.run(options, say=print, echo=print)


def test_a_name_that_is_no_address_is_told_so(tmp_path):
    with pytest.raises(Misconfigured, match=r"nowhere.invalid is no address"):
        up._choose_ports(up.Options(tmp_path, dicom_host="nowhere.invalid", http_port=0), State())


def test_a_port_that_is_not_ours_to_use_is_told_so():
    assert "privilege" in why_not(PermissionError(errno.EACCES, "Permission denied"), "127.0.0.1", 104)


def test_a_refused_start_leaves_no_folder_behind(tmp_path, taken_port):
    for options in (
        up.Options(tmp_path / "new", dicom_host="192.0.2.7"),
        up.Options(tmp_path / "new", dicom_port=0, http_port=taken_port),
        up.Options(tmp_path / "new", dicom_port=0, http_port=0, model="/nosuch"),
    ):
        with pytest.raises(Misconfigured):
            up.run(options, say=print, echo=print)
    assert not list(tmp_path.iterdir())


def test_the_demo_writes_into_no_run_but_its_own(tmp_path):
    real = DataFolder(tmp_path / "real")
    real.prepare()
    real.write_state(State())
    kept = sorted(real.root.rglob("*"))
    with pytest.raises(Misconfigured, match=r"that the demo did not make.*new --data-dir"):
        demo.run(real.root, once=True, say=print)
    assert sorted(real.root.rglob("*")) == kept


def test_the_demo_knows_its_own_folder_again(tmp_path):
    for _ in range(2):
        with demo._folder(tmp_path / "shown") as folder:
            assert DataFolder(folder).read_state().demo


def test_without_a_run_and_without_settings_the_way_on_is_told(tmp_path, monkeypatch):
    for name in ("DATABASE_URL", "DATABASE_URL_FILE", "COUNTERSIGN_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(folders, "default_folder", lambda: tmp_path / "usual")
    for verb in (["status"], ["verify"], ["users", "list"], ["users", "list", "--json"]):
        told = CliRunner().invoke(cli.cli, verb)
        assert str(told.exception) == (
            f"There is no run in {tmp_path / 'usual'}: start `countersign up`, pass --data-dir, or set DATABASE_URL."
        )
        assert CliRunner().invoke(cli.cli, [*verb, "--help"]).exit_code == 0


def test_port_zero_keeps_the_port_of_the_last_time_unless_it_is_taken(tmp_path, taken_port):
    options = up.Options(tmp_path, dicom_port=0, http_port=0)
    state = State(ports={"dicom": free_port(), "http": taken_port})
    before = dict(state.ports)
    chosen = up._choose_ports(options, state)
    assert chosen["dicom"] == before["dicom"]
    assert chosen["http"] != taken_port
    assert bind_fault("127.0.0.1", chosen["http"]) is None


def test_the_owner_url_reaches_no_part(tmp_path, own_servers, monkeypatch):
    monkeypatch.setenv("COUNTERSIGN_OWNER_DATABASE_URL", "postgresql://owner/database")
    environment = up._environment(up.Options(tmp_path), DataFolder(tmp_path), None, {"dicom": 1, "http": 2})
    assert "COUNTERSIGN_OWNER_DATABASE_URL" not in environment
    assert "COUNTERSIGN_OWNER_DATABASE_URL" not in up._inherited()
    assert up._owner_url(None) == "postgresql://owner/database"


def test_without_an_owner_url_the_programs_url_migrates(own_servers):
    assert up._owner_url(None) == "postgresql://of-my-own/database"


def test_options_win_over_the_callers_settings_and_folders_do_not(tmp_path, own_servers, monkeypatch):
    monkeypatch.setenv("COUNTERSIGN_STORE", "/elsewhere")
    monkeypatch.setenv("COUNTERSIGN_LEASE_S", "0.5")
    monkeypatch.setenv("COUNTERSIGN_MODEL", "another")
    environment = up._environment(up.Options(tmp_path), DataFolder(tmp_path), None, {"dicom": 1, "http": 2})
    assert environment["COUNTERSIGN_STORE"] == "/elsewhere"
    assert environment["COUNTERSIGN_LEASE_S"] == "0.5"
    assert environment["COUNTERSIGN_MODEL"] == "phantom"
    assert environment["DATABASE_URL"] == "postgresql://of-my-own/database"


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
def test_one_server_of_ones_own_without_the_other_is_a_mistake(own_servers, monkeypatch, name):
    monkeypatch.delenv(name)
    with pytest.raises(Misconfigured, match=f"{name} is not"):
        up._has_own_servers()


def test_every_part_is_started_so_that_a_strangers_folder_cannot_lend_modules():
    for part in up.PARTS:
        assert part.argv[:3] == (sys.executable, "-P", "-m")


def test_doors_stop_before_workers_and_workers_before_the_rest():
    stages = {part.name: part.stage for part in up.PARTS}
    assert stages["listener"] == stages["api"] < stages["worker-cpu"] == stages["worker-gpu"] < stages["indexer"]


def test_an_address_that_listens_everywhere_is_reached_by_loopback():
    assert http_url("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert http_url("::1", 80) == "http://[::1]:80"


def test_a_door_that_is_shut_is_not_ready():
    assert not http_answers("127.0.0.1", free_port())


def test_expected_errors_are_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["countersign", "verify", "--data-dir", "/nowhere/at/all"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith("countersign: /nowhere/at/all is no data folder")
    assert "Traceback" not in told


@pytest.mark.parametrize("verb", [["up"], ["demo"], ["migrate"], ["gateway", "listener"], ["users", "add"], ["verify"]])
def test_every_verb_explains_itself(verb):
    told = CliRunner().invoke(cli.cli, [*verb, "--help"])
    assert told.exit_code == 0
    assert "--data-dir" in told.output


def test_the_command_line_loads_nothing_heavy():
    """Each of six parts starts through it."""
    import subprocess

    code = "import gateway.cli, sys; print([m for m in ('torch', 'fastapi', 'pynetdicom', 'sqlalchemy', 'celery') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True, cwd=Path("/"))
    assert told.stdout.strip() == "[]"
