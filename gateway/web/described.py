"""The API's description: what FastAPI knows of the routes, and what it cannot know.

Adds who may ask (from the rule that stands before each route and the one table of roles), how one says who one is, the
shape of a problem, and examples. Does not know what a route does.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from gateway.web.auth import COOKIE, CSRF_HEADER, Allow, Rule
from gateway.web.examples import EXAMPLES, OTHERS, PARAMETERS
from gateway.web.queries import dependants_of
from gateway.web.schemas import Problem
from record.access import PERMITTED, SCOPES
from record.states import Role

_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "A machine's token: `countersign tokens add`."},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "A person's: `POST /api/v1/session`."},
    "csrf": {
        "type": "apiKey",
        "in": "header",
        "name": "X-CSRF-Token",
        "description": "With whatever changes something.",
    },
}
_SAFE = frozenset({"GET", "HEAD"})
_PEOPLE_ONLY = frozenset({Role.RESIDENT, Role.ATTENDING})
_SESSION = "/api/v1/session"
_TAGS = [
    {"name": "session", "description": "A person signs in and out."},
    {"name": "studies", "description": "The worklist, a study, what may be asked for there."},
    {"name": "reports", "description": "A physician's document, from draft to signature."},
    {"name": "audit", "description": "What happened, in the order of its seals."},
    {"name": "health", "description": "Whether this process answers and can serve; metrics."},
]


def describe(app: FastAPI) -> dict[str, Any]:
    """The application's OpenAPI document."""
    described = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=_TAGS
    )
    components = described.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
    components["securitySchemes"] = _SCHEMES
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                _complete(described["paths"][route.path_format][method.lower()], method, rule_of(route))
    return described


def rule_of(route: APIRoute) -> Rule | None:
    """The rule that stands before a route."""
    for each in dependants_of(route):
        call: object = each.call
        if isinstance(call, Rule):
            return call
    return None


def roles_of(rule: Allow) -> list[Role]:
    """Who passes a rule, in the order of the roles."""
    return [role for role in Role if rule.action is None or rule.action in PERMITTED[role]]


def operations(described: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every operation of a document with its method, its path and a line for a terminal."""
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            bodies = examples_of(operation.get("requestBody", {}).get("content", {}).get("application/json", {}))
            lines = [_curl(method.upper(), path, operation, body) for body in bodies or [None]]
            yield {"method": method.upper(), "path": path, **operation, "curl": "\n".join(lines)}


def examples_of(content: Mapping[str, Any]) -> list[Any]:
    """The examples of a body, one or several (OpenAPI 3.1, Media Type Object)."""
    several = [each["value"] for each in content.get("examples", {}).values()]
    return several or [content["example"]] if several or "example" in content else []


def _complete(operation: dict[str, Any], method: str, rule: Rule | None) -> None:
    operation["security"] = []
    if isinstance(rule, Allow):
        session: dict[str, list[str]] = {"session": []} if method in _SAFE else {"session": [], "csrf": []}
        operation["x-roles"] = [str(role) for role in roles_of(rule)]
        of_people = rule.of_people or set(operation["x-roles"]) <= _PEOPLE_ONLY
        operation["security"] = [session] if of_people else [{"token": []}, session]
        operation["x-scopes"] = [scope for scope, (_, action) in SCOPES.items() if action == rule.action]
    for parameter in operation.get("parameters", []):
        own = parameter["schema"].get("examples")
        if own or parameter["name"] in PARAMETERS:
            parameter.setdefault("example", own[0] if own else PARAMETERS[parameter["name"]])
    for told in (operation.get("requestBody", {}), *operation["responses"].values()):
        content = told.get("content", {}).get("application/json", {})
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if name in OTHERS:
            content["examples"] = {"one": {"value": EXAMPLES[name]}, "other": {"value": OTHERS[name]}}
        elif name in EXAMPLES:
            content.setdefault("example", EXAMPLES[name])


def _curl(method: str, path: str, operation: Mapping[str, Any], body: Any) -> str:
    words = ["curl"] if method == "GET" else ["curl -I"] if method == "HEAD" else [f"curl -X {method}"]
    if operation["security"]:
        signed_in = "-b cookies.txt" if method in _SAFE else f'-b cookies.txt -H "{CSRF_HEADER}: $CSRF"'
        machines = {"token": []} in operation["security"]
        words.append('-H "Authorization: Bearer $TOKEN"' if machines else signed_in)
    elif path == _SESSION:
        words.append("-c cookies.txt")
    if body is not None:
        words.append("-H 'Content-Type: application/json' -d " + shlex.quote(json.dumps(body)))
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", str(parameter.get("example", "…")))
    return " ".join([*words, f'"$COUNTERSIGN{path}"'])
