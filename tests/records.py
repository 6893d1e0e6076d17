"""Rows for tests of the record: arrivals, users and a database that sweeps at once."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from argon2 import PasswordHasher
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from record import accounts, admission, claims, drafts, reports, sessions, studies
from record.access import Principal
from record.admission import Arrival
from record.body import Body, Origin, Section, SectionCode, Sentence, sha256
from record.ids import new_id
from record.instances import InstanceHeader
from record.models import Reading, Report, Study
from record.states import Role

accounts._hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)  # argon2's price is not what is tested

CR = "1.2.840.10008.5.1.4.1.1.1"
SR = "1.2.840.10008.5.1.4.1.1.88.11"
STEP = {
    "prompt": "p",
    "prompt_sha256": sha256("p"),
    "completion": "c",
    "completion_sha256": sha256("c"),
    "parameters": {},
    "finish": "stop",
    "tokens": {},
    "timing": {},
}
EXPLICIT = "1.2.840.10008.1.2.1"


def uid() -> str:
    return f"2.25.{new_id().int}"


def arrival(study_uid: str, *, sha256: str | None = None, **attributes: object) -> Arrival:
    """One chest picture of a study; any header attribute can be said."""
    header = InstanceHeader(
        study_instance_uid=study_uid,
        series_instance_uid=str(attributes.pop("series_instance_uid", study_uid + ".1")),
        sop_instance_uid=str(attributes.pop("sop_instance_uid", uid())),
        sop_class_uid=CR,
        transfer_syntax_uid=EXPLICIT,
        modality="CR",
        has_pixels=True,
        patient_id="P1",
        patient_name="Phantom^One",
    )
    header = replace(header, **attributes)  # type: ignore[arg-type]
    return Arrival(
        new_id(), header, sha256 or secrets.token_hex(32), 1000, datetime.now(UTC), "dicom", "TEST", "127.0.0.1"
    )


def again(former: Arrival) -> Arrival:
    """The same bytes, sent a second time: another file of ours."""
    return replace(former, instance_id=new_id())


def person(session: Session, role: Role, *, site: str | None = None) -> Principal:
    login = f"{role}-{secrets.token_hex(3)}"
    user = accounts.add_user(
        session, site=site, login=login, printed_name=f"Dr {login}", role=role, password="correct horse battery"
    )
    return accounts.user_principal(user)


def study_of(session: Session, study_uid: str) -> Study:
    return session.scalars(
        select(Study).where(Study.study_instance_uid == study_uid).execution_options(populate_existing=True)
    ).one()


def closed(session: Session, arrivals: Sequence[Arrival]) -> Study:
    """Admit a study and close it at once."""
    admission.admit(session, arrivals)
    study = study_of(session, arrivals[0].header.study_instance_uid)
    session.refresh(study, with_for_update=True)
    studies.freeze(session, study, "test", {})
    session.flush()
    return study


def draft_body(words: str = "There is an opacity in the left upper zone.") -> Body:
    return Body(
        sections=(
            Section(SectionCode.FINDINGS, (Sentence("findings-m1", words, Origin.MACHINE, "findings-m1"),)),
            Section(SectionCode.IMPRESSION, (Sentence("impression-m1", "Opacity.", Origin.MACHINE, "impression-m1"),)),
        )
    )


def drafting(session: Session) -> claims.Claim:
    """Claim the waiting reading, prepare it without pictures, and claim it for its draft, as the workers would."""
    claim = claims.claim_prepare(session, "test", 30, max_prepared=64, model="phantom")
    assert claim is not None
    claims.finish_prepare(
        session,
        claim,
        protocol="phantom-chest",
        protocol_version="1",
        protocol_digest="d",
        model="phantom",
        pictures=[],
        omitted=[],
    )
    claim = claims.claim_draft(session, "test", 30, model="phantom")
    assert claim is not None
    return claim


def drafted(session: Session, study: Study, body: Body | None = None) -> Report | None:
    """Take the study's reading through its life, as the workers would, and open its report."""
    body = body or draft_body()
    claim = drafting(session)
    assert claim.study_id == study.id
    claims.finish_done(session, claim)
    draft = drafts.write(
        session,
        reading_id=claim.reading_id,
        study_id=study.id,
        site_id=claim.site_id,
        body=body,
        flags=[],
        provenance={},
        steps=[STEP],
    )
    reading = session.get_one(Reading, claim.reading_id, populate_existing=True)
    return reports.open_draft(session, reading, draft)


def proof(session: Session, by: Principal) -> sessions.Reauthentication:
    now = session.scalar(select(func.now()))
    assert by.id is not None
    assert now is not None
    return sessions.Reauthentication(by.id, "password", now, "127.0.0.1")


def count(session: Session, table: str, where: str = "true") -> int:
    return int(session.scalar(text(f"SELECT count(*) FROM {table} WHERE {where}")) or 0)
