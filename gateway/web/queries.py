"""What may stand behind the question mark: only what an address names, each once.

A filter that is mistyped and silently ignored would show everything. Knows a route's parameters and nothing of their
values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from record.errors import InvalidRequest

_MAX_NAMED = 40


def dependants_of(route: APIRoute) -> Iterator[Dependant]:
    """A route's own parameters and those of all that it depends on."""
    waiting = [route.dependant]
    while waiting:
        dependant = waiting.pop()
        yield dependant
        waiting += dependant.dependencies


def require_known(request: Request) -> None:
    """Refuse a query with a parameter that the address does not know, or that stands there twice.

    Raises
    ------
    InvalidRequest
        The message names the parameter to whoever sent it, and those that there are.
    """
    if not request.query_params:
        return
    known = sorted({field.alias for each in dependants_of(request.scope["route"]) for field in each.query_params})
    given = Counter(name for name, _ in request.query_params.multi_items())
    wrong = sorted(name[:_MAX_NAMED] for name in given if name not in known)
    if wrong:
        there_are = f"It takes: {', '.join(known)}." if known else "It takes none."
        message = f"This address takes no parameter {', '.join(map(repr, wrong))}. {there_are}"
        raise InvalidRequest(message)
    if twice := sorted(name for name, times in given.items() if times > 1):
        message = f"A parameter may stand there once only: {', '.join(twice)}."
        raise InvalidRequest(message)
