"""Guardrails: before the model (are there pictures worth asking about?) and after it (does the text contradict itself?).

Knows words, not medicine, and no language: what a thing is called in one stands in `phrases`. Each check is a named flag
on a sentence or on the draft, for the reviewer, and never changes a word. A protocol names the checks it wants, and those
of which one flag ends the reading as not analysed. Does not know pixels; false alarms are expected, silence proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol as Shape

from record.body import Section, SectionCode, Sentence
from record.errors import Abstained
from record.headings import folded
from record.states import ReasonCode
from worker.engines import Completion
from worker.findings import Findings, Flag
from worker.phrases import PHRASES, Phrases
from worker.prompting import ReadingContext
from worker.protocols import Protocol, age_y, says
from worker.spoken import is_foreign, spoken


class Pictured(Shape):
    """A picture as the gate sees it: `record.pipes.Rendered` is one."""

    @property
    def blank(self) -> bool:
        """Whether nothing can be seen on it."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """A sentence as the phrases are held against it."""

    code: SectionCode
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of yes or no, and how the model answered.

    Attributes
    ----------
    about
        Words that the findings would use if the answer is yes.
    probability
        Of a yes, by the model itself; None where the engine does not tell.
    mass
        How much of the model's probability lay on either answer.
    """

    step: str
    question: str
    about: tuple[str, ...]
    is_yes: bool
    probability: float | None
    mass: float


@dataclass(frozen=True, slots=True)
class _Case:
    """What every check is given."""

    findings: Findings
    protocol: Protocol
    context: ReadingContext
    completions: Sequence[Completion]
    pictures: Sequence[Pictured]
    phrases: Phrases
    said: Sequence[_Heard]
    asked: Sequence[Asked]

    def sentences(self, *codes: SectionCode) -> list[Sentence]:
        return [s for code, s in self.findings.sentences() if not codes or code in codes]

    def heard(self, *codes: SectionCode) -> list[_Heard]:
        return [heard for heard in self.said if not codes or heard.code in codes]

    def affirmed(self, heard: _Heard) -> list[str]:
        """What of a sentence says that something is there."""
        return list(self.phrases.affirmed(heard.text))

    def described(self, heard: _Heard) -> str:
        """A sentence without its advice: what should be done may name another side, modality or date."""
        return "" if heard.code is SectionCode.RECOMMENDATIONS else ", ".join(self.phrases.described(heard.text))


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
    if blank == len(pictures) or blank > protocol.gate.max_blank_fraction * len(pictures):
        raise Abstained(ReasonCode.BLANK_PICTURE, "Pictures of this study show nothing.", pictures=blank)


def check(
    findings: Findings,
    protocol: Protocol,
    context: ReadingContext,
    completions: Sequence[Completion],
    *,
    pictures: Sequence[Pictured] = (),
    asked: Sequence[Asked] = (),
) -> tuple[Findings, tuple[Flag, ...]]:
    """Run the checks a protocol names.

    Returns
    -------
    Findings
        The same words, with the flags in place; and all flags, those of parsing included.

    Raises
    ------
    Abstained
        A check of `Gate.abstain_on` found something.
    """
    words = " ".join(s.text for _, s in findings.sentences())
    phrases = PHRASES[spoken(words) or findings.language]  # what is said counts, in whatever language it was asked for
    said = [_Heard(code, s.id, folded(s.text)) for code, s in findings.sentences()]
    case = _Case(findings, protocol, context, completions, pictures, phrases, said, asked)
    wanted = dict.fromkeys((*protocol.checks, *protocol.gate.abstain_on))
    flags = [*findings.flags]
    for name in wanted:
        flags.extend(f for f in CHECKS[name](case) if f not in flags)
    if fatal := sorted({f.name for f in flags} & set(protocol.gate.abstain_on)):
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


_FAMILY = dict.fromkeys(("CR", "DX", "RG", "MG", "IO", "PX", "XA", "RF"), "projection") | {
    m: m for m in ("CT", "MR", "US")
}
"""Families of modalities by DICOM's codes; of a modality that stands in none the modality check says nothing."""
_TOLD = frozenset({SectionCode.CLINICAL_INFORMATION})
"""Sections that repeat what the model was told."""
_ASIDE = _TOLD | {SectionCode.COMPARISON, SectionCode.IMPRESSION, SectionCode.RECOMMENDATIONS}
"""Sections that may name another modality."""


def _laterality(case: _Case) -> Iterator[Flag]:
    """An abnormality of the impression on a side of which the findings do not speak, while they speak of the other."""
    seen = set().union(*(_sides(case, case.affirmed(h)) for h in case.heard(SectionCode.FINDINGS)))
    for heard in case.heard(SectionCode.IMPRESSION):
        if seen and not _sides(case, case.affirmed(heard)) <= seen:
            yield Flag("laterality", heard.id, "another side than in the findings")
    taken = {"R": "right", "L": "left"}.get(case.context.laterality)
    for heard in case.heard() if taken else ():
        sides = _sides(
            case, [case.described(heard)]
        )  # to deny something of the other side is to have looked at the wrong one
        if sides and taken not in sides:
            yield Flag("laterality", heard.id, "another side than the examined one")


def _sides(case: _Case, texts: Iterable[str]) -> set[str]:
    sides: set[str] = set()
    for text in texts:
        both = case.phrases.both.search(text)
        sides |= {"left"} if both or case.phrases.left.search(text) else set()
        sides |= {"right"} if both or case.phrases.right.search(text) else set()
    return sides


