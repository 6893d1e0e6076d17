"""The rows of one running batch: chooses each row's next token, keeps its probability, and says when it is done.

Greedy and drawn rows, with whatever parameters, share a batch; a drawn row has a generator of its own, so its words
depend on its seed and not on its mates. A row may also be led along words that are given. Does not know prompts or
models, only logits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from worker.engines.contract import Finish, Parameters
from worker.engines.local.choices import Path, Question
from worker.engines.ticket import Ticket


class Row:
    """One answer being written."""

    def __init__(self, ticket: Ticket, parameters: Parameters, room: int, *, leads: bool = True) -> None:
        self.ticket = ticket
        self.parameters = parameters
        self.max_new_tokens = max(1, min(parameters.max_new_tokens, room))
        self.leads = leads
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.finish: Finish | None = None
        self.broken = False
        self.first_token_s = 0.0
        self._dice = torch.Generator().manual_seed(parameters.seed)

    @property
    def ended(self) -> bool:
        """No further token is wanted: finished, broken, or nobody waits."""
        return self.finish is not None or self.broken or self.ticket.over

    def adjust(self, scores: torch.Tensor, _logprobs: torch.Tensor) -> torch.Tensor:
        """Return logits (vocabulary,) whose largest is the token to take.

        Adding Gumbel noise to log-probabilities and taking the largest is drawing from them.
        """
        penalty, temperature = self.parameters.repetition_penalty, self.parameters.temperature
        if penalty != 1.0 and self.token_ids:
            used = torch.tensor(sorted(set(self.token_ids)), device=scores.device)
            chosen = scores[used]
            scores = scores.index_put((used,), torch.where(chosen < 0, chosen * penalty, chosen / penalty))
        if temperature > 0:
            uniform = torch.rand(scores.shape[0], generator=self._dice).clamp_(1e-20, 1 - 1e-7)  # (vocabulary,)
            scores = scores / temperature - torch.log(-torch.log(uniform)).to(scores.device)
        return scores

    def take(self, token: int, logprob: float, end_ids: frozenset[int]) -> None:
        """Add a chosen token."""
        if not self.token_ids:
            self.first_token_s = time.monotonic() - self.ticket.submitted
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        if token in end_ids:
            self.finish = "stop"
        elif len(self.token_ids) >= self.max_new_tokens:
            self.finish = "length"


class Led:
    """A row whose words are given: it writes nothing, and tells what the model gives to the options on the way."""

    leads = False

    def __init__(self, ticket: Ticket, question: Question, path: Path) -> None:
        self.ticket = ticket
        self.max_new_tokens = len(path) + 1
        self.finish: Finish | None = None
        self.broken = False
        self.first_token_s = 0.0
        self._question = question
        self._path = path
        self._steps = 0

    @property
    def ended(self) -> bool:
        """See `Row.ended`."""
        return self.finish is not None or self.broken or self.ticket.over

    def adjust(self, scores: torch.Tensor, logprobs: torch.Tensor) -> torch.Tensor:
        """Note the options' log-probabilities (vocabulary,) at this step, and return logits for the path's token."""
        if self.ended:
            return scores
        before = self._path[: self._steps]
        self._question.note(before, logprobs[self._question.followers(before)].tolist())
        if before == self._path:
            return scores
        bent = torch.full_like(scores, -torch.inf)
        bent[self._path[self._steps]] = 0.0
        return bent

    def take(self, _token: int, _logprob: float, _end_ids: frozenset[int]) -> None:
        """Go one step on."""
        self._steps += 1
        if self._steps == 1:
            self.first_token_s = time.monotonic() - self.ticket.submitted
        if self._steps == self.max_new_tokens:
            self.finish = "stop"


class Rows:
    """All rows of a batch, in their order; hooks into the library's decoding loop."""

    def __init__(
        self,
        rows: Sequence[Row | Led],
        end_ids: frozenset[int],
        told: Callable[[Row], None],
        closing: Callable[[], bool],
    ) -> None:
        self.rows = rows
        self.end_ids = end_ids
        self.told = told
        self.closing = closing
        self._logprobs = torch.empty(0)
        self.choose: LogitsProcessor = _Choose(self)
        self.watch: StoppingCriteria = _Watch(self)

    def adjust(self, scores: torch.Tensor) -> torch.Tensor:
        """Keep the model's own probabilities of this step, then let every row bend its logits (rows, vocabulary)."""
        scores = scores.float()
        finite = torch.isfinite(scores).all(dim=1).tolist()
        for row, fine in zip(self.rows, finite, strict=True):
            row.broken = row.broken or not fine
        self._logprobs = torch.log_softmax(scores, dim=-1)  # (rows, vocabulary)
        bent = [row.adjust(line, own) for row, line, own in zip(self.rows, scores, self._logprobs, strict=True)]
        return torch.nan_to_num(torch.stack(bent))

    def observe(self, tokens: torch.Tensor) -> list[bool]:
        """Note the tokens (rows,) that were taken, and return which rows are done."""
        logprobs = self._logprobs.gather(1, tokens[:, None])[:, 0].tolist()
        closing = self.closing()
        done = []
        for row, token, logprob in zip(self.rows, tokens.tolist(), logprobs, strict=True):
            if not row.ended:
                row.take(token, logprob, self.end_ids)
                if isinstance(row, Row):
                    self.told(row)
            done.append(closing or row.ended)
        return done


class _Choose(LogitsProcessor):
    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __call__(self, _input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return self._rows.adjust(scores)


class _Watch(StoppingCriteria):
    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __call__(self, input_ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
        return torch.tensor(self._rows.observe(input_ids[:, -1]), device=input_ids.device)
