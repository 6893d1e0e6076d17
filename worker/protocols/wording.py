"""The texts that our protocols share, in each language: who the model is, what it is given, in which form it answers.

Knows the languages and their files in `wording/`. Does not know protocols: a step that says nothing itself takes the
text of its kind from here, and the protocol's digest covers it.
"""

from __future__ import annotations

import functools
import importlib.resources
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

Language = Literal["en", "es", "zh"]


class Templates(BaseModel):
    """The user's message for each kind of step."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    report: str
    describe: str
    ask: str
    impression: str


class Labels(BaseModel):
    """What stands before each fact of the context, and the words for what is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    modality: str
    body_part: str
    view: str
    age: str
    sex: str
    indication: str
    history: str
    labs: str
    prior_report: str
    missing: str
    sides: str
    unknown: str
    none_given: str
    female: str
    male: str
    other: str
    years: str
    months: str


class Wording(BaseModel):
    """One language's texts.

    `yes` and `no` are the answers to an *ask*; `headings` name the sections, as the answer should.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    system: str
    templates: Templates
    labels: Labels
    headings: dict[str, str]
    yes: str
    no: str


@functools.cache
def wording_of(language: Language) -> Wording:
    """Return the texts of a language."""
    text = (importlib.resources.files(__package__) / "wording" / f"{language}.yaml").read_text(encoding="utf-8")
    return Wording.model_validate(yaml.safe_load(text))
