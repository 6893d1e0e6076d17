"""The whole record as files, one a table, and back again.

A dump is taken in one snapshot, as PostgreSQL's own text (COPY), which every version of it reads; so the same files serve a
backup, a move to another server, and a move to another major version, and need no program but ours. What is loaded is
read again and compared before it counts, row by row in any order: a server puts them where it has room.

Knows tables as the catalogue has them, and the order that foreign keys ask for. Does not know what a table means, nor any
file outside the database.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.orm import Session

from record import migrate
from record.audit import head
from record.db import parse_url
from record.durable import private, sync_file, sync_folder
from record.errors import Conflict, Misconfigured

SUFFIX = ".copy.gz"
_BLOCK = 1 << 20
_DIGESTS = 1 << 256
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_SIGNS_OF_LIFE = ("studies", "events", "users", "tokens", "instances")
"""A database in which all of these are empty holds no record."""
_PLAIN = (
    "SET LOCAL DateStyle = 'ISO, YMD'",
    "SET LOCAL IntervalStyle = 'postgres'",
    "SET LOCAL TimeZone = 'UTC'",
    "SET LOCAL bytea_output = 'hex'",
    "SET LOCAL extra_float_digits = 1",
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL idle_in_transaction_session_timeout = 0",
)


@dataclass(frozen=True, slots=True)
class TableDump:
    """One table: its columns, how many rows, and the sum of the rows' sha256, which is the same in any order."""

    columns: tuple[str, ...]
    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class Dump:
    """What was dumped: the schema's revision, the tables, the chain's head, and by which server and when (its clock)."""

    revision: str
    tables: Mapping[str, TableDump]
    position: int
    head: str
    server: str
    taken_at: str
    database_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Dump:
        """What `as_dict` made of one.

        Raises
        ------
        ValueError, KeyError, TypeError, AttributeError
            It made no such thing.
        """
        tables = {
            name: TableDump(tuple(map(str, table["columns"])), int(table["rows"]), str(table["digest"]))
            for name, table in told["tables"].items()
        }
        revision = str(told["revision"])
        if not revision.isascii() or not revision.isdigit() or not all(map(_NAME.fullmatch, tables)):
            raise ValueError("A schema's revision is a number, and a table's name a plain one.")
        return cls(
            revision,
            tables,
            int(told["position"]),
            str(told["head"]),
            str(told["server"]),
            str(told["taken_at"]),
            int(told["database_bytes"]),
        )

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.rows for table in self.tables.values())


def take(engine: Engine, folder: Path) -> Dump:
    """Write every table of one snapshot into a folder, durably; programs may go on working meanwhile.

    Raises
    ------
    Misconfigured
        The database has no schema.
    """
    with _snapshot(engine) as connection:
        revision = migrate.schema_of(connection).revision
        if revision is None:
            raise Misconfigured("The database has no schema yet, so there is nothing to back up.")
        tables = {}
        for name, columns in _tables(connection).items():
            path = folder / (name + SUFFIX)
            with private(path) as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, mtime=0) as out:
                tables[name] = _read(connection, name, columns, out.write)
            sync_file(path)
        sync_folder(folder)
        with Session(connection) as session:
            last = head(session)
        server, taken_at, size = connection.execute(
            text("SELECT current_setting('server_version'), now()::text, pg_database_size(current_database())")
        ).one()
        return Dump(revision, tables, last.position, last.hash, server, taken_at, int(size))


def database_bytes(engine: Engine) -> int:
    """What the database takes on its disk."""
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())


def require_empty(owner_url: str | SecretStr, revision: str) -> None:
    """Refuse a database that holds a record already, or a schema that this dump does not fit.

    Raises
    ------
    Conflict
        Something is there; the message says what to do.
    """
    with _owner(owner_url) as connection:
        there = migrate.schema_of(connection).revision
        if there is None:
            return
        held = [name for name in _SIGNS_OF_LIFE if name in _tables(connection) and _has_rows(connection, name)]
    if held:
        raise Conflict("The database holds a record already. Restore into a new, empty one; nothing was changed.")
    if there != revision:
        raise Conflict(
            f"The database is empty, but its schema is {there} and the backup's is {revision}. Drop it and create it anew "
            "without a schema; the restore makes the right one."
        )


