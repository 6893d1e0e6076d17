"""What the operator sees: parts that tell, figures that are right, alarms that come and go, metrics, command and page."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from gateway import heartbeat
from gateway.cli import cli
from gateway.indexer import Indexer
from gateway.launcher.processes import free_port
from gateway.spool import Spool
from record import admission, alarms, claims, leases, parts, readings, status
from record.access import Principal, commander
from record.db import connect, transaction
from record.figures import floor
from record.models import Event, Part, Site, Worker
from record.queue import CPU, GPU, Bell
from record.states import Lane, ReadingState, ReasonCode, Role
from record.store import Store
from tests.bench import Bench, wait_for
from tests.conftest import FreshDatabase, RunningServers, _create, _drop, _named, _role
from tests.listeners import listening
from tests.records import arrival, closed, study_of, uid
from tests.web_records import Desk, csrf_of, desk_on

CANARY = "CANARYNAME"
WORDS = dict.fromkeys(("patient_name", "patient_id", "accession_number", "study_description"), CANARY)


@pytest.fixture
def engine(database: FreshDatabase) -> Iterator[Engine]:
    made = connect(database.url)
    yield made
    made.dispose()


@pytest.fixture
def desk(database: FreshDatabase, tmp_path: Path) -> Iterator[Desk]:
    with desk_on(database, tmp_path / "store") as made:
        yield made


def seen(engine: Engine, by: Principal | None = None, **how: Any) -> status.Status:
    with transaction(engine) as session:
        return status.read(session, by, **how)


def codes(found: status.Status) -> set[str]:
    return {one.code for one in found.alarms}


def tell(session: Session, kind: str, **facts: Any) -> str:
    owner = f"{kind}-{uuid.uuid4().hex[:6]}"
    parts.report(session, owner, kind, facts)
    return owner


def spool_facts(**facts: Any) -> dict[str, Any]:
    """What an indexer tells of one spool whose listener lives."""
    listener = {"owner": "listener", "version": parts.own_version(), "seen_s": 0.5, "every_s": 5.0, "port": 11112}
    told = {
        "spool": "00", "files": 0, "oldest_s": 0.0, "bytes": 0, "quarantine_files": 0, "quarantine_bytes": 0,
        "free_bytes": 100 * alarms.GIB, "listener": listener,
    }  # fmt: skip
    return {"spools": [told | facts], "store_free_bytes": 100 * alarms.GIB}


def everybody(session: Session) -> None:
    """One part of each kind is here, and its engine is open."""
    tell(session, "indexer", **spool_facts())
    tell(session, "api")
    tell(session, "sweep")
    readings.report_worker(session, "host:1", "cpu", model="phantom", slots=1, identity={})
    readings.report_worker(
        session, "host:2", "gpu", model="phantom", slots=4, identity={"where": "NVIDIA H100", "busy": 1}
    )


def test_with_nothing_running_every_missing_part_has_its_alarm_and_the_command_that_starts_it(engine: Engine) -> None:
    found = seen(engine)
    assert found.missing == ("indexer", "api", "sweep", "cpu", "gpu")
    commands = {one.code: one.command for one in found.alarms}
    assert commands["no_cpu"] == "countersign worker cpu"
    assert commands["no_indexer"] == "countersign gateway indexer"
    assert not found.is_well
    assert found.revision == found.own_revision


def test_when_everybody_is_here_all_is_well(engine: Engine) -> None:
    with transaction(engine) as session:
        everybody(session)
    found = seen(engine)
    assert found.alarms == ()
    assert found.is_well
    assert [(part.kind, part.verdict) for part in found.parts] == [
        (kind, "up") for kind in ("listener", "indexer", "api", "sweep", "cpu", "gpu")
    ]
    gpu = found.parts[-1]
    assert (gpu.model, gpu.device, gpu.slots, gpu.busy) == ("phantom", "NVIDIA H100", 4, 1)
    json.dumps(found.as_dict(), default=str)


def test_a_part_that_was_not_heard_of_is_silent_until_another_starts_in_its_place(engine: Engine) -> None:
    with transaction(engine) as session:
        everybody(session)
        owner = tell(session, "sweep", every_s=2)
        session.execute(
            text(
                "UPDATE parts SET seen_at = now() - interval '7 seconds', started_at = now() - interval '1 hour' WHERE owner = :owner"
            ),
            {"owner": owner},
        )
        session.execute(text("UPDATE parts SET started_at = now() - interval '1 hour' WHERE kind = 'sweep'"))
    (alarm,) = seen(engine).alarms
    assert (alarm.code, alarm.values["kind"], alarm.values["age"]) == ("part_silent", "sweep", "7 s")
    with transaction(engine) as session:
        tell(session, "sweep")
    assert seen(engine).alarms == ()


def test_rows_of_parts_go_after_a_day_and_at_a_clean_stop(engine: Engine) -> None:
    with transaction(engine) as session:
        old, stopped, here = (tell(session, "api") for _ in range(3))
        session.execute(
            text("UPDATE parts SET seen_at = now() - interval '25 hours' WHERE owner = :owner"), {"owner": old}
        )
        parts.forget(session, stopped)
        parts.report(session, here, "api", {})
        assert session.scalars(select(Part.owner)).all() == [here]


def with_canary(desk: Desk, **how: Any) -> str:
    """A study whose every word about its patient is a canary."""
    return desk.study(**WORDS, **how)


def made_up(desk: Desk, *, site: str = "main") -> dict[str, str]:
    """A situation: one study of each kind that an operator has to do with. Returns the UIDs."""
    made = {ends: with_canary(desk, ends=ends, site=site) for ends in ("done", "failed", "abstained")}
    with transaction(desk.engine) as session:
        receiving = arrival(uid(), **WORDS)
        admission.admit(session, [replace(receiving, site_name=site)])
        made["receiving"] = receiving.header.study_instance_uid
        conflicting = arrival(uid(), **WORDS)
        other = arrival(
            conflicting.header.study_instance_uid,
            sop_instance_uid=conflicting.header.sop_instance_uid,
            **WORDS,
        )
        admission.admit(session, [replace(conflicting, site_name=site), replace(other, site_name=site)])
        made["conflicting"] = conflicting.header.study_instance_uid
    made["outdated"] = with_canary(desk, site=site)
    with transaction(desk.engine) as session:
        desk.add_images(session, made["outdated"], site=site, **WORDS)
    made["queued"] = with_canary(desk, ends="queued", site=site)
    return made


def test_the_figures_of_a_made_up_situation_are_right_at_its_site_and_nothing_at_the_other(desk: Desk) -> None:
    made = made_up(desk)
    with transaction(desk.engine) as session:
        sites = {site.name: site.id for site in session.scalars(select(Site))}
        everybody(session)
    found = seen(desk.engine, commander(sites["main"], Role.OPERATOR))
    assert found.site == "main"
    assert [(one.lane, one.state, one.count) for one in found.queue] == [(Lane.ROUTINE, ReadingState.QUEUED, 2)]
    assert found.queue[0].oldest_s is not None
    assert {(one.state, one.reason_code, one.count, one.unattended) for one in found.reasons} == {
        (ReadingState.FAILED, "error", 1, 1),
        (ReadingState.ABSTAINED, "no_protocol", 1, 1),
    }
    assert [one.study_instance_uid for one in found.ended] == [made["failed"], made["abstained"]]
    assert found.receiving.count == 2
    assert {one.study_instance_uid for one in found.receiving.studies} == {made["receiving"], made["conflicting"]}
    assert (found.conflicts, [one.study_instance_uid for one in found.conflicting]) == (1, [made["conflicting"]])
    assert found.outdated == 1
    assert found.studies == {"receiving": 2, "ready": 5}
    assert found.unsealed > 5
    assert codes(found) == {"readings_failed", "conflicts", "outdated"}
    assert CANARY not in json.dumps(found.as_dict(), default=str)

    other = seen(desk.engine, commander(sites["elsewhere"], Role.OPERATOR))
    assert (other.queue, other.reasons, other.ended, other.studies) == ((), (), (), {})
    assert (other.receiving.count, other.conflicts, other.outdated) == (0, 0, 0)
    assert other.is_well
    everything = seen(desk.engine)
    assert (everything.site, everything.conflicts, everything.ended[0].site) == (None, 1, "main")


def test_a_failure_needs_nobody_once_it_is_retried_or_a_physician_reports_the_study(desk: Desk) -> None:
    first, second = (desk.study(ends="failed") for _ in range(2))
    with transaction(desk.engine) as session:
        everybody(session)
        by = commander(session.scalars(select(Site.id).where(Site.name == "main")).one(), Role.OPERATOR)
    (alarm,) = seen(desk.engine).alarms
    assert alarm.values == {"count": 2}
    assert desk.signed_in(Role.ATTENDING).post(f"/api/v1/studies/{first}/report").status_code < 300
    (alarm,) = seen(desk.engine).alarms
    assert alarm.values == {"count": 1}
    with transaction(desk.engine) as session:
        reading_id = session.scalars(
            text("SELECT id FROM readings WHERE study_id = :id").bindparams(id=study_of(session, second).id)
        ).one()
        readings.retry(session, reading_id, by=by)
    found = seen(desk.engine)
    assert found.alarms == ()
    assert [(one.reason_code, one.count, one.unattended) for one in found.reasons] == [("error", 1, 0)]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("UPDATE readings SET not_before = now() - interval '3 minutes', lane = 'stat', lane_order = 0", "waiting_long"),
        ("UPDATE studies SET receiving_since = now() - interval '3 hours'", "receiving_long"),
        ("INSERT INTO store_deletions (kind, key, created_at) VALUES ('pictures', 'f', now() - interval '2 hours')", "deletions_wait"),
        ("UPDATE parts SET version = '0.0.9' WHERE kind = 'api'", "versions"),
        ("UPDATE parts SET facts = facts || jsonb_build_object('clock', extract(epoch FROM now()) + 60) WHERE kind = 'api'", "clock"),
        ("UPDATE parts SET facts = facts || '{\"failing\": \"store_full\"}' WHERE kind = 'indexer'", "indexer_failing"),
        ("UPDATE workers SET model = NULL WHERE kind = 'gpu'", "no_engine"),
        ("UPDATE readings SET state = 'prepared', model = 'another'", "model_unserved"),
        ("DELETE FROM workers WHERE kind = 'cpu'", "no_cpu"),
        ("UPDATE parts SET facts = jsonb_set(facts, '{store_free_bytes}', '1000') WHERE kind = 'indexer'", "disk_full"),
        ("UPDATE parts SET facts = jsonb_set(facts, '{spools,0,listener,seen_s}', '90') WHERE kind = 'indexer'", "part_silent"),
        ("UPDATE parts SET facts = jsonb_set(facts, '{spools,0,listener}', 'null') WHERE kind = 'indexer'", "no_listener"),
    ],
)  # fmt: skip
def test_an_alarm_comes_with_its_cause_and_only_then(engine: Engine, change: str, code: str) -> None:
    with transaction(engine) as session:
        everybody(session)
        closed(session, [arrival(uid())])
        admission.admit(session, [arrival(uid())])
    assert seen(engine).alarms == ()
    with transaction(engine) as session:
        session.execute(text(change.replace(":", "\\:")))
    found = seen(engine)
    assert codes(found) == {code}
    (alarm,) = found.alarms
    assert "{" not in alarm.sentence
    assert found.is_well == (alarm.severity == "notice")


def test_leases_lost_again_and_again_and_events_without_a_seal_are_alarms(engine: Engine) -> None:
    with transaction(engine) as session:
        everybody(session)
        closed(session, [arrival(uid())])
    for _ in range(3):
        with transaction(engine) as session:
            assert claims.claim_prepare(session, "dead", -1, max_prepared=64, model="phantom")
        with transaction(engine) as session:
            assert leases.take_back(session, max_failures=9, backoff_s=0) == 1
    found = seen(engine)
    assert codes(found) == {"lease_losses"}
    assert found.queue[0].stumbled == 1
    at = found.at - timedelta(minutes=5)
    with transaction(engine) as session:
        session.add(Event(id=floor(at), at=at, kind="test", actor_kind="system", facts={}))
    found = seen(engine)
    assert codes(found) == {"lease_losses", "unsealed"}
    assert 290 < found.unsealed_oldest_s < 400
    assert found.unsealed >= 4


def test_a_worker_whose_engine_comes_late_is_told_of_with_its_model(engine: Engine) -> None:
    for model, identity in ((None, {}), ("phantom", {"where": "cpu"})):
        with transaction(engine) as session:
            readings.report_worker(session, "host:1", "gpu", model=model, slots=2, identity=identity)
    with transaction(engine) as session:
        worker = session.scalars(select(Worker)).one()
    assert (worker.model, worker.identity) == ("phantom", {"where": "cpu"})


def test_every_reason_has_its_advice_and_every_alarm_its_words() -> None:
    assert set(alarms.ADVICE) == set(ReasonCode)
    assert alarms.advice("new_reason") == alarms.advice(None)
    for code, kind in alarms.KINDS.items():
        assert kind.text.endswith("."), code
        assert kind.remedy.endswith("."), code


def test_an_indexer_tells_of_its_spools_and_of_the_listener_beside_them(engine: Engine, tmp_path: Path) -> None:
    spool = Spool.claim(tmp_path / "spool")
    indexer = Indexer(engine, Store(tmp_path / "store"), tmp_path / "spool")
    (lies,) = indexer.facts()["spools"]
    assert (lies["files"], lies["oldest_s"], lies["listener"]) == (0, 0.0, None)
    old = floor(seen(engine).at).int - (90_000 << 80)
    (spool.ready / f"{uuid.UUID(int=old).hex}.dcm").write_bytes(b"x" * 1000)
    (spool.ready / "stray").write_bytes(b"")
    (spool.quarantine / "a.damaged.dcm").write_bytes(b"y" * 10)
    heartbeat.beat(spool, {"owner": "o", "associations": 2})
    (lies,) = indexer.facts()["spools"]
    assert 85 < lies["oldest_s"] < 120
    assert (lies["files"], lies["bytes"], lies["quarantine_files"], lies["quarantine_bytes"]) == (1, 1000, 1, 10)
    assert lies["listener"]["associations"] == 2
    assert lies["free_bytes"] > 0
    heartbeat.stop(spool)
    assert heartbeat.listener_of(spool) is None
    other = Indexer(engine, Store(tmp_path / "store"), tmp_path / "spool")
    assert other.facts()["spools"] == []  # another indexer holds them, and tells
    indexer.release()
    spool.release()


@contextlib.contextmanager
def away(servers: RunningServers, engine: Engine) -> Iterator[None]:
    """PostgreSQL as it looks to one database's users while it is gone."""
    name = engine.url.database
    with psycopg.connect(servers.admin_url.replace("postgresql+psycopg:", "postgresql:"), autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            yield
        finally:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def test_a_pulse_goes_on_when_the_database_is_back_and_takes_its_row_along(
    engine: Engine, servers: RunningServers
) -> None:
    def last() -> Any:
        with transaction(engine) as session:
            return session.scalar(select(Part.seen_at))

    pulse = parts.Pulse(parts.Beat(engine, "api", 0.05), 0.05, lambda: {"port": 1})
    pulse.start()
    wait_for(lambda: last() is not None, 10, "the first word")
    former = last()
    with away(servers, engine):
        threading.Event().wait(0.3)
    wait_for(lambda: last() > former, 10, "a word after the outage")
    pulse.stop()
    assert last() is None


def scraped(answer: Any) -> dict[tuple[str, ...], float]:
    """Samples by name and label values, these in the order of the labels' names."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics_are_right_narrowed_to_the_site_and_name_nobody(desk: Desk) -> None:
    study_uid = made_up(desk)["failed"]
    with transaction(desk.engine) as session:
        everybody(session)
    dashboard = desk.machine(Role.DASHBOARD)
    for method, path in (("GET", f"/api/v1/studies/{study_uid}"), ("GET", f"/{CANARY}/x"), (CANARY, "/healthz")):
        dashboard.request(method, path)
    answer = dashboard.get("/metrics")
    found = scraped(answer)
    assert found["countersign_database_up",] == 1
    assert found["countersign_parts", "gpu", "up"] == 1
    assert found["countersign_worker_slots", "gpu"] == 4
    assert found["countersign_worker_slots_busy", "gpu"] == 1
    assert found["countersign_readings", "routine", "queued"] == 2
    assert found["countersign_readings", "stat", "drafting"] == 0
    assert found["countersign_reading_oldest_claimable_seconds", "routine"] > 0
    assert found["countersign_readings_unattended", "error", "failed"] == 1
    assert found["countersign_readings_without_draft", "no_protocol", "abstained"] == 1
    assert found["countersign_studies_receiving",] == 2
    assert found["countersign_conflicts_undecided",] == 1
    assert found["countersign_reports_outdated",] == 1
    assert found["countersign_alarms", "readings_failed", "warning"] == 1
    assert found["countersign_alarms", "no_cpu", "critical"] == 0
    route = "/api/v1/studies/{study_instance_uid}"
    assert found["countersign_http_requests_total", "GET", route, "2xx"] == 1
    assert found["countersign_http_requests_total", "GET", "-", "4xx"] == 1
    assert found["countersign_http_requests_total", "-", "/healthz", "4xx"] == 1
    assert found["countersign_http_request_duration_seconds_count", "GET", route] == 1
    assert found["process_resident_memory_bytes",] > 0
    assert CANARY not in answer.text
    assert study_uid not in answer.text
    assert all(family.documentation for family in text_string_to_metric_families(answer.text))
    assert not any(name.endswith("_created") for name, *_ in found)

    elsewhere = scraped(desk.machine(Role.DASHBOARD, site="elsewhere").get("/metrics"))
    assert elsewhere["countersign_readings", "routine", "queued"] == 0
    assert elsewhere["countersign_conflicts_undecided",] == 0
    assert elsewhere["countersign_parts", "gpu", "up"] == 1


def test_two_scrapes_within_ten_seconds_ask_the_database_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    dashboard = desk.machine(Role.DASHBOARD)
    dashboard.get("/metrics")
    desk.study(ends="queued")
    assert scraped(dashboard.get("/metrics"))["countersign_readings", "routine", "queued"] == 0
    monkeypatch.setattr("gateway.web.metrics_api.CACHED_S", 0.0)
    assert scraped(dashboard.get("/metrics"))["countersign_readings", "routine", "queued"] == 1


def test_while_the_database_is_away_a_known_token_gets_the_process_s_metrics_and_a_stranger_none(
    desk: Desk, servers: RunningServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.web.metrics_api.CACHED_S", 0.0)
    monkeypatch.setattr("gateway.web.context._REMEMBER_S", 0.0)
    known, barred, unknown = desk.machine(Role.ADMIN), desk.machine(Role.AUDITOR), desk.client()
    unknown.headers["Authorization"] = "Bearer cs_guessed"
    assert scraped(known.get("/metrics"))["countersign_database_up",] == 1
    assert barred.get("/metrics").status_code == 403
    with away(servers, desk.engine):
        found = scraped(known.get("/metrics"))
        assert found["countersign_database_up",] == 0
        assert found["countersign_http_requests_total", "GET", "/metrics", "2xx"] == 1
        assert not any(name == "countersign_readings" for name, *_ in found)
        for stranger in (barred, unknown):
            answer = stranger.get("/metrics")
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert scraped(known.get("/metrics"))["countersign_database_up",] == 1


def run(*argv: str, **environment: str) -> Any:
    """One call of the command, with these settings and no others."""
    names = ("DATABASE_URL", "REDIS_URL", "COUNTERSIGN_STORE", "COUNTERSIGN_SPOOL", "COUNTERSIGN_DATABASE_URL")
    return CliRunner().invoke(
        cli, ["status", *argv], env={**dict.fromkeys(names), **environment}, standalone_mode=False
    )


def test_the_command_says_on_eighty_columns_what_needs_a_person_and_exits_so(
    desk: Desk, database: FreshDatabase, tmp_path: Path
) -> None:
    made = made_up(desk)
    settings = {"DATABASE_URL": database.url, "COUNTERSIGN_STORE": str(tmp_path), "REDIS_URL": "redis://127.0.0.1:9/0"}
    said = run(**settings)
    assert isinstance(said.exception, SystemExit)
    assert said.exception.code == 1
    assert max(map(len, said.stdout.splitlines())) <= 80
    assert (
        "CRITICAL No cpu worker is running: no study is prepared.\n         → Start one: countersign worker cpu"
        in said.stdout
    )
    assert "Redis does not answer" in said.stdout
    assert made["failed"] in said.stdout
    assert CANARY not in said.stdout
    with transaction(desk.engine) as session:
        everybody(session)
    del settings["REDIS_URL"]
    assert "nobody reports their studies: 1" in " ".join(run(**settings).stdout.split())
    elsewhere = run("--site", "elsewhere", **settings)
    assert elsewhere.exception is None
    assert "All is well." in elsewhere.stdout
    assert made["failed"] not in elsewhere.stdout
    told = json.loads(run("--json", **settings).stdout)
    assert told["well"] is False
    assert told["ended"][0]["study_instance_uid"] == made["failed"]
    assert {one["code"] for one in told["alarms"]} == {"readings_failed", "conflicts", "outdated"}
    unknown = run("--site", "nowhere", **settings)
    assert getattr(unknown.exception, "code", "") == "not_found"


def test_without_a_database_the_command_tells_of_this_machine_s_spool_and_disk(tmp_path: Path) -> None:
    spool = Spool.claim(tmp_path / "spool")
    (spool.ready / f"{uuid.uuid4().hex}.dcm").write_bytes(b"x")
    heartbeat.beat(spool, {"owner": "o", "port": 11112, "every_s": 60})
    settings = {
        "DATABASE_URL": "postgresql://nobody:SECRET@127.0.0.1:9/none",
        "COUNTERSIGN_STORE": str(tmp_path),
        "COUNTERSIGN_SPOOL": str(tmp_path / "spool"),
    }
    said = run(**settings)
    assert said.exception.code == 1
    assert "PostgreSQL does not answer." in said.stdout
    assert "listener up" in said.stdout
    assert "spool 00" in said.stdout
    assert "disk of the store" in said.stdout
    assert "SECRET" not in said.output
    told = json.loads(run("--json", **settings).stdout)
    assert (told["well"], told["spools"][0]["files"]) == (False, 1)
    spool.release()


def test_without_a_schema_the_command_names_the_one_that_migrates(servers: RunningServers, tmp_path: Path) -> None:
    name = f"countersign_empty_{uuid.uuid4().hex[:8]}"
    _create(servers, name, f'OWNER "{_role(servers.owner_url)}"')
    try:
        said = run(DATABASE_URL=_named(servers.database_url, name), COUNTERSIGN_STORE=str(tmp_path))
    finally:
        _drop(servers, name)
    assert said.exception.code == 1
    assert "countersign migrate" in said.stdout


def look_at(client: TestClient, path: str = "/operations", **headers: str) -> Any:
    return client.get(path, headers={"Accept": "text/html", **headers})


def test_the_page_shows_alarms_first_and_has_readings_read_again_each_or_all_of_a_reason(desk: Desk) -> None:
    made = made_up(desk)
    operator = desk.signed_in(Role.OPERATOR)
    answer = look_at(operator)
    assert answer.status_code == 200
    assert "No cpu worker is running" in answer.text
    assert answer.text.index("No cpu worker is running") < answer.text.index('id="queue-heading"')
    assert f"…{made['failed'][-12:]}" in answer.text
    assert f"/studies/{made['receiving']}/close" in answer.text
    assert f'href="/studies/{made["conflicting"]}"' in answer.text
    assert '<noscript><meta http-equiv="refresh"' in answer.text
    assert CANARY not in answer.text
    assert look_at(operator, **{"If-None-Match": answer.headers["etag"]}).status_code == 304

    again = {"csrf": csrf_of(answer), "state": "failed", "reason_code": "error"}
    retried = operator.post("/operations/retry", data=again)
    assert (retried.status_code, retried.headers["location"]) == (303, "/operations?retried=1")
    assert operator.post("/operations/retry", data=again).headers["location"] == "/operations?retried=0"
    assert "Readings that are read again: 1" in look_at(operator, "/operations?retried=1").text
    assert [event["reading_id"] is not None for event in event_rows(desk, "reading_retried")] == [True]
    changed = look_at(operator, **{"If-None-Match": answer.headers["etag"]})
    assert changed.status_code == 200
    assert "/readings/" in changed.text  # the abstained one, each by itself
    assert operator.post("/operations/retry", data={**again, "state": "done"}).headers["location"].endswith("=0")
    assert operator.post("/operations/retry", data={**again, "csrf": "x"}).status_code == 403


def event_rows(desk: Desk, kind: str) -> list[dict[str, Any]]:
    with transaction(desk.engine) as session:
        rows = session.scalars(select(Event).where(Event.kind == kind)).all()
        return [{"reading_id": row.reading_id, "site_id": row.site_id} for row in rows]


def test_an_admin_may_look_and_press_nothing_and_the_other_site_s_operator_sees_nothing_of_it(desk: Desk) -> None:
    made = made_up(desk)
    admin = look_at(desk.signed_in(Role.ADMIN)).text
    assert f"…{made['failed'][-12:]}" in admin
    assert "/retry" not in admin
    assert "/close" not in admin
    assert f"/studies/{made['failed']}" not in admin
    other = desk.signed_in(Role.OPERATOR, site="elsewhere")
    page = look_at(other)
    assert "No cpu worker is running" in page.text
    assert not any(study_uid[-12:] in page.text for study_uid in made.values())
    form = {"csrf": csrf_of(page) or other.headers["X-CSRF-Token"], "state": "failed", "reason_code": "error"}
    assert other.post("/operations/retry", data=form).headers["location"] == "/operations?retried=0"
    assert look_at(desk.signed_in(Role.ATTENDING)).status_code == 403


REPORT_S = 0.3


@contextlib.contextmanager
def part(folder: Path, database: FreshDatabase, kind: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A part as a process of its own, that nobody starts again."""
    told = {
        "DATABASE_URL": database.url, "COUNTERSIGN_STORE": str(folder / "store"), "COUNTERSIGN_REPORT_S": str(REPORT_S),
        "COUNTERSIGN_SPOOL": str(folder / "spool"), "COUNTERSIGN_SWEEP_S": "0.1", **settings,
    }  # fmt: skip
    clean = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERSIGN_")}
    with (folder / f"{kind}-{uuid.uuid4().hex[:4]}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gateway", "gateway", kind],
            env=clean | told,
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def verdicts(engine: Engine) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in seen(engine).parts:
        found.setdefault(one.kind, []).append(str(one.verdict))
    return found


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_real_parts_tell_fall_silent_when_they_are_killed_and_are_not_missed_when_they_stop(
    engine: Engine, database: FreshDatabase, tmp_path: Path
) -> None:
    all_up = {"listener": ["up"], "indexer": ["up"], "api": ["up"], "sweep": ["up"]}
    with (
        listening(tmp_path / "spool", report_s=REPORT_S) as listener,
        part(tmp_path, database, "indexer") as indexer,
        part(tmp_path, database, "sweep") as sweep,
        part(tmp_path, database, "api", COUNTERSIGN_HTTP_PORT=str(free_port())) as api,
    ):
        wait_for(lambda: verdicts(engine) == all_up, 60, "four parts up")
        found = seen(engine)
        assert found.missing == ("cpu", "gpu")
        assert next(one for one in found.parts if one.kind == "listener").port == listener.port
        assert [(spool.spool, spool.files) for spool in found.spools] == [("00", 0)]
        assert {disk.place for disk in found.disks} == {"spool", "store"}

        indexer.kill()
        began = time.monotonic()
        wait_for(lambda: verdicts(engine)["indexer"] == ["silent"], 10, "the killed indexer silent")
        assert time.monotonic() - began < 3 * REPORT_S + 2
        assert verdicts(engine)["listener"] == ["unknown"]
        assert "part_silent" in codes(seen(engine))
        with part(tmp_path, database, "indexer"):
            wait_for(lambda: verdicts(engine) == all_up, 60, "another indexer in its place")

            listener.process.kill()
            wait_for(lambda: verdicts(engine)["listener"] == ["silent"], 10, "the killed listener silent")
            with listening(tmp_path / "spool", report_s=REPORT_S) as again:
                wait_for(lambda: verdicts(engine) == all_up, 20, "another listener in its place")
                again.process.terminate()
                assert again.process.wait(20) == 0
                wait_for(lambda: "no_listener" in codes(seen(engine)), 10, "the listener stopped")
                assert not (tmp_path / "spool" / "00" / heartbeat.HEARTBEAT).exists()

        for process, kind in ((sweep, "sweep"), (api, "api")):
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert kind not in verdicts(engine)
            assert f"no_{kind}" in codes(seen(engine))


@pytest.mark.slow
def test_a_worker_that_stops_in_good_order_is_not_missed(
    engine: Engine, database: FreshDatabase, tmp_path: Path, redis_url: str
) -> None:
    bench = Bench(tmp_path, {"DATABASE_URL": database.url, "REDIS_URL": redis_url})
    try:
        bench.start("cpu", "worker", "cpu")
        wait_for(lambda: verdicts(engine) == {"cpu": ["up"]}, 60, "the worker up")
        (shown,) = seen(engine).parts
        assert (shown.model, shown.busy, shown.slots) == ("phantom", 0, 1)
        assert "no_sweep" not in codes(seen(engine))  # a worker sweeps as well
        assert bench.stop("cpu") == 0
        assert verdicts(engine) == {}
        assert seen(engine).missing == ("indexer", "api", "sweep", "cpu", "gpu")
    finally:
        bench.close()


@pytest.mark.slow
def test_redis_is_asked_how_many_wake_ups_lie_there(engine: Engine, redis_url: str) -> None:
    bell = Bell(SecretStr(redis_url))
    bell.top_up(CPU, 3)
    found = seen(engine, bell=bell)
    assert (found.redis, found.wakeups) == (True, {CPU: 3, GPU: 0})
    gone = seen(engine, bell=Bell(SecretStr("redis://127.0.0.1:9/0")))
    assert (gone.redis, gone.wakeups) == (False, {})
    assert "redis_away" in codes(gone)
