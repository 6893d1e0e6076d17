"""The model's text → findings: sections of sentences, with what is odd about them named.

Knows headings, sentences and the marks of a model gone astray. Does not know whether a sentence is true. Model output
is untrusted: it becomes plain lines, capped, without control characters and without our own draft banner.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from record.body import Body, Origin, Section, SectionCode, Sentence
from record.errors import InvalidRequest, UnusableFindings
from record.headings import CODES, HEADINGS, folded, heading_of
from record.states import ReasonCode
from record.written import BLANK, DROPPED, is_banner
from worker.phrases import PHRASES
from worker.protocols import Protocol, Step
from worker.spoken import mostly_ideographs, spoken

MAX_CHARACTERS = 20_000
MAX_SENTENCES = 200
MAX_SENTENCE_CHARACTERS = 1_000

_WORDS = "|".join(sorted(map(re.escape, {*CODES, *chain(*HEADINGS.values())}), key=len, reverse=True))
_HEADING = re.compile(  # at a line's beginning, marked up or not, or within a line after a sentence's end
    rf"(?:^[ \t#>*_\-\d.)]*|(?<=[.!?。;])\s+[*_]*)({_WORDS})[*_ \t]*(?:[:：][*_]*|(?=\s*$))",
    re.IGNORECASE | re.MULTILINE,
)
_BANNER = re.compile(r"AI\s+DRAFT(?:\s*[-–—:]*\s*NOT\s+REVIEWED)?", re.IGNORECASE)
_IDEOGRAPHS = r"\u3400-\u9fff"
_BULLET = re.compile(
    r"^\s*(?:(?:[-*•·–]+|\(?\d{1,2}[.)])\s+"
    rf"|[(（]?\d{{1,2}}[.)．、）]\s*(?=[{_IDEOGRAPHS}])|[•·●①-⑳]\s*(?=[{_IDEOGRAPHS}]))"
)
_NUMBERED = re.compile(r"\(?\d{1,2}[.)]")
_EMPHASIS = re.compile(r"\*\*|__|`+|^#+\s*")
_SENTENCE_END = re.compile(
    rf"(?:(?<=[.!?])|(?<=[.!?][\"')\]»”]))\s+(?=[\"'(\[«“¿¡]*[A-ZÀ-ÖØ-Þ0-9{_IDEOGRAPHS}])"
    r"|(?:(?<=[。！？；])|(?<=[。！？；][”’」』）)]))\s*(?![”’」』）)。！？；\s])"
    rf"|(?<=[{_IDEOGRAPHS}][.;!?])\s*(?=[{_IDEOGRAPHS}])"
)
_ABBREVIATION = re.compile(
    r"\b(?:e\.g|i\.e|ca|cf|dra?|srt?a?|prof|vs|fig|st|resp|incl|ej|máx|mín|uds?|[A-Z])\.$", re.IGNORECASE
)
_BEFORE_NUMBER = re.compile(r"\b(?:approx|aprox|nos?|núm|n\.?º|figs?|págs?|art|vol)\.$", re.IGNORECASE)
_TOKEN = re.compile(r"\w+|[^\w\s]")
_CJK = re.compile(rf"[{_IDEOGRAPHS}]")


_REPORT = Step(name="draft")
_CONCLUDING = (SectionCode.IMPRESSION, SectionCode.RECOMMENDATIONS)


@dataclass(frozen=True, slots=True)
class Flag:
    """Something a reviewer should know: of a sentence, or (without one) of the whole draft."""

    name: str
    sentence: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What is accepted of an answer; the flags of sentences stand in the sentences as well."""

    sections: tuple[Section, ...]
    flags: tuple[Flag, ...] = ()
    language: str = "en"
    """The one that was asked for, if one was."""

    def sentences(self) -> Iterator[tuple[SectionCode, Sentence]]:
        """Every sentence with its section, in order."""
        for section in self.sections:
            for sentence in section.sentences:
                yield section.code, sentence


def parse(text: str, protocol: Protocol, picture_digests: Sequence[str], *, language: str | None = None) -> Findings:
    """Read one answer; see `parse_steps`."""
    return parse_steps([(_REPORT, text)], protocol, picture_digests, language=language)


def parse_steps(
    answers: Sequence[tuple[Step, str]],
    protocol: Protocol,
    picture_digests: Sequence[str],
    *,
    language: str | None = None,
) -> Findings:
    """Read the answers of a protocol's steps as one text.

    Headings may be marked up, in any order, in one line or several; text before the first one belongs to the step's
    section. What a step that was asked for the impression says of findings again is left out.

    Parameters
    ----------
    language
        The one that was asked for, of `worker.phrases.PHRASES`; without it, the one the answer is in.

    Raises
    ------
    ValueError
        Nothing is drafted in such a language.
    UnusableFindings
        An answer is empty, has no words, repeats itself instead of saying something, or has no heading where the
        protocol requires them.
    """
    if language is not None and language not in PHRASES:
        message = f"Drafts are written in {', '.join(PHRASES)}."
        raise ValueError(message)
    found: dict[SectionCode, list[tuple[str, bool]]] = {}
    cut, plain = False, ""
    for step, text in answers:
        plain = _plain(text[: 4 * MAX_CHARACTERS])
        cut = cut or len(plain) > MAX_CHARACTERS
        _refuse_noise(plain[:MAX_CHARACTERS])
        told, headed = _by_section(plain[:MAX_CHARACTERS], step.section)
        if protocol.headings_required and not headed:
            raise _unusable("The answer has none of the sections the protocol asks for.", "no_section")
        concluding = {code: told[code] for code in _CONCLUDING if code in told}
        for code, lines in (concluding if step.kind == "impression" and concluding else told).items():
            found.setdefault(code, []).extend(lines)
    sections, flags, number = [], [], 0
    for code in SectionCode:
        sentences: list[Sentence] = []
        for line, was_cut in found.get(code, []):
            number += 1
            if number > MAX_SENTENCES:
                cut = True
                break
            sentence_id = f"{code.value}-m{len(sentences) + 1}"
            if was_cut:
                flags.append(Flag("cut_short", sentence_id))
            sentences.append(
                Sentence(
                    id=sentence_id,
                    text=line,
                    origin=Origin.MACHINE,
                    pictures=tuple(dict.fromkeys(picture_digests)),
                    flags=("cut_short",) if was_cut else (),
                )
            )
        if sentences:
            sections.append(Section(code, tuple(sentences)))
    if not sections:
        raise _unusable("The answer has no sentence.", "empty")
    if cut:
        flags.append(Flag("cut_short"))
    if not headed:
        flags.append(Flag("no_headings"))
    findings = Findings(tuple(sections), tuple(flags), language or _language_of(plain))
    to_body(findings)  # what the record would refuse is refused here
    return findings


