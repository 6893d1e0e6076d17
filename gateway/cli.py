"""The `countersign` command: every verb, and the door where errors become sentences.

Knows which verbs there are, and in which order a person meets them. Does not know how anything is done.
"""

from __future__ import annotations

import sys

import click

from gateway.commands import (
    accounts,
    associations,
    checks,
    completion,
    data,
    example,
    handed,
    health,
    line,
    notices,
    peers,
    quarantine,
    reconcile,
    sites,
    status,
    studies,
    trace,
    transfer,
)
from record.errors import CountersignError

SECTIONS: tuple[tuple[str, tuple[click.Command, ...]], ...] = (
    ("Run it", (line.up, line.demo, line.migrate, line.gateway, line.worker)),
    ("Let people, machines and senders in", (sites.sites, accounts.users, accounts.tokens, peers.peers)),
    (
        "Bring images in, look after studies",
        (
            transfer.echo,
            transfer.send,
            studies.studies,
            trace.trace,
            associations.associations,
            reconcile.reconcile,
            quarantine.quarantine,
            notices.notices,
        ),
    ),
    ("Read studies", (handed.protocols, handed.pictures)),
    ("Look after it", (status.status, health.health, checks.verify, completion.completion)),
    ("Keep its data", (data.backup, data.restore, data.upgrade)),
)
"""Every verb, as the help lists them."""


def main() -> None:
    """Run the command; an expected error is one sentence on standard error and a non-zero exit."""
    try:
        cli()
    except CountersignError as error:
        click.echo(f"countersign: {error.message}", err=True)
        sys.exit(1)


class Verbs(click.Group):
    """Lists its verbs by section, in the order in which a person meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """All names, as the sections have them."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list a section."""
        width = formatter.width - 6 - max(map(len, self.list_commands(ctx)))
        for title, verbs in SECTIONS:
            with formatter.section(title):
                formatter.write_dl([(str(verb.name), verb.get_short_help_str(width)) for verb in verbs])


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=example(
        "countersign up --open-peers",
        'countersign users add lee --role attending --name "Dr. Ana Lee"',
        "countersign send /media/cd",
    ),
)
@click.version_option(package_name="countersign")
def cli() -> None:
    """Studies come in by DICOM, a model drafts what it sees, a physician decides what is true.

    Begin with `up`, which runs everything on this machine; add a physician (`users add`), let the PACS in (`peers add`),
    and have it send, or send files yourself (`send`). `VERB --help` explains each, with an example.
    """


for _, verbs in SECTIONS:
    for verb in verbs:
        cli.add_command(verb)
