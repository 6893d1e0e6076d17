"""The commands on a real database, and files sent to a real listener."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient
from sqlalchemy import select

from gateway import cli
from gateway.dicom.peers import read_peers
from gateway.indexer import Indexer
from gateway.launcher.processes import wait_until
from gateway.web import context
from record import accounts, admission, db, readings, studies
from record.admission import PRIOR_SOURCE
from record.db import transaction
from record.errors import Conflict, CountersignError
from record.models import Event
from record.states import Role
from tests.conftest import FreshDatabase, RunningServers, _create, _drop, _named, _role
from tests.records import arrival, count, study_of, uid
from tests.web_records import PASSWORD, Desk, desk_on

pytestmark = pytest.mark.integration


@pytest.fixture
def desk(database: FreshDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name in list(os.environ):
        if name.startswith("COUNTERSIGN_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", database.url)
    monkeypatch.setenv("COUNTERSIGN_STORE", str(tmp_path / "store"))
    with desk_on(database, tmp_path / "store") as made:
        yield made


def countersign(*arguments: object, stdin: str | bytes = "") -> tuple[int, str, str]:
    """Run the command as its door would; exit status, standard output, standard error."""
    done = CliRunner().invoke(cli.cli, [str(a) for a in arguments], input=stdin)
    if isinstance(done.exception, CountersignError):
        return 1, done.stdout, done.stderr + done.exception.message
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def listed(*arguments: object) -> list[dict[str, Any]]:
    code, out, err = countersign(*arguments, "--json")
    assert code == 0, err
    found: list[dict[str, Any]] = json.loads(out)
    return found


# --- who is who -------------------------------------------------------------------------------------------------------


def test_a_site_is_added_once_and_then_asked_for(desk: Desk) -> None:
    assert countersign("sites", "add", "north", "--language", "es")[0] == 0
    code, _, err = countersign("sites", "add", "north")
    assert (code, err) == (1, "There is a site of this name; capitals make no difference.")
    assert countersign("sites", "add", "a\x1b[2J")[0] == 1
    assert [(s["name"], s["language"]) for s in listed("sites", "list")][-1] == ("north", "es")
    code, _, err = countersign("users", "add", "lee", "--role", "attending", "--name", "Dr. Lee", stdin=PASSWORD)
    assert code == 1
    assert "--site" in err
    assert (
        countersign(
            *("users", "add", "lee", "--role", "attending", "--name", "Dr. Lee", "--site", "north"), stdin=PASSWORD
        )[0]
        == 0
    )
    assert [u["login"] for u in listed("users", "list", "--site", "north")] == ["lee"]
    assert desk.events("site_added") == [{}]


def test_names_that_differ_in_capitals_and_spaces_alone_are_one_name(desk: Desk) -> None:
    assert countersign("sites", "add", " north ")[0] == 0
    assert [site["name"] for site in listed("sites", "list")][-1] == "north"
    for name in ("North", "NORTH ", "north"):
        assert countersign("sites", "add", name)[0] == 1
    add = ("--role", "attending", "--name", " Dr. Lee ", "--site", "north")
    assert countersign("users", "add", " lee ", *add, stdin=PASSWORD)[0] == 0
    for login in ("lee", "Lee", " LEE"):
        code, _, err = countersign("users", "add", login, *add, stdin=PASSWORD)
        assert (code, "is taken" in err) == (1, True)
    assert [(u["login"], u["printed_name"]) for u in listed("users", "list")] == [("lee", "Dr. Lee")]
    assert countersign("users", "add", "l" * 65, *add, stdin=PASSWORD)[0] == 1
    assert countersign("users", "disable", "Lee ")[0] == 0
    assert [u["state"] for u in listed("users", "list")] == ["disabled"]


def test_the_same_login_added_twice_at_once_is_told_the_second(desk: Desk) -> None:
    def add(session: Any, login: str) -> None:
        accounts.add_user(
            session, site="main", login=login, printed_name="Dr. Lee", role=Role.ATTENDING, password=PASSWORD
        )

    ended: list[BaseException | None] = []

    def second() -> None:
        try:
            with transaction(desk.engine) as session:
                add(session, "LEE")
            ended.append(None)
        except CountersignError as error:
            ended.append(error)

    with transaction(desk.engine) as session:
        add(session, "lee")
        session.flush()
        other = threading.Thread(target=second)
        other.start()
        other.join(0.3)
        assert not ended, "it waits until the first is through"
    other.join(10)
    assert [type(each) for each in ended] == [Conflict]


@pytest.mark.parametrize("given", [b"\xff\xfe a good password\n", b"x" * 5_000_000, b"a good\0password\n", b"short\n"])
def test_a_password_that_nobody_could_type_is_refused_in_a_sentence(desk: Desk, given: bytes) -> None:
    for verb in (("add", "lee", "--role", "attending", "--name", "Lee", "--site", "main"), ("password", "lee")):
        code, out, err = countersign("users", *verb, stdin=given)
        assert (code, out) == (1, "")
        assert "password" in err or "UTF-8" in err
    assert listed("users", "list") == []


@pytest.mark.slow
def test_with_its_standard_input_closed_a_password_is_made(desk: Desk) -> None:
    add = "users add lee --role attending --name Lee --site main"
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -P -m gateway {add} <&-"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert _sign_in(desk, done.stdout.strip()).status_code == 200


@pytest.mark.parametrize(
    "verb",
    [
        ("users", "list"),
        ("sites", "list"),
        ("studies", "list"),
        ("verify",),
        ("backup", "--to", "backups"),
        ("health", "sweep"),
        ("users", "add", "lee", "--role", "attending", "--name", "Lee"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("lacking", ["the programs' role", "the schema"])
def test_on_a_server_that_was_never_migrated_every_verb_names_the_command_that_does(
    servers: RunningServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...], lacking: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COUNTERSIGN_STORE", str(tmp_path / "store"))
    if lacking == "the programs' role":
        monkeypatch.setattr(db, "APP_ROLE", "countersign_nobody")  # what `SET ROLE` meets on a new server
    name = f"countersign_empty_{uuid.uuid4().hex[:8]}"
    _create(servers, name, f'OWNER "{_role(servers.owner_url)}"')
    try:
        monkeypatch.setenv("DATABASE_URL", _named(servers.database_url, name))
        code, _, err = countersign(*verb)
    finally:
        _drop(servers, name)
    assert code == 1
    assert "countersign migrate" in err


def test_disabling_somebody_ends_their_sessions_at_once_and_enabling_lets_them_sign_in(desk: Desk) -> None:
    doctor = desk.signed_in(Role.ATTENDING, login="lee")
    assert doctor.get("/api/v1/studies").status_code == 200
    assert countersign("users", "disable", "lee")[0] == 0
    assert doctor.get("/api/v1/studies").status_code == 401
    assert _sign_in(desk, PASSWORD).status_code == 401
    assert [u["state"] for u in listed("users", "list")] == ["disabled"]
    assert countersign("users", "enable", "lee")[0] == 0
    assert doctor.get("/api/v1/studies").status_code == 401, "the former session stays over"
    assert _sign_in(desk, PASSWORD).status_code == 200
    assert countersign("users", "disable", "nobody")[0] == 1
    (event,) = desk.events("user_disabled")
    assert set(event) == {"user_id"}


def test_another_password_opens_the_lock_and_ends_the_sessions_of_the_former_one(desk: Desk) -> None:
    doctor = desk.signed_in(Role.ATTENDING, login="lee")
    for _ in range(10):
        assert _sign_in(desk, "wrong").status_code == 401
    assert [u["state"] for u in listed("users", "list")] == ["locked"]
    code, out, _ = countersign("users", "password", "lee", stdin="another good password\n")
    assert (code, out) == (0, "")
    assert doctor.get("/api/v1/studies").status_code == 401
    assert _sign_in(desk, PASSWORD).status_code == 401
    assert _sign_in(desk, "another good password").status_code == 200
    code, made, _ = countersign("users", "password", "lee")
    assert code == 0
    assert _sign_in(desk, made.strip()).status_code == 200
    assert countersign("users", "password", "lee", stdin="short\n")[0] == 1


def _sign_in(desk: Desk, password: str) -> Any:
    return desk.client().post("/api/v1/session", json={"login": "lee", "password": password})


def test_a_revoked_token_is_refused_within_five_seconds_and_its_name_stays(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert context._REMEMBER_S <= 5
    monkeypatch.setattr(context, "_REMEMBER_S", 0.3)
    code, token, _ = countersign("tokens", "add", "board", "--role", "dashboard", "--site", "main", "--expires", "90")
    assert code == 0
    board = _client(desk, token)
    assert board.get("/api/v1/studies").status_code == 200
    assert countersign("tokens", "revoke", "board", "--site", "main")[0] == 0
    assert wait_until(lambda: board.get("/api/v1/studies").status_code == 401, within_s=3)
    (line,) = listed("tokens", "list")
    assert (line["name"], line["state"], line["site"]) == ("board", "revoked", "main")
    assert line["expires_at"]
    assert line["revoked_at"]
    code, out, _ = countersign("tokens", "list")
    assert code == 0
    assert token.strip() not in out + json.dumps(line)
    assert out.splitlines()[0].split()[:3] == ["NAME", "ROLE", "SCOPES"]
    code, _, err = countersign("tokens", "add", "board", "--role", "dashboard", "--site", "main")
    assert code == 1
    assert "keeps its name" in err
    assert countersign("tokens", "revoke", "board", "--site", "elsewhere")[0] == 1
    code, _, err = countersign("tokens", "add", "x", "--role", "attending", "--site", "main")
    assert code == 2, "a machine is no physician"


def _client(desk: Desk, token: str) -> TestClient:
    client = desk.client()
    client.headers["Authorization"] = f"Bearer {token.strip()}"
    return client


def test_a_peer_that_is_removed_leaves_the_listeners_snapshot(desk: Desk, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    indexer = Indexer(desk.engine, desk.store, spool)

    def snapshot() -> list[tuple[str, str, str]]:
        indexer._peers_due = 0.0
        indexer.run_once()
        return [(p.ae_title, p.address, p.site) for p in read_peers(spool)]

    code, _, err = countersign(
        *("peers", "add", "PACS", "10.0.0.9", "--lane", "stat", "--stable-after", "5", "--max-wait", "600"),
        *("--site", "main"),
    )
    assert code == 0, err
    code, _, err = countersign(
        "peers", "add", "OTHER", "10.0.0.9", "--stable-after", "5", "--max-wait", "4", "--site", "main"
    )
    assert (code, "longest wait is shorter" in err) == (1, True)
    assert snapshot() == [("PACS", "10.0.0.9", "main")]
    (line,) = listed("peers", "list")
    assert (line["lane"], line["stable_after_s"], line["max_wait_s"]) == ("stat", 5.0, 600.0)
    assert countersign("peers", "remove", "PACS", "10.0.0.9")[0] == 0
    assert snapshot() == []
    code, _, err = countersign("peers", "remove", "PACS", "10.0.0.9")
    assert (code, "no such sender" in err) == (1, True)
    assert len(desk.events("peer_removed")) == 1


def test_what_a_command_changes_of_accounts_is_on_record_as_a_command(desk: Desk) -> None:
    for arguments in (
        ("sites", "add", "north"),
        ("users", "add", "lee", "--role", "attending", "--name", "Dr. Lee", "--site", "north"),
        ("users", "password", "lee"),
        ("users", "disable", "lee"),
        ("users", "enable", "lee"),
        ("tokens", "add", "board", "--role", "dashboard", "--site", "north"),
        ("tokens", "revoke", "board", "--site", "north"),
        ("peers", "add", "PACS", "10.0.0.9", "--site", "north"),
        ("peers", "remove", "PACS", "10.0.0.9"),
    ):
        assert countersign(*arguments)[0] == 0, arguments
    with transaction(desk.engine) as session:
        rows = session.execute(select(Event.kind, Event.actor_kind).where(Event.actor_kind == "command")).all()
    assert sorted(row.kind for row in rows) == sorted(
        [
            *("site_added", "user_added", "password_reset", "user_disabled", "user_enabled"),
            *("token_added", "token_revoked", "peer_added", "peer_removed"),
        ]
    )


@pytest.mark.parametrize("part", ["cpu", "gpu", "worker-cpu", "worker-gpu"])
def test_a_worker_is_asked_for_by_every_name_that_it_bears(desk: Desk, part: str) -> None:
    code, _, err = countersign("health", part)
    assert (code, f"the {part} gave no sign" in err) == (1, True)
    with transaction(desk.engine) as session:
        kind = part.removeprefix("worker-")
        readings.report_worker(session, f"{socket.gethostname()}:7", kind, model="phantom", slots=1, identity={})
    assert countersign("health", part)[0] == 0


# --- studies ----------------------------------------------------------------------------------------------------------


def test_an_operator_lists_shows_and_retries_without_seeing_a_patient(desk: Desk) -> None:
    study_uid = desk.study(ends="failed", patient_name="CANARY^NAME", patient_id="CANARYID", accession_number="ACC7")
    desk.study(ends="done")
    (line,) = listed("studies", "list", "--reading-state", "failed")
    assert (line["study_instance_uid"], line["reason_code"], line["site"]) == (study_uid, "error", "main")
    told = "".join(
        countersign("studies", *what)[1] for what in (["list"], ["show", "ACC7"], ["show", "ACC7", "--json"])
    )
    assert study_uid in told
    assert "CANARY" not in told
    code, _, err = countersign("studies", "retry", " ACC7 ")
    assert (code, err) == (0, "countersign: queued again\n")
    code, _, err = countersign("studies", "retry", study_uid)
    assert code == 1
    assert "queued" in err
    assert desk.events("reading_retried") == [{}]
    with transaction(desk.engine) as session:
        assert count(session, "events", "kind = 'reading_retried' AND actor_kind = 'command'") == 1


def test_a_study_is_closed_by_command_once(desk: Desk) -> None:
    study_uid = uid()
    with transaction(desk.engine) as session:
        admission.admit(session, [arrival(study_uid)])
    code, _, err = countersign("studies", "close", study_uid, "1.2.3.4")
    assert code == 1, "one of two is unknown"
    assert err.splitlines() == [
        "countersign: study 1: closed at revision 1: ready",
        "countersign: study 2: There is no such study.",
    ]
    code, _, err = countersign("studies", "close", study_uid)
    assert code == 1
    assert "receiving" in err


def test_what_names_several_studies_is_refused_and_nothing_of_them_is_told(desk: Desk) -> None:
    shared = uid()
    with transaction(desk.engine) as session:
        for site in ("main", "elsewhere"):
            admission.admit(session, [replace(arrival(shared, accession_number="TWICE"), site_name=site)])
    desk.study(accession_number="SAME", ends="failed")
    desk.study(accession_number="SAME", ends="failed")
    for name, hint in ((shared, "--site"), ("TWICE", "--site"), ("SAME", "Study Instance UID")):
        code, out, err = countersign("studies", "retry", name)
        assert (code, out) == (1, "")
        assert hint in err
        assert name not in err
    code, _, err = countersign("studies", "close", shared, "--site", "elsewhere")
    assert code == 0, err
    assert countersign("studies", "close", shared, "--site", "nowhere")[0] == 1
    assert countersign("studies", "show", "")[0] == 1


def test_a_skipped_prior_is_read_when_an_operator_says_so_and_one_without_images_is_not(desk: Desk) -> None:
    prior, empty = uid(), uid()
    with transaction(desk.engine) as session:
        admission.admit(session, [replace(arrival(prior), source=PRIOR_SOURCE)])
        admission.admit(session, [arrival(empty, sop_class_uid="1.2.840.10008.5.1.4.1.1.88.11", has_pixels=False)])
        for each in (prior, empty):
            study = study_of(session, each)
            session.refresh(study, with_for_update=True)
            studies.freeze(session, study, "test", {})
    assert {s["reason_code"] for s in listed("studies", "list", "--state", "skipped")} == {
        "fetched_as_prior",
        "no_images",
    }
    code, _, err = countersign("studies", "read", empty)
    assert (code, "no image" in err) == (1, True)
    assert countersign("studies", "read", prior)[0] == 0
    assert countersign("studies", "read", prior)[0] == 1
    code, _, err = countersign("studies", "close", prior)
    assert err == "countersign: closed at revision 2: ready\n"


def test_a_shell_completes_the_sites_on_record(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_WORDS", "countersign users list --site else")
    monkeypatch.setenv("COMP_CWORD", "4")
    monkeypatch.setenv("_COUNTERSIGN_COMPLETE", "bash_complete")
    told = CliRunner().invoke(cli.cli, [], prog_name="countersign", complete_var="_COUNTERSIGN_COMPLETE")
    assert told.output.split() == ["plain,elsewhere"]