def _contradiction(case: _Case) -> Iterator[Flag]:
    """The impression calls all normal where the findings name something, or the other way round."""
    findings, impression = case.heard(SectionCode.FINDINGS), case.heard(SectionCode.IMPRESSION)
    odd = any(_abnormal(case, clause) for h in findings for clause in case.affirmed(h))
    silent = bool(findings) and not any(case.affirmed(h) for h in findings)
    named = any(case.affirmed(h) for h in impression)
    for heard in impression:
        if odd and not named and _all_normal(case, heard.text):
            yield Flag("contradiction", heard.id, "normal, while the findings are not")
        if silent and any(_abnormal(case, c) for c in case.affirmed(heard)):
            yield Flag("contradiction", heard.id, "abnormal, while the findings are not")


def _abnormal(case: _Case, clause: str) -> bool:
    return bool(case.phrases.abnormal.search(clause)) and not case.phrases.old.search(clause)


def _all_normal(case: _Case, text: str) -> bool:
    said = case.phrases.all_normal.search(text)
    return bool(said) and not case.phrases.abnormal.search(case.phrases.all_normal.sub("", text))


def _prior(case: _Case) -> Iterator[Flag]:
    """An earlier examination is spoken of, and the model was given none: made up by construction."""
    if case.context.prior_report:
        return
    for heard in case.heard():
        said = case.described(heard)
        named = case.phrases.prior.search(said) or (heard.code is SectionCode.COMPARISON and _exam(case, said))
        if named and not case.phrases.no_prior.search(heard.text) and heard.code not in _TOLD:
            yield Flag("prior", heard.id, "no earlier examination was given")


def _exam(case: _Case, said: str) -> bool:
    """Whether an examination is named, by its kind or its date."""
    return any(c.isdigit() for c in said) or any(m.search(said) for m in case.phrases.modalities.values())


def _measurement(case: _Case) -> Iterator[Flag]:
    """A size or density, which cannot be measured on pictures of unknown scale."""
    for heard in case.heard():
        if case.phrases.measure.search(heard.text):
            yield Flag("measurement", heard.id, "not computable from the pictures")


def _sex(case: _Case) -> Iterator[Flag]:
    """Organs or words of the other sex."""
    other = {"F": case.phrases.of_men, "M": case.phrases.of_women}.get(case.context.patient_sex.strip().upper())
    for heard in case.heard() if other else ():
        if other and other.search(heard.text):
            yield Flag("sex", heard.id, "does not fit the patient's sex")


def _age(case: _Case) -> Iterator[Flag]:
    """Another age than the patient's."""
    years = age_y(case.context.patient_age)
    for heard in case.heard() if years is not None else ():
        if years is not None and _another_age(case, heard.text, years):
            yield Flag("age", heard.id, "does not fit the patient's age")


def _another_age(case: _Case, text: str, years: float) -> bool:
    said = case.phrases.aged.search(text)
    stated = next((int(n) for n in said.groups() if n), None) if said else None
    return (
        (stated is not None and abs(stated - years) >= 2)
        or (years >= 5 and bool(case.phrases.months.search(text)))
        or (years >= 18 and bool(case.phrases.child.search(text)))
        or (years < 40 and bool(case.phrases.elder.search(text)))
    )


def _contrast(case: _Case) -> Iterator[Flag]:
    """Contrast is spoken of, and the header names no agent."""
    for heard in case.heard() if not case.context.contrast else ():
        if case.phrases.contrast.search(case.phrases.no_contrast.sub(" ", case.described(heard))):
            yield Flag("contrast", heard.id, "the header names no contrast agent")


def _modality(case: _Case) -> Iterator[Flag]:
    """Another modality than the pictures'; advice may name one, and so may what was told or compared."""
    family = _FAMILY.get(case.context.modality.upper())
    for heard in case.heard() if family else ():
        named = {m for m, pattern in case.phrases.modalities.items() if pattern.search(case.described(heard))}
        if named and family not in named and heard.code not in _ASIDE:
            yield Flag("modality", heard.id, "speaks of another modality")


def _language(case: _Case) -> Iterator[Flag]:
    """Another language than the one that was asked for, of the whole draft or of a sentence; only where it is clear."""
    asked = case.findings.language
    heard = [s for code, s in case.findings.sentences() if code not in _TOLD]
    if is_foreign(" ".join(s.text for s in heard), asked):
        yield Flag("language", None, "not in the language that was asked for")
        return
    for sentence in heard:
        if is_foreign(sentence.text, asked):
            yield Flag("language", sentence.id, "not in the language that was asked for")


def _meta_talk(case: _Case) -> Iterator[Flag]:
    """The model speaks of itself."""
    for heard in case.heard():
        if case.phrases.meta.search(heard.text):
            yield Flag("meta_talk", heard.id)


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


def _asked(case: _Case) -> Iterator[Flag]:
    """The model answered a question otherwise than it described: what it says yes to is not named, or what it denies is."""
    heard = case.heard(SectionCode.FINDINGS, SectionCode.IMPRESSION)
    for asked in case.asked:
        words = tuple(map(folded, asked.about))
        naming = [h for h in heard if any(says(clause, words) for clause in case.affirmed(h))]
        if asked.is_yes and words and not naming:
            yield Flag("asked", None, f"{asked.step}: answered with yes, and not described")
        for one in naming if not asked.is_yes else ():
            yield Flag("asked", one.id, f"{asked.step}: answered with no")


CHECKS: Mapping[str, Check] = {
    "asked": _asked,
    "laterality": _laterality,
    "contradiction": _contradiction,
    "prior": _prior,
    "measurement": _measurement,
    "sex": _sex,
    "age": _age,
    "contrast": _contrast,
    "modality": _modality,
    "meta_talk": _meta_talk,
    "language": _language,
    "truncated": _truncated,
    "missing_impression": _missing_impression,
    "missing_section": _missing_section,
    "repetition": _repetition,
    "blank_picture": _blank_picture,
}
