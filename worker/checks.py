"""Guardrails: before the model (are there pictures worth asking about?) and after it (does the text contradict itself?).

Knows words, not medicine: each check is a named flag on a sentence or on the draft, for the reviewer, and never changes
a word. A protocol names the checks it wants, and those of which one flag ends the reading as not analysed. Does not
know pixels; false alarms are expected, silence proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol as Shape

from record.body import Section, SectionCode, Sentence
from record.errors import Abstained
from record.states import ReasonCode
from worker.engines import Completion
from worker.findings import Findings, Flag
from worker.prompting import ReadingContext
from worker.protocols import Protocol, age_y


class Pictured(Shape):
    """A picture as the gate sees it: `record.pipes.Rendered` is one."""

    @property
    def blank(self) -> bool:
        """Whether nothing can be seen on it."""


@dataclass(frozen=True, slots=True)
class _Case:
    """What every check is given."""

    findings: Findings
    protocol: Protocol
    context: ReadingContext
    completions: Sequence[Completion]
    pictures: Sequence[Pictured]

    def sentences(self, *codes: SectionCode) -> list[Sentence]:
        return [s for code, s in self.findings.sentences() if not codes or code in codes]


Check = Callable[[_Case], Iterator[Flag]]


def gate_pictures(protocol: Protocol, pictures: Sequence[Pictured], *, expected: int) -> None:
    """Let a study pass to the model, or end its reading.

    Parameters
    ----------
    expected
        Pictures the selection asked for: one that is missing is not skipped in silence.

    Raises
    ------
    Abstained
        There is no picture, one is missing, or too many show nothing.
    """
    if not pictures or not expected:
        raise Abstained(ReasonCode.NO_USABLE_FRAMES, "The study has no frame that the model could be shown.")
    if len(pictures) != expected:
        raise Abstained(ReasonCode.UNDECODABLE, "Some of the chosen frames could not be shown.", pictures=len(pictures))
    blank = sum(p.blank for p in pictures)
    if blank == len(pictures) or blank > protocol.pictures.max_blank_fraction * len(pictures):
        raise Abstained(ReasonCode.BLANK_PICTURE, "Pictures of this study show nothing.", pictures=blank)


def check(
    findings: Findings,
    protocol: Protocol,
    context: ReadingContext,
    completions: Sequence[Completion],
    *,
    pictures: Sequence[Pictured] = (),
) -> tuple[Findings, tuple[Flag, ...]]:
    """Run the checks a protocol names.

    Returns
    -------
    Findings
        The same words, with the flags in place; and all flags, those of parsing included.

    Raises
    ------
    Abstained
        A check of `Protocol.abstain_on` found something.
    """
    case = _Case(findings, protocol, context, completions, pictures)
    wanted = dict.fromkeys((*protocol.checks, *protocol.abstain_on))
    flags = [*findings.flags]
    for name in wanted:
        flags.extend(f for f in CHECKS[name](case) if f not in flags)
    if fatal := sorted({f.name for f in flags} & set(protocol.abstain_on)):
        message = "The draft did not pass the protocol's checks, so it is not shown."
        raise Abstained(ReasonCode.CHECKS_FAILED, message, code=",".join(fatal))
    return replace(findings, sections=_flagged(findings.sections, flags), flags=tuple(flags)), tuple(flags)


def _flagged(sections: Sequence[Section], flags: Sequence[Flag]) -> tuple[Section, ...]:
    named: dict[str, list[str]] = {}
    for flag in flags:
        if flag.sentence is not None:
            named.setdefault(flag.sentence, []).append(flag.name)
    return tuple(
        replace(
            section,
            sentences=tuple(
                replace(s, flags=tuple(dict.fromkeys((*s.flags, *named.get(s.id, ()))))) for s in section.sentences
            ),
        )
        for section in sections
    )


_ABSENT = re.compile(
    r"\b(no|not|without|normal|clear|unremarkable|intact|absent|negative|free of|rather than|unlikely)\b", re.IGNORECASE
)
_LEFT = re.compile(r"\b(left|bilateral(ly)?|both)\b", re.IGNORECASE)
_RIGHT = re.compile(r"\b(right|bilateral(ly)?|both)\b", re.IGNORECASE)
_ABNORMAL = re.compile(
    r"\b(opacit\w+|consolidation\w*|effusion\w*|pneumothorax|fractur\w+|mass(es)?|nodul\w+|lesion\w*|enlarge\w+|"
    r"cardiomegaly|h(a)?emorrhag\w*|infarct\w*|o?edema|atelectasis|tumou?r\w*|stenosis|aneurysm\w*)\b",
    re.IGNORECASE,
)
_ALL_NORMAL = re.compile(
    r"\b(no acute|normal (study|chest|exam\w*|radiograph|scan)|unremarkable|no (significant )?abnormalit\w+)",
    re.IGNORECASE,
)
_PRIOR = re.compile(
    r"\b(unchanged|compared (to|with)|in comparison|interval (change|increase|decrease|improvement|development)|"
    r"previous(ly)?|(since|from|on) (the )?prior|prior (exam\w*|stud(y|ies)|radiograph\w*|ct|mri?|imaging|scan)|"
    r"(is|are|remains?|appears?) stable|(has|have) (improved|worsened|resolved|increased|decreased|progressed)|"
    r"again (seen|noted|demonstrated))\b",
    re.IGNORECASE,
)
_NO_PRIOR = re.compile(r"\b(no|without)\b[^.]{0,30}\b(prior|previous|earlier|comparison)", re.IGNORECASE)
_MEASURE = re.compile(r"\d(?:[\d.,]*)\s*(?:x\s*\d[\d.,]*\s*)*(?:mm|cm|ml|cc|hu|hounsfield)\b", re.IGNORECASE)
_OF_MEN = re.compile(r"\b(prostat\w*|testic\w*|testes|scrot\w*|seminal|penis|penile|male|man)\b", re.IGNORECASE)
_OF_WOMEN = re.compile(
    r"\b(uter(us|ine)|ovar(y|ies|ian)|endometri\w*|cervical canal|vagina\w*|female|woman|pregnan\w*)\b", re.IGNORECASE
)
_AGED = re.compile(r"\b(\d{1,3})[- ]?years?[- ]?old\b", re.IGNORECASE)
_CHILD = re.compile(r"\b(child|infant|neonat\w*|newborn|p(a)?ediatric)\b", re.IGNORECASE)
_CONTRAST = re.compile(
    r"\b(contrast[- ]enhanced|post[- ]?contrast|after (intravenous |iv )?contrast|with (intravenous |iv )?contrast)\b",
    re.IGNORECASE,
)
_NO_CONTRAST = re.compile(r"\b(non[- ]?contrast|without (intravenous |iv )?contrast|unenhanced)\b", re.IGNORECASE)
_META = re.compile(
    r"\b(as an? (ai|artificial|language)|i (cannot|can't|am unable|am not able)|i'm sorry|language model|here is (the|a|your)( draft)? report)\b",
    re.IGNORECASE,
)
_MODALITY_WORDS: Mapping[str, re.Pattern[str]] = {
    "projection": re.compile(r"\b(radiograph\w*|x[- ]?rays?)\b", re.IGNORECASE),
    "CT": re.compile(r"\b(ct|computed tomograph\w*)\b", re.IGNORECASE),
    "MR": re.compile(r"\b(mri?|magnetic resonance|t[12][- ]weighted|flair)\b", re.IGNORECASE),
    "US": re.compile(r"\b(ultrasound|sonograph\w*|echogenic\w*|hypoechoic)\b", re.IGNORECASE),
}
_FAMILY = dict.fromkeys(("CR", "DX", "RG", "MG", "IO", "PX", "XA", "RF"), "projection") | {
    m: m for m in ("CT", "MR", "US")
}
_ADVICE = (SectionCode.RECOMMENDATIONS, SectionCode.IMPRESSION)


def _laterality(case: _Case) -> Iterator[Flag]:
    """An abnormality of the impression on a side of which the findings do not speak, while they speak of the other."""
    seen = _sides(case.sentences(SectionCode.FINDINGS))
    for sentence in case.sentences(SectionCode.IMPRESSION):
        sides = _sides([sentence])
        if seen and not sides <= seen:
            yield Flag("laterality", sentence.id, "another side than in the findings")
    taken = {"R": "right", "L": "left"}.get(case.context.laterality)
    for sentence in case.sentences() if taken else ():
        sides = _sides([sentence])
        if sides and taken not in sides:
            yield Flag("laterality", sentence.id, "another side than the examined one")


def _sides(sentences: Sequence[Sentence]) -> set[str]:
    spoken = [s.text for s in sentences if not _ABSENT.search(s.text)]
    sides = {"left"} if any(_LEFT.search(t) for t in spoken) else set()
    return sides | ({"right"} if any(_RIGHT.search(t) for t in spoken) else set())


def _contradiction(case: _Case) -> Iterator[Flag]:
    """The impression calls all normal where the findings name something, or the other way round."""
    odd = any(_ABNORMAL.search(s.text) and not _ABSENT.search(s.text) for s in case.sentences(SectionCode.FINDINGS))
    for sentence in case.sentences(SectionCode.IMPRESSION):
        normal = _ALL_NORMAL.search(sentence.text) and not _ABNORMAL.search(_ALL_NORMAL.sub("", sentence.text))
        if normal and odd and len(case.sentences(SectionCode.IMPRESSION)) == 1:
            yield Flag("contradiction", sentence.id, "normal, while the findings are not")


def _prior(case: _Case) -> Iterator[Flag]:
    """An earlier examination is spoken of, and the model was given none: made up by construction."""
    if case.context.priors:
        return
    for sentence in case.sentences():
        if _PRIOR.search(sentence.text) and not _NO_PRIOR.search(sentence.text):
            yield Flag("prior", sentence.id, "no earlier examination was given")


def _measurement(case: _Case) -> Iterator[Flag]:
    """A size or density, which cannot be measured on pictures of unknown scale."""
    for sentence in case.sentences():
        if _MEASURE.search(sentence.text):
            yield Flag("measurement", sentence.id, "not computable from the pictures")


def _sex(case: _Case) -> Iterator[Flag]:
    """Organs or words of the other sex."""
    sex = case.context.patient_sex.strip().upper()
    for sentence in case.sentences() if sex in {"F", "M"} else ():
        if (_OF_MEN if sex == "F" else _OF_WOMEN).search(sentence.text):
            yield Flag("sex", sentence.id, "does not fit the patient's sex")


def _age(case: _Case) -> Iterator[Flag]:
    """Another age than the patient's."""
    years = age_y(case.context.patient_age)
    for sentence in case.sentences() if years is not None else ():
        said = _AGED.search(sentence.text)
        if (said and abs(int(said.group(1)) - (years or 0)) > 1) or (
            _CHILD.search(sentence.text) and (years or 0) >= 18
        ):
            yield Flag("age", sentence.id, "does not fit the patient's age")


