"""What somebody new to the pages stumbled over, each as it reads now. What needs a script stands in `tests/web`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from starlette.requests import Request

from gateway.web import problems
from gateway.web.auth import Visitor
from gateway.web.operations_pages import INCURABLE
from record import accounts
from record.db import transaction
from record.models import User
from record.states import ReasonCode, Role
from tests.conftest import FreshDatabase
from tests.web_records import PASSWORD, Desk, csrf_of, desk_on

FORMER_WORDS = "What the machine said before the review"
LEGEND = 'class="legend'


@pytest.fixture(scope="module")
def desk(module_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(module_database, tmp_path_factory.mktemp("store")) as made:
        yield made


def shown(client: TestClient, path: str, *, language: str = "en") -> str:
    return client.get(path, headers={"Accept": "text/html", "Accept-Language": language}).text


def signed(desk: Desk, study_uid: str, words: str | None = None) -> str:
    """A study's page once its report is signed, with these words or the machine's."""
    client = desk.signed_in(Role.ATTENDING)
    report = desk.report_of(study_uid)
    if words:
        client.put(f"/api/v1/reports/{report.id}/text", json={"seen": report.revision, "text": words})
    seen = report.revision + bool(words)
    asked = {"seen": seen, "shown": 1, "password": PASSWORD}
    done = client.post(f"/api/v1/reports/{report.id}/sign", json=asked)
    assert done.status_code == 200, done.text
    return shown(client, f"/studies/{study_uid}")


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", "addenda and corrections are not available yet."),
        ("es", "las adendas y las correcciones aún no están disponibles."),
        ("zh", "目前尚不能补充或更正。"),
    ],
)
def test_who_signs_is_told_that_nothing_can_be_added_yet(desk: Desk, language: str, said: str) -> None:
    report = desk.report_of(desk.study())
    page = shown(desk.signed_in(Role.ATTENDING), f"/reports/{report.id}/sign", language=language)
    assert said in page


def test_a_signed_study_folds_the_drafts_away_and_says_what_to_do_about_a_mistake(desk: Desk) -> None:
    page = signed(desk, desk.study())
    folded = re.search(rf"<details[^>]*><summary>{FORMER_WORDS}</summary>(.*)", page, re.DOTALL)
    assert folded
    assert " open" not in folded[0].partition(">")[0]
    assert "AI DRAFT – NOT REVIEWED" in folded[1]
    assert "AI DRAFT – NOT REVIEWED" not in page[: folded.start()]
    assert "a signed report cannot be changed here" in page


def test_a_print_says_what_it_is_and_that_a_machine_helped_only_where_one_did(desk: Desk) -> None:
    helped = "Drafted with the help of a machine; reviewed and signed by Dr. Attending."
    drafted = signed(desk, desk.study())
    assert "Radiology report" in drafted
    assert helped in drafted
    final = re.search(
        r'<section class="card final".*?</section>', signed(desk, desk.study(), "Findings:\nMine.\n"), re.DOTALL
    )
    assert final
    assert "Mine." in final[0]
    assert helped not in final[0]
    assert LEGEND not in final[0]


def test_a_report_by_hand_is_signed_without_the_machines_legend_or_pictures(desk: Desk) -> None:
    study_uid = desk.study(ends="abstained")
    client = desk.signed_in(Role.ATTENDING)
    client.post(
        f"/studies/{study_uid}/report",
        data={"csrf": csrf_of(client.get(f"/studies/{study_uid}", headers={"Accept": "text/html"}))},
    )
    report = desk.report_of(study_uid)
    client.put(f"/api/v1/reports/{report.id}/text", json={"seen": report.revision, "text": "Findings:\nBy hand.\n"})
    page = shown(client, f"/reports/{report.id}/sign")
    assert "By hand." in page
    assert "Pictures the model saw" not in page
    assert "No pictures were rendered" not in page
    assert LEGEND not in page
    assert LEGEND in shown(client, f"/reports/{desk.report_of(desk.study()).id}/sign")


def test_where_the_words_come_from_stands_in_flat_rows_and_in_words(desk: Desk) -> None:
    page = shown(desk.signed_in(Role.ATTENDING), f"/studies/{desk.study()}")
    facts = page.partition("Where these words come from")[2].partition("</details>")[0]
    assert re.search(r"<dt>[^<]+ · [^<]+</dt><dd><code>e{64}</code></dd>", facts)
    assert "<dl" not in facts.replace('<dl class="facts flat">', "")
    assert "<ul" not in facts


def test_names_from_elsewhere_turn_no_words_around(desk: Desk) -> None:
    study_uid = desk.study()
    page = signed(desk, study_uid)
    assert "<strong><bdi>Dr. Attending</bdi></strong>" in page
    assert re.search(r"<td><bdi>[^<]*</bdi></td><td class=\"number\">", page)


def test_a_wrong_password_keeps_the_login_and_the_choice_of_language(desk: Desk) -> None:
    client = desk.client(headers={"Accept": "text/html"})
    page = client.post("/sign-in", data={"login": 'al"ex', "password": "wrong"})
    assert page.status_code == 401
    assert 'name="login" autocomplete="username" required maxlength="200" value="al&#34;ex"' in page.text
    assert 'action="/language"' in page.text
    assert 'name="back" value="/sign-in"' in page.text


def test_an_error_leads_back_to_the_worklist_and_names_fields_as_the_form_does(desk: Desk) -> None:
    client = desk.signed_in(Role.ATTENDING)
    page = shown(client, "/studies/1.2.3")
    assert "<h1>Not found</h1>" in page
    assert re.search(r'<header class="bar">.*<a href="/">Worklist</a>.*</header>', page, re.DOTALL)
    viewer = f"/studies/{desk.study()}/instances/00000000-0000-0000-0000-000000000000?center=x&preset=rose"
    fields = shown(client, viewer)
    assert sorted(re.findall(r"<strong>(\w+)</strong>", fields)) == ["Centre", "Window"]
    assert "query." not in fields
    assert "Centre" not in shown(client, viewer, language="zh")


def test_an_error_keeps_the_frame_of_whoever_is_known_already(desk: Desk) -> None:
    login = desk.user(Role.ATTENDING)
    with transaction(desk.engine) as session:
        principal = accounts.user_principal(session.query(User).filter_by(login=login).one())
    known = Visitor(principal, "a-token")
    scope = {"type": "http", "method": "GET", "path": "/x", "query_string": b"", "headers": [(b"accept", b"text/html")]}
    request = Request({**scope, "app": desk.app, "state": {"visitor": known}})
    page = bytes(problems.answer(request, problems.describe(404, "not_found", "There is nothing here.")).body).decode()
    assert "Sign out" in page
    assert "Dr. Attending" in page


def test_an_operators_study_page_says_how_the_reading_ended(desk: Desk) -> None:
    page = shown(desk.signed_in(Role.OPERATOR), f"/studies/{desk.study()}")
    after = page.partition('id="pictures-heading">Reading</h2>')[2].partition("</section>")[0]
    assert 'class="state reading-done"' in after.partition("<details>")[0]
    assert '<div class="columns single">' in page


def test_what_no_retry_cures_has_no_button_to_retry_all_and_an_idle_lane_no_alarm(desk: Desk) -> None:
    desk.study(ends="abstained")
    desk.study(ends="failed")
    page = shown(desk.signed_in(Role.OPERATOR), "/operations")
    offered = set(re.findall(r'name="reason_code" value="(\w*)"', page))
    assert offered
    assert not offered & INCURABLE
    assert ReasonCode.NO_PROTOCOL in INCURABLE
    assert "no protocol" in page
    assert "lane-stat" not in page


def test_times_are_elements_that_a_browser_can_put_into_its_own_zone(desk: Desk) -> None:
    page = shown(desk.signed_in(Role.ATTENDING), f"/studies/{desk.study()}")
    assert re.search(r'received <time datetime="[^"]+" title="[^"]+ UTC">[^<]+ UTC</time>', page)
    assert not re.search(r"(?<!\")\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC(?!</time>|\")", page)
