"""Events, seals, and the walk that finds what somebody changed.

An event is written in the transaction of what it tells. The sweep, one at a time, seals what is committed: each seal is
a keyed hash over the event and the former seal, so `position` is the one order and has no gaps. Events hold ids, codes
and hashes, never text. Does not know why a thing happened.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, delete, func, select, text
from sqlalchemy.orm import Session

from record.access import SYSTEM, Principal
from record.errors import Misconfigured, NotFound
from record.models import (
    Draft,
    Event,
    Instance,
    Reading,
    ReadingPicture,
    ReportRevision,
    Seal,
    Signature,
    StoreDeletion,
    Study,
    UnsealedEvent,
)
from record.part10 import data_set_digest
from record.store import Kind, Store

GENESIS = "0" * 64
"""What stands before the first seal."""
_SEAL_BATCH = 500
_GRACE_S = 60


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
    """Record that something happened, in the caller's transaction. `facts` are ids, codes, counts and hashes."""
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
    path = secrets / "seal.key"
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
    descriptor = os.open(heads_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{last.position} {last.hash}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it was written."""

    what: str
    where: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def verify(
    engine: Engine, store: Store, key: bytes | None, *, heads_file: Path | None = None, spool: Path | None = None
) -> Iterator[Fault]:
    """Walk seals, texts, signatures and the store; yield every fault, in this order.

    A tombstone left by `erase_study()` is no fault: the words are gone, their hash stays.
    """
    with Session(engine) as session:
        if key is not None:
            yield from _seals(session, key, heads_file)
        yield from _texts(session)
        yield from _store(session, store, spool)


def _seals(session: Session, key: bytes, heads_file: Path | None) -> Iterator[Fault]:
    former, position = GENESIS, 0
    kept = _read_heads(heads_file)
    rows = session.execute(
        select(Seal, Event).join(Event, Event.id == Seal.event_id, isouter=True).order_by(Seal.position)
    ).yield_per(1000)
    for seal_row, sealed in rows:
        event: Event | None = sealed  # an outer join: the event may be gone
        position += 1
        if seal_row.position != position:
            yield Fault(f"seal {position} is missing; the next one is {seal_row.position}", "seals")
            position = seal_row.position
        if event is None:
            yield Fault("its event is gone", f"seal {position}")
        elif not hmac.compare_digest(seal_row.hash, seal_hash(key, former, event)):
            yield Fault(f"the event {event.id} ({event.kind}) or a seal was changed", f"seal {position}")
        if position in kept and kept[position] != seal_row.hash:
            yield Fault("the hash differs from the head kept outside the database", f"seal {position}")
        former = seal_row.hash
    if kept and max(kept) > position:
        yield Fault(f"the chain ends at {position}, but a head of {max(kept)} was kept outside the database", "seals")
    late = session.scalar(
        select(func.count())
        .select_from(Event)
        .where(
            ~select(Seal.position).where(Seal.event_id == Event.id).exists(),
            Event.at < func.now() - text(f"interval '{_GRACE_S} seconds'"),
        )
    )
    if late:
        yield Fault(f"{late} event(s) were never sealed; is a sweep running?", "events")


def _texts(session: Session) -> Iterator[Fault]:
    for draft in session.scalars(select(Draft).order_by(Draft.id)).yield_per(500):
        if draft.erased_at is None and _sha(draft.body) != draft.body_sha256:
            yield Fault("its words were changed", f"draft {draft.id}")
    former: ReportRevision | None = None
    revisions = select(ReportRevision).order_by(ReportRevision.report_id, ReportRevision.number)
    for revision in session.scalars(revisions).yield_per(500):
        where = f"report {revision.report_id}, revision {revision.number}"
        same = former is not None and former.report_id == revision.report_id
        number = former.number + 1 if former is not None and same else 1
        expected = former.body_sha256 if former is not None and same else None
        if revision.number != number:
            yield Fault(f"revision {number} is missing", where)
        elif revision.previous_sha256 != expected:
            yield Fault("it does not name the revision before it", where)
        if revision.erased_at is None and _sha(revision.body) != revision.body_sha256:
            yield Fault("its words were changed", where)
        former = revision
    signatures = select(Signature, ReportRevision.body_sha256).join(
        ReportRevision,
        (ReportRevision.report_id == Signature.report_id) & (ReportRevision.number == Signature.report_revision),
        isouter=True,
    )
    for signature, body_sha256 in session.execute(signatures.order_by(Signature.id)).yield_per(500):
        if signature.body_sha256 != body_sha256:
            yield Fault("it does not cover the text of its revision", f"signature {signature.id}")
        sealed = session.scalar(
            select(Event.facts["body_sha256"].astext).where(
                Event.kind == "report_signed", Event.facts["signature_id"].astext == str(signature.id)
            )
        )
        if sealed != signature.body_sha256:
            yield Fault("its event names another text, or there is none", f"signature {signature.id}")


def _store(session: Session, store: Store, spool: Path | None) -> Iterator[Fault]:
    known: set[str] = set()
    rows = (
        select(Instance.id, Instance.sha256)
        .join(Study, Study.id == Instance.study_id)
        .where(Instance.duplicate_of_id.is_(None), Study.erased_at.is_(None))
        .order_by(Instance.id)
    )
    for instance_id, sha256 in session.execute(rows).yield_per(1000):
        known.add(instance_id.hex)
        where = f"instance {instance_id}"
        try:
            with store.open(Kind.INSTANCE, instance_id.hex) as stored:
                digest, _ = data_set_digest(stored)
        except NotFound:
            yield Fault("its file is missing from the store", where)
            continue
        if digest != sha256:
            yield Fault("its bytes were changed", where)
    erased = set(session.scalars(select(StoreDeletion.key)))
    spooled = {m[0] for p in spool.rglob("*") if (m := re.search(r"[0-9a-f]{32}", p.name))} if spool else set()
    for key in store.list(Kind.INSTANCE):
        if key not in known and key not in erased and key not in spooled:
            yield Fault("a stored file has no row and lies in no spool", f"store instance {key}")
    pictures = (
        select(ReadingPicture.sha256)
        .join(Reading, Reading.id == ReadingPicture.reading_id)
        .join(Study, Study.id == Reading.study_id)
        .where(Study.erased_at.is_(None))
        .distinct()
    )
    for sha256 in session.scalars(pictures):
        where = f"picture {sha256}"
        try:
            with store.open(Kind.PICTURE, sha256) as stored:
                digest = hashlib.sha256(stored.read()).hexdigest()
        except NotFound:
            yield Fault("it is missing from the store", where)
            continue
        if digest != sha256:
            yield Fault("its bytes were changed", where)


def _read_heads(heads_file: Path | None) -> dict[int, str]:
    if heads_file is None or not heads_file.exists():
        return {}
    heads = {}
    for line in heads_file.read_text(encoding="ascii", errors="replace").splitlines():
        position, _, value = line.partition(" ")
        if position.isdigit() and len(value) == len(GENESIS):
            heads[int(position)] = value
    return heads


def _sha(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _text(value: uuid.UUID | None) -> str | None:
    return None if value is None else str(value)
