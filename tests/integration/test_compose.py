"""docker-compose.yml: what it says, and every command in it run against the embedded servers (no Docker at hand)."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.launcher.postgres import GROUP, OWNER, PROGRAM, SETTINGS
from gateway.launcher.processes import wait_until
from record.settings import WorkerSettings
from scripts.bootstrap import TORCH_VERSION, UV_VERSION
from tests.composed import FILE, PORTS, ROOT, Stage, composed, instructions, seconds, valkey_cli
from tests.conftest import missing
from tests.line import dcmtk, files_of, phantoms

SERVICES: dict[str, dict[str, Any]] = composed()["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
LASTING = [name for name in SERVICES if name != "migrate"]
PROXIES = {"proxy", "dicom-proxy"}
DOCKERFILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))
SETTINGS_FILE = {"COUNTERSIGN_STABLE_AFTER_S": "0.5", "COUNTERSIGN_SWEEP_S": "0.2", "COUNTERSIGN_CPU_PROCESSES": "1"}
"""What stands in countersign.env here."""


# ------------------------------------------------------------------------------------------------------ what the file says
def test_the_file_fits_the_compose_specification() -> None:
    checker = Path(sys.executable).parent / "check-jsonschema"
    done = subprocess.run([checker, "--builtin-schema", "vendor.compose-spec", FILE], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_image_is_named_by_a_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name, service in SERVICES.items():
        image, _, tag = service["image"].rpartition(":")
        assert image, name
        assert re.fullmatch(r"\d.*", tag), name
        assert name not in OURS or tag.split("-")[0] == version, name


def test_nothing_is_published_beyond_this_machine_unless_somebody_says_so() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 4
    assert all(port.startswith("127.0.0.1:") for port in published)
    opened = composed(COUNTERSIGN_DICOM_BIND="10.0.0.5")["services"]["listener"]["ports"]
    assert opened == [f"10.0.0.5:{PORTS['listener']}:{PORTS['listener']}"]


def test_the_record_and_its_workers_have_no_way_out() -> None:
    networks = composed()["networks"]
    assert networks["inside"]["internal"] is True
    outside = {name for name, service in SERVICES.items() if "outside" in service["networks"]}
    assert outside == {"listener", "api", "courier", *PROXIES}


def test_every_service_gives_up_what_it_does_not_need() -> None:
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert "limits" in service["deploy"]["resources"], name
        assert name in OURS or service["user"] not in {"root", "0"}, name


def test_every_lasting_service_has_a_health_check_and_comes_back() -> None:
    for name in LASTING:
        assert SERVICES[name]["restart"] == "unless-stopped", name
        assert name in PROXIES or SERVICES[name]["healthcheck"]["test"], name


def test_stopping_takes_longer_than_the_parts_own_grace() -> None:
    grace_s = WorkerSettings.model_fields["grace_s"].default
    for name in OURS:
        assert seconds(SERVICES[name]["stop_grace_period"]) > grace_s + 10, name


def test_only_the_migration_sees_the_owners_url_and_no_secret_stands_in_the_file() -> None:
    told = {name for name, service in SERVICES.items() if "owner-database-url" in service.get("secrets", [])}
    assert told == {"migrate"}
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            assert not re.search("PASSWORD|URL|KEY", key) or key.endswith("_FILE"), name
            assert "@" not in str(value), name


def test_every_secret_of_the_file_is_made_or_is_a_certificate(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    subprocess.run([ROOT / "deploy" / "make-secrets", folder], check=True, env=os.environ | {"GROUP": str(os.getgid())})
    made = {path.name for path in folder.iterdir()}
    named = composed()["secrets"]
    assert all(secret["file"] == f"secrets/{name}" for name, secret in named.items())
    assert {name for name in named if name not in made} == {"tls.crt", "tls.key", "dicom-ca.crt"}
    assert {name for service in SERVICES.values() for name in service.get("secrets", [])} == set(named)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}
    hosts = re.findall(r"@([a-z]+):(\d+)", " ".join(path.read_text() for path in folder.glob("*-url")))
    assert {(host, int(port)) for host, port in hosts} == {(n, PORTS[n]) for n in ("postgres", "valkey")}
    before = (folder / "seal.key").read_bytes()
    again = subprocess.run([ROOT / "deploy" / "make-secrets", folder], capture_output=True, check=False)
    assert again.returncode == 1
    assert (folder / "seal.key").read_bytes() == before


def test_a_container_made_anew_takes_the_former_one_s_place_and_two_workers_still_differ() -> None:
    """A part is known by its kind and host name: a fixed one for what runs once on a machine, which is in it."""
    named = {name: composed(COUNTERSIGN_MACHINE="alpha")["services"][name].get("hostname") for name in OURS}
    assert {name: host for name, host in named.items() if host} == {
        name: f"{name}.alpha" for name in ("listener", "indexer", "api", "sweep", "courier")
    }
    assert SERVICES["sweep"]["hostname"] != composed(COUNTERSIGN_MACHINE="beta")["services"]["sweep"]["hostname"]


def test_a_restore_by_the_book_starts_no_migration_first() -> None:
    """`run` starts what the service depends on, and a schema of today takes no backup of yesterday's."""
    assert "migrate" in SERVICES["sweep"]["depends_on"]
    text = (ROOT / "docs" / "operations.md").read_text().replace("\\\n", " ")
    runs = [line for line in text.splitlines() if line.startswith("docker compose run") and " restore " in line]
    assert runs
    assert all("--no-deps" in line for line in runs)


