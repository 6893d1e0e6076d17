"""The indexer: spooled files become stored instances and rows, in an order that any crash may interrupt.

Knows spools, the store and one verb of the record. Does not know what a new row sets going: the sweep finds that.

For each file: (a) its bytes go into the store under the file's own id; (b) in batches, one transaction makes the rows;
(c) only then is it unlinked from the spool. After a crash all three are repeated: the store leaves a key that is there
alone, a row with the same id is this file's own, and unlinking comes last. PostgreSQL away, or a full store: everything
waits in the spool and is tried again. A file that is not whole goes into quarantine with the reason; one that fails
otherwise steps aside for a while. Neither holds up the others.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Engine, select
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from gateway import heartbeat, logbook, notices, spool
from gateway.dicom.peers import KnownPeer, write_peers
from gateway.headers import read_header
from gateway.spool import Spool
from record import announcements, associations, commitments, log
from record.admission import Arrival, admit
from record.db import connect, is_away, transaction
from record.errors import CountersignError, InvalidInstance, StoreFull
from record.models import Instance, Peer, Site
from record.mounted import require_mounted
from record.parts import Beat
from record.settings import IndexerSettings
from record.store import Kind, Store

_logger = structlog.get_logger()

PEERS_EVERY_S = 1.0
ASIDE_S = 30.0
"""How long a file that failed without being broken lets others pass."""
MAX_BACKOFF_S = 10.0
_BLOCK = 1 << 20
_FINAL = (DataError, IntegrityError, CountersignError, LookupError, ValueError, TypeError, AttributeError)
"""What is wrong with a notice, or a line, itself: it will be no other tomorrow."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one look at the spools brought: files that got rows, and files put into quarantine."""

    instances: int = 0
    quarantined: int = 0


