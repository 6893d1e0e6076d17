"""Tenants, and who may send to them.

Knows options and what is printed. Does not know any rule: those are the verbs of `record.sites`.
"""

from __future__ import annotations

import click

from gateway.commands import Ordered, admin_data_dir, administrating, as_json, by_command, example, site
from gateway.commands.output import print_json, print_table
from record.states import Lane


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


@click.group(
    "peers", cls=Ordered, short_help="Who may send images.", epilog=example("countersign peers add PACS 10.0.0.9")
)
def peers() -> None:
    """Who may send images: an AE title bound to one IP address, for one site.

    The listener knows a change within seconds, without a restart. A refused sender stands in its log with both.
    """


@peers.command(
    "add",
    short_help="Let a sender in.",
    epilog=example("countersign peers add PACS 10.0.0.9", "countersign peers add ARCHIVE 10.0.0.12 --lane backfill"),
)
@admin_data_dir
@click.argument("ae_title")
@click.argument("address")
@click.option(
    "--lane", type=click.Choice([lane.value for lane in Lane]), default=Lane.ROUTINE.value, show_default=True,
    help="How urgent what it sends is; backfill never delays the others.",
)  # fmt: skip
@click.option(
    "--stable-after", "stable_after_s", type=click.FloatRange(min=0), metavar="SECONDS",
    help="Quiet time after which its studies are complete, where the run's own does not fit.",
)  # fmt: skip
@click.option(
    "--max-wait", "max_wait_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
    help="The longest that its studies stay open while images keep coming, where the run's own does not fit.",
)  # fmt: skip
@site
def add_peer(
    ae_title: str, address: str, lane: str, stable_after_s: float | None, max_wait_s: float | None, site: str | None
) -> None:
    """Let a sender in, by its AE title and IP address; the listener knows it within seconds."""
    from record import sites as records

    with administrating() as session:
        peer = records.add_peer(
            session,
            site=site,
            ae_title=ae_title,
            address=address,
            lane=Lane(lane),
            stable_after_s=stable_after_s,
            max_wait_s=max_wait_s,
            by=by_command(),
        )
    click.echo(f"{peer.ae_title} may send from {peer.address}", err=True)


@peers.command("list", short_help="List who may send.", epilog=example("countersign peers list"))
@admin_data_dir
@site
@as_json
def list_peers(site: str | None, *, json: bool) -> None:
    """List who may send, for which site, in which lane."""
    from record import sites as records

    with administrating() as session:
        found = records.list_peers(session, site=site)
    if json:
        print_json(
            [
                {
                    "ae_title": peer.ae_title,
                    "address": peer.address,
                    "site": of,
                    "lane": peer.lane,
                    "stable_after_s": peer.stable_after_s,
                    "max_wait_s": peer.max_wait_s,
                    "created_at": peer.created_at,
                }
                for peer, of in found
            ]
        )
        return
    print_table(
        ("AE TITLE", "ADDRESS", "SITE", "LANE", "STABLE AFTER", "MAX WAIT", "SINCE"),
        [(p.ae_title, p.address, of, p.lane, p.stable_after_s, p.max_wait_s, p.created_at) for p, of in found],
    )


@peers.command(
    "remove", short_help="Let a sender in no more.", epilog=example("countersign peers remove PACS 10.0.0.9")
)
@admin_data_dir
@click.argument("ae_title")
@click.argument("address")
def remove_peer(ae_title: str, address: str) -> None:
    """Let a sender in no more; the listener knows it within seconds, and an open association ends as it would.

    What it sent stays where it is.
    """
    from record import sites as records

    with administrating() as session:
        records.remove_peer(session, ae_title=ae_title, address=address, by=by_command())
    click.echo(f"{ae_title} may not send from {address}", err=True)
