"""People and machines: accounts, passwords, tokens.

Knows how somebody is recognised. Does not know what they may do (`access`), how long they stay signed in (`sessions`) or how
a door asks (`gateway.web`).
Passwords are argon2id hashes; a token or a session's secret is 256 random bits of which only the sha256 is stored.
"""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import func, null, select, update
from sqlalchemy.orm import Session

from record import audit
from record.access import SCOPES, SYSTEM, Principal
from record.errors import Conflict, InvalidRequest, NotAuthenticated, NotFound
from record.models import Site, Token, User, UserSession
from record.sites import find_site, folded, one_at_a_time
from record.states import Role

MIN_PASSWORD, MAX_PASSWORD = 10, 1000
MAX_LOGIN, MAX_PRINTED_NAME = 64, 200
_LOCK_AFTER = 10
_LOCK_S = 300
_hasher = PasswordHasher()
_WASTED = _hasher.hash("nobody's password: hashed so that an unknown login takes as long as a known one")


class Refusal(StrEnum):
    """Why somebody was not recognised. At the public door it is for the audit alone; in an open session it is said."""

    UNKNOWN_LOGIN = "unknown_login"
    WRONG_PASSWORD = "wrong_password"  # noqa: S105  a code
    LOCKED = "locked"
    DISABLED = "disabled"
    SESSION_ENDED = "session_ended"


def add_user(
    session: Session,
    *,
    site: str | None,
    login: str,
    printed_name: str,
    role: Role,
    password: str,
    by: Principal = SYSTEM,
) -> User:
    """Add a person.

    Logins differ in more than capitals, and in more than spaces around them, which are taken off.

    Raises
    ------
    Conflict
        The login is taken.
    InvalidRequest
        The password is too short or too long, a name is empty or too long, or the login holds a space.
    """
    login, printed_name = login.strip(), printed_name.strip()
    if not 1 <= len(login) <= MAX_LOGIN or not 1 <= len(printed_name) <= MAX_PRINTED_NAME:
        message = f"A login of 1 to {MAX_LOGIN} characters and a printed name of 1 to {MAX_PRINTED_NAME} are needed."
        raise InvalidRequest(message)
    if any(letter.isspace() for letter in login):
        message = "A login has no spaces in it."
        raise InvalidRequest(message)
    if not login.isprintable() or not printed_name.isprintable():
        message = "A login or a printed name holds characters that cannot be seen."
        raise InvalidRequest(message)
    _check_password(password)
    one_at_a_time(session)
    if _of_login(session, login) is not None:
        message = "This login is taken; capitals make no difference."
        raise Conflict(message)
    user = User(
        site_id=find_site(session, site).id,
        login=login,
        printed_name=printed_name,
        role=role,
        password_hash=_hasher.hash(password),
    )
    session.add(user)
    session.flush()
    audit.write(session, "user_added", by, site_id=user.site_id, user_id=user.id, role=role)
    return user


def list_users(session: Session, *, site: str | None = None) -> Sequence[tuple[User, str]]:
    """Everybody who has a login, and their site's name; of one site or of all."""
    statement = select(User, Site.name).join(Site, Site.id == User.site_id).order_by(Site.name, User.login)
    if site is not None:
        statement = statement.where(Site.id == find_site(session, site).id)
    return [(row[0], row[1]) for row in session.execute(statement)]


def find_user(session: Session, login: str) -> User:
    """The person of this login, locked.

    Raises
    ------
    NotFound
        Nobody has it.
    """
    user = _of_login(session, login)
    if user is None:
        message = "Nobody has this login. `countersign users list` names all."
        raise NotFound(message)
    return user


def _of_login(session: Session, login: str) -> User | None:
    """The person of this login, locked; capitals and spaces around it make no difference, as when it was added."""
    wanted = folded(login.strip())
    known = session.execute(select(User.id, User.login))
    user_id = next((user_id for user_id, taken in known if folded(taken) == wanted), None)
    return session.get(User, user_id, with_for_update=True) if user_id else None


