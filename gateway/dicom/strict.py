"""Strict peers: other bytes under a UID that is taken are refused before they are kept, instead of being a conflict afterwards.

Knows where an instance may be already: in a spool of this machine, or on record at the peer's site. Of one UID one instance at a time is
admitted on a machine, so that two never pass each other. Needs PostgreSQL, as nothing else of a listener does: while it
is away a strict peer is told to come again. Does not know associations.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from pydantic import SecretStr

from gateway import spool
from gateway.intake import Incoming
from gateway.spool import SopIdentity
from record.errors import Busy, Conflict, InvalidInstance

if TYPE_CHECKING:
    from sqlalchemy import Engine

LOCKS = 32
"""Files that are locked; an instance's UID says which."""
_logger = structlog.get_logger()


class Strict:
    """What is there already, for one process. Safe to use from many threads; the database is first needed when it is first used."""

    def __init__(self, root: Path, database_url: SecretStr | None) -> None:
        self._root, self._database_url = root, database_url
        self._engine: Engine | None = None
        self._lock = threading.Lock()
        self._spooled: dict[Path, tuple[str | None, SopIdentity]] = {}

    @contextlib.contextmanager
    def admitting(self, incoming: Incoming, sop: SopIdentity, site_name: str) -> Iterator[None]:
        """Hold the door while an instance is committed that is new, or the same as what is there.

        Raises
        ------
        Conflict
            Other bytes stand under its UID.
        Busy
            PostgreSQL is away, or this listener does not know where it is.
        """
        with self._alone(sop.sop_instance_uid):
            digest = incoming.data_set_sha256()
            there = [
                *self._waiting(sop, site_name),
                *self._on_record(sop, site_name),
            ]  # in this order: it goes from there to here
            if there and (digest, sop.transfer_syntax_uid) not in there:
                raise Conflict("Other bytes are stored under this UID.", reason_code="other_bytes")
            yield

    @contextlib.contextmanager
    def _alone(self, sop_instance_uid: str) -> Iterator[None]:
        number = zlib.crc32(sop_instance_uid.encode()) % LOCKS
        descriptor = os.open(self._root / f"strict-{number:02}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _waiting(self, sop: SopIdentity, site_name: str) -> list[tuple[str, str]]:
        """What waits in the spools under this UID: digest and transfer syntax of each."""
        found: list[tuple[str, str]] = []
        paths = {path for each in spool.find(self._root) for path in each.waiting()}
        with self._lock:
            self._spooled = {path: told for path, told in self._spooled.items() if path in paths}
            for path in sorted(paths):
                with contextlib.suppress(FileNotFoundError, InvalidInstance):  # the indexer has it; or sets it aside
                    told = self._spooled.get(path) or _told(path)
                    self._spooled[path] = told
                    if told[0] in {None, site_name} and told[1].sop_instance_uid == sop.sop_instance_uid:
                        found.append((spool.data_set_sha256(path), told[1].transfer_syntax_uid))
        return found

    def _on_record(self, sop: SopIdentity, site_name: str) -> list[tuple[str, str]]:
        if self._database_url is None:
            _logger.error("strict_without_database", hint="A listener with strict peers needs DATABASE_URL.")
            raise Busy("This listener knows no database, so it cannot take a strict peer's images.")
        from sqlalchemy import select
        from sqlalchemy.exc import OperationalError, SQLAlchemyError
        from sqlalchemy.exc import TimeoutError as NoConnection

        from record.db import connect, is_away, transaction
        from record.models import Instance, Site, Study

        with self._lock:
            engine = self._engine = self._engine or connect(self._database_url, pool=2)
        try:
            with transaction(engine) as session:
                rows = session.execute(
                    select(Instance.sha256, Instance.transfer_syntax_uid)
                    .join(Study, Study.id == Instance.study_id)
                    .join(Site, Site.id == Study.site_id)
                    .where(
                        Instance.sop_instance_uid == sop.sop_instance_uid,
                        Site.name == site_name,
                        Instance.duplicate_of_id.is_(None),
                        Instance.erased_at.is_(None),
                    )
                ).all()
                return [(row.sha256, row.transfer_syntax_uid) for row in rows]
        except SQLAlchemyError as error:
            if is_away(error) or isinstance(
                error, OperationalError | NoConnection
            ):  # locked out, too slow, or too many ask
                raise Busy("PostgreSQL is away, so a strict peer's image cannot be compared.") from None
            raise


def _told(path: Path) -> tuple[str | None, SopIdentity]:
    with spool.mapped(path) as view:
        said = spool.read(path, view)
    return said.source.site_name, said.sop
