"""The report's text as the record keeps it: sections, sentences and who wrote them; its canonical bytes.

Knows the schema, its one serialisation and how a saved plain text is aligned with the former revision, so that ids and
origins survive. Does not know reports, users or the database. The canonical form is UTF-8 JSON with sorted keys, no
floats and no spaces: exactly these bytes are hashed, stored and signed.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from record.errors import InvalidRequest

SCHEMA = 1
MAX_CHARACTERS = 50_000
"""A report longer than this is refused."""
BANNER_DRAFT = "AI DRAFT – NOT REVIEWED"  # the house's own words, with an en dash
BANNER_UNSIGNED = "UNSIGNED"
_SPOKEN_BANNERS = re.compile(r"AI\s*DRAFT\s*-[-\s]*NOT\s*REVIEWED", re.IGNORECASE)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")
_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PICTURE = re.compile(r"[0-9a-f]{64}")
_FLAG = re.compile(r"[^\x00-\x1f\x7f]{1,64}")
_MOST = 64


def _seen(text: str) -> str:
    """A text as the eye sees it: without what has no width, every dash a hyphen, wide letters as plain ones."""
    marks = {"Cf", "Mn", "Me"}
    plain = ((c, unicodedata.category(c)) for c in unicodedata.normalize("NFKD", text))
    return "".join("-" if kind == "Pd" or c == "−" else c for c, kind in plain if kind not in marks)


class SectionCode(StrEnum):
    """The sections a report may have, in their order."""

    EXAM = "exam"
    CLINICAL_INFORMATION = "clinical_information"
    TECHNIQUE = "technique"
    COMPARISON = "comparison"
    FINDINGS = "findings"
    IMPRESSION = "impression"
    RECOMMENDATIONS = "recommendations"

    @property
    def title(self) -> str:  # type: ignore[override]  # a section's title is what a heading says, not str.title
        """The heading in plain text."""
        return self.value.replace("_", " ").capitalize()


class Origin(StrEnum):
    """Who wrote a sentence."""

    MACHINE = "machine"
    EDITED = "edited"
    HUMAN = "human"


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence (or line) of a section.

    `source` is the id of the machine sentence it came from; `pictures` the sha256 of the pictures it rests on.
    """

    id: str
    text: str
    origin: Origin
    source: str | None = None
    pictures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """One section, with its sentences in order."""

    code: SectionCode
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True, slots=True)
class Body:
    """What a draft or a report revision says. Immutable; `canonical()` is its only serialisation."""

    sections: tuple[Section, ...]
    language: str = "en"
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        codes = [s.code for s in self.sections]
        if codes != [c for c in SectionCode if c in set(codes)]:
            message = "Sections must be distinct and in the fixed order: " + ", ".join(SectionCode)
            raise InvalidRequest(message)
        if not _LANGUAGE.fullmatch(self.language):
            message = "A language is a tag such as en or zh-Hans (BCP 47)."
            raise InvalidRequest(message)
        texts = [s.text for section in self.sections for s in section.sentences]
        if sum(map(len, texts)) > MAX_CHARACTERS:
            message = f"A report may hold {MAX_CHARACTERS} characters at most."
            raise InvalidRequest(message)
        for text in texts:
            if any(unicodedata.category(c) in {"Cc", "Cs", "Co"} for c in text):
                message = "A sentence is one line of text without control characters."
                raise InvalidRequest(message)
        if _SPOKEN_BANNERS.search(_seen(" ".join(texts))):
            message = "The draft banner is shown with a text, never stored in it. Remove it from the text."
            raise InvalidRequest(message)
        for _, sentence in self.sentences():
            if not _is_of_schema(sentence):
                message = "A sentence's id, source, pictures or flags are not of this schema."
                raise InvalidRequest(message)
        ids = [s.id for section in self.sections for s in section.sentences]
        if len(ids) != len(set(ids)):
            message = "Two sentences bear the same id."
            raise InvalidRequest(message)

    def canonical(self) -> str:
        """The bytes (as text) that are stored, hashed and signed."""
        return json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def digest(self) -> str:
        """sha256 of the canonical bytes, in hex."""
        return sha256(self.canonical())

    def as_dict(self) -> dict[str, Any]:
        """The schema as plain values: what the API shows."""
        return {
            "schema": self.schema,
            "language": self.language,
            "sections": [
                {
                    "code": section.code.value,
                    "sentences": [
                        {
                            "id": s.id,
                            "text": s.text,
                            "origin": s.origin.value,
                            "source": s.source,
                            "pictures": list(s.pictures),
                            "flags": list(s.flags),
                        }
                        for s in section.sentences
                    ],
                }
                for section in self.sections
            ],
        }

    @classmethod
    def from_dict(cls, value: object) -> Body:
        """Read the schema from outside values.

        Raises
        ------
        InvalidRequest
            The value is not a body of this schema.
        """
        try:
            if not isinstance(value, dict) or value["schema"] != SCHEMA:
                raise TypeError
            return cls(
                sections=tuple(
                    Section(
                        SectionCode(section["code"]),
                        tuple(
                            Sentence(
                                id=_string(s["id"]),
                                text=_string(s["text"]),
                                origin=Origin(s["origin"]),
                                source=None if s.get("source") is None else _string(s["source"]),
                                pictures=tuple(_string(p) for p in s.get("pictures", ())),
                                flags=tuple(_string(f) for f in s.get("flags", ())),
                            )
                            for s in section["sentences"]
                        ),
                    )
                    for section in value["sections"]
                ),
                language=_string(value.get("language", "en")),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            message = "This is not a report body of schema 1."
            raise InvalidRequest(message) from None

    @classmethod
    def from_canonical(cls, text: str) -> Body:
        """Read a stored body."""
        return cls.from_dict(json.loads(text))

    def plain(self) -> str:
        """The text a person reads and edits: a heading a section, a line a sentence."""
        blocks = []
        for section in self.sections:
            lines = [f"{section.code.title}:"] + [s.text for s in section.sentences]
            blocks.append("\n".join(lines))
        return "\n\n".join(blocks) + ("\n" if blocks else "")

    def sentences(self) -> Iterable[tuple[SectionCode, Sentence]]:
        """Every sentence with its section, in order."""
        for section in self.sections:
            for sentence in section.sentences:
                yield section.code, sentence

    def section(self, code: SectionCode) -> Section | None:
        """One section, if the body has it."""
        return next((s for s in self.sections if s.code is code), None)


EMPTY = Body(sections=(Section(SectionCode.FINDINGS, ()), Section(SectionCode.IMPRESSION, ())))
"""What a report begun by hand starts from."""


def _is_of_schema(sentence: Sentence) -> bool:
    """Whether the parts of a sentence besides its text are ids, digests and names, and not too many."""
    ids = [sentence.id] if sentence.source is None else [sentence.id, sentence.source]
    return (
        max(len(sentence.pictures), len(sentence.flags)) <= _MOST
        and all(map(_ID.fullmatch, ids))
        and all(map(_PICTURE.fullmatch, sentence.pictures))
        and all(map(_FLAG.fullmatch, sentence.flags))
    )


_HEADING = re.compile(
    r"^\s*("
    + "|".join(re.escape(c.value.replace("_", " ")) for c in SectionCode)
    + r"|recommendation)\s*(?::\s*(.*))?$",
    re.IGNORECASE,
)
"""A section's title at the beginning of a line and a colon, or alone in its line, in any case."""


_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\w+")
_ALIKE = 0.4


def from_plain(text: str, former: Body) -> Body:
    """Align a saved plain text with the former revision.

    A line that stands unchanged keeps its id and origin; one that was made out of a former line keeps its id and becomes
    *edited* where it came from the machine; one that only stands in another's place is new, and *human*. Lines before the first heading belong to findings.

    Parameters
    ----------
    text
        Headings as `Body.plain` writes them, one line a sentence.
    former
        The revision that was edited.
    """
    wanted: dict[SectionCode, list[str]] = {}
    code = SectionCode.FINDINGS
    clean = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    for raw in clean.split("\n"):
        line = raw.strip()
        heading = _HEADING.match(line)
        if heading:
            name = heading.group(1).lower().replace(" ", "_")
            code = SectionCode.RECOMMENDATIONS if name == "recommendation" else SectionCode(name)
            wanted.setdefault(code, [])
            line = (heading.group(2) or "").strip()
        if line:
            wanted.setdefault(code, []).append(line)
    taken = {s.id for _, s in former.sentences()}
    sections = []
    for section_code in SectionCode:
        if section_code not in wanted:
            continue
        old = former.section(section_code)
        sections.append(
            Section(section_code, _align(old.sentences if old else (), wanted[section_code], section_code, taken))
        )
    return Body(sections=tuple(sections), language=former.language)


def reconcile(saved: Body, former: Body) -> Body:
    """Settle the origins of a structured save: a client may not claim that the machine wrote what it did not.

    A sentence whose id stands in the former revision with the same text keeps everything of the former; with another
    text it keeps its source and becomes *edited* where it came from the machine; any other sentence is *human*.
    """
    known = {s.id: s for _, s in former.sentences()}
    return replace(
        saved,
        sections=tuple(
            Section(section.code, tuple(_settle(s, known.get(s.id)) for s in section.sentences))
            for section in saved.sections
        ),
    )


def _settle(sentence: Sentence, former: Sentence | None) -> Sentence:
    if former is None:
        return Sentence(id=sentence.id, text=sentence.text, origin=Origin.HUMAN)
    return former if former.text == sentence.text else _edited(former, sentence.text)


def _edited(former: Sentence, text: str) -> Sentence:
    if former.origin is Origin.HUMAN:
        return replace(former, text=text, flags=())
    return replace(former, text=text, origin=Origin.EDITED, source=former.source or former.id, flags=())


def _align(old: Sequence[Sentence], lines: Sequence[str], code: SectionCode, taken: set[str]) -> tuple[Sentence, ...]:
    result: list[Sentence] = []
    matcher = difflib.SequenceMatcher(a=[s.text for s in old], b=list(lines), autojunk=False)
    for tag, a0, a1, b0, b1 in matcher.get_opcodes():
        if tag == "equal":
            result.extend(old[a0:a1])
            continue
        rest = a0
        for line in lines[b0:b1]:
            like = next((at for at in range(rest, a1) if _are_alike(old[at].text, line)), None)
            if like is None:
                result.append(Sentence(id=_fresh_id(code, taken), text=line, origin=Origin.HUMAN))
            else:
                result.append(_edited(old[like], line))
                rest = like + 1
    return tuple(result)


def _are_alike(former: str, text: str) -> bool:
    """Whether one sentence was made out of the other: enough of their words, or Chinese characters, are the same."""
    words = difflib.SequenceMatcher(a=_WORDS.findall(former.lower()), b=_WORDS.findall(text.lower()), autojunk=False)
    return words.ratio() >= _ALIKE


def _fresh_id(code: SectionCode, taken: set[str]) -> str:
    number = 1
    while f"{code.value}-h{number}" in taken:
        number += 1
    taken.add(f"{code.value}-h{number}")
    return f"{code.value}-h{number}"


def sha256(text: str) -> str:
    """sha256 of a text's UTF-8 bytes, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # a lone surrogate, which JSON can spell, is no text: UnicodeEncodeError is a ValueError
    return value
