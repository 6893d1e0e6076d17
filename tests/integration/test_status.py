"""What the operator is told: figures that are right, alarms that come and go, parts and spools that tell."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from gateway import heartbeat
from gateway.indexer import Indexer
from gateway.spool import Spool
from record import admission, alarms, claims, leases, parts, readings, status
from record.access import commander
from record.db import transaction
from record.figures import floor
from record.models import Event, Part, Site, Worker
from record.settings import SweepSettings
from record.states import Lane, ReadingState, ReasonCode, Role
from record.store import Store
from record.sweep import Sweep
from tests.bench import wait_for
from tests.conftest import FreshDatabase, RunningServers
from tests.records import arrival, closed, study_of, uid
from tests.situations import CANARY, away, codes, everybody, made_up, seen, tell
from tests.web_records import Desk, desk_on


@pytest.fixture
def desk(database: FreshDatabase, tmp_path: Path) -> Iterator[Desk]:
    with desk_on(database, tmp_path / "store") as made:
        yield made


def test_with_nothing_running_every_missing_part_has_its_alarm_and_the_command_that_starts_it(engine: Engine) -> None:
    found = seen(engine)
    assert found.missing == ("indexer", "api", "sweep", "cpu", "gpu", "courier")
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
        (kind, "up") for kind in ("listener", "indexer", "api", "sweep", "cpu", "gpu", "courier")
    ]
    gpu = found.parts[-2]
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


def began(session: Session, ago: str) -> None:
    for table in ("parts", "workers"):
        session.execute(text(f"UPDATE {table} SET started_at = now() - interval '{ago}'"))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("DELETE FROM workers WHERE kind = 'gpu'", "no_gpu"),
        ("UPDATE workers SET model = NULL WHERE kind = 'gpu'", "no_engine"),
    ],
)
def test_a_worker_that_loads_its_model_is_starting_for_two_minutes_and_no_alarm(
    engine: Engine, change: str, code: str
) -> None:
    with transaction(engine) as session:
        everybody(session)
        session.execute(text(change))
        began(session, "20 seconds")
    found = seen(engine)
    assert [(one.code, one.sentence) for one in found.alarms] == [("part_starting", "The gpu is starting.")]
    assert found.is_well
    with transaction(engine) as session:
        began(session, "3 minutes")
    found = seen(engine)
    assert codes(found) == {code}
    assert not found.is_well


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
        began(session, "1 hour")
    assert seen(engine).alarms == ()
    with transaction(engine) as session:
        session.execute(text(change.replace(":", "\\:")))
    found = seen(engine)
    assert codes(found) == {code}
    (alarm,) = found.alarms
    assert "{" not in alarm.sentence
    assert found.is_well == (alarm.severity == "notice")


def test_a_later_release_s_schema_is_an_alarm_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with transaction(engine) as session:
        everybody(session)
    assert seen(engine).alarms == ()
    monkeypatch.setattr(status, "own_revision", lambda: "0001")
    found = seen(engine)
    assert codes(found) == {"schema_new"}
    assert "later release" in found.alarms[0].sentence


def test_a_study_may_receive_for_as_long_as_the_sweep_is_set_to_wait(engine: Engine, tmp_path: Path) -> None:
    settings = SweepSettings(database_url=SecretStr("postgresql://nobody"), store=tmp_path, max_wait_s=4 * 3600.0)
    sweep = Sweep.of(engine, settings)
    with transaction(engine) as session:
        everybody(session)
        admission.admit(session, [arrival(uid())])
        session.execute(text("UPDATE studies SET receiving_since = now() - interval '3 hours'"))
    assert codes(seen(engine)) == {"receiving_long"}
    sweep.beat = parts.Beat(engine, "sweep", 5.0)
    sweep.tell()
    assert codes(seen(engine)) == set()
    with transaction(engine) as session:
        session.execute(text("UPDATE studies SET receiving_since = now() - interval '5 hours'"))
    assert codes(seen(engine)) == {"receiving_long"}


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
