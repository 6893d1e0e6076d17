"""What an engine is: prompts in, text out.

Every engine (local, remote, canned) keeps this contract, and one test suite holds it to all of them. Does not know
DICOM, studies or the database, nor how an engine comes by its answers. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One frame as the model is shown it.

    Attributes
    ----------
    digest
        SHA-256 (hexadecimal) of the stored PNG; pictures of equal digest are the same picture.
    pixels
        uint8, shape (rows, columns, 3).
    """

    digest: str
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; its pictures come before its text."""

    role: Role
    text: str
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True, slots=True)
class Parameters:
    """How text is chosen.

    Attributes
    ----------
    temperature
        0 is greedy; above it, tokens are drawn with `seed`, whoever else shares the batch.
    repetition_penalty
        Counts the answer's own tokens, never the prompt's; 1 is none.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """A closed question: the answer is one of these, and how probable each was is told with it.

    An option is said by an answer that begins with its words, in lower, capital or upper case, with or without a space
    before. No other wording is guessed at; `Completion.choice_mass` tells how often the model would have used one.

    Attributes
    ----------
    options
        At least two, as they are to stand in the answer, such as ``("yes", "no")``, ``("是", "否")``; distinct whatever
        their case, and none the beginning of another, since what begins with both says neither.
    """

    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question to an engine.

    Attributes
    ----------
    samples
        How many answers; the first is the completion, the others its `alternatives`, drawn with the seeds that follow.
    constraint
        What the answer must be one of; `parameters` then change nothing, and `samples` is 1. None leaves the words free.
    deadline_s
        Seconds after `Engine.submit` at which the answer is no longer wanted.
    alone
        Share no batch: this prompt is suspected of harming its mates.
    """

    messages: tuple[Message, ...]
    parameters: Parameters = Parameters()
    samples: int = 1
    constraint: Choice | None = None
    deadline_s: float = 300.0
    alone: bool = False

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures, in the order in which the model sees them."""
        return tuple(picture for message in self.messages for picture in message.pictures)


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer, with what is needed to say later how it came about.

    Attributes
    ----------
    finish
        ``stop``: the model ended it; ``length``: it was cut at `Parameters.max_new_tokens`.
    token_ids, token_logprobs
        The answer's tokens (the end token included) and the model's own log-probability of each, before temperature
        and penalty; empty where an engine does not tell. Under a `Choice`, those of the option's likeliest spelling.
    first_token_s, total_s
        Seconds from submission.
    rendered_prompt
        The text the model was given, picture placeholders not expanded.
    parameters
        What was really used.
    batch_size, batch_position
        How many rows ran together, and which one this was.
    choices
        Under a `Choice`, the probability of each option given that one of them is said, by the model itself, before
        temperature and penalty; they sum to 1, and `text` is the most probable. Empty where an engine does not tell.
    choice_mass
        How much of the model's own probability lay on the options together: near 0, the question did not fit the model.
    """

    text: str
    finish: Finish
    token_ids: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    prompt_tokens: int
    first_token_s: float
    total_s: float
    rendered_prompt: str
    parameters: Mapping[str, Any]
    batch_size: int = 1
    batch_position: int = 0
    alternatives: tuple[Completion, ...] = ()
    choices: Mapping[str, float] = field(default_factory=dict)
    choice_mass: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineIdentity:
    """Which model answers, exactly, and what runs it.

    Attributes
    ----------
    weights_digest
        One SHA-256 over the sorted list of `files`; empty where it cannot be known.
    files
        SHA-256 of every weight, configuration, tokenizer, processor and template file, by name.
    where
        ``cpu``, the accelerator's name, or a remote engine's host.
    """

    model: str
    revision: str
    architecture: str
    weights_digest: str
    dtype: str
    where: str
    files: Mapping[str, str] = field(default_factory=dict)
    software: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the identity as plain values, fit for JSON."""
        return asdict(self)


class Answer(Protocol):
    """One question on its way."""

    def result(self, timeout_s: float) -> Completion:
        """Wait for the answer.

        Raises
        ------
        TimeoutError
            It has not come within `timeout_s`, or the prompt's deadline has passed.
        concurrent.futures.CancelledError
            It was cancelled.
        EngineUnavailable, EngineRejected
            The engine is away, or refuses the prompt. With the fact ``prompt=True`` the engine is there and only
            failed on this prompt.
        """

    def tokens(self) -> Iterator[str]:
        """Yield the answer piece by piece; together the pieces are the text. Ends, or raises, as `result` does."""

    def cancel(self) -> None:
        """Say that the answer is no longer wanted; harmless when it has come already."""


class Engine(Protocol):
    """Answers prompts with text. Safe to call from many threads."""

    @property
    def identity(self) -> EngineIdentity:
        """Which model this is."""

    @property
    def slots(self) -> int:
        """How many prompts it is good to have on their way at once."""

    def submit(self, prompt: Prompt) -> Answer:
        """Take a prompt and return at once.

        Raises
        ------
        EngineUnavailable
            The engine is closed or broken.
        EngineRejected
            It can never answer such a prompt.
        """

    def close(self) -> None:
        """Stop, and let every waiting answer fail with `EngineUnavailable`."""
