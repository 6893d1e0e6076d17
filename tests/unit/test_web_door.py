"""The web door without a database: rules, problems, envelope, static files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from gateway.web import problems, templating
from gateway.web.app import create_app
from gateway.web.auth import Public, Rule
from gateway.web.bodies import MAX_BODY_BYTES
from record import errors
from record.settings import ApiSettings

NOWHERE = "postgresql://nobody:nothing@127.0.0.1:9/none"


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return create_app(ApiSettings(database_url=NOWHERE, store=tmp_path, redis_url="redis://127.0.0.1:9/0"))


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app, raise_server_exceptions=False, follow_redirects=False)


def rules_of(route: object) -> list[Rule]:
    """The rules among all of a route's dependencies."""
    assert isinstance(route, APIRoute), f"{route} is no route of the kind that carries a rule"
    found, waiting = [], [route.dependant]
    while waiting:
        dependant = waiting.pop()
        waiting += dependant.dependencies
        if isinstance(dependant.call, Rule):
            found.append(dependant.call)
    return found


def test_every_route_has_exactly_one_rule(app: FastAPI) -> None:
    assert len(app.routes) > 20
    for route in app.routes:
        assert len(rules_of(route)) == 1, f"{route} has no rule, or more than one"


def test_what_anybody_may_ask_is_known_by_name(app: FastAPI) -> None:
    open_to_all = {
        (method, route.path)
        for route in app.routes
        if isinstance(route, APIRoute) and isinstance(rules_of(route)[0], Public)
        for method in route.methods
    }
    assert open_to_all == {
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/static/{name}"),
        ("GET", "/sign-in"),
        ("POST", "/sign-in"),
        ("POST", "/language"),
        ("POST", "/appearance"),
        ("POST", "/api/v1/session"),
    }


def test_no_route_waits_in_the_event_loop(app: FastAPI) -> None:
    import inspect

    assert not [r for r in app.routes if isinstance(r, APIRoute) and inspect.iscoroutinefunction(r.endpoint)]


def test_every_error_of_ours_has_a_status_and_a_title() -> None:
    not_for_this_door = {
        errors.Misconfigured,
        errors.LeaseLost,
        errors.EngineUnavailable,
        errors.EngineRejected,
        errors.UnusableFindings,
        errors.Abstained,
    }
    for kind in errors.CountersignError.__subclasses__():
        assert (kind in problems.STATUS) != (kind in not_for_this_door)
    assert {kind.code for kind in problems.STATUS} <= problems.TITLES.keys()


def test_facts_of_an_error_go_out_only_where_a_client_needs_them() -> None:
    told = problems.of_error(errors.StaleRevision("Newer words.", revision=3, path_kind="x", patient="y"))
    assert told["revision"] == 3
    assert not {"path_kind", "patient"} & told.keys()


def test_an_error_that_is_nobody_s_business_is_a_500_without_its_text() -> None:
    told = problems.of_error(errors.Misconfigured("secret.key is missing"))
    assert (told["status"], "secret" in str(told)) == (500, False)


def test_health_speaks_for_the_process_and_readiness_for_the_database(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"database": "down", "redis": "down"})


def test_a_database_that_is_away_is_a_503(client: TestClient) -> None:
    answer = client.get("/api/v1/studies", headers={"Authorization": "Bearer cs_x"})
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"]
    assert answer.json()["code"] == "unavailable"


def test_a_page_while_the_database_is_away_is_a_page(client: TestClient) -> None:
    client.cookies.set("countersign_session", "x")
    answer = client.get("/", headers={"Accept": "text/html"})
    assert answer.status_code == 503
    assert "does not answer" in answer.text


def test_what_is_nowhere_and_what_is_not_served_are_problems(client: TestClient) -> None:
    for method, path, status in [
        ("GET", "/api/v1/nothing", 404),
        ("PATCH", "/api/v1/studies", 405),
        ("GET", "/%2e%2e/x", 404),
    ]:
        answer = client.request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert "nothing" not in answer.json()["detail"].replace("There is nothing", "")


def test_a_validation_problem_never_repeats_what_was_sent(client: TestClient) -> None:
    answer = client.post("/api/v1/session", json={"login": 5, "password": "CANARY" * 1000})
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_request"
    assert "body.login, body.password" in answer.json()["detail"]
    assert "CANARY" not in answer.text
    deep = client.post("/api/v1/session", content=b"[" * 100_000, headers={"Content-Type": "application/json"})
    assert deep.status_code in {400, 422}
    broken = client.post("/api/v1/session", content=b'{"login": "CANARY', headers={"Content-Type": "application/json"})
    assert broken.status_code == 422
    assert "CANARY" not in broken.text


def test_a_body_that_is_too_large_is_refused_announced_or_not(client: TestClient) -> None:
    large = b'{"login":"' + b"x" * MAX_BODY_BYTES + b'"}'
    headers = {"Content-Type": "application/json"}

    def drip() -> Iterator[bytes]:
        yield from (large[i : i + 65536] for i in range(0, len(large), 65536))

    for content in (large, drip()):
        answer = client.post("/api/v1/session", content=content, headers=headers)
        assert answer.status_code == 413
        assert answer.json()["code"] == "too_large"


def test_every_answer_bears_the_security_headers(client: TestClient, app: FastAPI) -> None:
    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("CANARY")

    for path in ("/healthz", "/nothing", "/sign-in", "/static/style.css", "/broken"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == ("public, no-cache" if "static" in path else "no-store")
        assert "CANARY" not in answer.text
    assert client.get("/broken").status_code == 500


def test_only_our_own_static_files_are_served(client: TestClient) -> None:
    style = client.get("/static/style.css")
    assert style.headers["content-type"].startswith("text/css")
    assert client.get("/static/style.css", headers={"If-None-Match": style.headers["etag"]}).status_code == 304
    for name in ("..%2Fapp.py", "nothing.css", "%2e%2e"):
        assert client.get(f"/static/{name}").status_code == 404


def test_the_documentation_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "https://" not in page.text
    described = client.get("/openapi.json").json()
    for path in described["paths"]:
        assert path in page.text
    assert "HTTPValidationError" not in str(described)


def test_the_templates_carry_no_script_and_no_style_of_their_own() -> None:
    for path in Path(templating.__file__).parent.joinpath("templates").iterdir():
        text = path.read_text()
        assert "style=" not in text
        assert "javascript:" not in text
        assert "|safe" not in text.replace(" ", "")
        assert text.count("<script") == text.count('<script src="/static/')


def test_values_from_outside_are_escaped_on_a_page(app: FastAPI) -> None:
    asked = {"path": '/"><script>', "query_string": b"<script>", "headers": []}
    request = Request({"type": "http", "method": "GET", "app": app, **asked})
    shown = templating.page(
        "problem.html", request=request, problem={"title": "<b>", "detail": '"><script>', "status": 400, "code": "x"}
    )
    assert b"<script>" not in shown.body
    assert b"&lt;b&gt;" in shown.body


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("DOE^JOHN^^^", "DOE, JOHN"),
        ("", ""),
        ("PHANTOM", "PHANTOM"),
        ("=山田^太郎", "山田太郎"),
        ("Wang^Xiaodong=王^小东", "Wang, Xiaodong 王小东"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou 山田太郎"),
        ("==やまだ^たろう", "やまだたろう"),
        ("^Ana María", "Ana María"),
    ],
)
def test_a_person_s_name_is_shown_for_reading(sent: str, shown: str) -> None:
    assert templating._person(sent) == shown
