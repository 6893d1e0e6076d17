"""Reading protocols: what is asked of the model for one kind of study. Versioned data, kept as YAML beside this file.

Knows a protocol's form, which protocol fits a study (by header values alone; nothing in a protocol is ever executed)
and which models may be asked under it. Does not know frames, prompts' values or engines. A reading names the digest of
the protocol it ran under, so a changed word is a changed protocol.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import json
import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from record.body import SectionCode
from record.errors import Abstained, Misconfigured
from record.instances import InstanceHeader, StoredInstance
from record.states import InstanceKind, ReasonCode
from worker.phantom import MODEL_DIR

PLACEHOLDERS = frozenset({"age", "sex", "modality", "body_part", "view", "history", "pictures"})
PHANTOM_MODEL = "phantom"
CHECKS = frozenset(
    {
        *("laterality", "contradiction", "prior", "measurement", "sex", "age", "contrast", "modality", "meta_talk"),
        *("truncated", "missing_impression", "missing_section", "blank_picture", "repetition", "language"),
    }
)
"""Every check a protocol may name; `worker.checks` holds one function or flag for each."""
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Match(_Strict):
    """Which instances a protocol is for: every list that is not empty must hold the instance's value."""

    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    """Body Part Examined contains one of these."""
    study_descriptions: tuple[str, ...] = ()
    """Study Description contains one of these, whatever the case."""
    sop_class_uids: tuple[str, ...] = ()
    sexes: tuple[str, ...] = ()
    min_age_y: float | None = None
    max_age_y: float | None = None

    @property
    def specificity(self) -> int:
        """How many conditions there are."""
        lists = (self.modalities, self.body_parts, self.study_descriptions, self.sop_class_uids, self.sexes)
        return sum(map(bool, lists)) + sum(bound is not None for bound in (self.min_age_y, self.max_age_y))

    def accepts(self, header: InstanceHeader) -> bool:
        """Whether an instance is one of those meant; an age that is not told meets no bound."""
        age = age_y(header.patient_age)
        return (
            (not self.modalities or header.modality.upper() in self.modalities)
            and _contains(header.body_part_examined, self.body_parts)
            and _contains(header.study_description, self.study_descriptions)
            and (not self.sop_class_uids or header.sop_class_uid in self.sop_class_uids)
            and (not self.sexes or header.patient_sex.upper() in self.sexes)
            and (self.min_age_y is None or (age is not None and age >= self.min_age_y))
            and (self.max_age_y is None or (age is not None and age <= self.max_age_y))
        )


class Pictures(_Strict):
    """How many pictures are made, and how."""

    max: Annotated[int, Field(ge=1, le=64)] = 8
    max_side: Annotated[int, Field(ge=64, le=8192)] = 1024
    """Pixels of the longer side."""
    windows: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Named windows by modality; without an entry, the file's own."""
    max_blank_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """With more blank pictures than this the reading abstains."""


class Step(_Strict):
    """One question; `{placeholders}` are filled with cleaned header values."""

    name: str
    system: str = ""
    user: str

    @field_validator("system", "user")
    @classmethod
    def _only_known_placeholders(cls, template: str) -> str:
        for _, name, spec, conversion in string.Formatter().parse(template):
            if name is not None and (name not in PLACEHOLDERS or spec or conversion):
                raise ValueError("a template may use these placeholders, plain: " + ", ".join(sorted(PLACEHOLDERS)))
        return template


class Generation(_Strict):
    """How text is chosen."""

    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] = 512
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    repetition_penalty: Annotated[float, Field(ge=1, le=2)] = 1.0


