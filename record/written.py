"""What somebody sends to be saved: read into sections and lines, and refused while nothing is locked.

Knows how long a text may be, which characters nobody sees, and where a section begins. Does not know the former text nor
who wrote what (`origins`). A stored body is never measured here: what was once accepted stays readable.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from record.body import BANNER_UNSIGNED, MAX_CHARACTERS, Body, Section, SectionCode, require_length, seen
from record.errors import InvalidRequest
from record.headings import heading_of

MAX_SENTENCES = 300
"""A report of more sentences is refused when it is saved."""
DROPPED = re.compile("[\ufeff\u00ad\ufe00-\ufe0f]")
"""A byte order mark, a soft hyphen and the choice of a glyph come with what was pasted; without them a text looks the same."""
_BREAKS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and marks by category, and yet nobody sees them."""
_JOINERS = frozenset("\u200c\u200d")
_JOINED = re.compile("[\u0600-\u109f\u1780-\u18af\ua8e0-\ua8ff\ufb50-\ufdff\ufe70-\ufefc]")
"""Arabic, Indic and other scripts in which a joiner behind a letter changes its shape."""
_IGNORED = re.compile("[\u180b-\u180f\u2065\ufff0-\ufff8\U000e0000-\U000e0fff]")
"""What a program that draws text leaves out, whatever category it has (Default_Ignorable_Code_Point)."""
_VARIED = re.compile("[\u1800-\u18af\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
"""Mongolian letters and ideographs, of which a selector behind them takes another form."""
_SELECTORS = re.compile("[\u180b-\u180d\u180f\U000e0100-\U000e01ef]")
_BANNERS = re.compile("AI[^a-z]{0,20}DRAFT[^a-z]{0,20}NOT[^a-z]{0,20}REVIEWED", re.IGNORECASE)
_BANNER_ALONE = re.compile(rf"[\W_]*{BANNER_UNSIGNED}[\W_]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Written:
    """A plain text: its sections in the fixed order, a line a sentence."""

    sections: tuple[tuple[SectionCode, tuple[str, ...]], ...]


def read(text: str) -> Written:
    """Read a plain text. Lines before the first heading belong to findings.

    Raises
    ------
    InvalidRequest
        It is too long, holds a banner of ours, or a line holds a character that nobody sees.
    """
    if len(text) > 4 * MAX_CHARACTERS:
        require_length([text])
    lines: dict[SectionCode, list[str]] = {}
    code = SectionCode.FINDINGS
    clean = unicodedata.normalize("NFC", _BREAKS.sub("\n", DROPPED.sub("", text))).replace("\t", " ")
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
    texts = [line for each in lines.values() for line in each]
    _measure(texts)
    _require_no_banner(texts)
    return Written(tuple((code, tuple(lines[code])) for code in SectionCode if code in lines))


def taken(body: Body) -> Body:
    """A structured body as it may be saved.

    Raises
    ------
    InvalidRequest
        It is too long, holds a banner of ours, or a sentence is empty, begins with a heading or holds a character that
        nobody sees.
    """
    texts = [DROPPED.sub("", sentence.text) for _, sentence in body.sentences()]
    _measure(texts)
    _require_no_banner(texts)
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            message = f"Sentence {number} is empty. Leave it out."
            raise InvalidRequest(message, sentence=number)
        if unseen := unseen_in(text):
            message = f"Sentence {number} holds the character {unseen}, which nobody sees. Remove it."
            raise InvalidRequest(message, sentence=number)
        if heading_of(text.strip()):  # as a plain text it would begin a section, and so say something else
            message = f"Sentence {number} begins with the heading of a section. Put its words into that section."
            raise InvalidRequest(message, sentence=number)
    sections = (
        Section(section.code, tuple(replace(s, text=DROPPED.sub("", s.text)) for s in section.sentences))
        for section in body.sections
    )
    return replace(body, sections=tuple(sections))


def unseen_in(text: str) -> str | None:
    """The code point of the first character that nobody sees, such as U+202E; joiners stay where a script needs them."""
    if text.isascii() and text.isprintable():
        return None
    for at, c in enumerate(text):
        if unicodedata.category(c) not in _UNSEEN and c not in BLANK and not _IGNORED.match(c):
            continue
        if _SELECTORS.match(c) and at and _VARIED.match(text[at - 1]):
            continue
        if c not in _JOINERS or at == 0 or not _JOINED.match(text[at - 1]):
            return f"U+{ord(c):04X}"
    return None


def is_banner(text: str) -> bool:
    """Whether a sentence is what we put over unsigned words, however it is spelled."""
    return bool(_BANNERS.search(seen(text)) or _BANNER_ALONE.fullmatch(seen(text)))


def _require_no_banner(texts: Sequence[str]) -> None:
    if any(map(is_banner, texts)) or is_banner(" ".join(texts)):
        message = "The draft banner is shown with a text, never stored in it. Remove it from the text."
        raise InvalidRequest(message)


def _measure(texts: Sequence[str]) -> None:
    if len(texts) > MAX_SENTENCES:
        message = f"A report may hold {MAX_SENTENCES} sentences at most, one a line; this one holds {len(texts)}."
        raise InvalidRequest(message, sentences=len(texts))
    require_length(texts)
