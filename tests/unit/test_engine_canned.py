"""What the canned engine offers to tests, and that engines load lightly."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import pytest

from record.errors import EngineRejected, EngineUnavailable
from worker.engines import Choice, Message, Parameters, Prompt
from worker.engines.canned import CannedEngine
from worker.engines.wording import sanitised

WAIT_S = 30.0
HELLO = Prompt((Message("user", "Hello?"),))


def test_a_table_answers_its_questions_and_rejects_others() -> None:
    engine = CannedEngine({"Hello?": "Good morning."})
    assert engine.submit(HELLO).result(WAIT_S).text == "Good morning."
    with pytest.raises(EngineRejected):
        engine.submit(Prompt((Message("user", "Who?"),))).result(WAIT_S)
    engine.close()


def test_failures_and_slowness_can_be_asked_for() -> None:
    failures = [EngineUnavailable("away"), None]
    engine = CannedEngine({"Hello?": "Good morning."}, latency_s=0.1, failure=lambda _: failures.pop(0))
    with pytest.raises(EngineUnavailable):
        engine.submit(HELLO).result(WAIT_S)
    began = time.monotonic()
    assert engine.submit(HELLO).result(WAIT_S).first_token_s >= 0.1
    assert time.monotonic() - began >= 0.1
    engine.close()


CLOSED = Prompt((Message("user", "Clear?"),), constraint=Choice(("yes", "no")))


def test_a_table_answers_closed_questions_and_makes_no_probability_up() -> None:
    engine = CannedEngine({"Clear?": "no"}, probabilities={"Other?": {"yes": 0.5, "no": 0.5}})
    completion = engine.submit(CLOSED).result(WAIT_S)
    assert (completion.text, completion.choices, completion.choice_mass) == ("no", {}, 0.0)
    engine.close()


def test_an_option_of_several_words_is_never_cut() -> None:
    options = ("both lungs are clear", "there is an opacity")
    engine = CannedEngine({"Clear?": options[0]}, probabilities={"Clear?": {options[0]: 0.75, options[1]: 0.25}})
    prompt = replace(CLOSED, constraint=Choice(options), parameters=Parameters(max_new_tokens=1))
    completion = engine.submit(prompt).result(WAIT_S)
    assert (completion.text, completion.finish) == (options[0], "stop")
    assert completion.choices == {options[0]: 0.75, options[1]: 0.25}
    engine.close()


@pytest.mark.parametrize(
    ("text", "probabilities"),
    [
        ("maybe", {}),
        ("Yes", {}),
        ("no", {"yes": 0.9, "no": 0.1}),
        ("no", {"no": 1.0}),
        ("no", {"yes": 0.4, "no": 0.5}),
    ],
)
def test_a_table_that_answers_past_a_closed_question_is_rejected(text: str, probabilities: dict[str, float]) -> None:
    engine = CannedEngine({"Clear?": text}, probabilities={"Clear?": probabilities})
    with pytest.raises(EngineRejected) as refused:
        engine.submit(CLOSED).result(WAIT_S)
    assert refused.value.facts["reason"] == "constraint"
    engine.close()


def test_engines_and_phantoms_can_be_imported_without_torch() -> None:
    engines = "worker, worker.engines, worker.engines.canned, worker.engines.remote, worker.engines.local"
    modules = f"{engines}, worker.checkpoints, worker.phantom, worker.phantom.cli, worker.phantom.exam"
    program = f"import sys; sys.modules['torch'] = sys.modules['transformers'] = None; import {modules}"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("a <image> b", "a   b"),
        ("< IMAGE >x</image>", " x "),
        ("<|user|>hi<|im_end|>", " hi "),
        ("<|us<|user|>er|>", " "),
        ("<image_1>", " "),
        ("</s>", " "),
        ("[INST]now", " now"),
        ("5 < 6 > 4 | <b>", "5 < 6 > 4 | <b>"),
    ],
)
def test_control_words_become_spaces_and_other_text_stays(typed: str, kept: str) -> None:
    assert sanitised(typed, ["[INST]"]) == kept
