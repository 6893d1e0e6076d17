"""Tenants.

Knows options and what is printed. Does not know any rule: those are the verbs of `record.sites`.
"""

from __future__ import annotations

import click

from gateway.commands import Ordered, admin_data_dir, administrating, as_json, by_command, example
from record.terminal import print_json, print_table


@click.group(
    "sites",
    cls=Ordered,
    short_help="Tenants: who may see what.",
    epilog=example("countersign sites add north --language es"),
)
def sites() -> None:
    """Tenants: every study, person, machine and sender belongs to one site and sees nothing of another.

    A new run has one site, and while there is only one nobody needs to name it. Add a second first, then its people
    (`users add --site`) and its senders (`peers add --site`).
    """


@sites.command("add", short_help="Add a site.", epilog=example("countersign sites add north --language es"))
@admin_data_dir
@click.argument("name")
@click.option(
    "--language",
    default="en",
    show_default=True,
    help=(
        "The language of its pages where a browser asks for none: en, es or zh. A draft is in the language of its prompt."
    ),
)
def add_site(name: str, language: str) -> None:
    """Add a site; from then on commands ask for --site where it matters."""
    from record import sites as records

    with administrating() as session:
        added = records.add_site(session, name=name, language=language, by=by_command())
        count = len(records.list_sites(session))
    more = "" if count == 1 else "; commands now ask which with --site"
    click.echo(f"{added.name} is site {count}{more}", err=True)


@sites.command("list", short_help="List the sites.", epilog=example("countersign sites list"))
@admin_data_dir
@as_json
def list_sites(*, json: bool) -> None:
    """List the sites, the oldest first: whoever is no known sender (`up --open-peers`) sends to that one."""
    from record import sites as records

    with administrating() as session:
        found = records.list_sites(session)
    if json:
        print_json([{"name": s.name, "language": s.language, "created_at": s.created_at} for s in found])
    else:
        print_table(("SITE", "LANGUAGE", "SINCE"), [(s.name, s.language, s.created_at) for s in found])
