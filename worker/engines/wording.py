"""Keeps control words out of what people and headers typed.

A prompt's text may come from an order or a study description; a role marker or picture placeholder in it would speak
in another's name, or claim a picture that is not there. Does not know tokenizers: their words are handed in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_MARKER = re.compile(r"<\|[^|<>\n]{0,64}\|>|<\s*/?\s*(?:image|s)(?:_\d+)?\s*>", re.IGNORECASE)


def sanitised(text: str, control_words: Iterable[str] = ()) -> str:
    """Return the text with every control word replaced by a space.

    Parameters
    ----------
    control_words
        The tokenizer's special tokens, in addition to what all families share (``<|…|>``, ``<image>``, ``<s>``).
    """
    words = sorted({word for word in control_words if word.strip()}, key=len, reverse=True)
    extra = re.compile("|".join(map(re.escape, words)), re.IGNORECASE) if words else None
    while True:  # what is left may form a new marker; every round is shorter in markers
        cleaned = _MARKER.sub(" ", text)
        if extra is not None:
            cleaned = extra.sub(" ", cleaned)
        if cleaned == text:
            return text
        text = cleaned