def test_the_model_runs_on_a_gpu_or_without_one_by_profile() -> None:
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    assert SERVICES["worker-gpu-on-cpu"]["profiles"] == ["cpu"]
    same = ("command", "environment", "secrets", "volumes", "healthcheck")
    assert all(SERVICES["worker-gpu"][key] == SERVICES["worker-gpu-on-cpu"][key] for key in same)


def test_the_server_keeps_values_out_of_its_log_as_the_embedded_one_does() -> None:
    command = SERVICES["postgres"]["command"]
    told = dict(setting.split("=", 1) for flag, setting in itertools.pairwise(command) if flag == "-c")
    for name, value in SETTINGS.items():
        if name.startswith("log_") or name == "timezone":
            assert told[name] == value, name
    assert int(told["max_connections"]) >= int(SETTINGS["max_connections"])


def test_the_roles_are_those_of_the_embedded_server() -> None:
    script = (ROOT / "deploy" / "postgres" / "10-roles.sql").read_text()
    assert set(re.findall(r"CREATE ROLE (\w+)", script)) == {GROUP, OWNER, PROGRAM}


# ----------------------------------------------------------------------------------------------------------- Dockerfiles
@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_copies_what_is_there_and_its_user_is_not_root(dockerfile: Path) -> None:
    told = instructions(dockerfile)
    assert [rest for word, rest in told if word == "USER"] == ["10001:10001"]
    assert [rest for word, rest in told if word == "ENTRYPOINT"] == ['["countersign"]']
    ignored = (ROOT / ".dockerignore").read_text().split()
    for rest in (rest for word, rest in told if word == "COPY" and not rest.startswith("--from")):
        *sources, _ = rest.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, f"{source} never reaches the builder"
    variables = dict(rest.split("=", 1) for word, rest in told if word == "ARG" and "=" in rest)
    assert variables["UV_VERSION"] == UV_VERSION
    assert variables.get("TORCH_VERSION", TORCH_VERSION) == TORCH_VERSION
    assert variables["PYTHON_IMAGE"].split(":")[1].startswith("3.11-slim")
    stages = {rest.rpartition(" AS ")[2] for word, rest in told if word == "FROM" and " AS " in rest}
    for word, rest in told:
        image = rest.split()[0]
        assert word != "FROM" or image in stages or image == "${PYTHON_IMAGE}", rest


def test_every_build_of_the_file_has_its_dockerfile_and_target() -> None:
    for name in OURS:
        build = SERVICES[name]["build"]
        told = instructions(ROOT / build["dockerfile"])
        assert "target" not in build or any(rest.endswith(f"AS {build['target']}") for _, rest in told), name
        assert all(any(rest.startswith(f"{key}=") for _, rest in told) for key in build.get("args", {})), name


def test_both_images_are_built_alike() -> None:
    def up_to_the_locked_packages(dockerfile: Path) -> list[tuple[str, str]]:
        told = instructions(dockerfile)
        return told[: 1 + next(i for i, (_, rest) in enumerate(told) if "--requirement packages.lock" in rest)]

    first, second = map(up_to_the_locked_packages, DOCKERFILES)
    assert first == second


# ------------------------------------------------------------------------------------------------------- every command run
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_command_of_the_file_runs_and_passes_its_own_health_check(tmp_path: Path) -> None:
    """One stage, in the order of the file's own conditions: servers, migration, parts, a study through them, the end."""
    dcmtk("storescu")
    if not shutil.which("nginx"):
        missing("nginx is not installed")
    stage = Stage(SETTINGS_FILE)
    try:
        _make_certificates(stage.secrets)
        for name in ("postgres", "valkey"):
            stage.start(name)
        stage.await_health("postgres", 60)
        stage.start("migrate")
        assert stage.running.pop("migrate").wait(60) == 0, stage.log("migrate").read_text()
        for name in LASTING:
            if name not in stage.running:
                stage.start(name)
        for name in LASTING:
            if "healthcheck" in SERVICES[name] and (name != "valkey" or valkey_cli()):
                stage.await_health(name, 90)
        _a_study_sent_to_the_listener_is_drafted(stage, tmp_path)
        checked = stage.execute("sweep", "countersign", "verify")
        assert "nothing is wrong" in checked.stdout, checked.stdout + checked.stderr
        _a_part_whose_loop_stands_still_is_not_healthy(stage)
        if "proxy" in stage.running:
            _behind_the_proxy_cookies_are_secure_and_no_log_holds_a_path(stage)
            _dicom_over_tls_needs_a_certificate(stage)
        _every_service_stops_within_its_grace(stage)
    finally:
        stage.close()


