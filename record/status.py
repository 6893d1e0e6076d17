"""The state of the line, for whoever looks after it: parts, queue, failures, disks, and what needs a person.

Knows which figures belong to it. Does not know how one is found (`figures`), how it is shown, nor what gives cause for an
alarm (`alarms`). What belongs to a site is narrowed to the asker's; the parts, the disks and the seals are everybody's.
Nothing here names a patient.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from record import figures
from record.access import Principal
from record.alarms import Alarm, raised_by
from record.figures import Ended, Reason, Receiving, StudyShown, Waiting
from record.models import Site
from record.presence import PartShown, Place, SpoolShown, look
from record.queue import Bell


@dataclass(frozen=True, slots=True)
class Status:
    """Everything at once. `site` is None where all sites are in view; a number with `_estimated` is about right."""

    at: datetime
    host: str
    site: str | None
    clock_s: float
    revision: str | None
    own_revision: str | None
    database_bytes: int
    parts: tuple[PartShown, ...]
    missing: tuple[str, ...]
    spools: tuple[SpoolShown, ...]
    disks: tuple[Place, ...]
    queue: tuple[Waiting, ...]
    prepared_by_model: Mapping[str, int]
    studies: Mapping[str, int]
    studies_estimated: bool
    receiving: Receiving
    reasons: tuple[Reason, ...]
    ended: tuple[Ended, ...]
    conflicts: int
    conflicting: tuple[StudyShown, ...]
    outdated: int
    lease_losses: int
    unsealed: int
    unsealed_oldest_s: float
    seal_position: int
    deliveries: Mapping[str, int]
    deletions: int
    deletions_oldest_s: float
    redis: bool | None
    wakeups: Mapping[str, int]
    alarms: tuple[Alarm, ...] = ()

    @property
    def is_well(self) -> bool:
        """Whether nothing needs a person; a notice does not."""
        return all(one.severity == "notice" for one in self.alarms)

    def as_dict(self) -> dict[str, Any]:
        """As plain values, with each alarm's sentence."""
        told = asdict(self)
        told["well"] = self.is_well
        told["alarms"] = [{**asdict(one), "sentence": one.sentence} for one in self.alarms]
        return told


def read(session: Session, by: Principal | None = None, *, bell: Bell | None = None, most: int = 20) -> Status:
    """Look at everything, in a transaction that only reads.

    Parameters
    ----------
    by
        Who asks; None is whoever holds the database's key, who sees all sites.
    bell
        Redis, where this process has one.
    most
        Rows of each list.
    """
    depths = bell.depths() if bell is not None and bell.is_configured else {}  # before a transaction is open
    base = figures.base(session)
    clock_s = time.time() - base.at.timestamp()
    parts, missing, spools, disks = look(session)
    queue, by_model = figures.queue(session, by)
    studies, estimated = figures.studies(session, by)
    conflicts, conflicting = figures.conflicts(session, by, most)
    status = Status(
        at=base.at,
        host=socket.gethostname(),
        site=None if by is None else session.scalar(select(Site.name).where(Site.id == by.site_id)),
        clock_s=clock_s,
        revision=base.revision,
        own_revision=own_revision(),
        database_bytes=base.database_bytes,
        parts=parts,
        missing=missing,
        spools=spools,
        disks=disks,
        queue=queue,
        prepared_by_model=by_model,
        studies=studies,
        studies_estimated=estimated,
        receiving=figures.receiving(session, by, most),
        reasons=figures.reasons(session, by, base.at),
        ended=figures.ended(session, by, base.at, most),
        conflicts=conflicts,
        conflicting=conflicting,
        outdated=figures.outdated(session, by, base.at),
        lease_losses=base.lease_losses,
        unsealed=base.unsealed,
        unsealed_oldest_s=float(base.unsealed_oldest_s or 0),
        seal_position=base.seal_position or 0,
        deliveries=figures.deliveries(session, by),
        deletions=base.deletions,
        deletions_oldest_s=float(base.deletions_oldest_s or 0),
        redis=None if bell is None or not bell.is_configured else depths is not None,
        wakeups=depths or {},
    )
    return replace(status, alarms=raised_by(status))


@cache
def own_revision() -> str | None:
    """The schema revision that this release is made for."""
    from alembic.script import ScriptDirectory

    from record.migrate import config

    return ScriptDirectory.from_config(config()).get_current_head()