def _contrast(case: _Case) -> Iterator[Flag]:
    """Contrast is spoken of, and the header names no agent."""
    for sentence in case.sentences() if not case.context.contrast else ():
        if _CONTRAST.search(sentence.text) and not _NO_CONTRAST.search(sentence.text):
            yield Flag("contrast", sentence.id, "the header names no contrast agent")


def _modality(case: _Case) -> Iterator[Flag]:
    """Another modality than the pictures'; advice may name one."""
    family = _FAMILY.get(case.context.modality.upper())
    for code, sentence in case.findings.sentences() if family else ():
        named = {m for m, pattern in _MODALITY_WORDS.items() if pattern.search(sentence.text)}
        if named and family not in named and code not in _ADVICE:
            yield Flag("modality", sentence.id, "speaks of another modality")


def _meta_talk(case: _Case) -> Iterator[Flag]:
    """The model speaks of itself."""
    for sentence in case.sentences():
        if _META.search(sentence.text):
            yield Flag("meta_talk", sentence.id)


def _truncated(case: _Case) -> Iterator[Flag]:
    """The answer was cut at its longest."""
    if any(c.finish == "length" for c in case.completions):
        yield Flag("truncated", None, "the answer reached its greatest length")
        last = case.sentences()[-1:]
        yield from (Flag("truncated", s.id) for s in last)


