"""The answer that every engine hands out: one side waits, the other side brings text.

Knows deadlines, cancelling and streaming between threads. Does not know who produces the text, or how.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from itertools import pairwise

from record.errors import EngineRejected
from worker.engines.contract import Completion, Prompt


def require_question(prompt: Prompt) -> None:
    """Refuse what no engine here can answer.

    Raises
    ------
    EngineRejected
        Nothing is asked, or the constraint offers no choice.
    """
    if prompt.constraint is not None:
        _require_choice(prompt.constraint.options)
        if prompt.samples != 1:
            raise EngineRejected("a choice is made once: samples is 1", reason="constraint")
    if not prompt.messages or prompt.messages[-1].role != "user":
        raise EngineRejected("the last message is not the user's", reason="no_question")


def _require_choice(options: tuple[str, ...]) -> None:
    if len(options) < 2 or any(not option or option != option.strip() for option in options):
        raise EngineRejected("a choice is between two options or more, each with words in it", reason="constraint")
    folded = sorted(option.casefold() for option in options)
    if any(later.startswith(former) for former, later in pairwise(folded)):  # sorted: a beginning stands right before
        raise EngineRejected("one option is, or begins, another", reason="constraint")


class Ticket:
    """An `Answer`. The engine's side calls `tell`, then `finish` or `fail`; the first outcome stays."""

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        self.submitted = time.monotonic()
        self.deadline = self.submitted + prompt.deadline_s
        self._changed = threading.Condition()
        self._text = ""
        self._completion: Completion | None = None
        self._error: BaseException | None = None

    # ---- for whoever asked

    def result(self, timeout_s: float) -> Completion:
        """Wait for the answer; see `Answer.result`."""
        with self._changed:
            self._wait(time.monotonic() + timeout_s, known=None)
            if self._error is not None:
                raise self._error
            if self._completion is None:
                raise TimeoutError(f"no answer within {timeout_s:g} s")
            return self._completion

    def tokens(self) -> Iterator[str]:
        """Yield the text as it comes; see `Answer.tokens`."""
        known = 0
        while True:
            with self._changed:
                self._wait(self.deadline, known=known)
                text, done, error = self._text, self._completion is not None, self._error
            if len(text) > known:
                yield text[known:]
                known = len(text)
            elif error is not None:
                raise error
            elif done:
                return

    def cancel(self) -> None:
        """Give up; see `Answer.cancel`."""
        self.fail(CancelledError())

    # ---- for the engine

    @property
    def over(self) -> bool:
        """Nobody waits any more: answered, failed, cancelled, or past its deadline (which this notes)."""
        if time.monotonic() >= self.deadline:
            self.fail(TimeoutError("the prompt's deadline passed"))
        with self._changed:
            return self._over

    @property
    def left_s(self) -> float:
        """Seconds to the deadline; negative after it."""
        return self.deadline - time.monotonic()

    def tell(self, text: str) -> None:
        """Show the text so far; one that is no longer than what was shown before is ignored."""
        with self._changed:
            if not self._over and len(text) > len(self._text):
                self._text = text
                self._changed.notify_all()

    def finish(self, completion: Completion) -> None:
        """Bring the answer."""
        with self._changed:
            if not self._over:
                self._completion, self._text = completion, completion.text
                self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Bring an error instead."""
        with self._changed:
            if not self._over:
                self._error = error
                self._changed.notify_all()

    @property
    def _over(self) -> bool:
        return self._completion is not None or self._error is not None

    def _wait(self, until: float, *, known: int | None) -> None:
        """Wait, with the condition held, for the end, for more than `known` characters, or for a time to pass."""
        while not self._over and (known is None or len(self._text) <= known):
            now = time.monotonic()
            if now >= self.deadline:
                self._error = TimeoutError("the prompt's deadline passed")
                self._changed.notify_all()
            elif now >= until:
                return
            else:
                self._changed.wait(min(until, self.deadline) - now)
