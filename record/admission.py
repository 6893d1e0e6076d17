"""Admission: durable instances become rows.

Knows what the same UID, the same bytes and another patient's identity mean, and when the set of a study's images
changed. Does not know spools or sockets, nor when a study is complete (`studies`). Works in the caller's transaction;
studies are locked in the order of their ids.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from record import announcements, audit
from record.ids import new_id
from record.instances import InstanceHeader
from record.models import Instance, Patient, Peer, Series, Site, StoreDeletion, Study
from record.models.studies import KEEPS_A_FILE
from record.states import ConflictKind, InstanceKind, Lane, StudyState
from record.store import Kind
from record.studies import reopen

PRIOR_SOURCE = "prior"
"""The source of instances that were fetched as priors: they start nothing."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One durable instance on its way into the record. `instance_id` is its file's own id."""

    instance_id: uuid.UUID
    header: InstanceHeader
    sha256: str
    size_bytes: int
    received_at: datetime
    source: str
    peer_ae_title: str = ""
    peer_address: str = ""
    site_name: str | None = None
    peer_id: uuid.UUID | None = None
    association_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """What became of a batch: counts of rows."""

    new: int = 0
    known: int = 0
    duplicates: int = 0
    conflicts: int = 0


def admit(session: Session, arrivals: Sequence[Arrival]) -> Admitted:
    """Turn durable files into rows. Repeating it with the same files changes nothing.

    Same bytes under a known UID are a duplicate (their file may go); other bytes, or a patient identity that
    contradicts the study's, are kept as an undecided conflict and change nothing until a person decides.
    """
    sites = _Sites(session)
    groups: dict[tuple[uuid.UUID, str], list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        groups[sites.of(arrival), arrival.header.study_instance_uid].append(arrival)
    studies = _upsert_studies(session, groups, sites)
    total = Admitted()
    for study, batch in sorted(studies, key=lambda pair: pair[0].id):
        one = _admit_to(session, study, batch)
        total = Admitted(
            total.new + one.new,
            total.known + one.known,
            total.duplicates + one.duplicates,
            total.conflicts + one.conflicts,
        )
    return total


class _Sites:
    """Which site (and peer) an arrival belongs to: by its peer, by name, else the oldest site."""

    def __init__(self, session: Session) -> None:
        self._sites = session.scalars(select(Site).order_by(Site.created_at, Site.id)).all()
        peers = session.scalars(select(Peer)).all()
        self._peers = {p.id: p for p in peers}
        self._titled = {(p.ae_title, p.address): p for p in peers}

    def peer(self, arrival: Arrival) -> Peer | None:
        known = self._peers.get(arrival.peer_id) if arrival.peer_id else None
        return known or self._titled.get((arrival.peer_ae_title, arrival.peer_address))

    def of(self, arrival: Arrival) -> uuid.UUID:
        named = next((s for s in self._sites if s.name == arrival.site_name), None)
        peer = self.peer(arrival)
        return named.id if named else peer.site_id if peer else self._sites[0].id


def _upsert_studies(
    session: Session, groups: dict[tuple[uuid.UUID, str], list[Arrival]], sites: _Sites
) -> list[tuple[Study, list[Arrival]]]:
    for (site_id, uid), batch in sorted(groups.items(), key=lambda g: (str(g[0][0]), g[0][1])):
        header, peer = batch[0].header, sites.peer(batch[0])
        session.execute(
            insert(Study)
            .values(
                id=new_id(),
                site_id=site_id,
                study_instance_uid=uid,
                state=StudyState.RECEIVING,
                lane=peer.lane if peer else Lane.ROUTINE,
                stable_after_s=peer.stable_after_s if peer else None,
                max_wait_s=peer.max_wait_s if peer else None,
                modality=header.modality,
                peer_id=peer.id if peer else None,
            )
            .on_conflict_do_nothing(index_elements=["site_id", "study_instance_uid"])
        )
    ids = {
        key: session.scalar(select(Study.id).where(Study.site_id == key[0], Study.study_instance_uid == key[1]))
        for key in groups
    }
    locked = session.scalars(
        select(Study).where(Study.id.in_(list(ids.values()))).order_by(Study.id).with_for_update()
    ).all()
    by_id = {study.id: study for study in locked}
    return [(by_id[ids[key]], batch) for key, batch in groups.items() if ids[key] in by_id]  # type: ignore[index]


def _patient(session: Session, site_id: uuid.UUID, header: InstanceHeader) -> uuid.UUID | None:
    if not header.patient_id:
        return None
    session.execute(
        insert(Patient)
        .values(
            id=new_id(),
            site_id=site_id,
            issuer_of_patient_id=header.issuer_of_patient_id,
            patient_id=header.patient_id,
        )
        .on_conflict_do_nothing()
    )
    return session.scalar(
        select(Patient.id).where(
            Patient.site_id == site_id,
            Patient.issuer_of_patient_id == header.issuer_of_patient_id,
            Patient.patient_id == header.patient_id,
        )
    )


def _admit_to(session: Session, study: Study, batch: Sequence[Arrival]) -> Admitted:
    known = set(session.scalars(select(Instance.id).where(Instance.id.in_([a.instance_id for a in batch]))))
    fresh = [a for a in batch if a.instance_id not in known]
    _identify(session, study, [a.header for a in fresh])
    sides = _sides(session, study, [a.header.sop_instance_uid for a in fresh])
    rejected = rejected_uids(session, study.id) if fresh else set()
    series = _series(session, study, fresh)
    duplicates = conflicts = new = 0
    images_changed = False
    for arrival in fresh:
        row = _row(study, arrival, series[arrival.header.series_instance_uid])
        known_sides = sides[arrival.header.sop_instance_uid]
        same = next((side for side in known_sides if _same_bytes(side, arrival)), None)
        if not known_sides:
            known_sides.append(row)
            row.rejected = row.sop_instance_uid in rejected  # its rejection note came first
            if contradicts(study, arrival.header):
                row.conflict_kind = ConflictKind.IDENTITY
                conflicts += 1
            else:
                new += 1
                images_changed |= counts(row)
        elif same is not None:
            row.duplicate_of_id, row.header = same.id, {}
            session.add(StoreDeletion(kind=Kind.INSTANCE, key=arrival.instance_id.hex))
            duplicates += 1
        else:
            row.conflict_kind, row.conflict_of_id = ConflictKind.BYTES, known_sides[0].id
            known_sides.append(row)
            conflicts += 1
        if known_sides[0].prior and not row.prior:  # the first arrival by another door: no longer only a prior
            known_sides[0].prior = False
            images_changed |= counts(known_sides[0])
        session.add(row)
        if stands(row):
            session.flush()  # what it names may have come with it
            images_changed |= reject(session, row)
            rejected.update(arrival.header.referenced_sop_instance_uids)
    if fresh:
        session.flush()
        _note_arrival(session, study, fresh, images_changed=images_changed, conflicts=conflicts)
    return Admitted(new, len(known), duplicates, conflicts)


def _sides(session: Session, study: Study, sop_instance_uids: Sequence[str]) -> dict[str, list[Instance]]:
    """What is kept under each UID, the first side first; what was erased is not there."""
    sides: dict[str, list[Instance]] = defaultdict(list)
    for row in session.scalars(
        select(Instance)
        .where(
            Instance.study_id == study.id,
            Instance.sop_instance_uid.in_(sop_instance_uids),
            KEEPS_A_FILE,
        )
        .order_by(Instance.conflict_of_id.is_not(None), Instance.id)
    ):
        sides[row.sop_instance_uid].append(row)
    return sides


def counts(row: Instance) -> bool:
    """Whether an instance is one of the images that a closing would freeze."""
    return row.kind == InstanceKind.IMAGE and not row.prior and _is_settled(row)


def stands(row: Instance) -> bool:
    """Whether an instance is a rejection note that has its say."""
    return row.kind == InstanceKind.REJECTION_NOTE and _is_settled(row)


def _is_settled(row: Instance) -> bool:
    undecided = row.conflict_kind is not None and row.conflict_decided_at is None
    other_side = row.conflict_of_id is not None or row.duplicate_of_id is not None
    return not (undecided or other_side or row.rejected or row.erased_at)


def reject(session: Session, note: Instance) -> bool:
    """Take out what a rejection note names of its study; whether the set of images changed.

    What was once rejected stays out, whatever becomes of the note, unless a person decides that the note is none of the
    study's.
    """
    changed = False
    for row in named_by(session, note):
        changed |= counts(row)
        row.rejected = True
    return changed


def named_by(session: Session, note: Instance) -> Sequence[Instance]:
    """What a rejection note names of its study, as far as it is there."""
    return session.scalars(
        select(Instance).where(
            Instance.study_id == note.study_id,
            Instance.sop_instance_uid.in_(note.header.get("referenced_sop_instance_uids") or ()),
            Instance.id != note.id,
            Instance.duplicate_of_id.is_(None),
            Instance.conflict_of_id.is_(None),
            Instance.erased_at.is_(None),
        )
    ).all()


def rejected_uids(session: Session, study_id: uuid.UUID) -> set[str]:
    """What the rejection notes of a study name, here or not."""
    notes = session.scalars(
        select(Instance).where(Instance.study_id == study_id, Instance.kind == InstanceKind.REJECTION_NOTE)
    )
    return {uid for note in notes if stands(note) for uid in note.header.get("referenced_sop_instance_uids") or ()}


_STUDY_TEXT = (
    *("patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date", "patient_sex", "patient_age"),
    *("accession_number", "study_date", "study_time", "study_description", "referring_physician_name"),
)


def _identify(session: Session, study: Study, headers: Sequence[InstanceHeader]) -> None:
    """Let the first instance that names a patient speak for a study that names none yet, or none any more."""
    if headers and not study.patient_id:
        named = next((h for h in headers if h.patient_id), headers[0])
        for name in _STUDY_TEXT:
            if not getattr(study, name):
                setattr(study, name, getattr(named, name))
        study.patient_id_key = _patient(session, study.site_id, named)
        study.erased_at = None
    if not study.issuer_of_patient_id:  # two issuers of one ID are two patients; the link to the patient stays
        same = (h.issuer_of_patient_id for h in headers if h.patient_id == study.patient_id != "")
        study.issuer_of_patient_id = next(filter(None, same), "")


def _row(study: Study, arrival: Arrival, series_id: uuid.UUID) -> Instance:
    header = arrival.header
    return Instance(
        id=arrival.instance_id,
        study_id=study.id,
        series_id=series_id,
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        instance_number=header.instance_number,
        kind=header.kind,
        header=header.as_dict(),
        sha256=arrival.sha256,
        size_bytes=arrival.size_bytes,
        prior=arrival.source == PRIOR_SOURCE,
        source=arrival.source,
        peer_ae_title=arrival.peer_ae_title,
        peer_address=arrival.peer_address,
        association_id=arrival.association_id,
        received_at=arrival.received_at,
    )


def _series(session: Session, study: Study, fresh: Sequence[Arrival]) -> dict[str, uuid.UUID]:
    """The series of what comes, by their UIDs; the first instance of a new one speaks for it."""
    wanted = {a.header.series_instance_uid: a.header for a in reversed(fresh)}
    if not wanted:
        return {}
    rows = session.execute(
        select(Series.series_instance_uid, Series.id).where(
            Series.study_id == study.id, Series.series_instance_uid.in_(list(wanted))
        )
    )
    known = {row[0]: row[1] for row in rows}
    for uid, header in wanted.items():
        if uid not in known:
            known[uid] = new_id()
            session.add(
                Series(
                    id=known[uid],
                    study_id=study.id,
                    series_instance_uid=uid,
                    modality=header.modality,
                    series_number=header.series_number,
                    series_description=header.series_description,
                    body_part_examined=header.body_part_examined,
                )
            )
    session.flush()
    return known


def contradicts(study: Study, header: InstanceHeader) -> bool:
    """Whether an instance names another patient than its study: both say a Patient ID, and they differ."""
    if not study.patient_id or not header.patient_id:
        return False
    issuers = {study.issuer_of_patient_id, header.issuer_of_patient_id} - {""}
    return study.patient_id.strip() != header.patient_id.strip() or len(issuers) > 1


def _same_bytes(side: Instance, arrival: Arrival) -> bool:
    return side.sha256 == arrival.sha256 and side.transfer_syntax_uid == arrival.header.transfer_syntax_uid


def _note_arrival(
    session: Session, study: Study, fresh: Sequence[Arrival], *, images_changed: bool, conflicts: int
) -> None:
    study.instances = (
        session.scalar(
            select(func.count())
            .select_from(Instance)
            .where(
                Instance.study_id == study.id,
                Instance.duplicate_of_id.is_(None),
                Instance.conflict_of_id.is_(None),
                Instance.erased_at.is_(None),
            )
        )
        or 0
    )
    study.updated_at = func.now()
    if any(a.header.kind is InstanceKind.IMAGE for a in fresh):
        image = next(a.header for a in fresh if a.header.kind is InstanceKind.IMAGE)
        study.modality = study.modality if study.first_image_at else image.modality
        study.first_image_at = study.first_image_at or func.now()
    if study.state == StudyState.RECEIVING:
        study.last_image_at = func.now()
    elif images_changed:
        reopen(study)
        audit.write(session, "study_reopened", site_id=study.site_id, study_id=study.id, revision=study.revision)
    if study.state == StudyState.RECEIVING:
        session.flush()
        announcements.reconsider(session, study)
    digest = hashlib.sha256("".join(sorted(a.sha256 for a in fresh)).encode()).hexdigest()
    audit.write(
        session,
        "instances_admitted",
        site_id=study.site_id,
        study_id=study.id,
        count=len(fresh),
        conflicts=conflicts,
        source=fresh[0].source,
        digest=digest,
    )
    session.flush()
