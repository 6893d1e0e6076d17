"""Storage commitments: what a peer asked us to keep, and what it is told of it (PS3.4, annex J).

Knows when an instance is kept: it has a row at the peer's site and its file is in the store. Does not know how a peer is told
(`gateway.outbound`), nor DICOM's form of it. Who reports holds a commitment by its `not_before`: one that died is tried again.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session, defer

from record import audit
from record.access import Principal
from record.models import Commitment, Instance, Peer, Study
from record.peers import sender_of
from record.states import CommitmentState, move
from record.store import Kind, Store

KEEP_DAYS = 90
WAIT_S = 60.0
"""So long after it was asked for, an instance that is not here yet may still be on its way through a spool."""
_LOOK_AGAIN_S = 2.0
_LONGEST_PAUSE_S = 900.0
MAX_ATTEMPTS = 100
"""About a day, with the longest pause between them."""
NO_SUCH_INSTANCE, CLASS_CONFLICT, NOT_KEPT = 0x0112, 0x0119, 0x0110
"""Failure reasons (PS3.3, C.14.1.1)."""
_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a commitment: SOP class and instance of what is kept, and of what is not with the reason.

    `studies` counts the instances that are kept by their study.
    """

    kept: list[tuple[str, str]]
    failed: list[tuple[str, str, int]]
    studies: Counter[uuid.UUID]


@dataclass(frozen=True, slots=True)
class Errand:
    """A commitment that is to be reported now, and where to."""

    commitment_id: uuid.UUID
    transaction_uid: str
    host: str
    port: int
    ae_title: str
    speaks_tls: bool
    verdict: Verdict
    attempt: int


def note(session: Session, notice_id: uuid.UUID, notice: Mapping[str, Any]) -> None:
    """Keep what a peer asked for, once: one that repeats a request that still waits is told once.

    Raises
    ------
    NotFound
        The peer is no more, nor another of its title and address.
    """
    peer = sender_of(session, notice)
    transaction_uid = str(notice["transaction_uid"])
    waits = select(Commitment.id).where(
        Commitment.peer_id == peer.id,
        Commitment.transaction_uid == transaction_uid,
        Commitment.state == CommitmentState.QUEUED,
    )
    if session.get(Commitment, notice_id) is not None or session.scalar(waits) is not None:
        return
    made = Commitment(
        id=notice_id,
        site_id=peer.site_id,
        peer_id=peer.id,
        ae_title=peer.ae_title,
        address=peer.address,
        transaction_uid=transaction_uid,
        asked=[[str(class_uid), str(instance_uid)] for class_uid, instance_uid in notice["references"]],
        state="",
        received_at=datetime.fromisoformat(notice["received_at"]),
    )
    move(made, CommitmentState.QUEUED)
    session.add(made)
    audit.write(
        session,
        "commitment_asked",
        site_id=peer.site_id,
        peer_id=peer.id,
        commitment_id=notice_id,
        count=len(made.asked),
    )


@dataclass(frozen=True, slots=True)
class Settled:
    """A commitment that was due and is not to be reported now: it waits for its instances, or nobody can be told."""


def claim(session: Session, store: Store, lease_s: float) -> Errand | Settled | None:
    """The next commitment that is due, held for a lease; None when there is none.

    One whose instances may still be in a spool is looked at again a little later, and counts as no attempt.
    """
    row = session.execute(
        select(Commitment, Peer)
        .outerjoin(Peer, Peer.id == Commitment.peer_id)
        .where(Commitment.state == CommitmentState.QUEUED, Commitment.not_before <= func.now())
        .order_by(Commitment.not_before)
        .limit(1)
        .with_for_update(skip_locked=True, of=Commitment)
    ).first()
    if row is None:
        return None
    found, peer = row[0], row[1] or _entered_anew(session, row[0])
    if peer is None or not peer.port or not peer.address:
        found.last_code = "peer_unknown"
        move(found, CommitmentState.DEAD)
        return Settled()
    if found.attempts >= MAX_ATTEMPTS:  # each ended without a word, as when its courier dies of it
        move(found, CommitmentState.DEAD)
        return Settled()
    verdict = judge(session, store, found)
    waited_s = session.scalar(
        select(func.extract("epoch", func.now() - Commitment.created_at)).where(Commitment.id == found.id)
    )
    if any(why == NO_SUCH_INSTANCE for _, _, why in verdict.failed) and float(waited_s or 0) < WAIT_S:
        found.not_before = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, _LOOK_AGAIN_S)
        return Settled()
    found.not_before = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, lease_s)
    found.attempts += 1
    return Errand(
        found.id,
        found.transaction_uid,
        peer.address,
        peer.port,
        peer.ae_title,
        peer.speaks_tls,
        verdict,
        found.attempts,
    )


def judge(session: Session, store: Store, commitment: Commitment) -> Verdict:
    """Which of the instances are kept, as of now."""
    kept: list[tuple[str, str]] = []
    failed: list[tuple[str, str, int]] = []
    studies: Counter[uuid.UUID] = Counter()
    for start in range(0, len(commitment.asked), _AT_ONCE):
        asked = [(class_uid, instance_uid) for class_uid, instance_uid in commitment.asked[start : start + _AT_ONCE]]
        rows = session.execute(
            select(
                Instance.sop_instance_uid, Instance.sop_class_uid, Instance.id, Instance.size_bytes, Instance.study_id
            )
            .join(Study, Study.id == Instance.study_id)
            .where(
                Study.site_id == commitment.site_id,
                Instance.sop_instance_uid.in_([instance_uid for _, instance_uid in asked]),
                Instance.duplicate_of_id.is_(None),
                Instance.erased_at.is_(None),
            )
        ).all()
        sides: dict[str, list[tuple[str, uuid.UUID, int]]] = {}
        study_of = {row.sop_instance_uid: row.study_id for row in rows}
        for row in rows:
            sides.setdefault(row.sop_instance_uid, []).append((row.sop_class_uid, row.id, row.size_bytes))
        for class_uid, instance_uid in asked:
            why = _why_not(store, class_uid, sides.get(instance_uid, ()))
            if why is None:
                kept.append((class_uid, instance_uid))
                studies[study_of[instance_uid]] += 1
            else:
                failed.append((class_uid, instance_uid, why))
    return Verdict(kept, failed, studies)


