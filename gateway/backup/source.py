"""Bytes that are copied, and what is known of them afterwards; a failing source is told apart from a failing target.

Does not know where they go.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import BinaryIO

from record.errors import InvalidInstance
from record.part10 import data_set_offset
from record.store import Kind, Store


class Unreadable(Exception):
    """What is to be copied cannot be read; the message is the system's."""


class Source:
    """One stored file that is being read, and the digest of what a row would tell of it.

    For an instance that is its data set's; where it has none, or for a picture, that of all its bytes.
    """

    def __init__(self, content: BinaryIO, kind: Kind) -> None:
        self._content, self._kind = content, kind
        self.restart()

    @property
    def digest(self) -> str:
        """The sha256 to be held against the row, once everything is read."""
        return self._digest.hexdigest()

    def restart(self) -> None:
        """Read from the beginning again."""
        self._digest, self._skip = hashlib.sha256(), 0
        with _failing():
            self._content.seek(0)
            if self._kind is Kind.INSTANCE:
                with contextlib.suppress(InvalidInstance):
                    self._skip = data_set_offset(self._content)
                self._content.seek(0)

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""
        with _failing():
            block = self._content.read(size)
        self._digest.update(block[self._skip :])
        self._skip = max(0, self._skip - len(block))
        return block


@contextlib.contextmanager
def opened(store: Store, kind: Kind, key: str) -> Iterator[Source]:
    """A stored file, to be copied.

    Raises
    ------
    NotFound
        Nothing is stored under this key.
    Unreadable
        It cannot be opened, or, while it is read, not be read.
    """
    with _failing():
        content = store.open(kind, key)
    with content:
        yield Source(content, kind)


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unreadable(error.strerror or type(error).__name__) from error