class Indexer:
    """Drains every spool below a folder that no other indexer holds."""

    def __init__(self, engine: Engine, store: Store, root: Path, batch: int = 64, aside_s: float = ASIDE_S) -> None:
        self._engine, self._store, self._root, self._batch, self._aside_s = engine, store, root, batch, aside_s
        self._held: dict[Path, Spool] = {}
        self._logbooks: dict[Path, logbook.Reader] = {}
        self._lines_due = 0.0
        self._aside: dict[Path, float] = {}
        self._unsure = True  # whether a file in the spool may have a row already: at start, and after any failure
        self._peers_due = 0.0

    def run_once(self) -> Round:
        """Take at most one batch from each spool.

        Raises
        ------
        SQLAlchemyError
            PostgreSQL is away (`record.db.is_away`): nothing is lost, try again later.
        StoreFull
            The store has no room: likewise.
        Misconfigured
            The store is not there: likewise.
        """
        self._write_peers()
        instances = quarantined = 0
        for each in self._spools():
            self._keep_lines(each)
            now = time.monotonic()
            self._aside = {path: until for path, until in self._aside.items() if until > now}
            batch = [path for path in each.waiting() if path not in self._aside][: self._batch]
            if batch:
                require_mounted(self._engine, self._store)
                one = self._take(each, batch)
                instances, quarantined = instances + one.instances, quarantined + one.quarantined
        for each in self._spools():
            self._take_up(each)
        return Round(instances, quarantined)

    def facts(self) -> dict[str, Any]:
        """What the operator shall see: each spool that is drained here, its listener, and the store's room."""
        spools = [
            {"spool": each.spool_id, **asdict(heartbeat.contents_of(each)), "listener": heartbeat.listener_of(each)}
            for each in self._spools()
        ]
        return {"spools": spools, "store_free_bytes": self._store.free_bytes()}

    def release(self) -> None:
        """Let another indexer have the spools."""
        for each in self._held.values():
            each.release()
        self._held = {}

    def _spools(self) -> Iterator[Spool]:
        for found in spool.find(self._root):
            held = self._held.setdefault(found.folder, found)
            if held.hold("indexer"):
                yield held

    def _take(self, each: Spool, paths: Sequence[Path]) -> Round:
        unsure, self._unsure = self._unsure, True
        if unsure:
            paths = self._without_known(paths)
        arrivals: dict[Path, Arrival] = {}
        quarantined = 0
        for path in paths:
            try:
                arrivals[path] = arrival_of(path)
            except InvalidInstance as error:
                self._quarantine(each, path, str(error.facts.get("reason_code", error.code)))
                quarantined += 1
                continue
            except FileNotFoundError:
                continue
            except Exception:  # a fault of ours, or of the disk, with one file: others must pass
                _logger.exception("instance_failed", instance_id=path.stem)
                self._aside[path] = time.monotonic() + self._aside_s
                continue
        self._store.put_files(Kind.INSTANCE, {one.instance_id.hex: path for path, one in arrivals.items()})
        done, broken = self._admit(each, arrivals)
        for path in done:
            path.unlink(missing_ok=True)
        self._unsure = False
        if done:
            _logger.info("instances_indexed", instances=len(done), spool_id=each.spool_id)
        return Round(len(done), quarantined + broken)

    def _admit(self, each: Spool, arrivals: dict[Path, Arrival]) -> tuple[list[Path], int]:
        """All in one transaction; if that fails for what is in it, each in its own."""
        if not arrivals:
            return [], 0
        try:
            with transaction(self._engine) as session:
                admit(session, list(arrivals.values()))
            return list(arrivals), 0
        except SQLAlchemyError as error:
            if is_away(error):
                raise
            _logger.warning("batch_failed", instances=len(arrivals), exc_info=True)
        except CountersignError:
            _logger.warning("batch_failed", instances=len(arrivals), exc_info=True)
        done, broken = [], 0
        for path, arrival in arrivals.items():
            try:
                with transaction(self._engine) as session:
                    admit(session, [arrival])
                done.append(path)
            except DataError:  # a value no column takes: it will be no other tomorrow
                self._quarantine(each, path, "unstorable")
                self._store.delete(Kind.INSTANCE, arrival.instance_id.hex)
                broken += 1
            except Exception as error:  # the door for one file: others must pass
                if is_away(error):
                    raise
                _logger.exception("instance_failed", instance_id=path.stem)
                self._aside[path] = time.monotonic() + self._aside_s
        return done, broken

    def _without_known(self, paths: Sequence[Path]) -> list[Path]:
        """Files of a former life whose rows were committed go: storing them again could bring back what was erased."""
        ids = {path.stem: path for path in paths}
        with transaction(self._engine) as session:
            for known in session.scalars(select(Instance.id).where(Instance.id.in_(list(ids)))):
                ids.pop(known.hex).unlink(missing_ok=True)
        return list(ids.values())

    def _quarantine(self, each: Spool, path: Path, reason: str) -> None:
        kept = each.set_aside(path, reason)
        _logger.error(
            "instance_quarantined", instance_id=path.stem, reason_code=reason, result="kept" if kept else "lost"
        )

    def _oldest_waiting(self) -> str | None:
        """The id of the oldest file that waits for its row in any spool here; ids begin with the time."""
        waiting = (path for each in self._held.values() for path in each.waiting() if path not in self._aside)
        return min((path.stem for path in waiting), default=None)

    def _keep_lines(self, each: Spool) -> None:
        """Make rows of what the listener wrote into its logbook."""
        if time.monotonic() < self._lines_due:
            return
        reader = self._logbooks.setdefault(each.folder, logbook.Reader(each.folder))
        lines, seen = reader.read()
        try:
            if lines:
                with transaction(self._engine) as session:
                    associations.note(session, lines)
        except SQLAlchemyError as error:
            if is_away(error):
                raise
            _logger.exception("logbook_unreadable", spool_id=each.spool_id)
            if not isinstance(error, _FINAL):
                self._lines_due = time.monotonic() + self._aside_s  # images go on
                return
        reader.done(seen)

    def _take_up(self, each: Spool) -> None:
        """Make rows of what peers asked and told besides images, when the images that came before are on record."""
        told = [one for one in notices.waiting(each.folder) if one[0] not in self._aside]
        oldest = self._oldest_waiting() if told else None
        for path, notice_id, said in told:
            if oldest is not None and oldest < notice_id:
                break  # images that came before it go first: it may be about them
            try:
                if said is not None:
                    with transaction(self._engine) as session:
                        taken_up(session, UUID(hex=notice_id), said)
                    path.unlink(missing_ok=True)
                    continue
                _logger.error("notice_unreadable", spool_id=each.spool_id)
            except Exception as error:  # the door for one notice: others, and images, must pass
                if is_away(error):
                    raise
                _logger.exception("notice_failed", spool_id=each.spool_id)
                if not isinstance(error, _FINAL):
                    self._aside[path] = time.monotonic() + self._aside_s
                    continue
            notices.give_up(path)

    def _write_peers(self) -> None:
        """Keep the listeners' snapshot of who may send."""
        if time.monotonic() < self._peers_due:
            return
        with transaction(self._engine) as session:
            rows = session.execute(select(Peer, Site.name).join(Site, Peer.site_id == Site.id).order_by(Peer.id)).all()
            known = [
                KnownPeer(
                    ae_title=peer.ae_title,
                    address=peer.address,
                    site=of,
                    peer_id=peer.id.hex,
                    certificate_name=peer.certificate_name,
                    port=peer.port,
                    max_associations=peer.max_associations,
                    strict=peer.strict,
                )
                for peer, of in rows
            ]
        if self._root.is_dir() and not (self._root / "ready").is_dir():  # one dead listener's spool has no snapshot
            write_peers(self._root, known)
        self._peers_due = time.monotonic() + PEERS_EVERY_S