def to_body(findings: Findings) -> Body:
    """The body of the draft.

    Raises
    ------
    UnusableFindings
        The record takes no such body.
    """
    try:
        return Body(sections=findings.sections, language=findings.language)
    except InvalidRequest:
        raise _unusable("The answer holds what no report may hold.", "body") from None


def _plain(text: str) -> str:
    """Newlines kept, everything else that steers a terminal, a parser or the eye taken out."""
    composed = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
    composed = re.sub("[\u2028\u2029\v\f\x85]", "\n", composed)
    kept = "".join(
        c if c == "\n" or unicodedata.category(c)[0] not in "CZ" else (" " if c == "\t" or c.isspace() else "")
        for c in DROPPED.sub("", composed)
        if c not in BLANK
    )
    while (without := _BANNER.sub("", kept)) != kept:  # what closes up behind one may be another
        kept = without
    return kept.strip()


def _refuse_noise(plain: str) -> None:
    tokens = _TOKEN.findall(plain.lower())
    words = [t for t in tokens if any(c.isalpha() for c in t)]
    if not words:
        raise _unusable("The answer has no words.", "empty")
    distinct = len(set(words)) if not _CJK.search(plain) else len(set(plain))
    if len(tokens) >= 8 and distinct <= 2:
        raise _unusable("The answer repeats one word.", "repetition")
    lines = [" ".join(s.lower().split()) for s, _ in _sentences(plain.split("\n"))]
    repeated = Counter(lines).most_common(1)[0][1] if lines else 0
    if repeated >= 5 and repeated * 2 > len(lines):
        raise _unusable("The answer repeats one sentence.", "repetition")


def _by_section(plain: str, unheaded: SectionCode) -> tuple[dict[SectionCode, list[tuple[str, bool]]], bool]:
    """Sentences by section, with whether one was cut, and whether there was any heading.

    What a person's editor would take for a heading is one here too, so that a draft that is saved without a change stays
    what it is.
    """
    found: dict[SectionCode, list[tuple[str, bool]]] = {}
    headed = False
    for stated, lines in _chunks(plain):
        code, headed = stated or unheaded, headed or stated is not None
        for sentence, was_cut in _sentences(lines):
            line = sentence
            while heading := heading_of(line):
                code, line = heading
                headed = True
            if any(c.isalnum() for c in line) and not is_banner(line):
                found.setdefault(code, []).append((line, was_cut))
    return found, headed


def _chunks(plain: str) -> Iterator[tuple[SectionCode | None, list[str]]]:
    """The lines below each heading, in the text's order; before the first one there is none."""
    headings = list(_HEADING.finditer(plain))
    ends = [*(h.start() for h in headings), len(plain)]
    yield None, plain[: ends[0]].split("\n")
    for heading, end in zip(headings, ends[1:], strict=True):
        yield CODES[folded(heading.group(1))], plain[heading.end() : end].split("\n")


def _sentences(lines: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Sentences of lines, with whether one was cut."""
    for line in lines:
        rest = _EMPHASIS.sub("", _BULLET.sub("", line)).strip()
        pending = ""
        parts = _SENTENCE_END.split(rest)
        for part, following in zip(parts, [*parts[1:], ""], strict=True):
            pending = f"{pending} {part}".strip() if pending else _BULLET.sub("", part).strip()
            if _NUMBERED.fullmatch(pending):
                pending = ""  # of an enumeration within a line, no sentence
            goes_on = _ABBREVIATION.search(pending) or (following[:1].isdigit() and _BEFORE_NUMBER.search(pending))
            if pending and not goes_on:
                yield from _capped(pending)
                pending = ""
        if pending:
            yield from _capped(pending)


def _capped(sentence: str) -> Iterator[tuple[str, bool]]:
    words = " ".join(sentence.split())
    if any(c.isalnum() for c in words):
        yield words[:MAX_SENTENCE_CHARACTERS].rstrip(), len(words) > MAX_SENTENCE_CHARACTERS


def _language_of(plain: str) -> str:
    return "zh" if mostly_ideographs(plain) else spoken(plain) or "en"


def _unusable(message: str, cause: str) -> UnusableFindings:
    return UnusableFindings(message, reason_code=ReasonCode.UNUSABLE_FINDINGS, cause=cause)