def disable_user(session: Session, login: str, *, by: Principal = SYSTEM) -> User:
    """Let a person in no more: their sessions end at once; what they signed stays theirs.

    Raises
    ------
    NotFound
        Nobody has this login.
    """
    user = find_user(session, login)
    if user.disabled_at is None:
        user.disabled_at = func.now()
        audit.write(session, "user_disabled", by, site_id=user.site_id, user_id=user.id)
    end_sessions(session, user)
    return user


def enable_user(session: Session, login: str, *, by: Principal = SYSTEM) -> User:
    """Let a disabled, or locked, person in again; they sign in anew.

    Raises
    ------
    NotFound
        Nobody has this login.
    """
    user = find_user(session, login)
    if user.disabled_at is not None or user.locked_until is not None:
        audit.write(session, "user_enabled", by, site_id=user.site_id, user_id=user.id)
    user.disabled_at = user.locked_until = None
    user.failed_logins = 0
    return user


def set_password(session: Session, login: str, password: str, *, by: Principal = SYSTEM) -> User:
    """Give a person another password: a lock falls, and whoever is signed in by the former one is signed out.

    Raises
    ------
    NotFound
        Nobody has this login.
    InvalidRequest
        The password is too short.
    """
    _check_password(password)
    user = find_user(session, login)
    user.password_hash = _hasher.hash(password)
    user.failed_logins, user.locked_until = 0, None
    end_sessions(session, user)
    audit.write(session, "password_reset", by, site_id=user.site_id, user_id=user.id)
    return user


def end_sessions(session: Session, user: User) -> None:
    """Sign a person out everywhere; what was searched for is forgotten."""
    session.execute(
        update(UserSession)
        .where(UserSession.user_id == user.id, UserSession.ended_at.is_(None))
        .values(ended_at=func.now(), search=null())
    )


def add_token(
    session: Session,
    *,
    site: str | None,
    name: str,
    role: Role,
    scopes: Iterable[str] = (),
    expires_at: datetime | None = None,
    by: Principal = SYSTEM,
) -> str:
    """Add a machine's token and return its secret, which is shown once and stored nowhere.

    Raises
    ------
    Conflict
        The site has a token of this name.
    InvalidRequest
        The role is a physician's, or a scope adds nothing to it.
    """
    found = find_site(session, site)
    if role in {Role.RESIDENT, Role.ATTENDING}:
        message = "A token belongs to a machine: it cannot be a physician."
        raise InvalidRequest(message)
    scopes = list(scopes)
    if useless := [scope for scope in scopes if scope not in SCOPES or SCOPES[scope][0] != role]:
        known = ", ".join(f"{scope} (role {of})" for scope, (of, _) in sorted(SCOPES.items()))
        message = f"The role {role} knows no scope {', '.join(map(repr, useless))}. The scopes are: {known}."
        raise InvalidRequest(message)
    if not name.strip() or not name.isprintable():
        message = "A token's name is empty, or holds characters that cannot be seen."
        raise InvalidRequest(message)
    one_at_a_time(session)
    if session.scalar(select(Token.id).where(Token.site_id == found.id, Token.name == name)):
        message = "The site has, or had, a token of this name: a revoked one keeps its name on record."
        raise Conflict(message)
    secret = "cs_" + secrets.token_urlsafe(32)
    token = Token(
        site_id=found.id, name=name, role=role, scopes=scopes, secret_sha256=sha(secret), expires_at=expires_at
    )
    session.add(token)
    session.flush()
    audit.write(session, "token_added", by, site_id=found.id, token_id=token.id, role=role)
    return secret


