"""A closed question to a model: which token sequences say each option, and how probable each of them is.

Options are compared by whole token sequences, never by first tokens: to a byte-level or a SentencePiece vocabulary
many words begin alike ("▁是" and "▁否" may both begin with the bare space), and the first token of a word that is cut in
pieces begins many others. Sequences are scored likeliest first, and those that can no longer matter are left out.
Knows the tokenizer. Does not know models, batches or threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from record.errors import EngineRejected
from worker.engines.contract import Choice
from worker.engines.spelling import spellings

Path = tuple[int, ...]

NEGLIGIBLE = 1e-6
"""A spelling this much less probable than the likeliest is not worth a pass of the model."""

_ANCHOR = "\n"
"""Words are encoded behind a line's end, as an answer begins; some tokenizers put a space before a text's first word."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What came of it; see `worker.engines.contract.Completion`."""

    option: str
    token_ids: Path
    token_logprobs: tuple[float, ...]
    probabilities: dict[str, float]
    mass: float


class Question:
    """The sequences of one question's options, and what is known of their probability so far."""

    def __init__(self, options: tuple[str, ...], sequences: Mapping[Path, str]) -> None:
        self._options = options
        self._sequences = sequences
        self._known: dict[Path, float] = {}  # a sequence's beginning → the log-probability of its last token
        self._followers: dict[Path, set[int]] = {}
        for sequence in sequences:
            for length, token in enumerate(sequence):
                self._followers.setdefault(sequence[:length], set()).add(token)

    @property
    def longest(self) -> int:
        """How many tokens the longest sequence has."""
        return max(map(len, self._sequences))

    def followers(self, path: Path) -> list[int]:
        """Return the tokens whose probability after `path` is asked for."""
        return sorted(self._followers[path])

    def note(self, path: Path, logprobs: Iterable[float]) -> None:
        """Keep what the model gives to each of the `followers` of `path`; the first word on it stays."""
        for token, logprob in zip(self.followers(path), logprobs, strict=True):
            self._known.setdefault((*path, token), logprob)

    def wanted(self, count: int) -> list[Path]:
        """Return up to `count` paths the model is to be led along next, likeliest first; none when all is known."""
        best = max((self._logprob(s) for s in self._sequences if s in self._known), default=-math.inf)
        left = sorted(
            (-self._logprob(s), s)
            for s in self._sequences
            if s not in self._known and self._logprob(s) > best + math.log(NEGLIGIBLE)
        )
        return list(dict.fromkeys(sequence[:-1] for _, sequence in left))[:count]

    def chosen(self) -> Chosen:
        """Return the answer, once nothing is wanted any more."""
        spelled = {option: [s for s, says in self._sequences.items() if says == option] for option in self._options}
        scores = {
            option: _log_sum([self._logprob(s) for s in sequences if s in self._known])
            for option, sequences in spelled.items()
        }
        mass = _log_sum(scores.values())
        option = max(self._options, key=lambda one: scores[one])
        sequence = max((s for s in spelled[option] if s in self._known), key=self._logprob)
        return Chosen(
            option=option,
            token_ids=sequence,
            token_logprobs=tuple(self._known[sequence[: n + 1]] for n in range(len(sequence))),
            probabilities={one: math.exp(score - mass) for one, score in scores.items()},
            mass=math.exp(mass),
        )

    def _logprob(self, sequence: Path) -> float:
        """Return a sequence's log-probability as far as it is known: never less than the whole one's."""
        return sum(self._known.get(sequence[: n + 1], 0.0) for n in range(len(sequence)))


def question(tokenizer: Any, choice: Choice) -> Question:
    """Return the question that a choice puts to a model with this tokenizer.

    Raises
    ------
    EngineRejected
        An option cannot be written in its vocabulary, or two are written alike.
    """
    sequences: dict[Path, str] = {}
    for option in choice.options:
        written = {
            spelling: [path for space in ("", " ") if (path := _encoded(tokenizer, space + spelling)) is not None]
            for spelling in spellings(option)
        }
        if not written[option]:
            raise EngineRejected("an option cannot be written in the model's vocabulary", reason="constraint")
        for path in chain.from_iterable(written.values()):
            if sequences.setdefault(path, option) != option:
                raise EngineRejected("two options are the same tokens", reason="constraint")
    return Question(choice.options, sequences)


def _encoded(tokenizer: Any, spelling: str) -> Path | None:
    """Return the tokens of a spelling at the beginning of an answer; None if they are not just that."""
    before = tokenizer(_ANCHOR, add_special_tokens=False)["input_ids"]
    both = tokenizer(_ANCHOR + spelling, add_special_tokens=False)["input_ids"]
    path = tuple(both[len(before) :])
    told = tokenizer.decode(both, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    whole = both[: len(before)] == before and told.strip() == spelling.strip()
    return path if whole and not set(path) & set(tokenizer.all_special_ids) else None


def _log_sum(logprobs: Iterable[float]) -> float:
    values = list(logprobs)
    top = max(values, default=-math.inf)
    return top if math.isinf(top) else top + math.log(sum(math.exp(value - top) for value in values))
