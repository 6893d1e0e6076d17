"""What the remote engine sends, and how it takes a server's failures."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import replace

import numpy as np
import pytest

from record.errors import EngineRejected, EngineUnavailable
from tests.unit.engine_fakes import ChatServer
from worker.engines import Engine, Parameters, open_engine
from worker.phantom.anatomy import Level, Phantom, Side, Zone
from worker.phantom.exam import asked, seen

WAIT_S = 30.0
PROMPT = asked(seen(Phantom(Zone(Side.LEFT, Level.UPPER), enlarged=False, seed=3)))


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


@pytest.fixture
def engine(server: ChatServer) -> Iterator[Engine]:
    engine = open_engine("small", engine_url=server.url + "/v1", slots=2, api_key="secret")
    yield engine
    engine.close()


def test_pixels_and_parameters_arrive_as_they_were_sent(engine: Engine, server: ChatServer) -> None:
    parameters = Parameters(max_new_tokens=99, temperature=0.5, repetition_penalty=1.2, seed=4)
    completion = engine.submit(replace(PROMPT, parameters=parameters)).result(WAIT_S)
    np.testing.assert_array_equal(server.pictures[0], PROMPT.pictures[0].pixels)
    sent = {name: value for name, value in server.requests[0].items() if name != "messages"}
    assert sent == completion.parameters
    assert sent["max_tokens"] == 99
    assert (sent["temperature"], sent["repetition_penalty"], sent["seed"], sent["n"]) == (0.5, 1.2, 4, 1)
    assert PROMPT.pictures[0].digest in completion.rendered_prompt
    assert "base64" not in completion.rendered_prompt


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_a_server_in_trouble_is_unavailable(engine: Engine, server: ChatServer, status: int) -> None:
    server.status = status
    with pytest.raises(EngineUnavailable) as away:
        engine.submit(PROMPT).result(WAIT_S)
    assert away.value.facts["status"] == status


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_server_that_fails_on_one_prompt_blames_it(engine: Engine, server: ChatServer, status: int) -> None:
    server.status = status
    with pytest.raises(EngineUnavailable) as failed:
        engine.submit(PROMPT).result(WAIT_S)
    assert failed.value.facts["prompt"] is True


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
def test_a_server_that_takes_no_prompt_blames_none(engine: Engine, server: ChatServer, status: int) -> None:
    server.status = status
    with pytest.raises(EngineUnavailable) as away:
        engine.submit(PROMPT).result(WAIT_S)
    assert not away.value.facts.get("prompt")


@pytest.mark.parametrize("status", [502, 504])
def test_a_proxy_whose_server_is_gone_blames_no_prompt(engine: Engine, server: ChatServer, status: int) -> None:
    server.status = status
    server._models = lambda handler: (handler.send_response(status), handler.end_headers())  # type: ignore[method-assign]
    with pytest.raises(EngineUnavailable) as away:
        engine.submit(PROMPT).result(WAIT_S)
    assert away.value.facts["prompt"] is False


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_server_that_refuses_a_prompt_rejects_it(engine: Engine, server: ChatServer, status: int) -> None:
    server.status = status
    with pytest.raises(EngineRejected) as refused:
        engine.submit(PROMPT).result(WAIT_S)
    assert refused.value.facts["status"] == status


@pytest.mark.parametrize(
    "events",
    [
        lambda lines: lines[:4],
        lambda _: ["{not json"],
        lambda lines: [lines[0], json.dumps({"error": {"message": "lost"}})],
        lambda _: ['{"choices": [{"index": 9, "delta": {}}]}'],
    ],
    ids=["cut off", "no JSON", "error event", "unknown choice"],
)
def test_half_an_answer_is_no_answer(engine: Engine, server: ChatServer, events: object) -> None:
    server.events = events  # type: ignore[assignment]
    with pytest.raises(EngineUnavailable):
        engine.submit(PROMPT).result(WAIT_S)


def test_cancelling_hangs_up_on_the_server(engine: Engine, server: ChatServer) -> None:
    server.word_s = 0.05
    going = engine.submit(PROMPT)
    next(going.tokens())
    going.cancel()
    with pytest.raises(CancelledError):
        going.result(WAIT_S)
    assert server.hung_up.wait(WAIT_S)


def test_a_silent_server_is_left_at_the_deadline(engine: Engine, server: ChatServer) -> None:
    server.latency_s = 1.0
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        engine.submit(replace(PROMPT, deadline_s=0.1)).result(WAIT_S)
    assert time.monotonic() - began < 0.9


def test_a_server_that_is_not_there_is_unavailable(server: ChatServer) -> None:
    url = "http://127.0.0.1:9"
    with pytest.raises(EngineUnavailable):
        open_engine("small", engine_url=url)


def test_a_server_that_goes_away_is_unavailable() -> None:
    with ChatServer() as server:
        engine = open_engine("small", engine_url=server.url)
    with pytest.raises(EngineUnavailable):
        engine.submit(PROMPT).result(WAIT_S)
    engine.close()


def test_a_model_that_the_server_does_not_list_is_rejected_with_those_it_does(server: ChatServer) -> None:
    with pytest.raises(EngineRejected, match="small"):
        open_engine("large", engine_url=server.url)
