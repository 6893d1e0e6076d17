"""What lies in a spool, and whether its listener lives: the listener has no database, so its indexer tells of it.

Knows the heartbeat file beside a spool's rooms and how files there are counted. Does not know what is in them, nor who
is told. The file need not be durable: after a power cut nobody is alive.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from gateway import notices
from gateway.spool import Spool

HEARTBEAT = "listener.json"
_MOST_SIZES = 1000
"""Files of a spool whose size is asked for; of more, the rest is taken to be as large on average."""
_FORGOTTEN_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Contents:
    """What lies in a spool: files without a row, the oldest one's age, and what is kept aside."""

    files: int
    oldest_s: float
    bytes: int
    quarantine_files: int
    quarantine_bytes: int
    failed_notices: int
    free_bytes: int


def beat(spool: Spool, facts: Mapping[str, Any]) -> None:
    """The listener says that it is here; the file's time is when."""
    passing = spool.folder / f".{HEARTBEAT}"
    passing.write_text(json.dumps(dict(facts)), encoding="ascii")
    passing.replace(spool.folder / HEARTBEAT)


def stop(spool: Spool) -> None:
    """The listener stops in good order: it is not missed."""
    with contextlib.suppress(OSError):
        (spool.folder / HEARTBEAT).unlink()


def listener_of(spool: Spool) -> dict[str, Any] | None:
    """What the listener of a spool said last, with `seen_s`, the seconds since; None where it stopped or never was."""
    path = spool.folder / HEARTBEAT
    try:
        age_s = time.time() - path.stat().st_mtime
        told = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(told, dict) or age_s > _FORGOTTEN_S:
        return None
    return {**told, "seen_s": round(max(0.0, age_s), 1)}


def contents_of(spool: Spool) -> Contents:
    """Count what lies in a spool."""
    waiting = spool.waiting()
    aside = [each for each in _listed(spool.quarantine) if each.name.endswith(".dcm")]
    return Contents(
        files=len(waiting),
        oldest_s=round(_age_s(waiting[0]), 1) if waiting else 0.0,
        bytes=_size_of(waiting),
        quarantine_files=len(aside),
        quarantine_bytes=_size_of(aside),
        failed_notices=notices.failed_in(spool.folder),
        free_bytes=free_bytes(spool.folder),
    )


def free_bytes(folder: Path) -> int:
    """Room left on a folder's disk."""
    return shutil.disk_usage(folder).free


def _listed(room: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return [room / name for name in os.listdir(room)]
    return []


def _size_of(paths: list[Path]) -> int:
    asked, total = paths[:_MOST_SIZES], 0
    for path in asked:
        with contextlib.suppress(FileNotFoundError):  # the indexer has it meanwhile
            total += path.stat().st_size
    return round(total * len(paths) / len(asked)) if asked else 0


def _age_s(path: Path) -> float:
    """Seconds since the file's id was made: the first 48 bits are milliseconds (RFC 9562, 5.7)."""
    return max(0.0, time.time() - (UUID(hex=path.stem).int >> 80) / 1000)