def revoke_token(session: Session, *, site: str | None, name: str, by: Principal = SYSTEM) -> Token:
    """Let a machine in no more; the API processes learn it within five seconds.

    Raises
    ------
    NotFound
        The site has no token of this name.
    """
    found = find_site(session, site)
    token = session.scalar(select(Token).where(Token.site_id == found.id, Token.name == name).with_for_update())
    if token is None:
        message = "The site has no token of this name. `countersign tokens list` names all."
        raise NotFound(message)
    if token.revoked_at is None:
        token.revoked_at = func.now()
        audit.write(session, "token_revoked", by, site_id=found.id, token_id=token.id)
    return token


def list_tokens(session: Session, *, site: str | None = None) -> Sequence[tuple[Token, str]]:
    """Every token that was ever given out, and its site's name; of one site or of all."""
    statement = select(Token, Site.name).join(Site, Site.id == Token.site_id).order_by(Site.name, Token.name)
    if site is not None:
        statement = statement.where(Site.id == find_site(session, site).id)
    return [(row[0], row[1]) for row in session.execute(statement)]


def token_principal(session: Session, secret: str) -> Principal:
    """Whom a bearer token stands for.

    Raises
    ------
    NotAuthenticated
        Unknown, revoked or expired.
    """
    token = session.scalar(
        select(Token).where(
            Token.secret_sha256 == sha(secret),
            Token.revoked_at.is_(None),
            (Token.expires_at.is_(None)) | (Token.expires_at > func.now()),
        )
    )
    if token is None:
        message = "The token is unknown, revoked or expired."
        raise NotAuthenticated(message)
    return Principal("token", token.id, token.site_id, Role(token.role), token.name, frozenset(token.scopes))


def check_password(session: Session, login: str, password: str) -> User:
    """The person behind a login and password, as the public door asks.

    A wrong password is counted in this session's transaction: the door must commit it although it refuses. After ten
    in a row the account takes no sign-in for five minutes; sessions that are open go on (`reauthenticate`).

    Raises
    ------
    NotAuthenticated
        Unknown login, wrong password, disabled or locked: one message for all four, after the same time. Its facts
        `refusal`, `user_id` and `site_id` are for the audit and go out nowhere.
    """
    user = _of_login(session, login)
    now = session.scalar(select(func.now()))
    locked = user is not None and user.locked_until is not None and now is not None and user.locked_until > now
    right = matches(user.password_hash if user else _WASTED, password)
    message = "The login or the password is wrong, or the account is locked."
    if user is None:
        raise NotAuthenticated(message, refusal=Refusal.UNKNOWN_LOGIN)
    if user.disabled_at or locked or not right:
        refusal = Refusal.DISABLED if user.disabled_at else Refusal.LOCKED if locked else Refusal.WRONG_PASSWORD
        if refusal is Refusal.WRONG_PASSWORD:
            user.failed_logins += 1
            if user.failed_logins >= _LOCK_AFTER and now is not None:
                user.locked_until, user.failed_logins = now + timedelta(seconds=_LOCK_S), 0
        raise NotAuthenticated(message, refusal=refusal, user_id=user.id, site_id=user.site_id)
    user.failed_logins, user.locked_until = 0, None
    return user


def note_refused(
    session: Session,
    refusal: Refusal,
    *,
    client_address: str,
    count: int,
    user_id: uuid.UUID | None = None,
    site_id: uuid.UUID | None = None,
) -> None:
    """Write that sign-ins were refused, `count` of them since this was last written. The login is never on record."""
    audit.write(
        session,
        "sign_in_refused",
        site_id=site_id,
        user_id=user_id,
        reason_code=refusal,
        client_address=client_address,
        count=count,
    )


def user_principal(user: User) -> Principal:
    """A person as `access` sees them."""
    return Principal("user", user.id, user.site_id, Role(user.role), user.printed_name)


def _check_password(password: str) -> None:
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        message = f"A password has at least {MIN_PASSWORD} characters, and at most {MAX_PASSWORD}."
        raise InvalidRequest(message)
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in password):
        message = "A password holds no control characters: nobody could type them."
        raise InvalidRequest(message)


def matches(password_hash: str, password: str) -> bool:
    """Whether this is the password; takes as long as argon2 does."""
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False


def sha(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
