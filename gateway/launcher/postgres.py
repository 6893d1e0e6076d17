"""The embedded PostgreSQL: its cluster, its start, its roles.

Knows initdb, the server's own files and its log. Does not know the schema: migrations do that as the owner.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg import sql

from gateway.launcher.binaries import ServerProgram, find_postgres_of
from gateway.launcher.folder import State
from gateway.launcher.grounds import Grounds
from gateway.launcher.processes import (
    StopRequest,
    command_line,
    end,
    free_port,
    fresh_log,
    is_alive,
    spawn,
    tail,
    wait_until,
)
from record.errors import Misconfigured

DATABASE = "countersign"
SUPERUSER = "postgres"
OWNER = "countersign_owner"
PROGRAM = "countersign"
GROUP = "countersign_app"
BUILTIN_LOCALE_SINCE = 17
START_LIMIT_S = 60.0
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "120",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",  # statements carry values; they stay out of the log
}


class Postgres:
    """One embedded server on loopback, on the cluster that counts or on the one named.

    `durable=False` is for tests: a power cut may cost the cluster.
    """

    def __init__(
        self,
        grounds: Grounds,
        program: ServerProgram,
        state: State,
        *,
        durable: bool = True,
        cluster: Path | None = None,
    ) -> None:
        self._grounds = grounds
        self._major = program.major
        self._programs = grounds.usable(program).parent
        self._state = state
        self._durable = durable
        self._home = grounds.folder("postgres")
        self._cluster = cluster or current_cluster(self._home)
        self.log = grounds.logs / "postgres.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, stop: StopRequest) -> None:
        """Make the cluster if there is none, start the server, make the roles; returns when it answers."""
        self._make_cluster()
        self._end_orphan()
        self._state.ports["postgres"] = free_port(self._state.ports.get("postgres"))
        deadline = time.monotonic() + START_LIMIT_S
        while not self._launch(stop):
            complaint = tail(self.log)
            if "could not bind" in complaint and self.process is None:
                self._state.ports["postgres"] = free_port()  # somebody was quicker
            passing = re.search("could not bind|shared memory|lock file", complaint)  # a killed server is still leaving
            if not passing or time.monotonic() > deadline:
                raise Misconfigured(f"PostgreSQL did not start. Its log ({self.log}) ends:\n{complaint}")
            stop.check()
            time.sleep(0.3)
        self._make_roles()

    def restart(self, stop: StopRequest) -> None:
        """Start a server that died again, on the port its clients know."""
        if not wait_until(lambda: self._launch(stop), within_s=START_LIMIT_S, unless=lambda: bool(stop), every_s=0.3):
            stop.check()
            raise Misconfigured(f"PostgreSQL did not come back. Its log ({self.log}) ends:\n{tail(self.log)}")

    def stop(self, hurry: StopRequest) -> None:
        """End every session, write what is due, leave (PostgreSQL's fast shutdown)."""
        if self.process:
            end(self.process, signal.SIGINT, within_s=30, hurry=hurry)
            self.process = None

    def url(self, role: str, database: str = DATABASE) -> str:
        """SQLAlchemy's URL for one role."""
        password, port = self._state.password(f"postgres:{role}"), self._state.ports["postgres"]
        return f"postgresql+psycopg://{role}:{password}@127.0.0.1:{port}/{database}"

    def connect(self, database: str) -> psycopg.Connection:
        """A session of the superuser; for roles and databases, and for nothing else."""
        url = self.url(SUPERUSER, database).replace("postgresql+psycopg", "postgresql")
        return psycopg.connect(url, autocommit=True, connect_timeout=5)

    def _launch(self, stop: StopRequest) -> bool:
        """Start the server once and wait; False when it ended again."""
        settings = SETTINGS | {"port": str(self._state.ports["postgres"])}
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with fresh_log(self.log) as output:
            self.process = process = spawn(
                [self._programs / "postgres", "-D", self._cluster, *arguments],
                env=self._environment(),
                cwd=self._home,
                output=output,
                death_signal=signal.SIGINT,
                account=self._grounds.account,
            )
        came = wait_until(
            lambda: process.poll() is not None or self._answers(), within_s=START_LIMIT_S, unless=lambda: bool(stop)
        )
        if process.poll() is None and came:
            return True
        self.stop(stop)
        stop.check()
        return False

    def _answers(self) -> bool:
        try:
            self.connect("postgres").close()
        except psycopg.Error:
            return False
        return True

    def _make_cluster(self) -> None:
        made_by = major_of(self._cluster)
        if made_by is not None:
            if made_by != self._major:
                raise Misconfigured(other_major(self._grounds, self._cluster, made_by, self._major))
            return
        for unfinished in self._home.glob("making-*"):
            shutil.rmtree(unfinished)
        making = Path(tempfile.mkdtemp(prefix="making-", dir=self._home))  # a killed initdb leaves no half cluster
        self._grounds.give(making)
        secret = self._home / "initial-password"
        secret.touch(mode=0o600)
        secret.write_text(self._state.password(f"postgres:{SUPERUSER}") + "\n")
        self._grounds.give(secret)
        account = self._grounds.account
        identity = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
        locale = ["--locale=C.UTF-8"]
        if self._major >= BUILTIN_LOCALE_SINCE:  # the same order of text on every machine
            locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        initdb: list[str | Path] = [self._programs / "initdb", "-D", making, "-U", SUPERUSER, "-E", "UTF8", *locale]
        initdb += ["--data-checksums", "--auth=scram-sha-256", f"--pwfile={secret}"]
        if not self._durable:
            initdb.append("--no-sync")
        made = subprocess.run(  # type: ignore[call-overload]  # the identity is optional
            initdb, check=False, capture_output=True, text=True, cwd=self._home, env=self._environment(), **identity
        )
        secret.unlink()
        if made.returncode:
            shutil.rmtree(making, ignore_errors=True)
            raise Misconfigured(f"initdb failed:\n{made.stdout[-400:]}{made.stderr[-1200:]}")
        making.rename(self._cluster)

    def _make_roles(self) -> None:
        """Owner (migrates), the programs' login, and the group whose rights the programs work with."""
        with self.connect("postgres") as session:
            known = {name for (name,) in session.execute("SELECT rolname FROM pg_roles")}
            for role, rights in ((OWNER, "LOGIN CREATEROLE"), (PROGRAM, "LOGIN"), (GROUP, "NOLOGIN")):
                if role not in known:
                    session.execute(sql.SQL("CREATE ROLE {} " + rights).format(sql.Identifier(role)))
                if role != GROUP:
                    password = sql.Literal(self._state.password(f"postgres:{role}"))
                    session.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), password))
            session.execute(f"GRANT {GROUP} TO {OWNER} WITH ADMIN OPTION")
            session.execute(f"GRANT {GROUP} TO {PROGRAM}")
            if not session.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                session.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")

    def discard(self) -> None:
        """Remove the cluster: for a command that has to begin again."""
        self._end_orphan()
        if self._cluster.exists():
            shutil.rmtree(self._cluster)

    def _end_orphan(self) -> None:
        """A server that outlived its launcher (or is just leaving) is stopped first."""
        try:
            pid = int((self._cluster / "postmaster.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return
        if str(self._cluster) not in command_line(pid):
            return
        try:
            os.kill(pid, signal.SIGINT)
        except ProcessLookupError:
            return
        wait_until(lambda: not is_alive(pid), within_s=30)

    def _environment(self) -> dict[str, str]:
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LD_"))}
        return mine | {"LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": str(self._home)}


def current_cluster(home: Path) -> Path:
    """The cluster that counts: that of the newest major version, which bears its number once there was an upgrade."""
    numbered = [path for path in home.glob("cluster-*") if re.fullmatch(r"cluster-[0-9]+", path.name)]
    return max(numbered, key=lambda path: int(path.name.removeprefix("cluster-")), default=home / "cluster")


def major_of(cluster: Path) -> int | None:
    """Which major version made a cluster; None where there is none.

    Raises
    ------
    Misconfigured
        Its PG_VERSION says none, or cannot be read: the cluster is damaged.
    """
    file = cluster / "PG_VERSION"
    try:
        told = file.read_bytes().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Misconfigured(f"{file} cannot be read: {error.strerror}. Nothing was changed.") from None
    if not (told.isdigit() and len(told) < 4):
        raise Misconfigured(
            f"{file} names no major version of PostgreSQL, so this database is damaged. Nothing was changed. Put a backup "
            "back into a new folder: countersign restore --from BACKUP --data-dir NEW_FOLDER"
        )
    return int(told)


def other_major(grounds: Grounds, cluster: Path, made_by: int, here: int) -> str:
    """What to do about a cluster that the program here cannot read."""
    told = f"{cluster} was made by PostgreSQL {made_by}, the program here is PostgreSQL {here}. Nothing was changed. "
    if made_by > here:
        return told + (
            "Use the release of countersign that made it, or name the newer PostgreSQL's programs in "
            "EMBEDDED_POSTGRES_BIN."
        )
    command = f"countersign upgrade --data-dir {grounds.data_folder}"
    if find_postgres_of(made_by):
        return told + f"Run: {command}"
    return told + (
        f"Once, the upgrade needs PostgreSQL {made_by}'s own programs: install them (Debian: apt-get install "
        f"postgresql-{made_by}) or name their folder in EMBEDDED_POSTGRES_OLD_BIN, then run: {command}"
    )
