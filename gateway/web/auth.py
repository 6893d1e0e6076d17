"""Who is asking, and the rule that stands before every route.

Machines send a bearer token; people have a session cookie, and whatever they change carries a CSRF token derived from
their session and comes from our own pages. Knows tokens, cookies, origins. Does not know what a role may do
(`record.access`) nor how a password is checked (`record.accounts`).
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from fastapi import Form, Request, Response
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from gateway.web.context import Web, web_of
from gateway.web.proving import Room, plain_address
from gateway.web.queries import require_known
from record import accounts, sessions
from record.access import Action, Principal, may, require
from record.accounts import Refusal
from record.db import transaction
from record.errors import NotAuthenticated, NotPermitted
from record.models import UserSession
from record.sessions import Reauthentication
from record.settings import ApiSettings

COOKIE = "countersign_session"
CSRF_HEADER = "x-csrf-token"
BACKGROUND_HEADER = "x-countersign-background"
"""A page that looks for news by itself says so: that is no sign of a person, and keeps no session alive."""
BACKGROUND_PARAMETER = "refresh"
"""The same of a page that looks without a script: a refresh sends no header of ours, so its address says so."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
FORGET = {"Clear-Site-Data": '"cache"'}
"""Pictures and frames lie in the browser, asked for anew each time (`no-cache`); with the session they go."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who was recognised; `csrf` is empty for machines."""

    principal: Principal
    csrf: str = ""
    session_id: uuid.UUID | None = None

    def may(self, action: str) -> bool:
        """For templates: whether the visitor may do this at all."""
        return may(self.principal, Action(action))


@dataclass(frozen=True, slots=True)
class Rule:
    """What stands before a route. A route without one fails the tests."""


@dataclass(frozen=True, slots=True)
class Public(Rule):
    """Anybody may ask."""

    def __call__(self) -> None:
        """Let pass."""


@dataclass(frozen=True, slots=True)
class Allow(Rule):
    """An API route: a token, or a session whose requests that change something carry the CSRF header.

    With `of_people` a session alone: what the route does is none of a machine's business.
    """

    action: Action | None
    of_people: bool = False

    def __call__(self, request: Request) -> Visitor:
        """Recognise the visitor, ask the table, and look whether the query is one."""
        machine = _by_token(request)
        visitor = _permitted(machine or _by_cookie(request, request.headers.get(CSRF_HEADER)), self.action)
        if machine and self.of_people:
            message = "This takes a person's session, not a machine's token."
            raise NotPermitted(message)
        require_known(request)
        return visitor


@dataclass(frozen=True, slots=True)
class Look(Rule):
    """A page to look at: a session."""

    action: Action

    def __call__(self, request: Request) -> Visitor:
        """Recognise the visitor and ask the table."""
        return _permitted(_by_cookie(request, None), self.action)


@dataclass(frozen=True, slots=True)
class Act(Rule):
    """A form on a page: a session, and the CSRF token in the form."""

    action: Action | None

    def __call__(self, request: Request, csrf: Annotated[str, Form(max_length=200)] = "") -> Visitor:
        """Recognise the visitor and ask the table."""
        return _permitted(_by_cookie(request, csrf), self.action)


class TextKept(Exception):
    """A text came, and it cannot be said from whom: the error, and the words to be kept on the answer's page.

    The session is over, or the database that knows it does not answer: then `csrf`, as it came and not compared with
    anything, is what the same form needs to be sent again.
    """

    def __init__(
        self, error: NotAuthenticated | NotPermitted | SQLAlchemyError, text: str, seen: int, csrf: str = ""
    ) -> None:
        super().__init__(str(error))
        self.error, self.text, self.seen, self.csrf = error, text, seen, csrf


@dataclass(frozen=True, slots=True)
class ActWithText(Rule):
    """The editor's form: as `Act`, but the text survives when the session is over or the database away."""

    action: Action

    def __call__(
        self,
        request: Request,
        csrf: Annotated[str, Form(max_length=200)] = "",
        text: Annotated[str, Form()] = "",
        seen: Annotated[int, Form(ge=0, le=1_000_000)] = 0,
    ) -> Visitor:
        """Recognise the visitor and ask the table."""
        try:
            return _permitted(_by_cookie(request, csrf), self.action)
        except (NotAuthenticated, NotPermitted) as error:
            raise TextKept(error, text, seen) from None
        except SQLAlchemyError as error:
            raise TextKept(error, text, seen, csrf) from error


def public() -> Public:
    """Anybody may ask."""
    return Public()


def allow(action: Action | None, *, of_people: bool = False) -> Allow:
    """An API route for those who may do `action`; with None for everybody who is recognised, `of_people` if they are persons."""
    return Allow(action, of_people)


