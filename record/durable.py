"""What outlasts a power cut: files and folders that are flushed, and copies that are whole or not there at all.

Does not know what is written, nor where it belongs.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO, Protocol

_BLOCK = 1 << 20


class Reads(Protocol):
    """Bytes that are read block by block; none at the end."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most so many."""
        ...


def sync_file(path: Path) -> None:
    """Make a file's bytes durable."""
    _sync(path, os.O_RDONLY)


def sync_folder(folder: Path) -> None:
    """Make the folder's names durable."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def private(path: Path) -> BinaryIO:
    """Open a file for writing, emptied, that only its owner can read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read; whole or not at all, and durable."""
    unfinished = path.with_name(path.name + ".new")
    with private(unfinished) as out:
        out.write(text.encode())
        out.flush()
        os.fsync(out.fileno())
    os.replace(unfinished, path)
    sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file that only its owner can read, durably."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_durably(source: Reads, target: Path) -> tuple[int, str]:
    """Copy a stream into a new private file, whole or not at all; returns its size and sha256.

    The name itself is durable when the folder is flushed, which is left to whoever copies many.
    """
    unfinished = target.with_name(f".{target.name}.new")
    digest, size = hashlib.sha256(), 0
    with private(unfinished) as out:
        while block := source.read(_BLOCK):
            digest.update(block)
            size += out.write(block)
        out.flush()
        os.fsync(out.fileno())
    os.replace(unfinished, target)
    return size, digest.hexdigest()


def digest_of(stream: Reads) -> str:
    """The sha256 of a stream, from where it stands."""
    digest = hashlib.sha256()
    while block := stream.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
