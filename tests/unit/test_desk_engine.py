"""What a desk does while its engine cannot be opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from record.errors import EngineRejected, EngineUnavailable
from record.settings import WorkerSettings
from worker import tasks
from worker.engines.canned import CannedEngine

REFUSED = EngineRejected("there is no such model", reason="unknown_model")
AWAY = EngineUnavailable("the engine's server does not answer")


class Opening:
    """Stands where `open_engine` is: raises what it is told to, and counts."""

    def __init__(self) -> None:
        self.raises: Exception | None = REFUSED
        self.tries = 0

    def __call__(self, *_: object, **__: object) -> CannedEngine:
        self.tries += 1
        if self.raises is not None:
            raise self.raises
        return CannedEngine({})


@pytest.fixture
def opening(monkeypatch: pytest.MonkeyPatch) -> Opening:
    made = Opening()
    monkeypatch.setattr(tasks, "open_engine", made)
    return made


@pytest.fixture
def work(tmp_path: Path) -> tasks.Drafting:
    return tasks.Drafting(settings(tmp_path))


def settings(folder: Path, **more: object) -> WorkerSettings:
    return WorkerSettings.model_validate(
        {
            "database_url": SecretStr("postgresql://127.0.0.1:9/none"),
            "store": folder / "store",
            "engine_url": "http://127.0.0.1:9",
            "model": "small",
            **more,
        }
    )


def test_a_refused_model_is_said_once_and_tried_rarely(opening: Opening, work: tasks.Drafting) -> None:
    with capture_logs() as logs:
        assert [work.ready() for _ in range(5)] == [False] * 5
    assert opening.tries == 1
    assert [(line["event"], line["log_level"], line["code"]) for line in logs] == [
        ("engine_refused", "critical", "engine_rejected")
    ]
    assert work.model() is None


def test_a_model_that_comes_later_is_opened(
    opening: Opening, work: tasks.Drafting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "REFUSED_S", 0.0)
    with capture_logs() as logs:
        work.ready()
        work.ready()
        opening.raises = None
        assert work.ready()
    assert [line["event"] for line in logs] == ["engine_refused", "engine_opened"]


def test_a_server_that_comes_back_without_the_model_is_said_too(
    opening: Opening, work: tasks.Drafting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "AWAY_S", 0.0)
    opening.raises = AWAY
    with capture_logs() as logs:
        work.ready()
        work.ready()
        opening.raises = REFUSED
        work.ready()
    assert [line["event"] for line in logs] == ["engine_away", "engine_refused"]


def test_a_key_file_that_cannot_be_read_does_not_stop_the_desk(opening: Opening, tmp_path: Path) -> None:
    opening.raises = None
    work = tasks.Drafting(settings(tmp_path, engine_key_file=tmp_path / "lacking"))
    with capture_logs() as logs:
        assert not work.ready()
    assert logs[0]["event"] == "engine_refused"
    assert "lacking" not in str(logs)
