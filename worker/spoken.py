"""The language a text is evidently in: Chinese by its script, English and Spanish by their small words.

Knows the languages that drafts are written in. Does not know what is said, and says nothing where it is not clear.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from record.headings import folded

_LEAST_WORDS = 8
"""Fewer words, or ideographs, do not show what language a text is in."""
_IDEOGRAPH = re.compile(r"[\u3400-\u9fff]")
_WORD = re.compile(r"[a-z]+")
_SMALL_WORDS: Mapping[str, frozenset[str]] = {
    "en": frozenset(
        _WORD.findall(
            "the of is are and with there in was were this that which or at on by for from to it has have be been"
        )
    ),
    "es": frozenset(_WORD.findall("el la los las de del en y con se un una es sin por que su sus ni esta")),
}
"""Words that carry the grammar of one language, folded, and that the other has not."""


def spoken(text: str) -> str | None:
    """The language a text is evidently in, or None: Chinese by its script, the others by their small words."""
    ideographs = len(_IDEOGRAPH.findall(text))
    if mostly_ideographs(text):
        return "zh" if ideographs >= _LEAST_WORDS else None
    words = _WORD.findall(folded(text))
    if len(words) < _LEAST_WORDS or 4 * ideographs > len(words):
        return None
    found = {language: sum(w in small for w in words) for language, small in _SMALL_WORDS.items()}
    most, second = sorted(found, key=lambda language: -found[language])[:2]
    clear = found[most] >= min(4, max(2, len(words) / 4)) and 4 * found[second] <= found[most]
    return most if clear else None


def mostly_ideographs(text: str) -> bool:
    """Whether a text is in Chinese script, Latin terms and numbers apart."""
    return 3 * len(_IDEOGRAPH.findall(text)) > len(text)


def is_foreign(text: str, language: str) -> bool:
    """Whether a text is clearly not in a language; without any ideograph it is no Chinese."""
    clear = spoken(text)
    if clear is None and language == "zh":
        return not _IDEOGRAPH.search(text) and len(_WORD.findall(folded(text))) >= _LEAST_WORDS
    return clear is not None and clear != language
