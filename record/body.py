"""The report's text as the record keeps it: sections, sentences and who wrote them; its canonical bytes.

Knows the schema and its one serialisation. Does not know how a text is read (`written`), who wrote which sentence
(`origins`), reports, users or the database. The canonical form is UTF-8 JSON with sorted keys, no floats and no spaces:
exactly these bytes are hashed, stored and signed.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
_DRAFT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MOST = 64


def seen(text: str) -> str:
    """A text as the eye sees it: without what has no width, every dash a hyphen, wide letters as plain ones."""
    marks = {"Cf", "Mn", "Me"}
    plain = ((c, unicodedata.category(c)) for c in unicodedata.normalize("NFKD", text))
    return "".join("-" if kind == "Pd" or c == "−" else c for c, kind in plain if kind not in marks)


def require_length(texts: Iterable[str]) -> None:
    """Refuse sentences that are more than a report may hold."""
    if sum(map(len, texts)) > MAX_CHARACTERS:
        message = f"A report may hold {MAX_CHARACTERS} characters at most."
        raise InvalidRequest(message)


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

    `source` is the id of the machine sentence it came from, `draft` the draft that sentence stands in, where it is another
    one than the report was opened from (ids repeat between drafts); `pictures` the sha256 of the pictures it rests on.
    """

    id: str
    text: str
    origin: Origin
    source: str | None = None
    pictures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    draft: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As plain values. Without a `draft` the key is left out, as in all that was stored before there was one."""
        plain = {
            "id": self.id,
            "text": self.text,
            "origin": self.origin.value,
            "source": self.source,
            "pictures": list(self.pictures),
            "flags": list(self.flags),
        }
        return plain if self.draft is None else plain | {"draft": self.draft}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Sentence:
        """Read what `as_dict` gives, from outside: KeyError, TypeError or ValueError if it is nothing of the kind."""
        return cls(
            id=_string(value["id"]),
            text=_string(value["text"]),
            origin=Origin(value["origin"]),
            source=None if value.get("source") is None else _string(value["source"]),
            pictures=tuple(_string(p) for p in value.get("pictures", ())),
            flags=tuple(_string(f) for f in value.get("flags", ())),
            draft=None if value.get("draft") is None else _string(value["draft"]),
        )


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
        require_length(texts)
        for text in texts:
            if any(unicodedata.category(c) in {"Cc", "Cs", "Co"} for c in text):
                message = "A sentence is one line of text without control characters."
                raise InvalidRequest(message)
        if _SPOKEN_BANNERS.search(seen(" ".join(texts))):
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
                    "sentences": [s.as_dict() for s in section.sentences],
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
                    Section(SectionCode(section["code"]), tuple(Sentence.of(s) for s in section["sentences"]))
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
        and (sentence.draft is None or _DRAFT.fullmatch(sentence.draft) is not None)
    )


def sha256(text: str) -> str:
    """sha256 of a text's UTF-8 bytes, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # a lone surrogate, which JSON can spell, is no text: UnicodeEncodeError is a ValueError
    return value
