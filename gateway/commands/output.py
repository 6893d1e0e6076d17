"""What the command prints: columns for people, JSON for machines, and nothing that could move a terminal's cursor.

Knows widths and escapes. Does not know what is printed.
"""

from __future__ import annotations

import json
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import click


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
