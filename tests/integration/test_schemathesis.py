"""schemathesis over `/openapi.json`, as an operator, a dashboard and an attending: nothing it sends makes the server fail.

Every answer is one of those that are documented, in the shape that is documented. It runs against the real server on a
loopback port, once as it pleases and once with ids that exist.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from argon2 import PasswordHasher

from record import accounts
from record.states import Role
from tests.conftest import FreshDatabase
from tests.integration.test_api_roles import values_of
from tests.web_records import Desk, desk_on

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
CONFORMS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)
STRICT = f"{CONFORMS},negative_data_rejection,unsupported_method,allow_header_conformance,ignored_auth"


@pytest.fixture(scope="module")
def desk(module_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with pytest.MonkeyPatch.context() as patched, desk_on(module_database, tmp_path_factory.mktemp("store")) as made:
        quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # hundreds of passwords are tried
        patched.setattr(accounts, "_hasher", quick)
        patched.setattr(accounts, "_WASTED", quick.hash("nobody"))
        yield made


@pytest.fixture(scope="module")
def url(desk: Desk) -> Iterator[str]:
    server = uvicorn.Server(
        uvicorn.Config(desk.app, port=0, log_config=None, access_log=False, server_header=False, lifespan="off")
    )
    serving = threading.Thread(target=server.run, daemon=True)
    serving.start()
    while not server.started:
        assert serving.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    serving.join(20)


def examine(
    url: str,
    folder: Path,
    headers: dict[str, str],
    checks: str,
    known: dict[str, str],
    phases: str = "examples,coverage,fuzzing",
) -> None:
    """Run schemathesis; whatever it finds fails the test, with its own words."""
    lines = ["[parameters]", *(f'"path.{name}" = "{value}"' for name, value in known.items())]
    (folder / "schemathesis.toml").write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}/openapi.json"),
            *("--phases", phases, "--max-examples", "5", "--seed", "7", "--no-shrink"),
            *("--checks", checks, "--continue-on-failure", "--warnings", "off"),
            *("--suppress-health-check", "all", "--exclude-method", "DELETE"),
            *(part for name, value in headers.items() for part in ("-H", f"{name}: {value}")),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "No issues found" in done.stdout or "passed" in done.stdout


def test_an_operator_s_token_meets_what_is_documented(desk: Desk, url: str, tmp_path: Path) -> None:
    token = desk.machine(Role.OPERATOR).headers["Authorization"]
    examine(url, tmp_path, {"Authorization": token}, STRICT, {})


def test_a_dashboard_that_knows_its_ids_meets_what_is_documented(desk: Desk, url: str, tmp_path: Path) -> None:
    known = values_of(desk, desk.study(patient_name="DOE^JANE", patient_id="P1"))
    token = desk.machine(Role.DASHBOARD, "drafts:read").headers["Authorization"]
    examine(url, tmp_path, {"Authorization": token}, CONFORMS, known, "examples,fuzzing")


def test_an_attending_s_session_meets_what_is_documented(desk: Desk, url: str, tmp_path: Path) -> None:
    known = values_of(desk, desk.study(patient_name="DOE^JOHN", patient_id="P2"))
    client = desk.signed_in(Role.ATTENDING)
    cookie = f"countersign_session={client.cookies['countersign_session']}"
    headers = {"Cookie": cookie, "X-CSRF-Token": client.headers["X-CSRF-Token"]}
    examine(url, tmp_path, headers, CONFORMS, known)
