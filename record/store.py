"""The store: instances under ids of ours, pictures under their sha256. No UID ever becomes a path.

Knows where bytes lie and how they become durable; nobody else does, so that an object store can take its place.
Does not know what the bytes mean. Layout: `instances/yz/wx/<id>.dcm` and `pictures/yz/wx/<sha256>.png` below one root,
by a key's last digits, since the first ones of our ids are a time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from record.durable import Reads, sync_file, sync_folder
from record.errors import InvalidRequest, Misconfigured, NotFound, StoreFull


class Kind(StrEnum):
    """What is kept."""

    INSTANCE = "instances"
    PICTURE = "pictures"


_KEYS = {Kind.INSTANCE: re.compile(r"[0-9a-f]{32}"), Kind.PICTURE: re.compile(r"[0-9a-f]{64}")}
_UNFINISHED = ".put-"
_SUFFIX = {Kind.INSTANCE: ".dcm", Kind.PICTURE: ".png"}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


class Store:
    """Instances under ids of ours, pictures under their sha256. No UID ever becomes a path.

    Every key is lower-case hex of a fixed length (an instance's id without dashes, a picture's sha256): anything else
    is refused before it meets the file system.

    Raises
    ------
    Misconfigured
        Its folder can be neither entered nor made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            for kind in Kind:
                (root / kind).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Misconfigured(
                f"The store {root} cannot be used ({error.strerror}). Is its disk mounted, and may this account enter it?"
            ) from None

    def put(self, kind: Kind, key: str, content: bytes | Path) -> None:
        """Make bytes durable under a key; a file is linked where that is possible, copied elsewhere.

        Repeating it is harmless: a key that is there already is left as it is.

        Raises
        ------
        StoreFull
            The disk has no room or fails to write; nothing half-written stays.
        """
        target = self._path(kind, key)
        if target.exists():
            sync_file(target)  # whoever put it there may have died before its flush
            sync_folder(target.parent)
            return
        try:
            self._make_folder(target.parent)
            if isinstance(content, Path):
                with contextlib.suppress(OSError):  # another file system, or links forbidden: copied below
                    os.link(content, target)
                    sync_file(target)
                    sync_folder(target.parent)
                    return
                if target.exists():
                    return
            with _replacing(target) as out:
                if isinstance(content, Path):
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, out, 1 << 20)
                else:
                    out.write(content)
        except OSError as error:
            _tell_if_full(error, kind)
            raise

    def put_files(self, kind: Kind, files: Mapping[str, Path]) -> None:
        """As `put` for each, but flushed together: one commit of the file system's journal serves all that were linked.

        Raises
        ------
        StoreFull
            As `put`; some of the files may be there.
        """
        linked: set[Path] = set()
        for key, path in files.items():
            target = self._path(kind, key)
            try:
                self._make_folder(target.parent)
                os.link(path, target)
                linked.add(target)
            except OSError:  # it is there already, another file system, no room …
                self.put(kind, key, path)
        try:
            for target in linked:
                sync_file(target)
            for folder in {target.parent for target in linked}:
                sync_folder(folder)
        except OSError as error:
            _tell_if_full(error, kind)
            raise

    def copy_in(self, kind: Kind, key: str, source: Reads) -> str:
        """Make a copy of a stream's bytes durable under a key, in place of what is there; returns their sha256.

        Raises
        ------
        StoreFull
            As `put`.
        """
        target = self._path(kind, key)
        digest = hashlib.sha256()
        try:
            self._make_folder(target.parent)
            with _replacing(target) as out:
                while block := source.read(1 << 20):
                    digest.update(block)
                    out.write(block)
        except OSError as error:
            _tell_if_full(error, kind)
            raise
        return digest.hexdigest()

    def open(self, kind: Kind, key: str) -> BinaryIO:
        """Open stored bytes for reading.

        Raises
        ------
        NotFound
            Nothing is stored under this key.
        """
        try:
            return self._path(kind, key).open("rb")
        except FileNotFoundError:
            message = f"The store holds no such {kind.name.lower()}."
            raise NotFound(message, path_kind=kind.value) from None

    @contextlib.contextmanager
    def local(self, kind: Kind, key: str) -> Iterator[Path]:
        """Stored bytes as a file on this machine, for a child process that reads it; never to be written."""
        path = self._path(kind, key)
        if not path.exists():
            message = f"The store holds no such {kind.name.lower()}."
            raise NotFound(message, path_kind=kind.value)
        yield path

    def delete(self, kind: Kind, key: str) -> bool:
        """Remove stored bytes; False where there were none."""
        try:
            self._path(kind, key).unlink()
        except FileNotFoundError:
            return False
        return True

    def size_bytes(self, kind: Kind, key: str) -> int | None:
        """How large stored bytes are; None where there are none."""
        try:
            return self._path(kind, key).stat().st_size
        except FileNotFoundError:
            return None

    def list(self, kind: Kind) -> Iterator[str]:
        """Every key of a kind, in no order."""
        return (key for key, _ in self._walk(kind) if key is not None)

    def strangers(self, kind: Kind) -> Iterator[Path]:
        """Every file among those of a kind that is none: another name, or not where its key would lie."""
        return (path for key, path in self._walk(kind) if key is None)

    def is_blank(self, kind: Kind) -> bool:
        """Whether a kind's folder holds nothing at all, as one that was just made."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.root / kind) as entries:
            return next(entries, None) is None
        return True

    def clear(self) -> None:
        """Remove what killed processes left half-written. Only for whoever knows that nobody else is writing."""
        for folder, _, names in os.walk(self.root):
            for name in names:
                if name.startswith(_UNFINISHED):
                    os.unlink(os.path.join(folder, name))

    def free_bytes(self) -> int:
        """Room left on the store's disk, in bytes."""
        return shutil.disk_usage(self.root).free

    def _path(self, kind: Kind, key: str) -> Path:
        if not _KEYS[kind].fullmatch(key):
            message = "A store key is lower-case hex of a fixed length."
            raise InvalidRequest(message, path_kind=kind.value)
        return self.root / kind / key[-2:] / key[-4:-2] / (key + _SUFFIX[kind])

    def _walk(self, kind: Kind) -> Iterator[tuple[str | None, Path]]:
        """Every file below a kind's folder, with its key if it has one; what is hidden is half-written, or a file system's."""
        suffix = _SUFFIX[kind]
        for folder, _, names in os.walk(self.root / kind):
            for name in names:
                path, key = Path(folder, name), name.removesuffix(suffix)
                if name.endswith(suffix) and _KEYS[kind].fullmatch(key) and path == self._path(kind, key):
                    yield key, path
                elif not name.startswith("."):
                    yield None, path

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        folder.mkdir(parents=True, exist_ok=True)
        for parent in (folder.parent, folder.parent.parent):  # a new folder is durable once its parent is flushed
            sync_folder(parent)


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    """A file that takes the target's place when it is whole and durable, or leaves nothing."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=_UNFINISHED)
    try:
        with os.fdopen(descriptor, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    sync_folder(target.parent)


def _tell_if_full(error: OSError, kind: Kind) -> None:
    """A full or failing disk is an expected error."""
    if error.errno in _FULL:
        message = "The store has no room, or its disk fails. Free space, then what waits goes on by itself."
        raise StoreFull(message, path_kind=kind.value) from error
