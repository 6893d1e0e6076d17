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
from gateway.web import languages, operations_pages, problems, templating
from gateway.web.languages import catalogue, of_caption, of_code, of_message, translate
from gateway.web.ways_on import WAYS
from record import alarms, presence
from record.alarms import Severity
from record.body import SectionCode
from record.presence import Verdict
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
from worker.engines import EngineIdentity
from worker.protocols import CHECKS, load_all
from worker.windows import WINDOWS

WEB = Path(gateway.web.__file__).parent
ROOT = WEB.parent.parent
FOREIGN = sorted(set(languages.NAMES) - {languages.ENGLISH})
STATES = (
    *(StudyState, ReadingState, ReportState, DeliveryState, Lane, Role, Purpose, Guard, ReasonCode),
    *(Severity, Verdict),
)
FLAGS = {"low_confidence", "no_headings", "cut_short", "conflict", "outdated", "receiving_late", "retrying", "erased"}
IMAGES = {"left_out", "rejected", "prior"}
EVIDENCE = {"quiet", "count", "max_wait", "operator"}
REVISIONS = {"save", "begun"}
SIGNATURES = {"authorship and approval"}
LINE = {*presence.KINDS, "spool", "store", *alarms.FAILING, *alarms.FAILING.values()}
WORDS = {"words_sha256", "model", "protocol", "protocol_version", "protocol_digest"}
SPOKEN = {"Not signed in", *problems.TITLES.values()}


SPEAKERS = (
    *(
        "gateway/web",
        "record/access.py",
        "record/accounts.py",
        "record/body.py",
        "record/conflicts.py",
        "record/leases.py",
    ),
    *("record/pipes.py", "record/readings.py", "record/reports.py", "record/states.py", "record/store.py"),
    *(
        "record/studies.py",
        "record/written.py",
        "worker/checks.py",
        "worker/decoding.py",
        "worker/opened.py",
        "worker/protocols",
        "worker/regions.py",
    ),
    *("worker/reading.py", "worker/rendering.py", "worker/selection", "worker/tasks.py"),
)
"""Where errors and reasons are worded that a page may show."""
_SAYING = {"message", "detail", "details", "reason"}
_CHOOSING = re.compile(r"_why(_\w+)?")
_SAID_AT = {
    **dict.fromkeys(("Abstained", "fail", "_refusal", "problems.describe"), 1),
    **dict.fromkeys(("InvalidInstance", "_unsupported", "UnsupportedInstance"), 0),
}
"""Functions that take a sentence, and which of their arguments it is."""
UNSEEN = {
    # commands
    "A login of 1 to {} characters and a printed name of 1 to {} are needed.",
    "A login has no spaces in it.",
    "A login or a printed name holds characters that cannot be seen.",
    "A password has at least {} characters, and at most {}.",
    "A password holds no control characters: nobody could type them.",
    "A token belongs to a machine: it cannot be a physician.",
    "A token's name is empty, or holds characters that cannot be seen.",
    "Nobody has this login. `countersign users list` names all.",
    "The file that COUNTERSIGN_ENGINE_KEY_FILE names cannot be read.",
    "The role {} knows no scope {}. The scopes are: {}.",
    "The site has no token of this name. `countersign tokens list` names all.",
    "The site has, or had, a token of this name: a revoked one keeps its name on record.",
    "This login is taken; capitals make no difference.",
    "This names studies of several sites: say which with --site.",
    # the API alone
    "A language is a tag such as en or zh-Hans (BCP 47).",
    "A parameter may stand there once only: {}.",
    "A person decides this, not a machine's token.",
    "This takes a person's session, not a machine's token.",
    "A sentence's id, source, pictures or flags are not of this schema.",
    "Send either study_date, or study_date_from and study_date_to.",
    "Send either text or body.",
    "Send the token as: Authorization: Bearer TOKEN.",
    "The proof of identity is another person's.",
    "The token is unknown, revoked or expired.",
    "This address takes no parameter {}. {}",
    "Two sentences bear the same id.",
    # our own programs among themselves
    "A store key is lower-case hex of a fixed length.",
    "The decoding child does not start. Try `python -P -m worker.decoding --check` by hand.",
    "The decoding child has no such operation.",
}
"""Sentences of those modules that no page shows."""
CAPTIONS = {
    *("view {}", "right", "left", "both sides", "slice {} of {}", "frame {} of {}", "image"),
    *(
        "axial",
        "coronal",
        "sagittal",
        "oblique",
        "series {}",
        "film {}",
        "time point {} of {}",
        "montage of slices {} of {}",
    ),
    *("whole slide", "overview", "overview at about {}×", "detail at about {}×"),
    "{} % from the left and {} % from the top of the slide",
    *(window.words for window in WINDOWS.values()),
}
"""The parts of a caption that are words (`worker.selection`)."""


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
    return marked | SPOKEN | set(operations_pages.TEXTS)


def codes() -> set[str]:
    known = {str(value) for kind in STATES for value in kind} | {str(code) for code in SectionCode}
    known |= set(CHECKS) | FLAGS | IMAGES | EVIDENCE | REVISIONS | SIGNATURES | LINE
    return known | WORDS | facts_of_provenance()


