"""People and machines: accounts, passwords, sessions, tokens.

Knows how somebody is recognised. Does not know what they may do (`access`) or how a door asks (`gateway.web`).
Passwords are argon2id hashes; a token or a session's secret is 256 random bits of which only the sha256 is stored.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import func, null, select, update
from sqlalchemy.orm import Session

from record import audit
from record.access import SCOPES, Principal
from record.errors import Conflict, InvalidRequest, NotAuthenticated, NotFound
from record.models import Site, Token, User, UserSession
from record.sites import find_site
from record.states import Role

MIN_PASSWORD = 10
_LOCK_AFTER = 10
_LOCK_S = 300
_hasher = PasswordHasher()
_WASTED = _hasher.hash("nobody's password: hashed so that an unknown login takes as long as a known one")


@dataclass(frozen=True, slots=True)
class Reauthentication:
    """Proof, given just now, that the signer is who they say (21 CFR 11.200)."""

    user_id: uuid.UUID
    method: str
    proven_at: datetime
    client_address: str


def add_user(session: Session, *, site: str | None, login: str, printed_name: str, role: Role, password: str) -> User:
    """Add a person.

    Raises
    ------
    Conflict
        The login is taken.
    InvalidRequest
        The password is too short, or a name is empty.
    """
    if not login.strip() or not printed_name.strip():
        message = "A login and a printed name are needed."
        raise InvalidRequest(message)
    if not login.isprintable() or not printed_name.isprintable():
        message = "A login or a printed name holds characters that cannot be seen."
        raise InvalidRequest(message)
    _check_password(password)
    if session.scalar(select(User.id).where(User.login == login)):
        message = "This login is taken."
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
    audit.write(session, "user_added", site_id=user.site_id, user_id=user.id, role=role)
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
    user = session.scalar(select(User).where(User.login == login).with_for_update())
    if user is None:
        message = "Nobody has this login. `countersign users list` names all."
        raise NotFound(message)
    return user


def disable_user(session: Session, login: str) -> User:
    """Let a person in no more: their sessions end at once; what they signed stays theirs.

    Raises
    ------
    NotFound
        Nobody has this login.
    """
    user = find_user(session, login)
    if user.disabled_at is None:
        user.disabled_at = func.now()
        audit.write(session, "user_disabled", site_id=user.site_id, user_id=user.id)
    end_sessions(session, user)
    return user


def enable_user(session: Session, login: str) -> User:
    """Let a disabled, or locked, person in again; they sign in anew.

    Raises
    ------
    NotFound
        Nobody has this login.
    """
    user = find_user(session, login)
    if user.disabled_at is not None or user.locked_until is not None:
        audit.write(session, "user_enabled", site_id=user.site_id, user_id=user.id)
    user.disabled_at = user.locked_until = None
    user.failed_logins = 0
    return user


def set_password(session: Session, login: str, password: str) -> User:
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
    audit.write(session, "password_reset", site_id=user.site_id, user_id=user.id)
    return user


def end_sessions(session: Session, user: User) -> None:
    """Sign a person out everywhere."""
    session.execute(
        update(UserSession)
        .where(UserSession.user_id == user.id, UserSession.ended_at.is_(None))
        .values(ended_at=func.now())
    )


def add_token(
    session: Session,
    *,
    site: str | None,
    name: str,
    role: Role,
    scopes: Iterable[str] = (),
    expires_at: datetime | None = None,
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
    if session.scalar(select(Token.id).where(Token.site_id == found.id, Token.name == name)):
        message = "The site has, or had, a token of this name: a revoked one keeps its name on record."
        raise Conflict(message)
    secret = "cs_" + secrets.token_urlsafe(32)
    token = Token(
        site_id=found.id, name=name, role=role, scopes=scopes, secret_sha256=_sha(secret), expires_at=expires_at
    )
    session.add(token)
    session.flush()
    audit.write(session, "token_added", site_id=found.id, token_id=token.id, role=role)
    return secret


def revoke_token(session: Session, *, site: str | None, name: str) -> Token:
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
        audit.write(session, "token_revoked", site_id=found.id, token_id=token.id)
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
            Token.secret_sha256 == _sha(secret),
            Token.revoked_at.is_(None),
            (Token.expires_at.is_(None)) | (Token.expires_at > func.now()),
        )
    )
    if token is None:
        message = "The token is unknown, revoked or expired."
        raise NotAuthenticated(message)
    return Principal("token", token.id, token.site_id, Role(token.role), token.name, frozenset(token.scopes))


def check_password(session: Session, login: str, password: str) -> User:
    """The person behind a login and password.

    A wrong password is counted in this session's transaction: the door must commit it although it refuses. After ten
    in a row the account is locked for five minutes.

    Raises
    ------
    NotAuthenticated
        Unknown login, wrong password, disabled or locked: one message for all four.
    """
    user = session.scalar(select(User).where(User.login == login).with_for_update())
    now = session.scalar(select(func.now()))
    locked = user is not None and user.locked_until is not None and now is not None and user.locked_until > now
    if not _matches(user.password_hash if user else _WASTED, password) or user is None or user.disabled_at or locked:
        if user is not None and not locked:
            user.failed_logins += 1
            if user.failed_logins >= _LOCK_AFTER and now is not None:
                user.locked_until, user.failed_logins = now + timedelta(seconds=_LOCK_S), 0
            audit.write(session, "login_refused", site_id=user.site_id, user_id=user.id)
        message = "The login or the password is wrong, or the account is locked."
        raise NotAuthenticated(message)
    user.failed_logins, user.locked_until = 0, None
    return user


def open_session(session: Session, user: User, *, lasts_s: float) -> tuple[UserSession, str]:
    """Sign a person in; returns the session and the cookie's secret."""
    _forget_searches(session)
    secret = secrets.token_urlsafe(32)
    opened = UserSession(
        user_id=user.id,
        secret_sha256=_sha(secret),
        csrf_secret=secrets.token_urlsafe(32),
        expires_at=func.now() + timedelta(seconds=lasts_s),
    )
    session.add(opened)
    session.flush()
    audit.write(session, "signed_in", user_principal(user), session_id=opened.id)
    return opened, secret


