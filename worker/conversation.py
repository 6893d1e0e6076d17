"""The questions of a protocol, asked one after the other, and what was answered.

Knows steps, their order and their language, and waiting for an engine. Does not know how a prompt is composed, what an engine
is, or what becomes of the words.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass

from record.errors import EngineRejected
from worker.checks import Asked
from worker.engines import Answer, Completion, Engine, Picture
from worker.prompting import ReadingContext, compose
from worker.protocols import Language, Protocol, Step, wording_of

_ANSWER_S = 600.0
_LOOK_S = 0.5
LEAST_MASS = 0.1
"""With less of the model's probability on yes and no together, it answered neither."""


@dataclass(frozen=True, slots=True)
class Said:
    """What the model answered, step by step."""

    language: Language
    calls: tuple[tuple[Step, Completion], ...]
    unanswered: tuple[Step, ...] = ()
    """Questions of yes or no that the engine answered with neither."""

    @property
    def texts(self) -> list[tuple[Step, str]]:
        """The answers that are words of the draft."""
        return [(step, completion.text) for step, completion in self.calls if step.kind != "ask"]

    @property
    def asked(self) -> tuple[Asked, ...]:
        """The answers to questions of yes or no."""
        yes = wording_of(self.language).yes
        return tuple(
            Asked(
                step=step.name,
                question=step.question.get(self.language, ""),
                about=step.about.get(self.language, ()),
                is_yes=completion.text == yes,
                probability=completion.choices.get(yes),
                mass=completion.choice_mass,
            )
            for step, completion in self.calls
            if step.kind == "ask" and step not in self.unanswered
        )


def spoken(protocol: Protocol, language: str) -> Language:
    """Return the language to ask in: the site's, if the protocol has it, else the first that it has."""
    return next((known for known in protocol.languages if known == language), protocol.languages[0])


def converse(
    protocol: Protocol,
    context: ReadingContext,
    pictures: Sequence[Picture],
    engine: Engine,
    lost: threading.Event,
    *,
    language: Language,
    alone: bool,
) -> Said:
    """Ask the protocol's steps one after the other, each knowing what was said before it.

    A question of yes or no that is answered with neither is noted, and the reading goes on: the description stands.

    Raises
    ------
    EngineRejected, EngineUnavailable, TimeoutError, CancelledError
        As the engine says.
    """
    calls: list[tuple[Step, Completion]] = []
    unanswered: list[Step] = []
    findings = ""
    for step in protocol.steps:
        prompt = compose(
            protocol,
            step,
            context,
            pictures,
            language=language,
            findings=findings,
            deadline_s=_ANSWER_S,
            alone=alone,
        )
        try:
            completion = _await(engine.submit(prompt), lost)
        except EngineRejected as error:
            if step.kind != "ask" or error.facts.get("reason") != "constraint":
                raise
            unanswered.append(step)
            continue
        calls.append((step, completion))
        if step.kind == "ask" and completion.choices and completion.choice_mass < LEAST_MASS:
            unanswered.append(step)
        if step.kind != "ask":
            findings = f"{findings} {completion.text}".strip()
    return Said(language, tuple(calls), tuple(unanswered))


def asking(completion: Completion, language: Language) -> str:
    """Say how a question of yes or no was answered: the model's own probability, which nothing has calibrated."""
    if completion.choices and completion.choice_mass < LEAST_MASS:
        return "neither yes nor no"
    probability = completion.choices.get(wording_of(language).yes)
    if probability is None:
        return f"{completion.text} (the engine tells no probability)"
    return f"{completion.text} (the model's own probability of yes: {probability:.2f})"


def _await(answer: Answer, lost: threading.Event) -> Completion:
    deadline = time.monotonic() + _ANSWER_S
    while True:
        try:
            return answer.result(_LOOK_S)
        except TimeoutError:
            if time.monotonic() >= deadline:
                answer.cancel()
                raise
        if lost.is_set():
            answer.cancel()
            raise CancelledError
