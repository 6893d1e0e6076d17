"""What a reading protocol is: its form, checked value by value, with errors that name the place.

Knows the parts of a protocol and which of them contradict each other. Does not know how a protocol is found or matched
(`matching`), nor frames, prompts' values or engines. Nothing in a protocol is ever executed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import string
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from record.body import SectionCode
from record.errors import Misconfigured
from record.instances import InstanceHeader
from worker.protocols.pictures import Pictures
from worker.protocols.values import Code, Name, Strict, Terms, Word, Words
from worker.protocols.wording import Language, wording_of
from worker.protocols.words import says
from worker.views import view_of

ContextFact = Literal["age", "sex", "indication", "history", "labs", "prior_report"]
FACTS: frozenset[str] = frozenset(get_args(ContextFact))
"""What a protocol may let the model know of the patient; never a name, an identifier or a date."""
PLACEHOLDERS = FACTS | {
    *("modality", "body_part", "view", "pictures", "context", "look_for", "findings", "question", "sections"),
}
CHECKS = frozenset(
    {
        *("laterality", "contradiction", "prior", "measurement", "sex", "age", "contrast", "modality", "meta_talk"),
        *("truncated", "missing_impression", "missing_section", "blank_picture", "repetition", "language", "asked"),
    }
)
"""Every check a protocol may name; `worker.checks` holds one function or flag for each."""
MAX_YAML_CHARACTERS = 100_000
MAX_STEPS = 16
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


class Match(Strict):
    """Which instances a protocol is for: every list that is not empty must hold the instance's value."""

    modalities: tuple[Code, ...] = ()
    body_parts: tuple[Code, ...] = ()
    """Body Part Examined contains one of these."""
    anatomy: tuple[Word, ...] = ()
    """Body Part Examined or one of the descriptions has a word that begins so."""
    words: tuple[Word, ...] = ()
    """One of the descriptions (study, series, acquisition protocol, requested procedure) has a word that begins so."""
    not_words: tuple[Word, ...] = ()
    """No description has a word that begins so."""
    views: tuple[Code, ...] = ()
    """As `worker.views` names them: PA, AP, FRONTAL, LATERAL, CC, MLO …"""
    procedure_codes: tuple[str, ...] = ()
    """Code Value of the performed or requested procedure."""
    sop_class_uids: tuple[str, ...] = ()
    """A UID, or how it begins, with a dot at its end."""
    sexes: tuple[Code, ...] = ()
    sites: tuple[str, ...] = ()
    min_age_y: float | None = None
    max_age_y: float | None = None
    any_of: tuple[Match, ...] = ()
    """One of these must fit as well."""

    @property
    def specificity(self) -> int:
        """How many conditions there are."""
        given = self.model_dump(exclude_defaults=True)
        return len([value for value in given.values() if value not in ((), None)])

    def accepts(self, header: InstanceHeader, site: str = "") -> bool:
        """Whether an instance is one of those meant; an age that is not told meets no bound."""
        age = age_y(header.patient_age)
        told = descriptions(header)
        return (
            (not self.modalities or header.modality.upper() in self.modalities)
            and _contains(header.body_part_examined, self.body_parts)
            and (not self.anatomy or says(f"{header.body_part_examined} / {told}", self.anatomy))
            and (not self.words or says(told, self.words))
            and not says(told, self.not_words)
            and (not self.views or view_of(header) in self.views)
            and (not self.procedure_codes or not {*header.procedure_codes}.isdisjoint(self.procedure_codes))
            and (not self.sop_class_uids or any(_is_class(header.sop_class_uid, uid) for uid in self.sop_class_uids))
            and (not self.sexes or header.patient_sex.upper() in self.sexes)
            and (not self.sites or site in self.sites)
            and (self.min_age_y is None or (age is not None and age >= self.min_age_y))
            and (self.max_age_y is None or (age is not None and age <= self.max_age_y))
            and (not self.any_of or any(one.accepts(header, site) for one in self.any_of))
        )


class Generation(Strict):
    """How text is chosen."""

    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] = 512
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    repetition_penalty: Annotated[float, Field(ge=1, le=2)] = 1.0


StepKind = Literal["report", "describe", "ask", "impression"]