def taken_up(session: Session, notice_id: UUID, said: Mapping[str, Any]) -> None:
    """Make rows of what a peer asked or told besides images; repeating it changes nothing."""
    if said["kind"] == "commitment":
        commitments.note(session, notice_id, said)
    else:
        announcements.note(session, notice_id, said)


def arrival_of(path: Path) -> Arrival:
    """Read a spooled file once, whole: what it tells, its header, its digest.

    Raises
    ------
    InvalidInstance
        It is not whole, not ours, or its data set lacks an identity; `reason_code` says which.
    """
    with spool.mapped(path) as view:
        told = spool.read(path, view)
        digest, crc = sha256(), zlib.crc32(bytes(view[132 : told.data_set_at]))
        for start in range(told.data_set_at, len(view), _BLOCK):
            with view[start : start + _BLOCK] as block:
                digest.update(block)
                crc = zlib.crc32(block, crc)
        if crc != told.crc:
            raise InvalidInstance("A spooled file has other bytes than were received.", reason_code="damaged")
        header = read_header(view, told.sop.transfer_syntax_uid, told.data_set_at)
    return Arrival(
        instance_id=told.instance_id,
        header=header,
        sha256=digest.hexdigest(),
        size_bytes=told.data_set_bytes,
        received_at=told.received_at,
        source=told.source.kind,
        peer_ae_title=told.source.ae_title,
        peer_address=told.source.address,
        site_name=told.source.site_name,
        peer_id=_id(told.source.peer_id),
        association_id=_id(told.source.association_id),
    )


def _id(text: str | None) -> UUID | None:
    with contextlib.suppress(ValueError):
        return UUID(text) if text else None
    return None


def main(settings: IndexerSettings) -> int:
    """Drain the spools until SIGTERM or SIGINT."""
    log.configure("indexer")
    stop = threading.Event()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    settings.spool.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = connect(settings.database_url, pool=1)
    indexer = Indexer(engine, Store(settings.store), settings.spool, settings.batch)
    beat = Beat(engine, "indexer", settings.report_s)
    _logger.info("indexer_started")
    failures, failing = 0, None
    while not stop.is_set():
        beat.tell(lambda: {**indexer.facts(), "failing": failing})  # noqa: B023  called at once
        pause_s = settings.poll_s
        try:
            if indexer.run_once().instances:
                pause_s = 0.0
            if failures:
                _logger.info("indexer_goes_on", failures=failures)
            failures, failing = 0, None
        except Exception as error:  # noqa: BLE001  the door of this program: told below, then tried again
            failures += 1
            failing = "store_full" if isinstance(error, StoreFull) else "error"
            pause_s = min(MAX_BACKOFF_S, settings.poll_s * 2 ** min(failures, 8))
            _tell(error, failures)
        stop.wait(pause_s)
    beat.stop()
    indexer.release()
    engine.dispose()
    _logger.info("indexer_stopped")
    return 0


def _tell(error: Exception, failures: int) -> None:
    """Say once that something is away, in full what is not understood."""
    if is_away(error):
        if failures == 1:
            _logger.warning("postgres_away", hint="What arrives waits in the spool.")
    elif isinstance(error, StoreFull):
        if failures == 1:
            _logger.error("store_full", hint="Free space; what waits in the spool then goes on by itself.")
    else:
        _logger.error("indexing_failed", failures=failures, exc_info=error)
