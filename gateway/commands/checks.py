"""`verify`: what is on record, held against itself.

Knows how faults are told, and what a restore explains. Does not know what is held against what.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.commands import admin_data_dir, database_errors, example, say, settings_of_run
from record.terminal import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from record.faults import Fault, Walked
    from record.settings import Base


@click.command(
    short_help="Walk the seals, the texts and the store; name what is wrong.",
    epilog=example(
        "countersign verify", "countersign verify --most 1000 > faults.txt", "countersign verify --after-restore"
    ),
)
@admin_data_dir
@click.option("--most", type=click.IntRange(min=1), default=20, show_default=True, help="Stop after so many faults.")
@click.option(
    "--after-restore",
    is_flag=True,
    help="The database was restored and is older than the store and the seal heads: tell what that explains apart.",
)
@click.option(
    "--repair",
    is_flag=True,
    help="With --after-restore: have the indexer make rows for stored files without one, and write into the file of seal "
    "heads that the chain was set back.",
)
@click.option(
    "--heads",
    "heads_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=None,
    help="Hold the seals against this file of heads instead.",
)
def verify(most: int, after_restore: bool, repair: bool, heads_file: Path | None) -> None:
    """Walk the seals, the texts, the signatures and the store; name what is wrong, the first thing first.

    The exit status is 0 when nothing is wrong. What a restore explains is named too, and is no fault: events that were
    sealed after the backup was taken and are lost, and instances that came after it, whose files are still in the store.
    How much was looked at is told on standard error.
    """
    if repair and not after_restore:
        raise click.UsageError("--repair goes with --after-restore.")
    settings = settings_of_run()
    settings = settings.model_copy(update={"heads_file": heads_file}) if heads_file else settings
    with database_errors():
        named = os.environ.get("COUNTERSIGN_SPOOL")
        spool = Path(named) if named else None
        faults = check(settings, spool=spool, most=most, after_restore=after_restore, hint=not repair)
        if repair:
            _repair(settings, spool)
    if faults:
        sys.exit(1)


def check(settings: Base, *, spool: Path | None, most: int, after_restore: bool, hint: bool = True) -> int:
    """Print every fault, and what is none but has to be known; returns how many faults there are, at most `most`."""
    from record import audit, verification
    from record.faults import Walked
    from record.store import Store

    walked = Walked()
    key = audit.read_key(settings.secrets)
    expected: list[Fault] = []
    count = 0
    with _connected(settings) as engine:
        for fault in verification.verify(
            engine,
            Store(settings.store),
            key,
            heads_file=settings.heads_file,
            spool=spool,
            after_restore=after_restore,
            walked=walked,
        ):
            if fault.expected:
                expected.append(fault)
                continue
            click.echo(str(fault))
            count += 1
            if count >= most:
                break
    if key is None:
        say("the seals were not checked, COUNTERSIGN_SECRETS is not set")
    say(f"looked at {_counted(walked, sealed=key is not None)}" + (", and stopped there" if count >= most else ""))
    if not count:
        click.echo("nothing is wrong")
    _tell(expected, most, hint=hint and after_restore)
    return count


def _counted(walked: Walked, *, sealed: bool) -> str:
    events = [f"events up to position {walked.position}"] if sealed else []
    others = ((walked.reports, "report"), (walked.signatures, "signature"), (walked.instances, "stored instance"))
    return ", ".join([*events, *(counted(count, one) for count, one in others)])


def _tell(expected: list[Fault], most: int, *, hint: bool) -> None:
    """What a restore explains; on standard error, since it is no fault."""
    for fault in expected[:most]:
        say(f"expected after a restore: {fault}")
    if len(expected) > most:
        say(f"expected after a restore: {len(expected) - most} more of this kind")
    if expected and hint:
        say("to have rows made for stored files without one, and to note the loss: verify --after-restore --repair")


def _repair(settings: Base, spool: Path | None) -> None:
    from gateway.respool import respool
    from record import heads
    from record.db import transaction
    from record.store import Store

    with _connected(settings) as engine:
        if spool is None:
            say("COUNTERSIGN_SPOOL is not set, so no stored file was put back into a spool")
        else:
            count = respool(engine, Store(settings.store), spool)
            say(f"{count} stored files without a row were put back into a spool; the indexer makes their rows")
        if settings.heads_file is not None and settings.heads_file.exists():
            with transaction(engine) as session:
                noted = heads.note_restore(session, settings.heads_file)
            if noted:
                say(f"{settings.heads_file} now says that the record was restored as it was at {noted.position}")


@contextlib.contextmanager
def _connected(settings: Base) -> Iterator[Engine]:
    from record.db import connect

    engine = connect(settings.database_url, pool=1)
    try:
        yield engine
    finally:
        engine.dispose()
