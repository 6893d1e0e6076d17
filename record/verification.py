"""The walk that finds what somebody changed: seals, drafts, revisions, signatures, instances, pictures.

Holds every row against its sealed event and every file against its hash. Does not know how any of it was written. What a
restore explains is named as well, and told apart from what it does not.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, Text, cast, func, select, text
from sqlalchemy.orm import Session, aliased

from record import drafts, heads
from record.audit import GENESIS, seal_hash, signature_digest
from record.errors import NotFound
from record.heads import Heads, SetBack
from record.models import (
    Draft,
    DraftStep,
    Event,
    Instance,
    ReadingPicture,
    Report,
    ReportRevision,
    Seal,
    Signature,
    StoreDeletion,
)
from record.part10 import data_set_digest
from record.states import SIGNED_REPORT
from record.store import Kind, Store

_GRACE_S = 60


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it was written; `expected` where a restore explains it."""

    what: str
    where: str
    expected: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def verify(
    engine: Engine,
    store: Store,
    key: bytes | None,
    *,
    heads_file: Path | None = None,
    spool: Path | None = None,
    after_restore: bool = False,
) -> Iterator[Fault]:
    """Walk seals, texts, signatures and the store; yield every fault, in this order.

    A tombstone left by `erase_study()` is no fault: the words are gone, their hash stays. With `after_restore` a chain
    that ends before the kept heads, events without a seal, and stored files without a row are expected: whoever asks says
    that the database is older than they are. A changed event, text or file never is.
    """
    with Session(engine) as session:
        for setting in ("idle_in_transaction_session_timeout", "statement_timeout"):
            session.execute(text(f"SET LOCAL {setting} = 0"))  # a large store takes its time between two rows
        if key is not None:
            yield from _seals(session, key, heads.read(heads_file), after_restore=after_restore)
        yield from _drafts(session)
        yield from _revisions(session)
        yield from _signatures(session)
        yield from _store(session, store, spool, after_restore=after_restore)


def _seals(session: Session, key: bytes, known: Heads, *, after_restore: bool) -> Iterator[Fault]:
    former, position = GENESIS, 0
    kept = {} if after_restore else known.kept
    for noted in known.set_back:
        yield _set_back(noted)
    if after_restore and (found := heads.ahead(session, known)):
        yield _set_back(found)
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
        yield Fault(f"{late} event(s) were never sealed; is a sweep running?", "events", expected=after_restore)


def _set_back(found: SetBack) -> Fault:
    return Fault(
        f"the record was restored as it was at {found.position}; at least {found.lost} later events, up to {found.kept}, are "
        "lost",
        "seals",
        expected=True,
    )


def _drafts(session: Session) -> Iterator[Fault]:
    written = aliased(Event)
    rows = select(Draft, written).join(
        written,
        (written.kind == "draft_written") & (written.facts["draft_id"].astext == cast(Draft.id, Text)),
        isouter=True,
    )
    for draft, sealed in session.execute(rows.order_by(Draft.id)).yield_per(500):
        event: Event | None = sealed  # an outer join
        where = f"draft {draft.id}"
        if event is None:
            yield Fault("no event tells of it", where)
            continue
        if event.facts["body_sha256"] != draft.body_sha256:
            yield Fault("its event names another text", where)
        if draft.erased_at is not None:
            yield from _tombstone(session, draft.study_id, where)
            continue
        if _sha(draft.body) != draft.body_sha256:
            yield Fault("its words were changed", where)
        if drafts.digest(draft.provenance) != event.facts["provenance_sha256"]:
            yield Fault("its provenance was changed", where)
        steps = session.scalars(select(DraftStep).where(DraftStep.draft_id == draft.id).order_by(DraftStep.position))
        found = [[_sha(step.prompt), _sha(step.completion)] for step in steps]
        if found != event.facts["steps"]:
            yield Fault("a prompt or a completion behind it was changed", where)
    lost = select(Event.facts["draft_id"].astext).where(
        Event.kind == "draft_written",
        ~select(Draft.id).where(cast(Draft.id, Text) == Event.facts["draft_id"].astext).exists(),
    )
    for draft_id in session.scalars(lost):
        yield Fault("it is gone", f"draft {draft_id}")


def _tombstone(session: Session, study_id: uuid.UUID, where: str) -> Iterator[Fault]:
    if not session.scalar(select(Event.id).where(Event.kind == "study_erased", Event.study_id == study_id).limit(1)):
        yield Fault("it is blank, and no event tells that its study was erased", where)


def _revisions(session: Session) -> Iterator[Fault]:
    told = {
        (str(report_id), int(revision or 1)): body_sha256
        for report_id, revision, body_sha256 in session.execute(
            select(Event.report_id, Event.facts["revision"].astext, Event.facts["body_sha256"].astext).where(
                Event.kind.in_(["report_opened", "report_saved"])
            )
        )
    }
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
        if told.pop((str(revision.report_id), revision.number), None) != revision.body_sha256:
            yield Fault("its event names another text, or there is none", where)
        if revision.erased_at is not None:
            study_id = session.scalar(select(Report.study_id).where(Report.id == revision.report_id))
            if study_id is not None:
                yield from _tombstone(session, study_id, where)
        elif _sha(revision.body) != revision.body_sha256:
            yield Fault("its words were changed", where)
        former = revision
    for report_id, number in told:
        yield Fault("it is gone", f"report {report_id}, revision {number}")


def _signatures(session: Session) -> Iterator[Fault]:
    told = {
        event.facts["signature_id"]: event
        for event in session.scalars(select(Event).where(Event.kind == "report_signed")).yield_per(500)
    }
    signatures = select(Signature, ReportRevision.body_sha256).join(
        ReportRevision,
        (ReportRevision.report_id == Signature.report_id) & (ReportRevision.number == Signature.report_revision),
        isouter=True,
    )
    for signature, body_sha256 in session.execute(signatures.order_by(Signature.id)).yield_per(500):
        if signature.body_sha256 != body_sha256:
            yield Fault("it does not cover the text of its revision", f"signature {signature.id}")
        event = told.pop(str(signature.id), None)
        if event is None or event.facts["body_sha256"] != signature.body_sha256 or event.actor_id != signature.user_id:
            yield Fault("its event names another text or signer, or there is none", f"signature {signature.id}")
        elif event.facts["signature_sha256"] != signature_digest(signature):
            yield Fault("name, role, time, meaning or method were changed", f"signature {signature.id}")
    for signature_id in told:
        yield Fault("it is gone", f"signature {signature_id}")
    unsigned = select(Report.id).where(
        Report.state.in_(SIGNED_REPORT),
        ~select(Signature.id)
        .where(Signature.report_id == Report.id, Signature.report_revision == Report.signed_revision)
        .exists(),
    )
    for report_id in session.scalars(unsigned):
        yield Fault("it counts as signed and nobody signed it", f"report {report_id}")


def _store(session: Session, store: Store, spool: Path | None, *, after_restore: bool) -> Iterator[Fault]:
    known: set[str] = set()
    rows = (
        select(Instance.id, Instance.sha256)
        .where(Instance.duplicate_of_id.is_(None), Instance.erased_at.is_(None))
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
            yield Fault(
                "a stored file has no row and lies in no spool", f"store instance {key}", expected=after_restore
            )
    pictures = (
        select(ReadingPicture.sha256)
        .join(Instance, Instance.id == ReadingPicture.instance_id)
        .where(Instance.erased_at.is_(None))
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


def _sha(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
