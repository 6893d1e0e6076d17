"""Signing in and out by the API.

A person's browser or script gets a cookie and a CSRF token. Knows nothing of passwords: `auth` asks the record.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from gateway.web import auth
from gateway.web.context import Door
from gateway.web.problems import answers
from gateway.web.schemas import Opened, Person, SignIn

router = APIRouter(prefix="/api/v1/session", tags=["session"])


@router.post(
    "", responses=answers("too_many_tries", body=True), dependencies=[Depends(auth.public())], summary="Sign in"
)
def signed_in(asked: SignIn, request: Request, response: Response, web: Door) -> Opened:
    """Sign a person in: sets the session cookie and returns the CSRF token. Ten wrong passwords lock for five minutes."""
    auth.require_own_origin(request)
    visitor, secret = auth.sign_in(request, asked.login, asked.password.get_secret_value())
    auth.set_cookie(response, request, secret, web.settings)
    by = visitor.principal
    assert by.id is not None and by.role is not None  # noqa: S101, PT018  for the type checker: a user has both
    return Opened(csrf=visitor.csrf, user=Person(id=by.id, printed_name=by.printed_name, role=by.role))


@router.delete("", status_code=204, responses=answers(), summary="Sign out")
def signed_out(
    request: Request, response: Response, _by: Annotated[auth.Visitor, Depends(auth.allow(None, of_people=True))]
) -> None:
    """Sign out: the session ends and the cookie is forgotten."""
    auth.sign_out(request, response)