def session_principal(
    session: Session, secret: str, *, idle_s: float, touch: bool = True
) -> tuple[Principal, UserSession]:
    """Whom a session cookie stands for, and the session; with `touch` the request counts as a sign of its person.

    Raises
    ------
    NotAuthenticated
        Unknown, ended, expired or idle for too long, or the account was disabled.
    """
    row = session.execute(
        select(UserSession, User)
        .join(User, User.id == UserSession.user_id)
        .where(
            UserSession.secret_sha256 == _sha(secret),
            UserSession.ended_at.is_(None),
            UserSession.expires_at > func.now(),
            UserSession.seen_at > func.now() - timedelta(seconds=idle_s),
            User.disabled_at.is_(None),
        )
    ).first()
    if row is None:
        message = "The session is over: sign in again."
        raise NotAuthenticated(message)
    opened, user = row
    if touch:
        session.execute(
            update(UserSession)
            .where(UserSession.id == opened.id, UserSession.seen_at < func.now() - timedelta(seconds=30))
            .values(seen_at=func.now())
        )
    return user_principal(user), opened


def end_session(session: Session, secret: str) -> None:
    """Sign out; what was searched for is forgotten."""
    session.execute(
        update(UserSession)
        .where(UserSession.secret_sha256 == _sha(secret), UserSession.ended_at.is_(None))
        .values(ended_at=func.now(), search=null())
    )


def keep_search(session: Session, session_id: uuid.UUID, words: Mapping[str, str]) -> None:
    """Remember in a person's session what they search for: a page can be come back to, and no address holds it."""
    session.execute(update(UserSession).where(UserSession.id == session_id).values(search=dict(words)))


def kept_search(session: Session, session_id: uuid.UUID) -> dict[str, str]:
    """What `keep_search` remembered last; empty if nothing."""
    return session.scalar(select(UserSession.search).where(UserSession.id == session_id)) or {}


def _forget_searches(session: Session) -> None:
    """Sessions that ran out without a sign-out keep no words of patients."""
    over = UserSession.ended_at.is_not(None) | (UserSession.expires_at < func.now())
    session.execute(update(UserSession).where(UserSession.search.is_not(None), over).values(search=null()))


def reauthenticate(session: Session, by: Principal, password: str, *, client_address: str) -> Reauthentication:
    """Prove again, now, who is about to sign.

    Raises
    ------
    NotAuthenticated
        The password is wrong; the door commits the count and refuses.
    """
    login = session.scalar(select(User.login).where(User.id == by.id)) if by.kind == "user" else None
    user = check_password(session, login or "", password)
    now = session.scalar(select(func.now()))
    if now is None or user.id != by.id:
        message = "The password is wrong."
        raise NotAuthenticated(message)
    return Reauthentication(user.id, "password", now, client_address)


def user_principal(user: User) -> Principal:
    """A person as `access` sees them."""
    return Principal("user", user.id, user.site_id, Role(user.role), user.printed_name)


def _check_password(password: str) -> None:
    if len(password) < MIN_PASSWORD:
        message = f"A password has at least {MIN_PASSWORD} characters."
        raise InvalidRequest(message)


def _matches(password_hash: str, password: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False


def _sha(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
