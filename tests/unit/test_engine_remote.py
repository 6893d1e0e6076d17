"""What the remote engine sends, and how it takes a server's failures."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import replace

import numpy as np
import pytest

from record.errors import EngineRejected, EngineUnavailable
from tests.unit.engine_fakes import ChatServer
from worker.engines import Choice, Engine, Parameters, Prompt, open_engine
from worker.phantom.anatomy import Level, Phantom, Side, Zone
from worker.phantom.exam import asked, seen

WAIT_S = 30.0
PROMPT, MIRRORED = (
    asked(seen(Phantom(Zone(Side.LEFT, Level.UPPER), enlarged=False, seed=3), mirrored=mirrored))
    for mirrored in (False, True)
)


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


# ---- closed questions


def closed(prompt: Prompt = PROMPT, options: tuple[str, ...] = ("yes", "no")) -> Prompt:
    return replace(prompt, constraint=Choice(options))


def untold(lines: list[str]) -> list[str]:
    """Leave out every probability, as a server that tells none."""
    return [line.replace('"logprobs"', '"nothing"') for line in lines]


def test_a_closed_question_asks_for_alternatives_greedily_and_briefly(engine: Engine, server: ChatServer) -> None:
    parameters = Parameters(max_new_tokens=99, temperature=0.5, repetition_penalty=1.2)
    completion = engine.submit(replace(closed(), parameters=parameters)).result(WAIT_S)
    sent = {name: value for name, value in server.requests[0].items() if name != "messages"}
    assert sent == completion.parameters
    assert (sent["temperature"], sent["n"], sent["logprobs"], sent["top_logprobs"], sent["max_tokens"]) == (
        0.0, 1, True, 20, 5,
    )  # fmt: skip
    assert "repetition_penalty" not in sent


def test_every_spelling_of_an_option_counts_and_what_is_neither_shows_in_the_mass(engine: Engine) -> None:
    left, right = (engine.submit(closed(prompt)).result(WAIT_S) for prompt in (PROMPT, MIRRORED))
    assert (left.text, right.text) == ("yes", "no")
    assert left.choices["yes"] == pytest.approx(1 - right.choices["yes"], abs=0.01)
    assert (left.choice_mass, right.choice_mass) == (pytest.approx(0.9), pytest.approx(0.9))
    assert left.token_logprobs[0] == pytest.approx(math.log(left.choices["yes"] * 0.6))


def test_an_option_may_lead_by_the_sum_of_its_spellings(engine: Engine, server: ChatServer) -> None:
    server.beginnings = lambda _: {"No": 0.4, "Yes": 0.3, " yes": 0.2}
    completion = engine.submit(closed()).result(WAIT_S)
    assert completion.text == "yes"
    assert completion.choices == {"yes": pytest.approx(5 / 9), "no": pytest.approx(4 / 9)}
    assert completion.token_logprobs == (pytest.approx(math.log(0.3)),)


def test_tokens_that_are_pieces_of_characters_are_told_by_their_bytes(engine: Engine, server: ChatServer) -> None:
    def in_pieces(lines: list[str]) -> list[str]:
        first = json.loads(lines[0])
        token = first["choices"][0]["logprobs"]["content"][0]
        token["top_logprobs"] = [
            {"token": "\\xe6", "bytes": [0xE6], "logprob": math.log(0.6)},
            {"token": "否", "bytes": None, "logprob": math.log(0.2)},
        ]
        return [json.dumps(first), *lines[1:]]

    server.events = in_pieces
    completion = engine.submit(closed(options=("是", "否"))).result(WAIT_S)
    assert completion.text == "是"
    assert completion.choices == {"是": pytest.approx(0.75), "否": pytest.approx(0.25)}


def test_the_number_of_a_token_is_kept_where_the_server_tells_it(engine: Engine, server: ChatServer) -> None:
    server.events = lambda lines: [lines[0].replace('"index"', '"token_ids": [7, 8], "index"'), *lines[1:]]
    assert engine.submit(closed()).result(WAIT_S).token_ids == (7,)
    server.beginnings = lambda _: {"No": 0.4, "Yes": 0.3, " yes": 0.2}  # the server took another token than is kept
    assert engine.submit(closed()).result(WAIT_S).token_ids == ()


@pytest.mark.parametrize("on", [".", ", there is", "\n", ""])
def test_a_server_that_tells_no_probabilities_is_read(engine: Engine, server: ChatServer, on: str) -> None:
    server.on = on
    server.events = untold
    left, right = (engine.submit(closed(prompt)).result(WAIT_S) for prompt in (PROMPT, MIRRORED))
    assert (left.text, right.text) == ("yes", "no")
    for completion in (left, right):
        assert (completion.choices, completion.choice_mass, completion.token_logprobs) == ({}, 0.0, ())
        assert completion.finish == "stop"


@pytest.mark.parametrize(
    ("beginnings", "on", "options"),
    [
        ({"\n": 0.9, "\n\n": 0.1}, "Yes.", ("yes", "no")),
        ({"Left": 0.8, "None": 0.1, "It": 0.06, "The": 0.04}, " lung.", ("left lung", "left arm", "none")),
        ({"Sí": 1.0}, ".", ("sí", "no")),
    ],
    ids=["no alternative is an option", "one begins two options", "only one is told"],
)
def test_probabilities_that_the_first_token_cannot_tell_are_not_made_up(
    engine: Engine, server: ChatServer, beginnings: dict[str, float], on: str, options: tuple[str, ...]
) -> None:
    server.beginnings, server.on = lambda _: beginnings, on
    completion = engine.submit(closed(options=options)).result(WAIT_S)
    assert completion.text == options[0]
    assert completion.choices == {}


@pytest.mark.parametrize("said", ["Normal", "Yesterday", "The lungs"])
def test_an_answer_that_is_no_option_is_rejected(engine: Engine, server: ChatServer, said: str) -> None:
    server.beginnings = lambda _: {said: 0.9, "It": 0.1}
    for events in (lambda lines: lines, untold):
        server.events = events
        with pytest.raises(EngineRejected) as refused:
            engine.submit(closed()).result(WAIT_S)
        assert refused.value.facts["reason"] == "constraint"


def test_half_an_answer_to_a_closed_question_is_none(engine: Engine, server: ChatServer) -> None:
    server.events = lambda lines: lines[:1]
    with pytest.raises(EngineUnavailable):
        engine.submit(closed()).result(WAIT_S)
