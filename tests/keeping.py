"""A run on servers of its own, for the tests of backup, restore and verify: the places that its environment names.

Images get in through a spool and the indexer, as always; commands run in this process, as the shell would run them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from click.testing import CliRunner
from pydicom.dataset import Dataset
from sqlalchemy import Engine, text

from gateway import cli
from gateway.backup.shelf import Places
from gateway.indexer import Indexer
from gateway.intake import Intake, SopIdentity, Source
from gateway.spool import Spool, find
from record import audit, reports, studies
from record.db import connect, transaction
from record.errors import CountersignError
from record.states import Role
from record.store import Kind, Store
from tests.conftest import FreshDatabase
from tests.instances import EXPLICIT, encoded, instance
from tests.records import drafted, person, proof, study_of

SOURCE = Source("dicom", "MODALITY1", "COUNTERSIGN", "10.0.0.7", None)
KEY = "ab" * 32
SAME = [
    *(
        "sites",
        "users",
        "tokens",
        "patients",
        "studies",
        "series",
        "instances",
        "study_revisions",
        "revision_instances",
    ),
    *("readings", "reading_pictures", "drafts", "draft_steps", "reports", "report_revisions", "signatures", "seals"),
    "conflict_decisions",
]


@dataclass
class Keeping:
    """One run's places, and what is done to them."""

    database: FreshDatabase
    folder: Path
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        for path in (self.folder, self.secrets):
            path.mkdir(exist_ok=True)
        self.engine = connect(self.database.url)

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    @property
    def heads(self) -> Path:
        return self.folder / "heads.log"

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    @property
    def places(self) -> Places:
        return Places(self.folder / "store", self.spool, self.secrets, self.heads)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self.database.url,
            "COUNTERSIGN_OWNER_DATABASE_URL": self.database.owner_url,
            "COUNTERSIGN_STORE": str(self.folder / "store"),
            "COUNTERSIGN_SPOOL": str(self.spool),
            "COUNTERSIGN_SECRETS": str(self.secrets),
            "COUNTERSIGN_HEADS_FILE": str(self.heads),
        }

    def make_key(self) -> None:
        (self.secrets / "seal.key").write_text(KEY + "\n")

    def receive(self, *many: Dataset) -> list[str]:
        """Take instances in, durably; their ids. No row is made."""
        spool = Spool.claim(self.spool)
        ids = []
        for ds in many or (instance(),):
            with Intake(spool).begin(SOURCE, SopIdentity(ds.SOPClassUID, ds.SOPInstanceUID, EXPLICIT)) as incoming:
                incoming.write(memoryview(encoded(ds)))
                ids.append(incoming.commit().instance_id.hex)
        spool.release()
        return ids

    def index(self) -> int:
        """Make the rows of what waits in the spools."""
        indexer, count = Indexer(self.engine, self.store, self.spool), 0
        while done := indexer.run_once().instances:
            count += done
        indexer.release()
        return count

    def waiting(self) -> list[str]:
        """The ids of what waits in the spools."""
        return sorted(path.stem for each in find(self.spool) for path in each.waiting())

    def seal(self) -> int:
        """Seal what is committed and keep the head; the chain's position."""
        with transaction(self.engine) as session:
            last = audit.seal(session, bytes.fromhex(KEY)) or audit.head(session)
        audit.keep_head(self.heads, last)
        return last.position

    def signed(self) -> str:
        """A study with an image in the store and a signed report; its UID."""
        ds = instance(side=64)
        self.receive(ds)
        self.index()
        with transaction(self.engine) as session:
            study = study_of(session, ds.StudyInstanceUID)
            session.refresh(study, with_for_update=True)
            studies.freeze(session, study, "test", {})
            session.flush()
            report = drafted(session, study)
            assert report is not None
            doctor = person(session, Role.ATTENDING)
            reports.sign(session, report.id, by=doctor, seen=1, shown=1, proof=proof(session, doctor), reasons={})
        return str(ds.StudyInstanceUID)

    def count(self, table: str, where: str = "true") -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table} WHERE {where}")).scalar_one())

    def stored(self) -> list[str]:
        return sorted(self.store.list(Kind.INSTANCE))

    def command(self, *arguments: str | Path) -> tuple[int, str]:
        """Run a command on this run; its exit status and everything it said."""
        done = CliRunner(env=self.environment).invoke(cli.cli, list(map(str, arguments)))
        if isinstance(done.exception, CountersignError):
            return 1, done.output + done.exception.message
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output

    def process(self, *arguments: str | Path, limit_blocks: int | str = "unlimited") -> subprocess.Popen[str]:
        """The same in a process of its own, which may be killed, and whose files may not grow beyond a limit (512 bytes each)."""
        shell = ("/bin/sh", "-c", f'ulimit -f {limit_blocks} && exec "$@"', "sh")
        return subprocess.Popen(
            [*shell, sys.executable, "-P", "-m", "gateway", *map(str, arguments)],
            env={"PATH": "/usr/bin:/bin", **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


MakeRun = Callable[[str], Keeping]


def kill_at(process: subprocess.Popen[str], words: str) -> bool:
    """kill -9 as soon as the process says this; False where it ended before."""
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            process.kill()
            break
    process.stdout.close()
    return process.wait(60) < 0


def whole(shelf: Path) -> list[Path]:
    """The backups that bear their manifest."""
    return sorted(path.parent for path in shelf.glob("*/manifest.json"))


def files_below(folder: Path) -> Sequence[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def rows_of(run: Keeping) -> dict[str, list[str]]:
    """Every row of what must come back as it was."""
    with run.engine.connect() as connection:
        return {table: sorted(connection.execute(text(f"SELECT t::text FROM {table} t")).scalars()) for table in SAME}
