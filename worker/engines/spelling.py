"""How the options of a closed question may be said, and which one was.

Knows words. Does not know tokenizers, models or servers: what they told is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Alternative:
    """One token that an answer could have begun with.

    Attributes
    ----------
    spoken
        Its UTF-8 bytes, which need not be whole characters.
    """

    spoken: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What an answer's first token says; see `worker.engines.contract.Completion`."""

    option: str
    taken: Alternative
    choices: dict[str, float]
    mass: float


def spellings(option: str) -> list[str]:
    """Return an option in each case that an answer may begin in: as written, lower, capital, upper."""
    first, rest = option[0], option[1:]
    return list(dict.fromkeys((option, first.lower() + rest, first.upper() + rest, option.upper())))


def heard(options: tuple[str, ...], alternatives: Iterable[Alternative]) -> Heard | None:
    """Return what the alternatives to an answer's first token say; each speaks for the option that it says or begins.

    None if they cannot tell: there are too few of them to have compared anything, none speaks for an option, or one
    speaks for several, whose shares only the next token would tell.
    """
    alternatives = tuple(alternatives)
    spoken: dict[str, list[Alternative]] = {option: [] for option in options}
    for alternative in alternatives:
        begun = _begun(options, alternative.spoken)
        if len(begun) > 1:
            return None
        for option in begun:
            spoken[option].append(alternative)
    masses = {option: sum(math.exp(each.logprob) for each in own) for option, own in spoken.items()}
    mass = sum(masses.values())
    if len(alternatives) < len(options) or mass <= 0:
        return None
    option = max(options, key=lambda one: masses[one])
    taken = max(spoken[option], key=lambda each: each.logprob)
    return Heard(option, taken, {one: own / mass for one, own in masses.items()}, mass)


def read(options: tuple[str, ...], text: str) -> str | None:
    """Return the option that a text begins with, as whole words ("normal" is no "no"); None if it begins with none."""
    text = text.lstrip()
    for option in options:
        for spelling in spellings(option):
            if text.startswith(spelling) and not text[len(spelling) :][:1].isalnum():
                return option
    return None


def _begun(options: tuple[str, ...], spoken: bytes) -> list[str]:
    word = spoken.removeprefix(b" ")
    if not word:
        return []  # a bare space begins every answer
    return [option for option in options if any(one.encode().startswith(word) for one in spellings(option))]
