"""What a command prints: columns for people, JSON for machines, and nothing that could move a terminal's cursor.

Also how its verbs are listed and exemplified, and the words for a database that is not as it should be: what the gateway's
commands and the worker's have in common. Does not know any verb, nor what is printed. Loads no database until it is asked for one.
"""

from __future__ import annotations

import contextlib
import json
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from record.errors import Misconfigured

if TYPE_CHECKING:
    from pydantic import SecretStr
    from sqlalchemy.orm import Session

NO_SCHEMA = frozenset({"42P01", "42704", "22023", "3F000"})
"""No such table, role or schema: nobody has migrated this database (PostgreSQL's appendix A; `SET ROLE` says 22023)."""

as_json = click.option("--json", is_flag=True, help="Print JSON, for machines.")


class Ordered(click.Group):
    """Lists its verbs in the order in which they were written, which is the one in which a person meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """All names, in order."""
        return list(self.commands)


def example(*lines: str) -> str:
    """How a verb is used: the end of its help, its lines left as they are."""
    return "\n".join(["\b", "Example:", *(f"  {line}" for line in lines)])


def say(line: str) -> None:
    """Tell the person at the terminal, on standard error."""
    click.echo(f"countersign: {line}", err=True)


@contextlib.contextmanager
def one_transaction(database_url: SecretStr) -> Iterator[Session]:
    """One transaction of a command's own, on a database that may be away or without its schema."""
    from record.db import connect, transaction

    engine = connect(database_url, pool=1)
    try:
        with database_errors(), transaction(engine) as session:
            yield session
    finally:
        engine.dispose()


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """An unreachable or unmigrated database is an expected error."""
    from sqlalchemy.exc import DBAPIError, OperationalError

    try:
        yield
    except DBAPIError as error:
        code = str(getattr(error.orig, "sqlstate", None) or "")
        if code in NO_SCHEMA:
            raise Misconfigured("The database has no schema yet. Run `countersign migrate` first.") from None
        if code == "42501":  # insufficient_privilege
            raise Misconfigured(
                "The role in the database's URL may not do this. What changes the schema, or fills it, is done as its "
                "owner: name the owner's URL in COUNTERSIGN_OWNER_DATABASE_URL."
            ) from None
        is_connecting = error.statement is None and not code  # a URL with an option that libpq does not know, say
        if isinstance(error, OperationalError) or is_connecting:
            raise Misconfigured(f"PostgreSQL does not answer as it should: {_first_line(error)}") from None
        raise


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", error)).strip().splitlines()[0]


def printable(text: object) -> str:
    r"""A text that a stranger may have chosen, on one line: control and format characters become escapes (`\x1b`)."""
    return "".join(each if each.isprintable() else _escaped(each) for each in str(text))


def cell(value: object) -> str:
    """A value as it is printed: what is empty as a dash, a time without its fractions."""
    if value is None or value == "":
        return "-"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    return printable(value)


def print_table(
    titles: Sequence[str], rows: Iterable[Sequence[object]], below: Sequence[Sequence[str]] | None = None
) -> None:
    """Print rows in columns below their titles; what is empty is a dash, so that every row has as many words.

    A column of numbers alone ends where its title does. `below` has sentences for each row, which stand under it.
    """
    held = [[*row] for row in rows]
    lines = [[*titles], *([cell(value) for value in row] for row in held)]
    for column in range(len(titles)):
        width = max(_width(line[column]) for line in lines)
        numbers = bool(held) and all(type(row[column]) is int for row in held)
        for line in lines:
            space = " " * (width - _width(line[column]))
            line[column] = space + line[column] if numbers else line[column] + space
    for number, line in enumerate(lines):
        click.echo("  ".join(line).rstrip())
        for sentence in below[number - 1] if below and number else ():
            print_indented(sentence)


def print_indented(sentence: str) -> None:
    """Print a sentence below something, on as many lines as 80 columns need; what is a word is never cut."""
    pieces = textwrap.wrap(printable(sentence), 76, break_long_words=False, break_on_hyphens=False)
    for piece in pieces:
        click.echo(f"    {piece}")


def counted(count: int, one: str, several: str = "") -> str:
    """How many there are, in words: `1 file`, `2 files`, `2 studies`."""
    return f"{count} {one if count == 1 else several or one + 's'}"


def print_json(value: Any) -> None:
    """Print one value as JSON, on one line; other characters than ASCII as escapes."""
    click.echo(json.dumps(value, default=_plain))


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, UUID | Path | Enum):
        return str(value)
    raise TypeError(type(value).__name__)


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _width(text: str) -> int:
    """Columns of a terminal: East Asian wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