def sign_in(request: Request, login: str, password: str) -> tuple[Visitor, str]:
    """A session for a login and password; returns the visitor and the cookie's value.

    The session whose cookie comes along ends: a browser has one at a time.

    Raises
    ------
    NotAuthenticated
        Unknown login, wrong password, disabled or locked; the failure is counted and on record.
    TooManyTries
        Wrong passwords came too often from this address.
    Busy
        Others wait already.
    """
    web, address = web_of(request), client_address(request)
    web.proving.tries.require(address)

    def check(session: Session) -> tuple[Visitor, str]:
        try:
            user = accounts.check_password(session, login, password)
        except NotAuthenticated as error:
            _note(web, session, error, address)
            raise
        sessions.end_session(session, request.cookies.get(COOKIE, ""))
        opened, secret = sessions.open_session(session, user, lasts_s=web.settings.session_s)
        return Visitor(accounts.user_principal(user), _csrf(opened), opened.id), secret

    try:
        return _proved(web, web.proving.strangers, check)
    except NotAuthenticated:
        web.proving.tries.failed(address)
        raise


def prove_again(web: Web, by: Visitor, password: str, *, address: str) -> Reauthentication:
    """The proof that a signature needs: the password, given in the session that is open.

    Raises
    ------
    NotAuthenticated
        Its fact `reason_code` says whether the password is wrong or the session over.
    Busy
        Others wait already.
    """
    return _proved(
        web,
        web.proving.signers,
        lambda session: sessions.reauthenticate(
            session, by.principal, password, session_id=by.session_id, client_address=address
        ),
    )


def sign_out(request: Request, response: Response) -> None:
    """End the session, forget the cookie, and have the browser forget what it keeps of ours."""
    with transaction(web_of(request).engine) as session:
        sessions.end_session(session, request.cookies.get(COOKIE, ""))
    response.delete_cookie(COOKIE, path="/")
    response.headers.update(FORGET)


def set_cookie(response: Response, request: Request, secret: str, settings: ApiSettings) -> None:
    """Hand the browser its session."""
    response.set_cookie(
        COOKIE,
        secret,
        max_age=int(settings.session_s),
        path="/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


def require_own_origin(request: Request) -> None:
    """Refuse a request that another site's page sent.

    Raises
    ------
    NotPermitted
        The browser names another origin than ours.
    """
    origin = request.headers.get("origin")
    if origin is None:  # no browser, or one that only ever says so for other sites: SameSite and the token stand
        if request.headers.get("sec-fetch-site", "same-origin") in {"same-origin", "none"}:
            return
    else:
        told = urlsplit(origin)
        unencrypted = request.url.scheme == "https" and told.scheme != "https"
        if told.netloc == request.headers.get("host", "") and not unencrypted:
            return
    message = "This request comes from another site's page."
    raise NotPermitted(message)


def client_address(request: Request) -> str:
    """Where a request came from, as it may stand in an event: a proxy's word for it could be anything."""
    return plain_address(request.client.host) if request.client else ""


def _proved(web: Web, room: Room, check: Callable[[Session], T]) -> T:
    """Run a password check in a transaction of its own: a wrong password is counted although the door refuses."""
    with room.entered(), transaction(web.engine) as session:
        try:
            return check(session)
        except NotAuthenticated as error:
            refused = error
    raise refused


def _note(web: Web, session: Session, error: NotAuthenticated, address: str) -> None:
    """Put a refused sign-in on record. A lock bounds how often a password is wrong; of all others there is one a minute."""
    facts: dict[str, Any] = {**error.facts, "client_address": address}
    if error.facts["refusal"] == Refusal.WRONG_PASSWORD:
        told = [{**facts, "count": 1}]
    else:
        told = web.proving.notes.due(error.facts.get("user_id") or address, facts)
    for each in told:
        accounts.note_refused(session, **each)


def _permitted(visitor: Visitor, action: Action | None) -> Visitor:
    if action is not None:
        require(visitor.principal, action)
    return visitor


def _by_token(request: Request) -> Visitor | None:
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, secret = header.partition(" ")
    if scheme.lower() != "bearer":
        message = "Send the token as: Authorization: Bearer TOKEN."
        raise NotAuthenticated(message)
    web = web_of(request)

    def recognise(value: str) -> Principal:
        with transaction(web.engine) as session:
            return accounts.token_principal(session, value)

    return Visitor(web.tokens.get(secret.strip(), recognise))


def _by_cookie(request: Request, csrf: str | None) -> Visitor:
    secret = request.cookies.get(COOKIE)
    if not secret:
        message = "Sign in, or send a bearer token."
        raise NotAuthenticated(message)
    web = web_of(request)
    with transaction(web.engine) as session:
        principal, opened = sessions.session_principal(
            session, secret, idle_s=web.settings.session_idle_s, touch=not _is_background(request)
        )
    expected = _csrf(opened)
    request.state.visitor = Visitor(principal, expected, opened.id)  # for the page of an error
    if request.method not in _SAFE:
        require_own_origin(request)
        if not hmac.compare_digest((csrf or "").encode(), expected.encode()):
            message = "The form or request does not carry this session's CSRF token. Load the page again."
            raise NotPermitted(message)
    return Visitor(principal, expected, opened.id)


def _is_background(request: Request) -> bool:
    return BACKGROUND_HEADER in request.headers or BACKGROUND_PARAMETER in request.query_params


def _csrf(opened: UserSession) -> str:
    return hmac.new(opened.csrf_secret.encode(), b"csrf", hashlib.sha256).hexdigest()
