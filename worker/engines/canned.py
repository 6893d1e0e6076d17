"""An engine that answers from a table or a function, for tests of everything around engines.

It keeps the whole contract: slots, streaming, deadlines, cancelling; and it can be slow, fail or be away on demand. It
knows no model.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from types import MappingProxyType

from record.errors import EngineRejected, EngineUnavailable
from worker.engines.contract import Choice, Completion, EngineIdentity, Prompt
from worker.engines.ticket import Ticket, require_question
from worker.engines.wording import sanitised

Answers = Mapping[str, str] | Callable[[Prompt], str]
Probabilities = Mapping[str, Mapping[str, float]] | Callable[[Prompt], Mapping[str, float]]
Failure = Callable[[Prompt], Exception | None]


class CannedEngine:
    """An `Engine` that makes no use of a model.

    Parameters
    ----------
    answers
        Text by the last message's text, or a function of the prompt; a question the table lacks is rejected.
    probabilities
        Those of a closed question's options, by the last message's text, or a function of the prompt; none is made up.
    latency_s, token_s
        Seconds before the first word, and between words.
    failure
        Asked before each answer; an error that it returns is what the asker gets.
    """

    def __init__(
        self,
        answers: Answers,
        *,
        probabilities: Probabilities = MappingProxyType({}),
        slots: int = 4,
        latency_s: float = 0.0,
        token_s: float = 0.0,
        failure: Failure = lambda _: None,
        model: str = "canned",
    ) -> None:
        self._answers = answers
        self._probabilities = probabilities
        self._slots = slots
        self._latency_s = latency_s
        self._token_s = token_s
        self._failure = failure
        self._identity = EngineIdentity(
            model, "1", "canned", hashlib.sha256(model.encode()).hexdigest(), dtype="none", where="cpu"
        )
        self._closing = threading.Event()
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="canned")

    @property
    def identity(self) -> EngineIdentity:
        """Which model this claims to be."""
        return self._identity

    @property
    def slots(self) -> int:
        """How many prompts are answered at once."""
        return self._slots

    def submit(self, prompt: Prompt) -> Ticket:
        """Take a prompt; see `Engine.submit`."""
        require_question(prompt)
        ticket = Ticket(prompt)
        try:
            self._pool.submit(self._answer, ticket)
        except RuntimeError as error:
            raise EngineUnavailable("the engine is closed", reason="closed") from error
        return ticket

    def close(self) -> None:
        """Stop; whoever waits gets `EngineUnavailable`."""
        self._closing.set()
        self._pool.shutdown(wait=True)

    def _answer(self, ticket: Ticket) -> None:
        try:
            ticket.finish(self._complete(ticket))
        except Exception as error:  # noqa: BLE001 - the engine threads' door: whatever the function raises is the asker's to see
            ticket.fail(error)

    def _complete(self, ticket: Ticket) -> Completion:
        self._rest(self._latency_s)
        error = self._failure(ticket.prompt)
        if error is not None:
            raise error
        text = self._text(ticket.prompt)
        first_token_s = time.monotonic() - ticket.submitted
        words = text.split(" ")
        constraint = ticket.prompt.constraint
        kept = words if constraint else words[: ticket.prompt.parameters.max_new_tokens]
        choices = self._choices(ticket.prompt, constraint, text) if constraint else {}
        for count in range(1, len(kept) + 1):
            if ticket.over:
                break
            ticket.tell(" ".join(kept[:count]))
            self._rest(self._token_s)
        rendered = "\n".join(
            f"{m.role}: {'<image> ' * len(m.pictures)}{sanitised(m.text)}" for m in ticket.prompt.messages
        )
        one = Completion(
            text=" ".join(kept),
            finish="stop" if len(kept) == len(words) else "length",
            token_ids=tuple(range(len(kept))),
            token_logprobs=(0.0,) * len(kept),
            prompt_tokens=len(rendered.split()),
            first_token_s=first_token_s,
            total_s=time.monotonic() - ticket.submitted,
            rendered_prompt=rendered,
            parameters=asdict(ticket.prompt.parameters),
            choices=choices,
            choice_mass=1.0 if choices else 0.0,
        )
        return replace(one, alternatives=(one,) * (ticket.prompt.samples - 1))

    def _rest(self, seconds: float) -> None:
        """Wait; wake when the engine closes."""
        if self._closing.wait(seconds):
            raise EngineUnavailable("the engine is closed", reason="closed")

    def _choices(self, prompt: Prompt, constraint: Choice, text: str) -> dict[str, float]:
        if text not in constraint.options:
            raise EngineRejected("the table's answer is none of the options", reason="constraint")
        given = self._probabilities
        choices = dict(given.get(prompt.messages[-1].text, {}) if isinstance(given, Mapping) else given(prompt))
        if choices and (
            set(choices) != set(constraint.options)
            or not math.isclose(sum(choices.values()), 1)
            or choices[text] < max(choices.values())
        ):
            raise EngineRejected("the table's probabilities do not go with its answer", reason="constraint")
        return choices

    def _text(self, prompt: Prompt) -> str:
        if not isinstance(self._answers, Mapping):
            return self._answers(prompt)
        try:
            return self._answers[prompt.messages[-1].text]
        except KeyError as error:
            raise EngineRejected("the table has no answer to this", reason="no_answer") from error
