"""How a protocol's words are found in what people and devices wrote: headers, and the model's own findings.

Knows scripts, accents and capitals. Does not know which words mean what, nor where a text comes from.
"""

from __future__ import annotations

import functools
import re
import unicodedata

_LATIN = re.compile(r"[^\W\d_]", re.ASCII)


@functools.lru_cache(maxsize=2048)  # the thousands of headers of one study say a few things
def says(text: str, words: tuple[str, ...]) -> bool:
    """Whether a text has a word that begins as one of these, or is one that ends in `$`.

    Accents and capitals do not count: devices drop them. A word of another script may stand anywhere.
    """
    return bool(words) and _pattern(words).search(_folded(text)) is not None


@functools.lru_cache(maxsize=1024)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(_expression, words)))


def _expression(word: str) -> str:
    plain = _folded(word.strip())
    begins = r"(?<![^\W_])" if _LATIN.match(plain) else ""
    ends = r"(?![^\W_])" if plain.endswith("$") else ""
    return begins + re.sub(r"(?:\\[ -])+", r"[\\s_-]+", re.escape(plain.removesuffix("$"))) + ends


def _folded(text: str) -> str:
    """Small letters without marks: ß is ss, full-width letters are plain."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in apart if unicodedata.category(c) != "Mn")
