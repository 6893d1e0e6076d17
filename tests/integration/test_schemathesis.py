"""schemathesis over `/openapi.json`, as operator, auditor, dashboard and attending: nothing it sends makes the server fail.

Every answer is one of those that are documented, in the shape that is documented. It runs against the real server on a
loopback port, once as it pleases and once with ids that exist; an operator's verbs each get a study that takes them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select, text

from record import accounts, admission, audit, sessions
from record.db import transaction
from record.models import Reading
from record.states import Role
from tests.conftest import FreshDatabase
from tests.integration.test_api_roles import values_of
from tests.records import arrival, study_of, uid
from tests.web_records import Desk, desk_on, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
CONFORMS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)
SIGN_OUT = "DELETE /api/v1/session"
STRICT = f"{CONFORMS},negative_data_rejection,unsupported_method,allow_header_conformance,ignored_auth"


@pytest.fixture(scope="module")
def desk(module_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with pytest.MonkeyPatch.context() as patched, desk_on(module_database, tmp_path_factory.mktemp("store")) as made:
        quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # hundreds of passwords are tried
        patched.setattr(accounts, "_hasher", quick)
        patched.setattr(accounts, "_WASTED", quick.hash("nobody"))
        patched.setattr(sessions, "MAX_PROOFS", 10_000)  # at signing too
        yield made


@pytest.fixture(scope="module")
def url(desk: Desk) -> Iterator[str]:
    with served(desk.app) as address:
        yield address


def examine(
    url: str,
    folder: Path,
    headers: dict[str, str],
    checks: str,
    known: dict[str, str],
    phases: str = "examples,coverage,fuzzing",
    *,
    without: tuple[str, ...] = (),
    verbs: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Run schemathesis; whatever it finds fails the test, with its own words.

    `known` are values of the addresses' parameters; `without` names operations that are left out; `verbs` the study that
    each operation of an operator is for.
    """
    lines = ["[parameters]", *(f'"path.{name}" = "{value}"' for name, value in known.items())]
    for operation, study_uid in verbs.items():
        lines += ["[[operations]]", f'include-name = "{operation}"']
        lines += [f'parameters = {{ "path.study_instance_uid" = "{study_uid}" }}']
    (folder / "schemathesis.toml").write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}/openapi.json"),
            *("--phases", phases, "--max-examples", "5", "--seed", "7", "--no-shrink"),
            *("--checks", checks, "--continue-on-failure", "--warnings", "off"),
            *("--suppress-health-check", "all"),
            *(part for name in without for part in ("--exclude-name", name)),
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


def test_an_operator_whose_verbs_are_taken_meets_what_is_documented(desk: Desk, url: str, tmp_path: Path) -> None:
    known = values_of(desk, desk.study(patient_name="DOE^JANE", patient_id="P1"))
    receiving, failed, skipped = uid(), desk.study(ends="failed"), desk.study(ends="failed")
    with transaction(desk.engine) as session:
        admission.admit(session, [arrival(receiving)])
        session.execute(text("UPDATE studies SET state = 'skipped' WHERE study_instance_uid = :u"), {"u": skipped})
    of = "POST /api/v1/studies/{study_instance_uid}"
    token = desk.machine(Role.OPERATOR).headers["Authorization"]
    verbs = {f"{of}/close": receiving, f"{of}/retry": failed, f"{of}/read": skipped}
    examine(url, tmp_path, {"Authorization": token}, CONFORMS, known, "examples,fuzzing", verbs=verbs)
    with transaction(desk.engine) as session:
        states = [study_of(session, each).state for each in (receiving, skipped)]
        reading = session.scalar(select(Reading.state).where(Reading.study_id == study_of(session, failed).id))
        session.execute(text("UPDATE readings SET state = 'superseded' WHERE state = 'queued'"))  # for the next test
    assert (states, reading) == (["ready", "receiving"], "queued"), "each verb was done, not only asked for"


def test_an_auditor_s_token_meets_what_is_documented(desk: Desk, url: str, tmp_path: Path) -> None:
    known = values_of(desk, desk.study())
    with transaction(desk.engine) as session:
        while audit.seal(session, b"k" * 32):
            pass
    token = desk.machine(Role.AUDITOR).headers["Authorization"]
    examine(url, tmp_path, {"Authorization": token}, CONFORMS, known, "examples,fuzzing")


def test_a_dashboard_that_knows_its_ids_meets_what_is_documented(desk: Desk, url: str, tmp_path: Path) -> None:
    known = values_of(desk, desk.study(patient_name="DOE^JANE", patient_id="P1"))
    token = desk.machine(Role.DASHBOARD, "drafts:read").headers["Authorization"]
    examine(url, tmp_path, {"Authorization": token}, CONFORMS, known, "examples,fuzzing")


def test_an_attending_s_session_meets_what_is_documented(desk: Desk, url: str, tmp_path: Path) -> None:
    known = values_of(desk, desk.study(patient_name="DOE^JOHN", patient_id="P2"))
    client = desk.signed_in(Role.ATTENDING)
    cookie = f"countersign_session={client.cookies['countersign_session']}"
    headers = {"Cookie": cookie, "X-CSRF-Token": client.headers["X-CSRF-Token"]}
    examine(url, tmp_path, headers, CONFORMS, known, without=(SIGN_OUT,))
    with transaction(desk.engine) as session:  # so that all this was asked by somebody
        assert sessions.session_principal(session, client.cookies["countersign_session"], idle_s=3600)
