"""Every sentence and code of the pages in every language, and nothing else in the catalogues."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from jinja2 import Environment, nodes

import gateway.web
from gateway.web import languages, problems, templating
from gateway.web.languages import catalogue, of_code, of_message, translate
from gateway.web.ways_on import WAYS
from record.body import SectionCode
from record.states import (
    DeliveryState,
    Guard,
    Lane,
    Purpose,
    ReadingState,
    ReasonCode,
    ReportState,
    Role,
    StudyState,
)
from worker.protocols import CHECKS

WEB = Path(gateway.web.__file__).parent
ROOT = WEB.parent.parent
FOREIGN = sorted(set(languages.NAMES) - {languages.ENGLISH})
STATES = (StudyState, ReadingState, ReportState, DeliveryState, Lane, Role, Purpose, Guard, ReasonCode)
FLAGS = {"low_confidence", "no_headings", "cut_short", "conflict", "outdated", "receiving_late", "retrying", "erased"}
IMAGES = {"left_out", "rejected", "prior"}
EVIDENCE = {"quiet", "count", "max_wait"}
REVISIONS = {"save", "begun"}
SPOKEN = {"Not signed in", *problems.TITLES.values()}


def said_in_templates() -> Iterator[tuple[str, str]]:
    for path in sorted((WEB / "templates").glob("*.html")):
        tree = Environment(autoescape=True).parse(path.read_text("utf-8"))
        for call in tree.find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and call.node.name == "t" and isinstance(call.args[0], nodes.Const):
                yield call.args[0].value, path.name


def said_in_python(function: str) -> Iterator[tuple[str, str]]:
    """Constant texts that are marked with `english(…)`, or given to a variable `message` that an error is made of."""
    for package in ("gateway", "record"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                named = isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == function
                if named and node.args and isinstance(node.args[0], ast.Constant):
                    yield node.args[0].value, path.name


def texts() -> set[str]:
    marked = {text for text, _ in [*said_in_templates(), *said_in_python("english")]}
    return marked | SPOKEN


def codes() -> set[str]:
    known = {str(value) for kind in STATES for value in kind} | {str(code) for code in SectionCode}
    return known | set(CHECKS) | FLAGS | IMAGES | EVIDENCE | REVISIONS


def constants_of_errors() -> set[str]:
    """Every constant sentence in the sources: what an error says is one of them."""
    found = set()
    for package in ("gateway", "record", "worker"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
    return found


@pytest.mark.parametrize("language", FOREIGN)
def test_every_sentence_of_the_pages_is_translated_and_no_translation_is_dead(language: str) -> None:
    known = set(catalogue(language).texts)
    assert sorted(texts() - known) == [], "sentences without a translation"
    assert sorted(known - texts()) == [], "translations of what no page says"


@pytest.mark.parametrize("language", FOREIGN)
def test_a_translation_has_the_placeholders_of_its_sentence(language: str) -> None:
    for part in ("texts", "messages"):
        for key, said in getattr(catalogue(language), part).items():
            assert said.strip(), key
            assert set(re.findall(r"\{\w+\}", key)) == set(re.findall(r"\{\w+\}", said)), key


@pytest.mark.parametrize("language", FOREIGN)
def test_every_state_reason_flag_and_role_is_translated(language: str) -> None:
    assert sorted(codes() - set(catalogue(language).codes)) == []


@pytest.mark.parametrize("language", FOREIGN)
def test_no_code_is_translated_that_nothing_says(language: str) -> None:
    assert sorted(set(catalogue(language).codes) - constants_of_errors() - codes()) == []


@pytest.mark.parametrize("language", FOREIGN)
def test_no_message_is_translated_that_nothing_says(language: str) -> None:
    assert sorted(set(catalogue(language).messages) - constants_of_errors()) == []


def test_the_catalogues_are_of_the_same_keys_and_say_each_once() -> None:
    files = {path.stem: path.read_text("utf-8") for path in (WEB / "languages").glob("*.yaml")}
    assert sorted(files) == FOREIGN
    parts = {name: yaml.safe_load(text) for name, text in files.items()}
    for part in ("texts", "codes", "messages"):
        assert len({frozenset(said[part]) for said in parts.values()}) == 1, part
    for name, text in files.items():
        keys = [line.split('": ')[0] for line in text.splitlines() if line.startswith('  "')]
        assert len(keys) == len(set(keys)), name


def test_every_reason_has_a_way_on() -> None:
    assert set(WAYS) == set(ReasonCode)


def test_templates_show_no_text_of_their_own() -> None:
    """Whatever letters stand between tags go through `t`; names of ours and technical words apart."""
    own = re.compile(
        r"countersign|sha256|AI DRAFT – NOT REVIEWED|UNSIGNED|Redis|/openapi\.json|Enter|/studies/|/instances/|\?frame="
    )
    for path in sorted((WEB / "templates").glob("*.html")):
        if path.name == "docs.html":
            continue  # the API's own English, for programmers
        text = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", "", path.read_text("utf-8"), flags=re.DOTALL)
        text = re.sub(r"<(kbd|code)[^>]*>[^<]*</\1>", "", text)
        between = re.sub(r"<[^>]*>", "\n", re.sub(r"<!doctype html>", "", text))
        left = [word for word in re.findall(r"[A-Za-z][A-Za-z ]+[a-z]", own.sub("", between)) if word.strip()]
        assert left == [], path.name


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("es-ES,es;q=0.9,en;q=0.8", "es"),
        ("zh-CN,zh;q=0.9", "zh"),
        ("de-DE,de;q=0.9,en;q=0.5", "en"),
        ("fr, es;q=0.1", "es"),
        ("en;q=0.2, zh-Hans;q=0.7", "zh"),
        ("xx", "en"),
        ("es;q=0", "en"),
        ("es;q=nonsense, zh", "zh"),
    ],
)
def test_the_browsers_languages_are_weighed(header: str, language: str) -> None:
    assert languages._accepted(header) == language


def test_what_no_catalogue_knows_reads_as_it_is_written() -> None:
    assert translate("es", "A sentence nobody wrote.") == "A sentence nobody wrote."
    assert of_code("zh", "a_flag_of_a_site") == "a flag of a site"
    assert of_code("en", "no_protocol") == "no protocol"
    assert of_message("es", "Revision 3 was seen.") == "Revision 3 was seen."


def test_a_missing_translation_of_a_known_code_is_not_the_code() -> None:
    for language in FOREIGN:
        assert of_code(language, "abstained") != "abstained"


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ({"patient_sex": "F", "patient_age": "045Y"}, "F, 45 y"),
        ({"patient_sex": "M", "patient_age": "007M"}, "M, 7 mo"),
        ({"patient_sex": "O", "patient_age": ""}, "O"),
        ({"patient_sex": "", "patient_age": "old"}, "old"),
        ({"patient_sex": "F", "patient_birth_date": "19800615", "study_date": "20260614"}, "F, 45 y"),
        ({"patient_sex": "F", "patient_birth_date": "20250615", "study_date": "20260614"}, "F, 11 mo"),
        ({"patient_sex": "F", "patient_birth_date": "2025", "study_date": "20260614"}, "F"),
    ],
)
def test_sex_and_age_are_readable(who: dict[str, str], said: str) -> None:
    from types import SimpleNamespace

    whole = {"patient_sex": "", "patient_age": "", "patient_birth_date": "", "study_date": "", **who}
    assert templating._sex_age("en", SimpleNamespace(**whole)) == said