def load(
    owner_url: str | SecretStr, folder: Path, dump: Dump, *, then: Callable[[Session], None] = lambda _: None
) -> None:
    """Fill an empty database with a dump, as its owner: all of it, or nothing.

    Makes the dump's schema first; `then` may change what was loaded, in the same transaction.

    Raises
    ------
    Misconfigured
        A later release made the dump, or what was loaded is not what was dumped.
    """
    require_empty(owner_url, dump.revision)
    if int(dump.revision) > int(migrate.own_revision()):
        raise Misconfigured(
            f"This was dumped by a later release (its schema is {dump.revision}, this release's is "
            f"{migrate.own_revision()}). Install that release, then try again."
        )
    migrate.upgrade(owner_url, dump.revision)
    with _owner(owner_url) as connection:
        known = _tables(connection)
        unknown = sorted(set(dump.tables) - set(known)) + sorted(
            f"{name}.{column}"
            for name in dump.tables
            for column in set(dump.tables[name].columns) - set(known.get(name, ()))
        )
        if unknown:
            raise Misconfigured(f"The dump holds what the schema {dump.revision} does not know: {', '.join(unknown)}.")
        order = _order(connection, list(known))
        for name in order:
            connection.execute(text(f'ALTER TABLE "{name}" DISABLE TRIGGER USER'))
        for name in reversed(order):
            connection.execute(text(f'DELETE FROM "{name}"'))  # noqa: S608  the catalogue's names; what a migration puts into a new schema
        for name in order:
            if name in dump.tables:
                _write(connection, name, dump.tables[name].columns, folder / (name + SUFFIX))
        connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
        for name, table in dump.tables.items():
            if _read(connection, name, table.columns, lambda _: None) != table:
                raise Misconfigured(f"The table {name} is not what was dumped. Nothing was loaded.")
        for name in order:
            connection.execute(text(f'ALTER TABLE "{name}" ENABLE TRIGGER USER'))
        with Session(connection) as session:
            then(session)
            session.flush()
        connection.commit()


@contextmanager
def _snapshot(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True) as connection:
        for setting in _PLAIN:
            connection.execute(text(setting))
        yield connection


@contextmanager
def _owner(owner_url: str | SecretStr) -> Iterator[Connection]:
    """One transaction of the owner, rolled back unless it is committed."""
    engine = create_engine(parse_url(owner_url), poolclass=NullPool, hide_parameters=True)
    try:
        with engine.connect() as connection:
            for setting in _PLAIN:
                connection.execute(text(setting))
            yield connection
    finally:
        engine.dispose()


def _tables(connection: Connection) -> dict[str, tuple[str, ...]]:
    """Every table that belongs to the schema's owner, beside Alembic's own, with its columns."""
    rows = connection.execute(
        text(
            "SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) FROM pg_class c"
            " JOIN pg_class v ON v.oid = to_regclass('alembic_version') AND v.relnamespace = c.relnamespace"
            " AND v.relowner = c.relowner JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.oid <> v.oid AND a.attnum > 0"
            " AND NOT a.attisdropped AND a.attgenerated = '' GROUP BY c.relname ORDER BY c.relname"
        )
    )
    return {str(name): tuple(columns) for name, columns in rows}


def _order(connection: Connection, tables: Sequence[str]) -> list[str]:
    """The tables, each after those that it points at; a deferred constraint waits for the end anyhow."""
    graph: dict[str, set[str]] = {name: set() for name in tables}
    rows = connection.execute(
        text(
            "SELECT f.relname, t.relname FROM pg_constraint k JOIN pg_class f ON f.oid = k.conrelid"
            " JOIN pg_class t ON t.oid = k.confrelid WHERE k.contype = 'f' AND NOT k.condeferred"
        )
    )
    for name, target in rows:
        if name in graph and target in graph and name != target:
            graph[name].add(target)
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise Misconfigured(f"Foreign keys go in a circle ({error.args[1]}); one of them must be deferred.") from None


def _read(connection: Connection, name: str, columns: Sequence[str], write: Callable[[bytes], object]) -> TableDump:
    """One table's text, block by block."""
    total, rest = 0, b""
    with _cursor(connection, name) as cursor:
        with cursor.copy(_copy("COPY {} ({}) TO STDOUT", name, columns)) as blocks:
            for block in blocks:
                write(block)
                *rows, rest = (rest + bytes(block)).split(b"\n")  # a line end inside a value is escaped
                for row in rows:
                    total += int.from_bytes(hashlib.sha256(row).digest())
        return TableDump(tuple(columns), cursor.rowcount, f"{total % _DIGESTS:064x}")


def _write(connection: Connection, name: str, columns: Sequence[str], path: Path) -> None:
    with (
        _cursor(connection, name) as cursor,
        gzip.open(path, "rb") as content,
        cursor.copy(_copy("COPY {} ({}) FROM STDIN", name, columns)) as rows,
    ):
        while block := content.read(_BLOCK):
            rows.write(block)


def _copy(statement: str, name: str, columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(statement).format(sql.Identifier(name), sql.SQL(", ").join(map(sql.Identifier, columns)))


@contextmanager
def _cursor(connection: Connection, table: str) -> Iterator[Any]:
    """The driver's own cursor, inside the same transaction; its errors quote rows, so they are told by their code."""
    try:
        with connection.connection.driver_connection.cursor() as cursor:  # type: ignore[union-attr]
            yield cursor
    except psycopg.Error as error:
        code = error.sqlstate or type(error).__name__
        raise Misconfigured(f"PostgreSQL failed at the table {table} (code {code}); its log says why.") from None


def _has_rows(connection: Connection, name: str) -> bool:
    return connection.execute(text(f'SELECT 1 FROM "{name}" LIMIT 1')).first() is not None  # noqa: S608  as above
