"""`associations`: who came, what was proposed, how it ended, and what to do about it.

Knows options and what is printed. Does not know how a listener keeps its logbook.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from gateway.commands import Ordered, admin_data_dir, administrating, as_json, example, site
from gateway.commands.output import print_json, print_table
from record.errors import NotFound

if TYPE_CHECKING:
    from record.models import Association

_FACTS = (
    *("id", "began_at", "ended_at", "listener", "calling_ae_title", "called_ae_title", "peer_address", "is_secure"),
    *("instances", "bytes", "refusals", "outcome", "reason_code"),
)


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
    print_table(
        ("ENDED", "FROM", "ADDRESS", "INSTANCES", "REFUSED", "HOW IT ENDED", "WHAT TO DO", "ASSOCIATION"),
        [
            (
                *(line["ended_at"], line["calling_ae_title"], line["peer_address"], line["instances"]),
                *(sum(line["refusals"].values()) or "", line["how"], line["remedy"], line["id"]),
            )
            for line in lines
        ],
    )


@associations.command(
    "show",
    short_help="Show one association: what was proposed and taken.",
    epilog=example("countersign associations show 0195f0d2c0de7aaa8bbbccccddddeeee"),
)
@admin_data_dir
@click.argument("association", type=click.UUID)
@as_json
def show(association: uuid.UUID, *, json: bool) -> None:
    """Show one association: which presentation contexts were offered, which were taken, and what each refusal meant."""
    from pydicom.uid import UID

    from gateway.dicom.statuses import meaning
    from record import associations as records

    with administrating() as session:
        found = records.find(session, association)
        if found is None:
            raise NotFound("There is no such association; those of the last 90 days are kept.")
        facts, offers = _facts(found[0]), found[1].offers
    if json:
        print_json(facts | {"offers": offers})
        return
    for name, value in facts.items():
        if name != "refusals":
            click.echo(f"{name.replace('_', ' ')}: {value}")
    for status, count in facts["refusals"].items():
        click.echo(f"refused with 0x{status} ({meaning(int(status, 16))}): {count}")
    print_table(
        ("OFFERED", "IN", "TAKEN"),
        [
            (
                UID(abstract).name,
                ", ".join(UID(each).name for each in syntaxes),
                UID(taken).name if taken else "not taken",
            )
            for abstract, syntaxes, taken in offers
        ],
    )


def _facts(one: Association) -> dict[str, Any]:
    from gateway.dicom.reasons import remedy_of, told

    facts = {name: getattr(one, name) for name in _FACTS}
    return facts | {"how": told(one.outcome, one.reason_code), "remedy": remedy_of(one.reason_code)}
