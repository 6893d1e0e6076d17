"""The `countersign` command: every verb, and the door where errors become sentences.

Knows which verbs there are. Does not know how anything is done.
"""

from __future__ import annotations

import sys

import click

from gateway.commands import accounts, checks, line
from record.errors import CountersignError


def main() -> None:
    """Run the command; an expected error is one sentence on standard error and a non-zero exit."""
    try:
        cli()
    except CountersignError as error:
        click.echo(f"countersign: {error.message}", err=True)
        sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="countersign")
def cli() -> None:
    """Studies come in by DICOM, a model drafts what it sees, a physician decides what is true."""


for verb in (
    line.up, line.demo, line.migrate, line.gateway, line.worker,
    accounts.users, accounts.tokens, accounts.peers,
    checks.verify,
):  # fmt: skip
    cli.add_command(verb)