def _missing_impression(case: _Case) -> Iterator[Flag]:
    if not case.sentences(SectionCode.IMPRESSION):
        yield Flag("missing_impression")


def _missing_section(case: _Case) -> Iterator[Flag]:
    present = {s.code for s in case.findings.sections}
    missing = [c.value for c in case.protocol.sections if c not in present]
    if missing:
        yield Flag("missing_section", None, ", ".join(missing))


def _repetition(case: _Case) -> Iterator[Flag]:
    """A sentence that stands in the same section before."""
    for section in case.findings.sections:
        before: set[str] = set()
        for sentence in section.sentences:
            words = " ".join(sentence.text.lower().split())
            if words in before:
                yield Flag("repetition", sentence.id)
            before.add(words)


def _blank_picture(case: _Case) -> Iterator[Flag]:
    if any(p.blank for p in case.pictures):
        yield Flag("blank_picture", None, "some pictures show nothing")


CHECKS: Mapping[str, Check] = {
    "laterality": _laterality,
    "contradiction": _contradiction,
    "prior": _prior,
    "measurement": _measurement,
    "sex": _sex,
    "age": _age,
    "contrast": _contrast,
    "modality": _modality,
    "meta_talk": _meta_talk,
    "truncated": _truncated,
    "missing_impression": _missing_impression,
    "missing_section": _missing_section,
    "repetition": _repetition,
    "blank_picture": _blank_picture,
}
