"""`associations`: who came, what was proposed, how it ended, and what to do about it.

Knows options and what is printed. Does not know how a listener keeps its logbook.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from gateway.commands import Ordered, admin_data_dir, administrating, as_json, example, say, site
from record.ids import short
from record.terminal import cell, counted, print_indented, print_json, print_table

if TYPE_CHECKING:
    from record.models import Association

_FACTS = (
    *("id", "began_at", "ended_at", "listener", "calling_ae_title", "called_ae_title", "peer_address", "is_secure"),
    *("certificate_names", "requests", "instances", "bytes", "refusals", "untaken", "outcome", "reason_code"),
)
_SHOWN = {
    "id": "association",
    "began_at": "began",
    "ended_at": "ended",
    "listener": "listener",
    "calling_ae_title": "calling AE title",
    "called_ae_title": "called AE title",
    "peer_address": "address",
    "is_secure": "TLS",
    "certificate_names": "certificate",
    "requests": "requests",
    "instances": "instances",
    "bytes": "bytes",
    "how": "how it ended",
}


@click.group(
    "associations",
    cls=Ordered,
    short_help="Who came to send, and why it went wrong.",
    epilog=example("countersign associations list --troubled"),
)
def associations() -> None:
    """Every association that ended, or the attempt at one: kept by the listener even while PostgreSQL is away.

    When images do not arrive, `associations list` says whether the sender was here at all, what it was refused, and what to do
    about it; `associations show` says what it proposed. They stay for 90 days.
    """


@associations.command(
    "list",
    short_help="List associations, the newest first.",
    epilog=example("countersign associations list --troubled", "countersign associations list --from PACS --hours 48"),
)
@admin_data_dir
@click.option("--troubled", is_flag=True, help="Only those that did not end well, or in which something was refused.")
@click.option("--from", "ae_title", metavar="TITLE", help="Only those of one calling AE title.")
@click.option(
    "--hours", type=click.FloatRange(min=0, min_open=True, max=24 * 366), help="Only those of the last hours."
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@site
@as_json
def list_associations(
    ae_title: str | None, hours: float | None, limit: int, site: str | None, *, troubled: bool, json: bool
) -> None:
    """List associations that ended, the newest first; a stranger's belongs to no site."""
    from record import associations as records
    from record.sites import find_site

    since = datetime.now(UTC) - timedelta(hours=hours) if hours else None
    with administrating() as session:
        found = records.recent(
            session,
            since=since,
            troubled=troubled,
            ae_title=ae_title,
            site_id=find_site(session, site).id if site is not None else None,
            limit=limit,
        )
        lines = [_facts(one) for one in found]
    if json:
        print_json(lines)
        return
    if not lines:
        say("No such association is on record; capitals make a difference in AE titles.")
        return
    print_table(
        ("ENDED", "FROM", "ADDRESS", "IMAGES", "REFUSED", "ASSOCIATION"),
        [
            (
                *(line["ended_at"], line["calling_ae_title"], line["peer_address"], line["instances"]),
                *(sum(line["refusals"].values()), short(line["id"])),
            )
            for line in lines
        ],
        [[*_below(line)] for line in lines],
    )


@associations.command(
    "show",
    short_help="Show one association: what was proposed and taken.",
    epilog=example("countersign associations show 0195f0d2-c0de"),
)
@admin_data_dir
@click.argument("association")
@as_json
def show(association: str, *, json: bool) -> None:
    """Show one association: what it asked for, which presentation contexts were taken, what was refused, and what to do.

    ASSOCIATION is its id, or how that begins, as `associations list` prints it.
    """
    from record import associations as records

    with administrating() as session:
        found, proposal = records.find(session, association)
        facts, refused, offers = _facts(found), found.refused, proposal.offers
    if json:
        print_json(facts | {"refused": refused, "offers": offers})
        return
    for name, title in _SHOWN.items():
        value = facts[name]
        if isinstance(value, dict):
            value = ", ".join(f"{kind} {count}" for kind, count in value.items())
        if isinstance(value, list):
            value = ", ".join(value)
        if isinstance(value, bool):
            value = "yes" if value else "no"
        if value not in {None, ""}:
            click.echo(f"{title}: {cell(value)}")
    for remedy in facts["remedies"]:
        if short(found.id) not in remedy:  # that would lead here
            click.echo("what to do:")
            print_indented(remedy)
    _show_refusals(facts["refusals"], refused)
    _show_offers(offers)


def _below(line: dict[str, Any]) -> Iterator[str]:
    if line["outcome"] != "released" or line["reason_code"] or line["refusals"]:
        yield f"{line['how']}."
    yield from line["remedies"]
    if line["untaken"] and line["reason_code"] != "nothing_taken":
        classes = counted(line["untaken"], "class that it offered is", "classes that it offered are")
        yield f"{classes} not taken: `countersign associations show {short(line['id'])}`."


def _show_refusals(refusals: dict[str, int], refused: list[dict[str, str]]) -> None:
    from gateway.dicom.statuses import meaning

    for status, count in refusals.items():
        click.echo(f"refused with 0x{status}: {count}")
        print_indented(f"as a sender is told: {meaning(int(status, 16))}")
        those = [each for each in refused if each["status"] == status]
        for each in those:
            of = f", of study {each['study']}" if each["study"] else ""
            why = f": {each['why']}" if each["why"] else ""
            print_indented(f"{each['sop'] or 'no SOP Instance UID'}{of}{why}")
        if count > len(those):
            click.echo(f"    and {count - len(those)} more")


def _show_offers(offers: list[list[Any]]) -> None:
    """Every class once, by the transfer syntaxes that were taken of it; below these, what was not taken, and why."""
    from pydicom.uid import UID

    from gateway.dicom.contexts import why_not_taken

    taken: dict[str, dict[str, None]] = {}
    for abstract, _, syntax in offers:
        if syntax:
            taken.setdefault(abstract, {})[syntax] = None
    by_syntaxes: dict[tuple[str, ...], list[str]] = {}
    for abstract, chosen in taken.items():
        by_syntaxes.setdefault(tuple(chosen), []).append(UID(abstract).name)
    for together, names in by_syntaxes.items():
        click.echo(f"taken in {', '.join(UID(each).name for each in together)}:")
        print_indented("; ".join(names))
    for abstract, syntaxes, syntax in offers:
        if not syntax and abstract not in taken:
            click.echo(f"not taken: {UID(abstract).name} ({', '.join(UID(each).name for each in syntaxes)})")
            print_indented(why_not_taken(abstract, syntaxes))


def _facts(one: Association) -> dict[str, Any]:
    from gateway.dicom.reasons import explained

    facts = {name: getattr(one, name) for name in _FACTS}
    how, remedies = explained(facts)
    return facts | {"how": how, "remedies": remedies}