class Step(Strict):
    """One question to the model. `{placeholders}` are filled with cleaned values; a text that is left out is ours.

    A *report* is findings and impression in one answer, *describe* the findings alone, *impression* the conclusion from
    the findings before it; *ask* is a question to be answered by yes or no, with the probability of yes.
    """

    name: Name
    kind: StepKind = "report"
    system: Words = Field(default_factory=dict)
    user: Words = Field(default_factory=dict)
    question: Words = Field(default_factory=dict)
    """Of an *ask*."""
    about: Terms = Field(default_factory=dict)
    """Of an *ask*: words that the findings would use if the answer is yes."""
    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] | None = None

    @property
    def section(self) -> SectionCode:
        """Where the answer belongs if it says nothing of it itself."""
        return SectionCode.IMPRESSION if self.kind == "impression" else SectionCode.FINDINGS

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.kind == "ask") != bool(self.question):
            raise ValueError("a step of the kind ask has a question, and no other has one")
        if any("{question}" in text for text in self.question.values()):
            raise ValueError("a question cannot be filled with itself")
        if self.about and self.kind != "ask":
            raise ValueError("only a step of the kind ask is about something")
        return self

    @field_validator("system", "user", "question")
    @classmethod
    def _only_known_placeholders(cls, words: dict[Language, str]) -> dict[Language, str]:
        for text in words.values():
            for _, name, spec, conversion in string.Formatter().parse(text):
                if name is not None and (name not in PLACEHOLDERS or spec or conversion):
                    raise ValueError("a text may use these placeholders, plain: " + ", ".join(sorted(PLACEHOLDERS)))
        return words

    def placeholders(self) -> frozenset[str]:
        """The names that its texts are to be filled with."""
        texts = [*self.system.values(), *self.user.values(), *self.question.values()]
        return frozenset(name for t in texts for _, name, _, _ in string.Formatter().parse(t) if name is not None)


def _require_span(least: float | None, most: float | None) -> None:
    """Refuse ages that nobody has.

    Raises
    ------
    ValueError
        Below zero, or the greatest below the least.
    """
    if any(age is not None and age < 0 for age in (least, most)) or (least or 0) > (most if most is not None else 999):
        raise ValueError("nobody is of an age from min_age_y to max_age_y")


class Gate(Strict):
    """When a study is *not analysed* under this protocol."""

    models: tuple[str, ...] = ()
    """Only these may be asked; empty: any."""
    not_models: tuple[str, ...] = ()
    """These may not."""
    not_models_reason: str = ""
    min_age_y: float | None = None
    """Younger patients are not analysed; nor are those whose age is not told."""
    max_age_y: float | None = None
    required_roles: tuple[Name, ...] = ()
    """Pictures without which nothing is asked."""
    max_blank_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """With more blank pictures than this the reading abstains."""
    abstain_on: tuple[str, ...] = ()
    """Checks of which one flag ends the reading."""

    @model_validator(mode="after")
    def _some_age(self) -> Self:
        _require_span(self.min_age_y, self.max_age_y)
        return self


