"""Metrics: right, narrowed to a site, naming nobody, and there while the database is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from record.db import transaction
from record.states import Role
from tests.conftest import FreshDatabase, RunningServers
from tests.situations import CANARY, away, everybody, made_up
from tests.web_records import Desk, desk_on


@pytest.fixture
def desk(database: FreshDatabase, tmp_path: Path) -> Iterator[Desk]:
    with desk_on(database, tmp_path / "store") as made:
        yield made


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
