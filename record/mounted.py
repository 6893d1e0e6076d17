"""Whether the store is the record's own, or the empty folder under a disk that is not mounted.

What is written into such a folder is lost to every other machine, and hidden as soon as the disk is back. Knows that a
record with images has a store that holds something. Does not know which files those are: `verify` does.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from record.db import connect, is_away
from record.errors import Misconfigured
from record.models import Instance
from record.models.studies import KEEPS_A_FILE
from record.store import Kind, Store


def require_mounted(engine: Engine, store: Store) -> None:
    """Refuse an empty store where the record has images; costs a look at one folder as long as it is not empty.

    Raises
    ------
    Misconfigured
        The store's disk is not mounted, or its files are lost.
    """
    if not store.is_blank(Kind.INSTANCE):
        return
    living = select(Instance.id).where(KEEPS_A_FILE).limit(1)
    with Session(engine) as session:
        if session.scalar(living) is None:
            return
    raise Misconfigured(
        f"The record has images, and its store {store.root} is empty. Is its disk mounted? If the files are lost for good, "
        f"restore a backup, or go on without them after: mkdir -p {store.root / Kind.INSTANCE / '00'}"
    )


def require_mounted_at(url: str | SecretStr, root: Path) -> None:
    """The same at a part's start; says nothing while PostgreSQL is away, which the part waits for."""
    engine = connect(url, pool=1)
    try:
        require_mounted(engine, Store(root))
    except DBAPIError as error:
        if not is_away(error):
            raise
    finally:
        engine.dispose()
