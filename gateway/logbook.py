"""The listener's logbook: a line for each association that ended, kept in files beside the spool until a database takes it.

Knows how lines are appended and read, and that they stay few. Does not know what is in a line. A line is there when
`write` returns, whoever is killed; a power cut may take the last seconds, which were nobody's images.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = "logbook"
_NAME = re.compile(r"[0-9]{10}\.jsonl")
_FILE_BYTES = 1 << 18
_MOST_FILES = 256
"""Together 64 MB; while no database takes them, the oldest go."""
_READ_BYTES = 1 << 20


class Logbook:
    """Where one process writes. Safe to use from many threads."""

    def __init__(self, spool_folder: Path) -> None:
        self._folder = spool_folder / FOLDER
        self._writing = threading.Lock()
        self._descriptor: int | None = None
        self._room = 0

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line.

        Raises
        ------
        OSError
            The disk is full, or fails.
        """
        content = json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
        with self._writing:
            descriptor = self._descriptor
            if descriptor is None or self._room < len(content):
                descriptor = self._turn()
            self._room -= len(content)
            if os.write(descriptor, content) < len(content):  # a full disk: what is cut here is no line
                self._room = 0

    def close(self) -> None:
        """Write no more."""
        with self._writing:
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._descriptor = None

    def _turn(self) -> int:
        """Begin a new page."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._folder.mkdir(mode=0o700, exist_ok=True)
        there = pages(self._folder.parent)
        for old in there[: -_MOST_FILES + 1]:
            old.unlink(missing_ok=True)
        number = int(there[-1].stem) + 1 if there else 1  # the last one stays, so that no number comes again
        path = self._folder / f"{number:010}.jsonl"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._descriptor, self._room = descriptor, _FILE_BYTES
        return descriptor


@dataclass(slots=True)
class Reader:
    """What one reader has seen of the logbook of a spool; one that starts anew reads again what is still there."""

    spool_folder: Path
    _seen: dict[Path, int] = field(default_factory=dict)

    def read(self) -> tuple[list[dict[str, Any]], dict[Path, int]]:
        """The next lines, and what `done` takes once they are kept; what is no line is passed over."""
        lines: list[dict[str, Any]] = []
        seen = dict(self._seen)
        for path in pages(self.spool_folder):
            at = seen.get(path, 0)
            with contextlib.suppress(FileNotFoundError), path.open("rb") as page:
                page.seek(at)
                content = page.read(_READ_BYTES)
                whole = content[: content.rfind(b"\n") + 1]
                lines += [line for line in map(_parsed, whole.splitlines()) if line is not None]
                seen[path] = at + len(whole)
            if len(lines) >= 1000:
                break
        return lines, seen

    def done(self, seen: Mapping[Path, int]) -> None:
        """Forget what was read; pages that nobody writes any more go."""
        there = pages(self.spool_folder)
        for path in there[:-1]:  # the last one may be written on
            with contextlib.suppress(FileNotFoundError):
                if seen.get(path, -1) >= path.stat().st_size:
                    path.unlink()
        self._seen = {path: seen[path] for path in there if path in seen}


def pages(spool_folder: Path) -> list[Path]:
    """The files of a logbook, the oldest first."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        folder = spool_folder / FOLDER
        return [folder / name for name in sorted(os.listdir(folder)) if _NAME.fullmatch(name)]
    return []


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