class Protocol(_Strict):
    """One reading protocol. `digest` is the sha256 of its canonical content."""

    name: Annotated[str, Field(pattern=r"[a-z][a-z0-9-]{0,63}")]
    version: Annotated[int, Field(ge=1)]
    title: str
    match: Match
    pictures: Pictures = Pictures()
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    sections: Annotated[tuple[SectionCode, ...], Field(min_length=1)]
    """Sections that the answer should have; the first step's text may have others."""
    headings_required: bool = False
    """Text without a heading is no report; else it is taken as findings."""
    parameters: Generation = Generation()
    checks: tuple[str, ...] = ()
    abstain_on: tuple[str, ...] = ()
    """Checks of which one flag ends the reading as not analysed."""
    model: str | None = None
    """Overrides the model of the settings."""
    models: tuple[str, ...] = ()
    """Only these may be asked; empty: any."""
    not_models: tuple[str, ...] = ()
    """These may not."""
    not_models_reason: str = ""

    @model_validator(mode="after")
    def _known_checks(self) -> Self:
        if unknown := {*self.checks, *self.abstain_on} - CHECKS:
            raise ValueError("no such checks: " + ", ".join(sorted(unknown)))
        if any(len(windows) > self.pictures.max for windows in self.pictures.windows.values()):
            raise ValueError("pictures.max is too small to show one frame in all its windows")
        return self

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of the canonical JSON, in hex."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


def load(text: str, *, origin: str = "a protocol") -> Protocol:
    """Read a protocol from YAML.

    Raises
    ------
    Misconfigured
        It is no protocol; the message names the values at fault.
    """
    try:
        return Protocol.model_validate(yaml.safe_load(text))
    except yaml.YAMLError:
        raise Misconfigured(f"The file {origin} is not YAML.") from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise Misconfigured(f"The file {origin} is not a reading protocol: {faults}.") from None


@functools.cache
def load_all() -> tuple[Protocol, ...]:
    """Return every protocol that is shipped, most specific first, then by name."""
    folder = importlib.resources.files(__name__)
    found = [
        load(entry.read_text(encoding="utf-8"), origin=entry.name)
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    ]
    return tuple(sorted(found, key=lambda p: (-p.match.specificity, p.name)))


def match(protocols: Sequence[Protocol], instances: Sequence[StoredInstance]) -> Protocol | None:
    """Return the most specific protocol that accepts an image of the study, or None."""
    headers = [i.header for i in instances if i.header.kind is InstanceKind.IMAGE]
    for protocol in sorted(protocols, key=lambda p: (-p.match.specificity, p.name)):
        if any(protocol.match.accepts(header) for header in headers):
            return protocol
    return None


def match_or_abstain(protocols: Sequence[Protocol], instances: Sequence[StoredInstance]) -> Protocol:
    """Return the protocol of a study.

    Raises
    ------
    Abstained
        No protocol is for such a study.
    """
    found = match(protocols, instances)
    if found is None:
        raise Abstained(ReasonCode.NO_PROTOCOL, "No reading protocol is for this kind of study.")
    return found


def bind(protocol: Protocol, default_model: str) -> str:
    """Return the model that is asked under a protocol.

    Raises
    ------
    Abstained
        The model is not competent for what the protocol asks.
    """
    model = protocol.model or default_model
    name = PHANTOM_MODEL if _is_phantom(model) else model
    if name in protocol.not_models or (protocol.models and name not in protocol.models):
        reason = protocol.not_models_reason or "This model is not competent for this protocol."
        raise Abstained(ReasonCode.UNSUPPORTED, reason, protocol=protocol.name, model=name)
    return model


def age_y(patient_age: str) -> float | None:
    """Read Patient's Age (VR AS, PS3.5 6.2) in years, or None."""
    found = _AGE.fullmatch(patient_age.strip().upper())
    return int(found.group(1)) * _YEARS[found.group(2)] if found else None


def _is_phantom(model: str) -> bool:
    return model == PHANTOM_MODEL or Path(model).expanduser().resolve() == MODEL_DIR.resolve()


def _contains(value: str, wanted: Sequence[str]) -> bool:
    return not wanted or any(w.upper() in value.upper() for w in wanted)
