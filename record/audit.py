"""Events and seals.

An event is written in the transaction of what it tells. The sweep, one at a time, seals what is committed: each seal is
a keyed hash over the event and the former seal, so `position` is the one order and has no gaps. Events hold ids, codes
and hashes, never text. Does not know why a thing happened.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from record.access import SYSTEM, Principal
from record.durable import append_line
from record.errors import Misconfigured
from record.models import (
    Event,
    Seal,
    Signature,
    UnsealedEvent,
)

GENESIS = "0" * 64
"""What stands before the first seal."""
SEAL_KEY = "seal.key"
"""The file's name in the folder of secrets."""
_SEAL_BATCH = 500


def write(
    session: Session,
    kind: str,
    by: Principal = SYSTEM,
    *,
    site_id: uuid.UUID | None = None,
    study_id: uuid.UUID | None = None,
    reading_id: uuid.UUID | None = None,
    report_id: uuid.UUID | None = None,
    **facts: object,
) -> None:
    """Record that something happened, in the caller's transaction. `facts` are ids, codes, counts and hashes.

    Raises
    ------
    ValueError
        An event about a study that names no site: no auditor would ever see it.
    """
    if study_id is not None and site_id is None and by.site_id is None:
        message = f"The event {kind} tells of a study and names no site."
        raise ValueError(message)
    session.add(
        Event(
            kind=kind,
            actor_kind=by.kind,
            actor_id=by.id,
            site_id=site_id or by.site_id,
            study_id=study_id,
            reading_id=reading_id,
            report_id=report_id,
            facts={k: str(v) if isinstance(v, uuid.UUID) else v for k, v in facts.items() if v is not None},
        )
    )


def read_key(secrets: Path | None) -> bytes | None:
    """The seal key: 32 bytes, in hex, in `seal.key` of the secrets folder; None where no folder is configured.

    Raises
    ------
    Misconfigured
        The file is missing or no key.
    """
    if secrets is None:
        return None
    path = secrets / SEAL_KEY
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        key = b""
    if len(key) < 32:  # 256 bits, as the hash has
        message = "COUNTERSIGN_SECRETS holds no usable seal.key (64 hex digits). Restore it from your backup."
        raise Misconfigured(message)
    return key


@dataclass(frozen=True, slots=True)
class Head:
    """The last seal: its position and hash."""

    position: int
    hash: str


def head(session: Session) -> Head:
    """The chain's present head; position 0 before the first seal."""
    row = session.execute(select(Seal.position, Seal.hash).order_by(Seal.position.desc()).limit(1)).first()
    return Head(row.position, row.hash) if row else Head(0, GENESIS)


def seal(session: Session, key: bytes) -> Head | None:
    """Seal what is committed; the caller holds the sweep's lock. None when there was nothing to seal."""
    events = session.scalars(
        select(Event)
        .join(UnsealedEvent, UnsealedEvent.event_id == Event.id)
        .order_by(Event.at, Event.id)
        .limit(_SEAL_BATCH)
    ).all()
    if not events:
        return None
    last = head(session)
    for event in events:
        last = Head(last.position + 1, seal_hash(key, last.hash, event))
        session.add(Seal(position=last.position, event_id=event.id, hash=last.hash))
    session.flush()
    session.execute(delete(UnsealedEvent).where(UnsealedEvent.event_id.in_([e.id for e in events])))
    return last


def seal_hash(key: bytes, former: str, event: Event) -> str:
    """HMAC-SHA256 over the former seal and the event's canonical bytes."""
    content = json.dumps(
        {
            "id": str(event.id),
            "at": event.at.isoformat(timespec="microseconds"),
            "kind": event.kind,
            "site_id": _text(event.site_id),
            "actor_kind": event.actor_kind,
            "actor_id": _text(event.actor_id),
            "study_id": _text(event.study_id),
            "reading_id": _text(event.reading_id),
            "report_id": _text(event.report_id),
            "facts": event.facts,
        },
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
    )
    return hmac.new(key, f"{former}\n{content}".encode(), hashlib.sha256).hexdigest()


def keep_head(heads_file: Path, last: Head) -> None:
    """Append the head to a file outside the database, durably."""
    append_line(heads_file, f"{last.position} {last.hash}")


def signature_digest(signature: Signature) -> str:
    """sha256 of what a signature says besides its reasons, which an erasure blanks."""
    content = {
        "id": str(signature.id),
        "report_id": str(signature.report_id),
        "report_revision": signature.report_revision,
        "study_revision": signature.study_revision,
        "body_sha256": signature.body_sha256,
        "user_id": str(signature.user_id),
        "printed_name": signature.printed_name,
        "role": signature.role,
        "meaning": signature.meaning,
        "method": signature.method,
        "proven_at": signature.proven_at.isoformat(timespec="microseconds"),
        "client_address": signature.client_address,
        "seal_head": signature.seal_head,
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _text(value: uuid.UUID | None) -> str | None:
    return None if value is None else str(value)