class Protocol(Strict):
    """One reading protocol. `digest` is the sha256 of its canonical content, texts of ours included."""

    name: Name
    version: Annotated[int, Field(ge=1, lt=2**31)]
    title: str
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Of all protocols that fit, the greatest is taken; among equals the most specific, then the first by name."""
    match: Match
    pictures: Pictures = Pictures()
    context: tuple[ContextFact, ...] = ("age", "sex", "indication", "history")
    """What the model is told of the patient, where it is known."""
    look_for: Words = Field(default_factory=dict)
    """What a reader of such studies goes through; part of our own texts."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=MAX_STEPS)]
    sections: Annotated[tuple[SectionCode, ...], Field(min_length=1)]
    """Sections that the draft should have; the answer may have others."""
    headings_required: bool = False
    """Text without a heading is no report; else it is taken as the step's section."""
    parameters: Generation = Generation()
    checks: tuple[str, ...] = ()
    gate: Gate = Gate()
    model: str | None = None
    """Overrides the model of the settings."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if unknown := {*self.checks, *self.gate.abstain_on} - CHECKS:
            raise ValueError(f"no such checks: {', '.join(sorted(unknown))}; there are {', '.join(sorted(CHECKS))}")
        if unknown := {*self.gate.required_roles} - {role.name for role in self.pictures.roles}:
            raise ValueError("gate.required_roles names no role of pictures.roles: " + ", ".join(sorted(unknown)))
        if len({step.name for step in self.steps}) < len(self.steps):
            raise ValueError("two steps have the same name")
        if not any(step.kind in {"report", "describe"} for step in self.steps):
            raise ValueError("one step must be of the kind report or describe")
        told = {name for step in self.steps for name in step.placeholders()} & FACTS
        if untold := told - {*self.context}:
            raise ValueError("a text uses what context does not list: " + ", ".join(sorted(untold)))
        if not self.languages:
            lacking = "; ".join(
                f"{language} lacks {', '.join(self._lacking(language))}" for language in get_args(Language)
            )
            raise ValueError(f"no language has all the texts: {lacking}")
        return self

    @property
    def languages(self) -> tuple[Language, ...]:
        """The languages a draft can be asked for in: every text is there, the protocol's own or ours."""
        return tuple(language for language in get_args(Language) if not self._lacking(language))

    def _lacking(self, language: Language) -> list[str]:
        """The places of texts of its own that a language has not."""
        own = {"look_for": self.look_for}
        own |= {f"steps.{step.name}.{key}": getattr(step, key) for step in self.steps for key in _TEXTS}
        return [place for place, words in own.items() if words and language not in words]

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of the canonical JSON, in hex."""
        ours = {language: wording_of(language).model_dump(mode="json") for language in self.languages}
        content = self.model_dump(mode="json") | {"wording": ours}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


_TEXTS = ("system", "user", "question", "about")


def load(text: str, *, origin: str = "a protocol") -> Protocol:
    """Read a protocol from YAML.

    Raises
    ------
    Misconfigured
        It is no protocol; the message names the places at fault, a line each.
    """
    if len(text) > MAX_YAML_CHARACTERS:
        raise Misconfigured(f"{origin} is longer than {MAX_YAML_CHARACTERS} characters.")
    try:
        given = yaml.load(text, Loader=_NoAliases)  # noqa: S506  a SafeLoader that takes fewer things
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise Misconfigured(f"{origin} is not YAML{where}: {problem}.") from None
    if not isinstance(given, Mapping):
        raise Misconfigured(f"{origin} is not a reading protocol: it has no keys.")
    try:
        protocol = Protocol.model_validate(given)
        protocol.digest.encode()
    except UnicodeEncodeError:
        raise Misconfigured(f"{origin} is not a reading protocol: it holds half a character.") from None
    except ValidationError as error:
        faults = error.errors()
        told = [f"  {'.'.join(map(str, e['loc'])) or 'the whole'}: {_said(e)}" for e in faults[:10]]
        more = [f"  and {len(faults) - 10} more"] if len(faults) > 10 else []
        raise Misconfigured("\n".join([f"{origin} is not a reading protocol:", *told, *more])) from None
    return protocol


class _NoAliases(yaml.SafeLoader):
    """YAML without anchors: a small file cannot become a large one. A key may stand once."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "anchors are not taken", parent and parent.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _said(fault: Any) -> str:
    ours = fault.get("ctx", {}).get("error")
    if isinstance(ours, ValueError):
        return str(ours)
    return "there is no such key" if fault["type"] == "extra_forbidden" else str(fault["msg"])


def age_y(patient_age: str) -> float | None:
    """Read Patient's Age (VR AS, PS3.5 6.2) in years, or None."""
    found = _AGE.fullmatch(patient_age.strip().upper())
    return int(found.group(1)) * _YEARS[found.group(2)] if found else None


def descriptions(header: InstanceHeader) -> str:
    """What people and devices called the study, its series and its acquisition."""
    told = (
        *(header.study_description, header.series_description),
        *(header.protocol_name, header.requested_procedure_description),
    )
    return " / ".join(told)


def _contains(value: str, wanted: tuple[str, ...]) -> bool:
    return not wanted or any(w.upper() in value.upper() for w in wanted)


def _is_class(uid: str, wanted: str) -> bool:
    return uid.startswith(wanted) if wanted.endswith(".") else uid == wanted
