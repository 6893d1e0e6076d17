"""A line in a made-up situation: parts that tell, a study of each kind that an operator has to do with.

Knows the record's verbs and rows. Does not know who is told of the situation.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from record import admission, alarms, parts, readings, status
from record.access import Principal
from record.db import transaction
from tests.conftest import RunningServers
from tests.records import arrival, uid
from tests.web_records import Desk

CANARY = "CANARYNAME"
WORDS = dict.fromkeys(("patient_name", "patient_id", "accession_number", "study_description"), CANARY)


def seen(engine: Engine, by: Principal | None = None, **how: Any) -> status.Status:
    """What whoever looks after the line is told."""
    with transaction(engine) as session:
        return status.read(session, by, **how)


def codes(found: status.Status) -> set[str]:
    """Which alarms are raised."""
    return {one.code for one in found.alarms}


def tell(session: Session, kind: str, **facts: Any) -> str:
    """A part of a kind tells that it is here; returns whose row it is."""
    owner = f"{kind}-{uuid.uuid4().hex[:6]}"
    parts.report(session, owner, kind, facts)
    return owner


def spool_facts(**facts: Any) -> dict[str, Any]:
    """What an indexer tells of one spool whose listener lives."""
    listener = {"owner": "listener", "version": parts.own_version(), "seen_s": 0.5, "every_s": 5.0, "port": 11112}
    told = {
        "spool": "00", "files": 0, "oldest_s": 0.0, "bytes": 0, "quarantine_files": 0, "quarantine_bytes": 0,
        "free_bytes": 100 * alarms.GIB, "listener": listener,
    }  # fmt: skip
    return {"spools": [told | facts], "store_free_bytes": 100 * alarms.GIB}


def everybody(session: Session) -> None:
    """One part of each kind is here, and its engine is open."""
    tell(session, "indexer", **spool_facts())
    tell(session, "api")
    tell(session, "sweep")
    tell(session, "courier")
    readings.report_worker(session, "host:1", "cpu", model="phantom", slots=1, identity={})
    readings.report_worker(
        session, "host:2", "gpu", model="phantom", slots=4, identity={"where": "NVIDIA H100", "busy": 1}
    )


def with_canary(desk: Desk, **how: Any) -> str:
    """A study whose every word about its patient is a canary."""
    return desk.study(**WORDS, **how)


def made_up(desk: Desk, *, site: str = "main") -> dict[str, str]:
    """A situation: one study of each kind that an operator has to do with. Returns the UIDs."""
    made = {ends: with_canary(desk, ends=ends, site=site) for ends in ("done", "failed", "abstained")}
    with transaction(desk.engine) as session:
        receiving = arrival(uid(), **WORDS)
        admission.admit(session, [replace(receiving, site_name=site)])
        made["receiving"] = receiving.header.study_instance_uid
        conflicting = arrival(uid(), **WORDS)
        other = arrival(
            conflicting.header.study_instance_uid,
            sop_instance_uid=conflicting.header.sop_instance_uid,
            **WORDS,
        )
        admission.admit(session, [replace(conflicting, site_name=site), replace(other, site_name=site)])
        made["conflicting"] = conflicting.header.study_instance_uid
    made["outdated"] = with_canary(desk, site=site)
    with transaction(desk.engine) as session:
        desk.add_images(session, made["outdated"], site=site, **WORDS)
    made["queued"] = with_canary(desk, ends="queued", site=site)
    return made


@contextlib.contextmanager
def away(servers: RunningServers, engine: Engine) -> Iterator[None]:
    """PostgreSQL as it looks to one database's users while it is gone."""
    name = engine.url.database
    with psycopg.connect(servers.admin_url.replace("postgresql+psycopg:", "postgresql:"), autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            yield
        finally:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