def _make_certificates(folder: Path) -> None:
    """A certificate for the proxies, which is its own authority, for senders too."""
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout",
            folder / "tls.key",
            "-out",
            folder / "tls.crt",
        ],
        check=True,
        capture_output=True,
    )
    shutil.copy(folder / "tls.crt", folder / "dicom-ca.crt")


def _a_study_sent_to_the_listener_is_drafted(stage: Stage, folder: Path) -> None:
    added = stage.execute("sweep", "countersign", "peers", "add", "STORESCU", "127.0.0.1")
    assert added.returncode == 0, added.stderr
    (study,) = phantoms(folder, "--count", "1")
    token = stage.execute("sweep", "countersign", "tokens", "add", "tests", "--role", "dashboard").stdout.strip()
    where = ("-aec", "COUNTERSIGN", "127.0.0.1", str(stage.ports["listener"]))
    send = [dcmtk("storescu"), *where, *map(str, files_of(study))]
    _until(lambda: subprocess.run(send, capture_output=True, check=False).returncode == 0, 20)
    with httpx.Client(base_url=f"http://127.0.0.1:{stage.ports['api']}", trust_env=False) as board:
        board.headers["Authorization"] = f"Bearer {token}"

        def drafted() -> bool:
            answer = board.get(f"/api/v1/studies/{study['study_instance_uid']}")
            return answer.status_code == 200 and answer.json()["reading_state"] == "done"

        _until(drafted, 90)


def _a_part_whose_loop_stands_still_is_not_healthy(stage: Stage) -> None:
    process, check = stage.running["indexer"], stage.services["indexer"]["healthcheck"]["test"][1:]
    process.send_signal(signal.SIGSTOP)
    try:
        _until(lambda: stage.execute("indexer", *check, "--within", "1").returncode == 1, 20)
    finally:
        process.send_signal(signal.SIGCONT)


def _behind_the_proxy_cookies_are_secure_and_no_log_holds_a_path(stage: Stage) -> None:
    password, add = "correct horse battery", ("users", "add", "lee", "--role", "attending", "--name", "Dr. Lee")
    added = stage.execute("sweep", "countersign", *add, stdin=password + "\n")
    assert added.returncode == 0, added.stderr
    url = f"https://127.0.0.1:{stage.ports['proxy']}"
    trusted = ssl.create_default_context(cafile=stage.secrets / "tls.crt")
    with httpx.Client(base_url=url, verify=trusted, trust_env=False) as browser:
        opened = browser.post("/api/v1/session", json={"login": "lee", "password": password}, headers={"Origin": url})
        assert opened.status_code == 200, opened.text
        assert "secure" in opened.headers["set-cookie"].lower(), (
            "the api trusts the address that the file gives the proxy"
        )
        unknown = browser.get("/api/v1/studies/1.2.840.99.1?accession=CANARY")
        assert unknown.status_code in {404, 422}
        assert unknown.headers["strict-transport-security"]
    told = stage.log("proxy").read_text() + stage.log("api").read_text()
    assert " POST 200 " in told
    assert "1.2.840.99.1" not in told
    assert "CANARY" not in told


def _dicom_over_tls_needs_a_certificate(stage: Stage) -> None:
    certificate, key = (str(stage.secrets / name) for name in ("tls.crt", "tls.key"))
    where = ("-aec", "COUNTERSIGN", "127.0.0.1", str(stage.ports["dicom-proxy"]))
    with_one = [dcmtk("echoscu"), "+tls", key, certificate, "+cf", certificate, *where]
    without = [dcmtk("echoscu"), "+tla", "+cf", certificate, *where]
    assert subprocess.run(with_one, capture_output=True, check=False, timeout=30).returncode == 0
    assert subprocess.run(without, capture_output=True, check=False, timeout=30).returncode != 0


def _every_service_stops_within_its_grace(stage: Stage) -> None:
    servers = ("valkey", "postgres")
    parts = [name for name in stage.running if name not in servers]
    ended = stage.stop(*parts) | stage.stop(*servers)
    for name, (status, took_s) in ended.items():
        assert status == 0, f"{name}: {status}\n{stage.log(name).read_text()[-1500:]}"
        assert took_s < seconds(SERVICES[name]["stop_grace_period"]), name
    assert "Traceback" not in "".join(stage.log(name).read_text() for name in parts)


def _until(condition: Callable[[], bool], within_s: float) -> None:
    assert wait_until(condition, within_s=within_s, every_s=0.2)
