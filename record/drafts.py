"""Drafts: what a reading said, written once, with hashes of every part in its event.

Knows which parts of a draft are hashed, so that `verify` finds a changed one. Does not know how a draft came about.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from record import audit
from record.body import Body
from record.models import Draft, DraftStep


def write(
    session: Session,
    *,
    reading_id: uuid.UUID,
    study_id: uuid.UUID,
    site_id: uuid.UUID,
    body: Body,
    flags: Sequence[str],
    provenance: dict[str, Any],
    steps: Sequence[Mapping[str, Any]],
) -> Draft:
    """Write the one draft of a reading and its engine calls, in the transaction that ends the reading."""
    draft = Draft(
        reading_id=reading_id,
        study_id=study_id,
        body=body.canonical(),
        body_sha256=body.digest(),
        flags=list(flags),
        provenance=provenance,
    )
    session.add(draft)
    session.flush()
    for position, step in enumerate(steps):
        session.add(DraftStep(draft_id=draft.id, position=position, **step))
    audit.write(
        session,
        "draft_written",
        site_id=site_id,
        study_id=study_id,
        reading_id=reading_id,
        draft_id=draft.id,
        body_sha256=draft.body_sha256,
        provenance_sha256=digest(provenance),
        steps=[[step["prompt_sha256"], step["completion_sha256"]] for step in steps],
    )
    return draft


def digest(value: object) -> str:
    """sha256 of plain values, whatever their order of keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
