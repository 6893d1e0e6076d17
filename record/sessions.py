"""Sessions: a person who signed in, what the browser finds again, and the proof before a signature.

Knows how long a session lasts and how it ends. Does not know logins (`accounts`), cookies or pages. A session's secret is
256 random bits of which only the sha256 is stored.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, null, select, update
from sqlalchemy.orm import Session

from record import audit
from record.access import Principal
from record.accounts import Refusal, matches, sha, user_principal
from record.errors import NotAuthenticated
from record.models import User, UserSession

MAX_PROOFS = 5
"""Wrong passwords that an open session takes, one after the other; the last of them ends it."""
_WORDS_LAST_S = 3600
"""What was searched for is kept so long after its person was last seen."""
_SEARCHES = 8
"""So many searches of a session can be come back to."""
_SESSIONS_LAST = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Reauthentication:
    """Proof, given just now, that the signer is who they say (21 CFR 11.200)."""

    user_id: uuid.UUID
    method: str
    proven_at: datetime
    client_address: str


def open_session(session: Session, user: User, *, lasts_s: float) -> tuple[UserSession, str]:
    """Sign a person in; returns the session and the cookie's secret."""
    forget_searches(session)
    secret = secrets.token_urlsafe(32)
    opened = UserSession(
        user_id=user.id,
        secret_sha256=sha(secret),
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
            UserSession.secret_sha256 == sha(secret),
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
    ended = session.execute(
        update(UserSession)
        .where(UserSession.secret_sha256 == sha(secret), UserSession.ended_at.is_(None))
        .values(ended_at=func.now(), search=null())
        .returning(UserSession.id, UserSession.user_id)
    ).first()
    if ended is not None:
        by = user_principal(session.get_one(User, ended.user_id))
        audit.write(session, "signed_out", by, session_id=ended.id)


def keep_search(session: Session, session_id: uuid.UUID, words: Mapping[str, str]) -> str:
    """Remember in a person's session what they search for, under the name this returns.

    A page can so be come back to, and no address holds a word. The last few are kept: each tab has its own.
    """
    mine = UserSession.id == session_id
    former = session.scalar(select(UserSession.search).where(mine).with_for_update()) or {}
    name = secrets.token_hex(4)
    newest = [*former.get("kept", ()), [name, dict(words)]][-_SEARCHES:]
    session.execute(update(UserSession).where(mine, UserSession.ended_at.is_(None)).values(search={"kept": newest}))
    return name


def kept_search(session: Session, session_id: uuid.UUID, name: str) -> dict[str, str]:
    """What `keep_search` remembered under a name; empty if nothing, or not any more."""
    kept = session.scalar(select(UserSession.search).where(UserSession.id == session_id)) or {}
    return next((words for one, words in kept.get("kept", ()) if one == name), {})


def forget_searches(session: Session, *, every: bool = False) -> None:
    """Sessions that are over, or whose person was not seen for an hour, keep no words of patients; with `every` none does."""
    over = (
        UserSession.ended_at.is_not(None)
        | (UserSession.expires_at < func.now())
        | (UserSession.seen_at < func.now() - timedelta(seconds=_WORDS_LAST_S))
    )
    statement = update(UserSession).where(UserSession.search.is_not(None)).values(search=null())
    session.execute(statement if every else statement.where(over))


def delete_old_sessions(session: Session) -> None:
    """Sessions that ended, or ran out, ninety days ago go; that there was one stays in the events."""
    long_ago = func.now() - _SESSIONS_LAST
    session.execute(delete(UserSession).where((UserSession.ended_at < long_ago) | (UserSession.expires_at < long_ago)))


def reauthenticate(
    session: Session, by: Principal, password: str, *, session_id: uuid.UUID | None, client_address: str
) -> Reauthentication:
    """Prove again, now, in an open session, who is about to sign.

    Wrong passwords are counted in that session alone: nobody at the public door can keep a person from signing. The fifth
    in a row ends the session. The door must commit the count although it refuses.

    Raises
    ------
    NotAuthenticated
        Its fact `reason_code` is `Refusal.WRONG_PASSWORD` or `Refusal.SESSION_ENDED`.
    """
    row = session.execute(
        select(UserSession, User)
        .join(User, User.id == UserSession.user_id)
        .where(
            UserSession.id == session_id,
            UserSession.user_id == by.id,
            UserSession.ended_at.is_(None),
            User.disabled_at.is_(None),
        )
        .with_for_update(of=UserSession)
    ).first()
    now = session.scalar(select(func.now()))
    if row is None or now is None:
        message = "The session is over: sign in again."
        raise NotAuthenticated(message, reason_code=Refusal.SESSION_ENDED)
    opened, user = row
    if matches(user.password_hash, password):
        opened.failed_proofs = 0
        return Reauthentication(user.id, "password", now, client_address)
    opened.failed_proofs += 1
    ends = opened.failed_proofs >= MAX_PROOFS
    refusal = Refusal.SESSION_ENDED if ends else Refusal.WRONG_PASSWORD
    if ends:
        opened.ended_at, opened.search = now, null()
    audit.write(
        session,
        "proof_refused",
        by,
        session_id=opened.id,
        reason_code=refusal,
        count=opened.failed_proofs,
        client_address=client_address,
    )
    message = "The password is wrong."
    if ends:
        message = "The password was wrong too often: the session is over. Sign in again."
    raise NotAuthenticated(message, reason_code=refusal)
