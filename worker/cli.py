"""The worker's commands; the gateway's `countersign` hands its share of them on to this.

Knows options and how an error is said on a terminal. Does not know torch until a command needs it.
"""

from __future__ import annotations

import sys

import click

from record.errors import CountersignError
from record.settings import WorkerSettings, load
from worker.picture_commands import pictures
from worker.protocol_trials import protocols

OWN_VERBS = frozenset({"protocols", "pictures"})
"""Verbs that `countersign` has as well, and hands on to this: their help says so."""
DATA_DIR = "--data-dir DIR takes the settings from an embedded run's folder, here or before the command."


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=DATA_DIR,
)
def cli() -> None:
    """Read studies with a medical vision-language model."""


@cli.command(epilog=DATA_DIR)
def cpu() -> None:
    """Prepare readings: select, decode and render pictures (prefork)."""
    _run("cpu")


@cli.command(epilog=DATA_DIR)
def gpu() -> None:
    """Draft readings: one engine, shared by several threads."""
    _run("gpu")


def _run(kind: str) -> None:
    from record.migrate import require_current_at
    from record.mounted import require_mounted_at
    from worker.tasks import run

    settings = load(WorkerSettings)
    require_current_at(settings.database_url)
    require_mounted_at(settings.database_url, settings.store)
    sys.exit(run(kind, settings))


def _add_phantoms() -> None:
    from worker.phantom.cli import phantoms, train_phantom

    cli.add_command(phantoms)
    cli.add_command(train_phantom)


cli.add_command(protocols)
cli.add_command(pictures)


def main() -> None:
    """The door of the process: an expected error is a sentence, not a traceback."""
    _add_phantoms()
    name = "countersign" if sys.argv[1:2] and sys.argv[1] in OWN_VERBS else "countersign worker"
    try:
        cli(prog_name=name)
    except CountersignError as error:
        click.echo(f"countersign: {error.message}", err=True)
        sys.exit(1)
