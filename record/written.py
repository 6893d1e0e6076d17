"""What somebody sends to be saved: read into sections and lines, and refused while nothing is locked.

Knows how long a text may be, which characters nobody sees, and where a section begins. Does not know the former text nor
who wrote what (`origins`). A stored body is never measured here: what was once accepted stays readable.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from record.body import MAX_CHARACTERS, Body, Section, SectionCode, require_length
from record.errors import InvalidRequest
from record.headings import heading_of

MAX_SENTENCES = 300
"""A report of more sentences is refused when it is saved."""
_DROPPED = re.compile("[\ufeff\u00ad]")
"""A byte order mark and a soft hyphen come with what was pasted; without them a text looks the same."""
_BREAKS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and marks by category, and yet nobody sees them."""
_JOINERS = frozenset("\u200c\u200d")
_JOINED = re.compile("[\u0600-\u109f\u1780-\u18af\ua8e0-\ua8ff\ufb50-\ufdff\ufe70-\ufefc]")
"""Arabic, Indic and other scripts in which a joiner behind a letter changes its shape."""


@dataclass(frozen=True, slots=True)
class Written:
    """A plain text: its sections in the fixed order, a line a sentence."""

    sections: tuple[tuple[SectionCode, tuple[str, ...]], ...]


def read(text: str) -> Written:
    """Read a plain text. Lines before the first heading belong to findings.

    Raises
    ------
    InvalidRequest
        It is too long, or a line holds a character that nobody sees.
    """
    if len(text) > 4 * MAX_CHARACTERS:
        require_length([text])
    lines: dict[SectionCode, list[str]] = {}
    code = SectionCode.FINDINGS
    clean = unicodedata.normalize("NFC", _BREAKS.sub("\n", _DROPPED.sub("", text))).replace("\t", " ")
    numbered = [(number, line) for number, raw in enumerate(clean.split("\n"), start=1) if (line := raw.strip())]
    if len(numbered) > 2 * MAX_SENTENCES:  # headings have lines too
        _measure([line for _, line in numbered])
    for number, typed in numbered:
        line = typed
        if unseen := unseen_in(line):
            message = f"Line {number} holds the character {unseen}, which nobody sees. Remove it."
            raise InvalidRequest(message, line=number)
        while heading := heading_of(line):
            code, line = heading
            lines.setdefault(code, [])
        if line:
            lines.setdefault(code, []).append(line)
    _measure([line for each in lines.values() for line in each])
    return Written(tuple((code, tuple(lines[code])) for code in SectionCode if code in lines))


def taken(body: Body) -> Body:
    """A structured body as it may be saved.

    Raises
    ------
    InvalidRequest
        It is too long, or a sentence is empty or holds a character that nobody sees.
    """
    _measure([sentence.text for _, sentence in body.sentences()])
    for number, (_, sentence) in enumerate(body.sentences(), start=1):
        text = _DROPPED.sub("", sentence.text)
        if not text.strip():
            message = f"Sentence {number} is empty. Leave it out."
            raise InvalidRequest(message, sentence=number)
        if unseen := unseen_in(text):
            message = f"Sentence {number} holds the character {unseen}, which nobody sees. Remove it."
            raise InvalidRequest(message, sentence=number)
    sections = (
        Section(section.code, tuple(replace(s, text=_DROPPED.sub("", s.text)) for s in section.sentences))
        for section in body.sections
    )
    return replace(body, sections=tuple(sections))


def unseen_in(text: str) -> str | None:
    """The code point of the first character that nobody sees, such as U+202E; joiners stay where a script needs them."""
    if text.isascii() and text.isprintable():
        return None
    for at, c in enumerate(text):
        if unicodedata.category(c) not in _UNSEEN and c not in BLANK:
            continue
        if c not in _JOINERS or at == 0 or not _JOINED.match(text[at - 1]):
            return f"U+{ord(c):04X}"
    return None


def _measure(texts: Sequence[str]) -> None:
    if len(texts) > MAX_SENTENCES:
        message = f"A report may hold {MAX_SENTENCES} sentences at most, one a line; this one holds {len(texts)}."
        raise InvalidRequest(message, sentences=len(texts))
    require_length(texts)
