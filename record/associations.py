"""Associations on record: each that ended, told by the listeners' logbooks, so that somebody can ask why at 3 a.m.

Knows how lines become rows, and how long they stay. Does not know what a reason means in words, nor associations that stand.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from record.errors import InvalidRequest, NotFound
from record.models import Association, Peer, Proposal

KEEP_DAYS = 90
_ID = re.compile(r"[0-9a-f]{6,32}")
_MOST_REFUSING = 20
_DELETED_AT_ONCE = 5000


def note(session: Session, lines: Sequence[Mapping[str, Any]]) -> int:
    """Make rows of a logbook's lines; one that was made before changes nothing, and one that is none is passed over."""
    rows = [row for row in map(_row, lines) if row is not None]
    if not rows:
        return 0
    proposals = {row["proposal"]: row.pop("offers") for row in rows}
    session.execute(
        insert(Proposal)
        .values([{"sha256": digest, "offers": offers} for digest, offers in sorted(proposals.items())])
        .on_conflict_do_nothing()
    )
    sites = {peer.id: peer.site_id for peer in session.scalars(select(Peer))}
    for row in rows:
        row["site_id"] = sites.get(row["peer_id"])
    _tell_gaps(session, rows)
    session.execute(insert(Association).values(rows).on_conflict_do_nothing())
    return len(rows)


def recent(
    session: Session,
    *,
    since: datetime | None = None,
    troubled: bool = False,
    ae_title: str | None = None,
    site_id: uuid.UUID | None = None,
    limit: int = 50,
) -> Sequence[Association]:
    """Associations that ended, the newest first; only those that did not end well, or of one calling AE title, or site."""
    statement = select(Association).order_by(Association.ended_at.desc(), Association.id.desc()).limit(limit)
    if since is not None:
        statement = statement.where(Association.ended_at >= since)
    if troubled:
        ended_well = (
            (Association.outcome == "released") & (Association.refusals == {}) & (Association.reason_code == "")
        )
        statement = statement.where(~ended_well)
    if ae_title is not None:
        statement = statement.where(Association.calling_ae_title == ae_title)
    if site_id is not None:
        statement = statement.where(Association.site_id == site_id)
    return session.scalars(statement).all()


def find(session: Session, named: str) -> tuple[Association, Proposal]:
    """One association, and what was proposed on it, by its id or by how that begins.

    Raises
    ------
    InvalidRequest
        It is no id, or several begin so.
    NotFound
        There is none.
    """
    digits = named.replace("-", "").lower()
    if not _ID.fullmatch(digits):
        raise InvalidRequest(
            "An association is named by its id, or by how that begins: six hexadecimal digits at least."
        )
    first, last = (uuid.UUID(hex=digits.ljust(32, end)) for end in "0f")
    rows = session.execute(
        select(Association, Proposal)
        .join(Proposal, Proposal.sha256 == Association.proposal)
        .where(Association.id.between(first, last))
        .limit(2)
    ).all()
    if not rows:
        raise NotFound("There is no such association; those of the last 90 days are kept.")
    if len(rows) > 1:
        raise InvalidRequest("Several associations begin so: say more of the id.")
    return rows[0][0], rows[0][1]


def troubled_lately(session: Session, hours: float = 1.0, site_id: uuid.UUID | None = None) -> int:
    """How many associations did not come about, or had something refused; of strangers, and of one site's senders or of all."""
    lately = Association.ended_at > func.now() - func.make_interval(0, 0, 0, 0, 0, 0, 3600 * hours)
    turned_away = Association.outcome.in_(["rejected", "insecure"]) | (Association.refusals != {})
    statement = select(func.count()).select_from(Association).where(lately, turned_away)
    if site_id is not None:
        statement = statement.where((Association.site_id == site_id) | Association.site_id.is_(None))
    return session.scalar(statement) or 0


def that_refused(session: Session, uid: str, site_ids: Collection[uuid.UUID]) -> Sequence[Association]:
    """The latest associations with these sites' senders in which an instance of this study, or this instance, was refused.

    Who is let in by open doors belongs to no site, and is told of at each.
    """
    named = Association.refused.contains([{"study": uid}]) | Association.refused.contains([{"sop": uid}])
    return session.scalars(
        select(Association)
        .where(Association.refused != [], named, Association.site_id.in_(site_ids) | Association.site_id.is_(None))
        .order_by(Association.ended_at.desc())
        .limit(_MOST_REFUSING)
    ).all()


def forget_old(session: Session, keep_days: int = KEEP_DAYS) -> None:
    """Delete what is older than anybody asks for, some at a time, and the proposals that nobody made lately."""
    old = (
        select(Association.id)
        .where(Association.ended_at < func.now() - func.make_interval(0, 0, 0, keep_days))
        .limit(_DELETED_AT_ONCE)
    )
    session.execute(delete(Association).where(Association.id.in_(old)))
    named = select(Association.id).where(Association.proposal == Proposal.sha256).exists()
    session.execute(
        delete(Proposal).where(Proposal.sha256.in_(select(Proposal.sha256).where(~named).limit(_DELETED_AT_ONCE)))
    )


def _tell_gaps(session: Session, rows: list[dict[str, Any]]) -> None:
    """How long each peer had been silent before each of its associations."""
    last: dict[uuid.UUID | None, datetime | None] = {None: None}
    for row in sorted(rows, key=lambda row: row["began_at"]):
        peer_id, row["gap_s"] = row["peer_id"], None
        if peer_id not in last:
            last[peer_id] = session.scalar(
                select(Association.ended_at)
                .where(Association.peer_id == peer_id)
                .order_by(Association.ended_at.desc())
                .limit(1)
            )
        former = last[peer_id]
        if peer_id is not None:
            row["gap_s"] = max(0.0, (row["began_at"] - former).total_seconds()) if former else None
            last[peer_id] = max(row["ended_at"], former) if former else row["ended_at"]


def _row(line: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        offers = [[str(one[0]), [str(each) for each in one[1]], one[2] and str(one[2])] for one in line["offers"]]
        return {
            "id": uuid.UUID(hex=line["id"]),
            "peer_id": uuid.UUID(line["peer_id"]) if line["peer_id"] else None,
            "listener": str(line["listener"]),
            "calling_ae_title": str(line["calling_ae_title"]),
            "called_ae_title": str(line["called_ae_title"]),
            "peer_address": str(line["peer_address"]),
            "is_secure": bool(line["is_secure"]),
            "offers": offers,
            "untaken": len({one[0] for one in offers} - {one[0] for one in offers if one[2]}),
            "proposal": hashlib.sha256(json.dumps(offers).encode()).hexdigest(),
            "instances": int(line["instances"]),
            "bytes": int(line["bytes"]),
            "refusals": {f"{int(status, 16):04X}": int(count) for status, count in dict(line["refusals"]).items()},
            "requests": {str(name): int(count) for name, count in dict(line.get("requests", {})).items()},
            "refused": [
                {"status": str(status), "why": str(why), "sop": str(sop), "study": str(study)}
                for status, why, sop, study in line.get("refused", [])
            ],
            "certificate_names": [str(name) for name in line.get("certificate_names", [])],
            "outcome": str(line["outcome"]),
            "reason_code": str(line["reason_code"]),
            "began_at": datetime.fromisoformat(line["began_at"]),
            "ended_at": datetime.fromisoformat(line["ended_at"]),
        }
    except (LookupError, TypeError, ValueError, AttributeError):
        return None
