"""Errors as HTTP answers: RFC 9457 problem JSON for machines, a plain page for people.

Knows the one table from `record.errors` to status codes, and which facts may go out. Does not know what went wrong: the
message of a `CountersignError` is made to be shown, everybody else's text is dropped, since it may repeat what was sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import Match

from gateway.web.languages import english
from gateway.web.templating import page
from record import errors
from record.db import is_away

_logger = structlog.get_logger()

STATUS: Mapping[type[errors.CountersignError], int] = {
    errors.NotFound: 404,
    errors.NotPermitted: 403,
    errors.NotAuthenticated: 401,
    errors.TooManyTries: 429,
    errors.Busy: 503,
    errors.InvalidRequest: 422,
    errors.InvalidInstance: 422,
    errors.UnsupportedInstance: 415,
    errors.MismatchedInstance: 422,
    errors.StoreFull: 507,
    errors.IllegalMove: 409,
    errors.StaleRevision: 409,
    errors.NewImages: 409,
    errors.Conflict: 409,
    errors.PeerUnavailable: 502,
}
"""The web door's table; what stands here neither through itself nor its parents is a 500."""

TITLES: Mapping[str, str] = {
    "not_found": "Not found",
    "not_permitted": "Not permitted",
    "not_authenticated": "Not signed in",
    "invalid_request": "The request cannot be used",
    "invalid_instance": "Not a usable instance",
    "unsupported_instance": "Not a supported instance",
    "mismatched_instance": "The instance is not what was announced",
    "store_full": "The store has no room",
    "illegal_move": "The state does not lead there",
    "stale_revision": "Somebody saved in between",
    "new_images": "The images are not those that were shown",
    "conflict": "In conflict with what is there",
    "peer_unavailable": "Another system does not answer",
    "method_not_allowed": "This method is not served here",
    "too_large": "The request is too large",
    "erased": "The words are erased",
    "unavailable": "Not available at the moment",
    "too_many_tries": "Not available at the moment",
    "internal_error": "Something went wrong on our side",
}

_FACTS = frozenset({"revision", "state", "former_state", "report_id", "count", "reason_code", "retry_after_s"})
"""Facts of an error that a client needs to go on; the rest stays inside."""
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 410: "erased", 413: "too_large", 503: "unavailable"}
STATUS_OF = {kind.code: status for kind, status in STATUS.items()} | {
    code: status for status, code in {**_HTTP_CODES, 500: "internal_error"}.items()
}
"""The status of every code of a problem; `invalid_request` is a 400 where a body cannot be read at all."""
PROBLEM_SCHEMA = {"$ref": "#/components/schemas/Problem"}
NOT_MODIFIED: dict[str, Any] = {"description": "Not Modified: what was sent with this `ETag` still stands"}
_FIELDS: Mapping[str, str] = {
    "center": english("Centre"),
    "width": english("Width"),
    "preset": english("Window"),
    "window": english("Window"),
    "number": english("Go to picture"),
    "frame": english("Frame"),
    "size": english("Picture"),
    "login": english("Login"),
    "password": english("Password"),
    "reason": english("Reason"),
    "text": english("Text"),
    "lane": english("Lane"),
    "state": english("Study"),
    "reading_state": english("Reading"),
    "report_state": english("Report"),
    "modality": english("Modality"),
    "patient_name": english("Patient name"),
    "patient_id": english("Patient ID"),
    "accession_number": english("Accession number"),
    "study_date_from": english("Study date from"),
    "study_date_to": english("to"),
}
"""What the pages call what they send."""
_MACHINE_PATHS = ("/api/", "/healthz", "/readyz", "/openapi.json")
RETRY_AFTER_S = "2"


def describe(status: int, code: str, detail: str, **facts: object) -> dict[str, Any]:
    """A problem's members (RFC 9457, 3.1), with the conflict's facts beside them."""
    title = TITLES.get(code) or HTTPStatus(status).phrase
    problem = {"type": f"urn:countersign:problem:{code}", "title": title, "status": status, "detail": detail}
    return {**facts, **problem, "code": code}


