"""The API's description: every operation with its answers, its problems, its roles and examples that are true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import BaseModel, TypeAdapter

from gateway.web import described, examples, problems, schemas
from gateway.web.app import create_app
from gateway.web.auth import Allow
from record.settings import ApiSettings

ANYBODY_S = {"/healthz", "/readyz", "/api/v1/session"}
BINARY = ("image/", "text/plain", "application/dicom", "application/openmetrics-text")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    nowhere = "postgresql://nobody:nothing@127.0.0.1:9/none"
    return create_app(ApiSettings(database_url=nowhere, store=tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    return dict(TestClient(app).get("/openapi.json").json())


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_route_of_the_api_is_described(app: FastAPI, document: dict[str, Any]) -> None:
    routes = {
        f"{method} {route.path}"
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods
        if route.path.startswith(("/api/", "/healthz", "/readyz", "/metrics"))
    }
    assert {name for name, _ in operations(document)} == routes


def test_every_operation_says_what_it_is_and_who_may_ask(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert operation["summary"], name
        assert len(operation["description"]) > 20, name
        assert operation["tags"], name
        if name.partition(" ")[2] not in ANYBODY_S or name.startswith("DELETE"):
            assert operation["security"], name
            assert operation["x-roles"], f"{name}: nobody may ask"
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                assert "example" in parameter, f"{name}: {parameter['name']} has no example (gateway/web/examples.py)"


def test_every_operation_says_what_can_go_wrong_by_code(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        if operation["tags"] == ["health"] and "x-roles" not in operation:
            continue
        answers = operation["responses"]
        expected = {"401", "403", "422", "500", "503"} | ({"400", "413"} if "requestBody" in operation else set())
        assert expected <= answers.keys(), f"{name}: use responses=answers(…), with body=True for one with a body"
        if "{" in name:
            assert "404" in answers, name
        for status, answer in answers.items():
            if int(status) < 400:
                continue
            content = answer["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert content["examples"], f"{name} {status}"
            for code, example in content["examples"].items():
                shown = schemas.Problem.model_validate(example["value"])
                assert (shown.code, shown.status) == (code, int(status))
                assert f"`{code}`" in answer["description"]


def test_every_operation_shows_what_it_takes_and_gives(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert described.examples_of(content), f"{name}: no example of its body"
        for status, answer in operation["responses"].items():
            if int(status) >= 400 or status == "304" or "content" not in answer:
                continue
            for kind, content in answer["content"].items():
                assert kind.startswith(BINARY) or "example" in content, f"{name} {status} {kind}: no example"


@pytest.mark.parametrize("name", examples.EXAMPLES.keys())
def test_an_example_is_what_it_is_an_example_of(name: str) -> None:
    shape: type[BaseModel] = getattr(schemas, name)
    example = examples.EXAMPLES[name]
    TypeAdapter(shape).validate_python(example)
    if issubclass(shape, schemas.Given):
        assert example.keys() == shape.model_fields.keys(), "every field is shown"


def test_the_roles_of_an_operation_are_those_of_the_one_table(app: FastAPI, document: dict[str, Any]) -> None:
    for route in app.routes:
        if (
            isinstance(route, APIRoute)
            and route.include_in_schema
            and isinstance(rule := described.rule_of(route), Allow)
        ):
            for method in route.methods:
                told = document["paths"][route.path_format][method.lower()]["x-roles"]
                assert told == [str(role) for role in described.roles_of(rule)]
    assert document["paths"]["/api/v1/reports/{report_id}/sign"]["post"]["x-roles"] == ["attending"]


def test_the_page_of_it_shows_a_line_for_the_terminal_and_every_code(app: FastAPI, document: dict[str, Any]) -> None:
    page = TestClient(app).get("/docs").text
    assert page.count("curl ") >= len(list(operations(document)))
    for code in problems.TITLES:
        assert f"<code>{code}</code>" in page, code
    assert "/api/v1/studies/1.2.826.0.1.3680043.8.498.1/close" in page
    assert "{study_instance_uid}" in page


def test_a_line_for_the_terminal_proves_who_one_is_in_a_way_that_the_route_takes(document: dict[str, Any]) -> None:
    lines = {(one["method"], one["path"]): one["curl"] for one in described.operations(document)}
    assert "-c cookies.txt" in lines["POST", "/api/v1/session"], "the cookie is kept for the lines that send it"
    assert "-b cookies.txt" in lines["DELETE", "/api/v1/session"]
    for (_, path), line in lines.items():
        if "/images" in path or "/rendered" in path or "/pictures" in path or "/conflicts" in path:
            assert "-b cookies.txt" in line, "no token may"
            assert "Bearer" not in line
    assert "Bearer" in lines["GET", "/api/v1/studies"]


def test_codes_may_be_named_by_status() -> None:
    told = problems.answers(409)[409]["content"]["application/problem+json"]["examples"]
    assert told.keys() == {"illegal_move", "stale_revision", "new_images", "conflict"}
    assert problems.answers("conflict")[409]["content"]["application/problem+json"]["examples"].keys() == {"conflict"}