def reported(session: Session, errand: Errand) -> None:
    """The peer has been told."""
    found = session.get_one(Commitment, errand.commitment_id, with_for_update=True)
    if found.state != CommitmentState.QUEUED:
        return
    move(found, CommitmentState.REPORTED)
    found.reported_at, found.last_code, found.failed_instances = func.now(), None, len(errand.verdict.failed)
    audit.write(
        session,
        "commitment_reported",
        site_id=found.site_id,
        peer_id=found.peer_id,
        commitment_id=found.id,
        count=len(errand.verdict.kept),
        failed=len(errand.verdict.failed),
    )
    for study_id, count in errand.verdict.studies.items():
        audit.write(
            session,
            "study_committed",
            site_id=found.site_id,
            study_id=study_id,
            commitment_id=found.id,
            count=count,
            ae_title=errand.ae_title,
        )


def not_reported(session: Session, errand: Errand, code: str) -> None:
    """The peer could not be told: later, with longer and longer pauses, and at last no more."""
    found = session.get_one(Commitment, errand.commitment_id, with_for_update=True)
    if found.state != CommitmentState.QUEUED:
        return
    if found.attempts != errand.attempt:
        return  # it took longer than its lease: another courier has it
    found.last_code = code
    if found.attempts >= MAX_ATTEMPTS:
        move(found, CommitmentState.DEAD)
        return
    pause_s = min(_LONGEST_PAUSE_S, 2.0 ** min(found.attempts, 20))
    later = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, pause_s)
    found.not_before = later
    session.execute(  # nobody else waits while this peer is tried with each of its errands
        update(Commitment)
        .where(
            Commitment.peer_id == found.peer_id,
            Commitment.state == CommitmentState.QUEUED,
            Commitment.id != found.id,
            Commitment.not_before < later,
        )
        .values(not_before=later)
    )


def forget_old(session: Session, keep_days: int = KEEP_DAYS) -> None:
    """Delete what was reported, or given up, so long ago that nobody asks for it, some at a time."""
    old = (
        select(Commitment.id)
        .where(
            Commitment.state != CommitmentState.QUEUED,
            Commitment.created_at < func.now() - func.make_interval(0, 0, 0, keep_days),
        )
        .limit(_AT_ONCE)
    )
    session.execute(delete(Commitment).where(Commitment.id.in_(old)))


def dead(session: Session) -> Sequence[tuple[Commitment, int]]:
    """The first commitments that were given up, without what was asked, and how many instances each asked for."""
    rows = session.execute(
        select(Commitment, func.jsonb_array_length(Commitment.asked))
        .options(defer(Commitment.asked))
        .where(Commitment.state == CommitmentState.DEAD)
        .order_by(Commitment.received_at)
        .limit(_AT_ONCE)
    )
    return [(row[0], row[1]) for row in rows]


def waiting_of(session: Session, peer: Peer) -> int:
    """How many a peer waits for."""
    waits = (Commitment.peer_id == peer.id, Commitment.state == CommitmentState.QUEUED)
    return session.scalar(select(func.count()).select_from(Commitment).where(*waits)) or 0


def requeue(session: Session, by: Principal) -> int:
    """Try the first ones that were given up again; how many those are."""
    found = [one for one, _ in dead(session)]
    for one in found:
        move(one, CommitmentState.QUEUED)
        one.attempts, one.not_before = 0, func.now()
        audit.write(session, "commitment_requeued", by, site_id=one.site_id, peer_id=one.peer_id, commitment_id=one.id)
    return len(found)


def drop(session: Session, by: Principal) -> int:
    """Forget the first ones that were given up; how many those are."""
    found = [one for one, _ in dead(session)]
    for one in found:
        audit.write(session, "commitment_dropped", by, site_id=one.site_id, peer_id=one.peer_id, commitment_id=one.id)
        session.delete(one)
    return len(found)


def _entered_anew(session: Session, commitment: Commitment) -> Peer | None:
    """The peer of the title and address of one that was removed."""
    same = (
        Peer.site_id == commitment.site_id,
        Peer.ae_title == commitment.ae_title,
        Peer.address == commitment.address,
    )
    found = session.scalars(select(Peer).where(*same).limit(2)).all()
    if len(found) != 1:
        return None
    commitment.peer_id = found[0].id
    return found[0]


def _why_not(store: Store, class_uid: str, sides: Collection[tuple[str, uuid.UUID, int]]) -> int | None:
    same = [(instance_id, size_bytes) for of_class, instance_id, size_bytes in sides if of_class == class_uid]
    if not same:
        return CLASS_CONFLICT if sides else NO_SUCH_INSTANCE
    whole = (
        (store.size_bytes(Kind.INSTANCE, key.hex) or 0) > size_bytes for key, size_bytes in same
    )  # its meta besides
    return None if all(whole) else NOT_KEPT