def of_error(error: errors.CountersignError) -> dict[str, Any]:
    """The problem that one of our own errors is."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    if status == 500:
        return describe(500, "internal_error", "It was logged; try again later.")
    facts = {name: value for name, value in error.facts.items() if name in _FACTS and value is not None}
    return describe(status, error.code, error.message, **facts)


def of_away() -> dict[str, Any]:
    """The problem while PostgreSQL is gone."""
    return describe(503, "unavailable", "The database does not answer. Nothing was changed; try again in a moment.")


def is_database_away(error: BaseException) -> bool:
    """Whether an error says that PostgreSQL is gone, or has no connection left for us."""
    return is_away(error) or isinstance(error, PoolTimeout)


def answers(*what: int | str, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """What `/openapi.json` says of a route's errors.

    Parameters
    ----------
    what
        Codes of problems; or statuses, for all codes they may bear. What any route may answer is always there.
    body
        Whether the route takes a body, which may be unreadable or too large.
    """
    asked = {"not_authenticated", "not_permitted", "invalid_request", "internal_error", "unavailable"}
    asked |= {code for each in what for code in ({each} if isinstance(each, str) else _codes_of(each))}
    found: dict[int, set[str]] = {400: {"invalid_request"}} if body else {}
    for code in asked | ({"too_large"} if body else set()):
        found.setdefault(STATUS_OF[code], set()).add(code)
    return {status: _answer(status, sorted(codes)) for status, codes in sorted(found.items())}


def _codes_of(status: int) -> set[str]:
    return {code for code, bears in STATUS_OF.items() if bears == status}


def _answer(status: int, codes: Sequence[str]) -> dict[str, Any]:
    told = "; ".join(f"`{code}`: {TITLES[code].lower()}" for code in codes)
    examples = {code: {"value": describe(status, code, TITLES[code] + ".")} for code in codes}
    content = {"application/problem+json": {"schema": PROBLEM_SCHEMA, "examples": examples}}
    return {"description": f"{HTTPStatus(status).phrase}: {told}", "content": content}


def answer(request: Request, problem: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """A problem as this client wants it: a page where a browser asks for one, else problem JSON."""
    status = int(problem["status"])
    extra = dict(headers or {})
    if status == 401:
        extra["WWW-Authenticate"] = 'Bearer realm="countersign"'
    if status in {429, 503}:
        extra["Retry-After"] = retry_after(problem)
    if not wants_page(request):
        return JSONResponse(dict(problem), status, extra, media_type="application/problem+json")
    if status == 401 and request.method == "GET":
        return RedirectResponse("/sign-in", 303)
    extra.pop("WWW-Authenticate", None)
    named = [str(fault["where"]).rpartition(".")[2] for fault in problem.get("errors", ())]
    return page(
        "problem.html",
        request=request,
        status=status,
        headers=extra,
        visitor=getattr(request.state, "visitor", None),
        back=None if request.method == "GET" else "/",
        problem=problem,
        fields=list(dict.fromkeys(_FIELDS.get(name, name) for name in named)),
    )


def retry_after(problem: Mapping[str, Any]) -> str:
    """Seconds after which a client that was told to wait may come again."""
    return str(problem.get("retry_after_s", RETRY_AFTER_S))


def wants_page(request: Request) -> bool:
    """Whether a browser asks for a page."""
    machine = request.url.path.startswith(_MACHINE_PATHS)
    return not machine and "text/html" in request.headers.get("accept", "")


def install(app: FastAPI) -> None:
    """Give the app its table of errors."""
    app.add_exception_handler(errors.CountersignError, _ours)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(SQLAlchemyError, _unexpected)
    app.add_exception_handler(Exception, _unexpected)


def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.CountersignError)  # noqa: S101  for the type checker: Starlette looked at the type
    problem = of_error(error)
    if problem["status"] == 500:
        _logger.error("request_failed", route=route_of(request.scope), exc_info=error)
    return answer(request, problem)


def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  as above
    faults = [{"where": _where(fault["loc"]), "kind": str(fault["type"])} for fault in error.errors()][:20]
    named = ", ".join(sorted({fault["where"] for fault in faults}))
    detail = f"Missing or unusable: {named}."
    return answer(request, describe(422, "invalid_request", detail, errors=faults))


def _where(location: Sequence[Any]) -> str:
    """Where a fault is; no deeper than our own names go, since a key below may be the client's."""
    return ".".join(str(part) for part in location[:2] if isinstance(part, str))


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  as above
    code = _HTTP_CODES.get(error.status_code, "invalid_request" if error.status_code < 500 else "internal_error")
    details = {
        404: "There is nothing at this address.",
        405: "This address does not take that method.",
        410: "The words of this report are erased for good.",
        413: "The body of the request is larger than this address takes.",
        415: "The body of the request is in other characters than UTF-8.",
        400: "The body of the request cannot be read.",
        503: "Too much is asked for at once. Try again in a moment.",
    }
    detail = details.get(error.status_code, HTTPStatus(error.status_code).phrase)
    headers = {"Allow": ", ".join(_served(request))} if error.status_code == 405 else error.headers
    return answer(request, describe(error.status_code, code, detail), headers)


def _served(request: Request) -> list[str]:
    """The methods that an address takes, by all routes of its template (RFC 9110, 15.5.6)."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in routes if route.path == routes[0].path for method in route.methods})


def of_unexpected(request: Request, error: Exception) -> dict[str, Any]:
    """The problem that an error of the database, or one of nobody's, is; it is logged."""
    if is_database_away(error):
        _logger.warning("database_away", route=route_of(request.scope), error_type=type(error).__name__)
        return of_away()
    _logger.error("request_failed", route=route_of(request.scope), exc_info=error)
    return describe(500, "internal_error", "It was logged; try again later.")


def _unexpected(request: Request, error: Exception) -> Response:
    return answer(request, of_unexpected(request, error))


def route_of(scope: Mapping[str, Any]) -> str:
    """The template of the route that serves a request; never its path."""
    return str(getattr(scope.get("route"), "path", "-"))
