"""The walk that finds what somebody changed: seals, drafts, revisions, signatures, and what is in the store.

Holds every row against its sealed event, all in one snapshot, since the line goes on working. What a restore explains is
named as well, and told apart from what it does not. A row that cannot be read at all is a fault like any other, and the
walk goes on. Does not know how any of it was written, nor how files are looked at (`stored_faults`).
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine, Text, cast, func, select, text
from sqlalchemy.orm import Session, aliased

from record import drafts, heads
from record.audit import GENESIS, seal_hash, signature_digest
from record.faults import Fault, Walked, guarded
from record.heads import Heads, SetBack
from record.models import (
    ConflictDecision,
    Draft,
    DraftStep,
    Event,
    Report,
    ReportRevision,
    Seal,
    Signature,
    Study,
)
from record.states import SIGNED_REPORT
from record.store import Store
from record.stored_faults import stored_faults

_GRACE_S = 60
"""An event is sealed, and a head kept, within this time (`record.sweep`)."""


def verify(
    engine: Engine,
    store: Store,
    key: bytes | None,
    *,
    heads_file: Path | None = None,
    spool: Path | None = None,
    after_restore: bool = False,
    walked: Walked | None = None,
) -> Iterator[Fault]:
    """Walk seals, texts, signatures and the store; yield every fault, in this order.

    A tombstone left by `erase_study()` is no fault: the words are gone, their hash stays. With `after_restore` a chain
    that ends before the kept heads, events without a seal, and stored files without a row are expected: whoever asks says
    that the database is older than they are. A changed event, text or file never is. `walked` counts what was looked at.
    """
    walked = walked or Walked()
    known, readable = Heads({}), True
    try:
        known = heads.read(heads_file)  # before the snapshot: a head is kept after its seal is committed
    except OSError as error:
        readable = False
        yield Fault(f"it cannot be read: {error.strerror}", f"seal heads {heads_file}")
    with (
        engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
        Session(connection) as session,
    ):
        for setting in ("idle_in_transaction_session_timeout", "statement_timeout"):
            session.execute(text(f"SET LOCAL {setting} = 0"))  # whoever asked takes their time between two faults
        if key is not None:
            yield from guarded("seals", lambda: _seals(session, key, known, walked, after_restore=after_restore))
            if heads_file is not None and readable and not after_restore:
                yield from guarded("seal heads", lambda: _no_heads(session, heads_file))
        for name, walk in (
            ("drafts", lambda: _drafts(session)),
            ("reports", lambda: _revisions(session, walked)),
            ("signatures", lambda: _signatures(session, walked)),
            ("decisions", lambda: _decisions(session)),
        ):
            yield from guarded(name, walk)
    yield from stored_faults(engine, store, spool, walked, after_restore=after_restore)


def _seals(session: Session, key: bytes, known: Heads, walked: Walked, *, after_restore: bool) -> Iterator[Fault]:
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
        walked.position = position
        if event is None:
            yield Fault("its event is gone", f"seal {position}")
        elif not hmac.compare_digest(seal_row.hash.encode(), seal_hash(key, former, event).encode()):
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


def _no_heads(session: Session, heads_file: Path) -> Iterator[Fault]:
    """That the file of heads is gone or holds none: whoever can cut the chain can take the file away as well."""
    known = heads.read(heads_file)  # anew: the first head may have been kept since
    if known.kept or known.set_back:
        return
    last = session.scalar(
        select(func.max(Seal.position)).where(
            ~Seal.created_at.between(func.now() - text(f"interval '{_GRACE_S} seconds'"), func.now())
        )
    )
    if last:
        lacking = "holds no head" if heads_file.exists() else "is missing"
        yield Fault(f"the file of heads {lacking}, although there are seals up to {last}", f"seal heads {heads_file}")


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
        where = f"draft {draft.id}"
        yield from guarded(where, lambda: _draft(session, draft, sealed, where))  # noqa: B023  called at once
    lost = select(Event.facts["draft_id"].astext).where(
        Event.kind == "draft_written",
        ~select(Draft.id).where(cast(Draft.id, Text) == Event.facts["draft_id"].astext).exists(),
    )
    for draft_id in session.scalars(lost):
        yield Fault("it is gone", f"draft {draft_id}")


def _draft(session: Session, draft: Draft, event: Event | None, where: str) -> Iterator[Fault]:
    if event is None:
        yield Fault("no event tells of it", where)
        return
    if event.facts.get("body_sha256") != draft.body_sha256:
        yield Fault("its event names another text", where)
    if draft.erased_at is not None:
        yield from _tombstone(session, draft.study_id, where)
        return
    if _sha(draft.body) != draft.body_sha256:
        yield Fault("its words were changed", where)
    if drafts.digest(draft.provenance) != event.facts.get("provenance_sha256"):
        yield Fault("its provenance was changed", where)
    steps = session.scalars(select(DraftStep).where(DraftStep.draft_id == draft.id).order_by(DraftStep.position))
    if [[_sha(step.prompt), _sha(step.completion)] for step in steps] != event.facts.get("steps"):
        yield Fault("a prompt or a completion behind it was changed", where)


def _tombstone(session: Session, study_id: uuid.UUID, where: str) -> Iterator[Fault]:
    if not session.scalar(select(Event.id).where(Event.kind == "study_erased", Event.study_id == study_id).limit(1)):
        yield Fault("it is blank, and no event tells that its study was erased", where)


def _revisions(session: Session, walked: Walked) -> Iterator[Fault]:
    told = {
        (str(report_id), revision or "1"): body_sha256
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
        walked.reports += not same
        number = former.number + 1 if former is not None and same else 1
        expected = former.body_sha256 if former is not None and same else None
        if revision.number != number:
            yield Fault(f"revision {number} is missing", where)
        elif revision.previous_sha256 != expected:
            yield Fault("it does not name the revision before it", where)
        if told.pop((str(revision.report_id), str(revision.number)), None) != revision.body_sha256:
            yield Fault("its event names another text, or there is none", where)
        if revision.erased_at is not None:
            study_id = session.scalar(select(Report.study_id).where(Report.id == revision.report_id))
            if study_id is not None:
                yield from _tombstone(session, study_id, where)
        elif _sha(revision.body) != revision.body_sha256:
            yield Fault("its words were changed", where)
        former = revision
    for report_id, named in told:
        yield Fault("it is gone", f"report {report_id}, revision {named}")


def _signatures(session: Session, walked: Walked) -> Iterator[Fault]:
    told = {
        str(signature_id): event
        for event, signature_id in session.execute(
            select(Event, Event.facts["signature_id"].astext).where(Event.kind == "report_signed")
        ).yield_per(500)
    }
    signatures = select(Signature, ReportRevision.body_sha256).join(
        ReportRevision,
        (ReportRevision.report_id == Signature.report_id) & (ReportRevision.number == Signature.report_revision),
        isouter=True,
    )
    for signature, body_sha256 in session.execute(signatures.order_by(Signature.id)).yield_per(500):
        walked.signatures += 1
        where = f"signature {signature.id}"
        if signature.body_sha256 != body_sha256:
            yield Fault("it does not cover the text of its revision", where)
        event = told.pop(str(signature.id), None)
        yield from guarded(where, lambda: _signature(signature, event, where))  # noqa: B023  called at once
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


def _signature(signature: Signature, event: Event | None, where: str) -> Iterator[Fault]:
    facts = event.facts if event is not None and event.actor_id == signature.user_id else {}
    if facts.get("body_sha256") != signature.body_sha256:
        yield Fault("its event names another text or signer, or there is none", where)
    elif facts.get("signature_sha256") != signature_digest(signature):
        yield Fault("name, role, time, meaning or method were changed", where)


def _decisions(session: Session) -> Iterator[Fault]:
    told = {
        facts["decision_id"]: (actor_id, facts)
        for actor_id, facts in session.execute(
            select(Event.actor_id, Event.facts).where(
                Event.kind == "conflict_decided", Event.facts["decision_id"].astext.is_not(None)
            )
        )
    }
    decisions = select(ConflictDecision, Study.erased_at).join(Study, Study.id == ConflictDecision.study_id)
    for decision, erased_at in session.execute(decisions.order_by(ConflictDecision.id)).yield_per(500):
        where = f"decision {decision.id}"
        actor_id, facts = told.pop(str(decision.id), (None, {}))
        said = (decision.decided_by_id, str(decision.instance_id), decision.kept, decision.reason_sha256)
        if said != (actor_id, facts.get("instance_id"), facts.get("kept"), facts.get("reason_sha256")):
            yield Fault("its event names another decision, or there is none", where)
        elif _sha(decision.reason) != decision.reason_sha256 and (erased_at is None or decision.reason):
            yield Fault("its reason was changed", where)
    for decision_id in told:
        yield Fault("it is gone", f"decision {decision_id}")


def _sha(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