def facts_of_provenance() -> set[str]:
    """The names of a draft's provenance, save those of the engine's own parts and of the steps of a rendering."""
    told = set(EngineIdentity.__dataclass_fields__)
    for node in ast.walk(ast.parse((ROOT / "worker" / "provenance.py").read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == "provenance_of":
            keys = (key for each in ast.walk(node) if isinstance(each, ast.Dict) for key in each.keys)
            told |= {str(key.value) for key in keys if isinstance(key, ast.Constant)}
    assert "pictures" in told
    return told - {"countersign", "python"}


def outline(sentence: str) -> str:
    """A sentence whatever its placeholders are called."""
    return re.sub(r"\{[^{}]*\}", "{}", sentence)


def sentences_in(value: ast.expr) -> Iterator[str]:
    """The sentences an expression may be, with `{}` for each placeholder."""
    match value:
        case ast.Constant(value=str(said)):
            yield said
        case ast.JoinedStr(values=parts):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in parts)
        case ast.IfExp(body=one, orelse=other):
            yield from (*sentences_in(one), *sentences_in(other))
        case ast.BoolOp(values=several):
            for each in several:
                yield from sentences_in(each)
        case ast.Dict(values=several):
            for each in several:
                yield from sentences_in(each)


def refusals() -> Iterator[tuple[str, str]]:
    """What errors and reasons say in the modules whose words a page may show, and where."""
    for part in SPEAKERS:
        for path in sorted((ROOT / part).glob("*.py")) if (ROOT / part).is_dir() else [ROOT / part]:
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).rpartition(".")[2] in _SAYING:
                    found = node.value
                elif isinstance(node, ast.Call) and ast.unparse(node.func) in _SAID_AT:
                    found = node.args[_SAID_AT[ast.unparse(node.func)]]
                elif isinstance(node, ast.FunctionDef) and _CHOOSING.fullmatch(node.name):
                    for each in ast.walk(node):
                        if isinstance(each, ast.Return) and each.value is not None:
                            yield from ((said, path.name) for said in sentences_in(each.value))
                    continue
                else:
                    continue
                yield from ((said, path.name) for said in sentences_in(found) if " " in said)
    for protocol in load_all():
        yield protocol.gate.not_models_reason or "This model is not competent for this protocol.", protocol.name


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
def test_whatever_refuses_or_chooses_on_a_page_says_so_in_its_language(language: str) -> None:
    known = {outline(key) for part in ("messages", "texts") for key in getattr(catalogue(language), part)}
    missing = {f"{where}: {said}" for said, where in refusals() if said not in known | UNSEEN}
    assert sorted(missing) == [], "sentences without a translation; those that no page shows stand in UNSEEN"
    assert sorted(UNSEEN - {said for said, _ in refusals()}) == []


@pytest.mark.parametrize("language", FOREIGN)
def test_no_message_is_translated_that_nothing_says(language: str) -> None:
    said = constants_of_errors() | {said for said, _ in refusals()} | CAPTIONS
    assert sorted(key for key in catalogue(language).messages if outline(key) not in said) == []


@pytest.mark.parametrize("language", FOREIGN)
def test_what_the_model_was_told_of_a_picture_is_translated(language: str) -> None:
    known = {outline(key) for key in catalogue(language).messages}
    assert sorted(CAPTIONS - known) == []
    told = "CT, view PA, left, slice 3 of 9, soft tissue window"
    assert set(told.split(", ")) & set(of_caption(language, told).split(", ")) == {"CT"}


@pytest.mark.parametrize("language", FOREIGN)
def test_a_sentence_with_numbers_or_states_in_it_is_translated_around_them(language: str) -> None:
    stale = "Revision 3 was seen, but the report is at revision 12. Look at it, then go on."
    said = of_message(language, stale)
    assert said != stale
    assert re.findall(r"\d+", said) == ["3", "12"]
    ended = of_message(language, "A report that is final cannot be cancelled.")
    assert of_code(language, "final") in ended


@pytest.mark.parametrize("language", FOREIGN)
def test_an_alarm_says_its_values_in_the_language(language: str) -> None:
    waits = templating._told(language, alarms.alarm("waiting_long", lane="stat", age="5 min"))
    assert of_code(language, "stat") in waits
    assert f"5 {translate(language, 'min')}" in waits
    halted = templating._told(language, alarms.alarm("indexer_failing", host="alpha", reason="the store is full"))
    assert "alpha" in halted
    assert "the store is full" not in halted
    for code, kind in alarms.KINDS.items():
        names = dict.fromkeys(re.findall(r"\{(\w+)\}", kind.text), "5 min")
        told = templating._told(language, alarms.alarm(code, **names))
        assert told != kind.text.format(**names), code
        assert "{" not in told, code


def test_the_catalogues_are_of_the_same_keys_and_say_each_once() -> None:
    files = {path.stem: path.read_text("utf-8") for path in (WEB / "languages").glob("*.yaml")}
    assert sorted(files) == FOREIGN
    parts = {name: yaml.safe_load(text) for name, text in files.items()}
    for part in ("texts", "codes", "messages"):
        assert len({frozenset(said[part]) for said in parts.values()}) == 1, part
    for name, text in files.items():
        for part in re.split(r"^\w+:$", text, flags=re.MULTILINE):
            keys = [line.split('": ')[0] for line in part.splitlines() if line.startswith('  "')]
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
    assert of_message("es", "Revision 3 was seen_by nobody.") == "Revision 3 was seen_by nobody."


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
