"""Both workers as real processes: pictures from pixels, drafts from pictures, and an end for every study."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from record.db import connect, transaction
from tests.bench import MODEL, Bench, admit_phantoms, small_server, states, wait_for
from tests.conftest import FreshDatabase
from tests.records import arrival, closed, uid


@pytest.fixture
def engine(database: FreshDatabase) -> Iterator[Engine]:
    made = connect(database.url)
    yield made
    made.dispose()


@pytest.fixture
def bench(tmp_path: Path, database: FreshDatabase, redis_url: str) -> Iterator[Bench]:
    made = Bench(tmp_path, {"DATABASE_URL": database.url, "REDIS_URL": redis_url})
    yield made
    made.close()


@pytest.mark.slow
def test_phantoms_are_drafted_by_the_phantom_model(engine: Engine, bench: Bench, tmp_path: Path) -> None:
    admit_phantoms(engine, bench.store, tmp_path, 3)
    bench.start("cpu", "worker", "cpu")
    bench.start("gpu", "worker", "gpu")
    wait_for(lambda: states(engine) == {"done": 3}, 60, "three drafts")
    with transaction(engine) as session:
        row = session.execute(
            text(
                "SELECT d.body, d.provenance, s.prompt, s.completion FROM drafts d JOIN draft_steps s ON s.draft_id = d.id"
            )
        ).first()
    assert row is not None
    assert "Impression" in row.completion
    assert "<|user|>" in row.prompt
    assert len(row.provenance["engine"]["weights_digest"]) == 64
    picture = row.provenance["pictures"][0]
    assert picture["rendering"]["transform"]
    assert bench.stop("gpu") == 0
    assert bench.stop("cpu") == 0


def test_what_no_protocol_is_for_abstains_with_its_reason(engine: Engine, bench: Bench) -> None:
    with transaction(engine) as session:
        closed(session, [arrival(uid(), modality="SM")])
        closed(session, [arrival(uid(), modality="CT")])
    bench.start("cpu", "worker", "cpu")
    wait_for(lambda: states(engine) == {"abstained": 2}, 30, "both abstained")
    with transaction(engine) as session:
        codes = set(session.scalars(text("SELECT reason_code FROM readings")))
    assert codes == {"no_protocol", "unsupported"}


def test_an_engine_that_comes_late_costs_no_failure(
    engine: Engine, tmp_path: Path, database: FreshDatabase, redis_url: str
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bench = Bench(
        tmp_path,
        {
            "DATABASE_URL": database.url,
            "REDIS_URL": redis_url,
            "COUNTERSIGN_MODEL": MODEL,
            "COUNTERSIGN_ENGINE_URL": f"http://127.0.0.1:{port}",
        },
    )
    try:
        admit_phantoms(engine, bench.store, tmp_path, 2)
        bench.start("cpu", "worker", "cpu")
        bench.start("gpu", "worker", "gpu")
        wait_for(lambda: states(engine) == {"prepared": 2}, 30, "prepared while the engine is away")
        with small_server(port=port):
            wait_for(lambda: states(engine) == {"done": 2}, 30, "drafted once the engine is there")
        with transaction(engine) as session:
            assert session.scalar(text("SELECT sum(failures) FROM readings")) == 0
    finally:
        bench.close()
