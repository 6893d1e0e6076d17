"""`verify`: what is on record, held against itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from gateway.commands import admin_data_dir, database_errors


@click.command()
@admin_data_dir
@click.option("--most", type=click.IntRange(min=1), default=20, show_default=True, help="Stop after so many faults.")
def verify(most: int) -> None:
    """Walk the seals, the texts and the store; name what is wrong, the first thing first."""
    from record import audit, verification
    from record.db import connect
    from record.settings import Base, load
    from record.store import Store

    settings = load(Base)
    spool = os.environ.get("COUNTERSIGN_SPOOL")
    key = audit.read_key(settings.secrets)
    count = 0
    with database_errors():
        faults = verification.verify(
            connect(settings.database_url, pool=1),
            Store(settings.store),
            key,
            heads_file=settings.heads_file,
            spool=Path(spool) if spool else None,
        )
        for fault in faults:
            click.echo(str(fault))
            count += 1
            if count >= most:
                break
    if key is None:
        click.echo("countersign: the seals were not checked, COUNTERSIGN_SECRETS is not set", err=True)
    if count:
        sys.exit(1)
    click.echo("nothing is wrong")
