"""What a peer asked of us or told us besides images, durable beside the spool until a database takes it.

Knows the form of such a file and its folder. Does not know DICOM, nor what a notice sets going. A notice is durable when
`keep` returns: only then may the peer be told Success.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from record.durable import sync_folder, write_private
from record.ids import new_id

FOLDER = "notices"
FAILED = ".failed"
_NAME = re.compile(r"([0-9a-f]{32})\.json")
_KEPT = re.compile(rf"[0-9a-f]{{32}}(\.json|{re.escape(FAILED)})")
MOST = 10_000
"""Notices that may be in one spool: who would leave more is told that there is no room."""


def keep(spool_folder: Path, notice: Mapping[str, Any]) -> str:
    """Make a notice durable; its id.

    Raises
    ------
    OSError
        The disk is full, or fails; or as many wait as may.
    """
    folder = spool_folder / FOLDER
    if not folder.is_dir():
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(spool_folder)
    if len(os.listdir(folder)) >= MOST:
        raise OSError("too many notices wait")
    name = new_id().hex
    write_private(folder / f"{name}.json", json.dumps(dict(notice), separators=(",", ":")))
    return name


def waiting(spool_folder: Path, most: int = 100) -> Iterator[tuple[Path, str, dict[str, Any] | None]]:
    """The notices that wait, the oldest first: file, id, and what it says, None for one that is broken."""
    with contextlib.suppress(FileNotFoundError):
        names = sorted(name for name in os.listdir(spool_folder / FOLDER) if _NAME.fullmatch(name))
        for name in names[:most]:
            path = spool_folder / FOLDER / name
            try:
                said = json.loads(path.read_bytes())
            except FileNotFoundError:
                continue
            except ValueError:
                said = None
            yield path, name.partition(".")[0], said if isinstance(said, dict) else None


def give_up(path: Path) -> None:
    """Keep a notice that cannot be taken up where it holds up no other: it was acknowledged, so it is not thrown away."""
    path.rename(path.with_suffix(FAILED))


def kept(spool_folder: Path) -> list[Path]:
    """Every notice of a spool, those that could not be taken up among them, the oldest first."""
    with contextlib.suppress(FileNotFoundError):
        folder = spool_folder / FOLDER
        return [folder / name for name in sorted(os.listdir(folder)) if _KEPT.fullmatch(name)]
    return []


def failed(root: Path) -> list[Path]:
    """The notices of all spools below a folder that could not be taken up, the oldest first."""
    return sorted(root.glob(f"*/{FOLDER}/*{FAILED}"), key=lambda path: path.name)


def try_again(path: Path) -> None:
    """Have one that could not be taken up looked at again."""
    with contextlib.suppress(FileNotFoundError):  # somebody else did
        path.rename(path.with_suffix(".json"))


def said_by(path: Path) -> dict[str, Any]:
    """What a notice says; nothing, if it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        said = json.loads(path.read_bytes())
        return said if isinstance(said, dict) else {}
    return {}


def failed_in(spool_folder: Path) -> int:
    """How many of a spool's notices could not be taken up."""
    return sum(path.suffix == FAILED for path in kept(spool_folder))
