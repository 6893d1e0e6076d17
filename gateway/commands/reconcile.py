"""`reconcile`: what a sender has and we do not.

Knows options and what is printed. Does not know C-FIND or C-MOVE (`gateway.dicom`), nor what is on record.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import click

from gateway.commands import admin_data_dir, administrating, as_json, example, say
from gateway.commands.peers import address_said, destination_of
from record.errors import PeerUnavailable
from record.terminal import counted, print_json, print_table, printable

if TYPE_CHECKING:
    from gateway.dicom.calling import Destination
    from gateway.dicom.find import Held


class _Since(click.ParamType[date | None]):
    """A day, how many days or hours ago, or `all`."""

    name = "since"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> date | None:
        """The day it begins with; None for all."""
        told = str(value)
        if told == "all":
            return None
        if found := re.fullmatch(r"([0-9]{1,4})([dhw])", told):
            hours = int(found[1]) * {"h": 1, "d": 24, "w": 168}[found[2]]
            return (datetime.now(UTC) - timedelta(hours=hours)).date()
        try:
            return date.fromisoformat(told)
        except ValueError:
            self.fail(
                f"{printable(told)!r} is neither a day such as 2026-01-31, nor an age such as 1d, 12h or 2w, nor `all`.",
                param,
                ctx,
            )


@dataclass(frozen=True, slots=True)
class _Lacking:
    study_instance_uid: str
    study_date: str
    modalities: str
    theirs: int | None
    ours: int


@click.command(
    short_help="List the studies that a sender has and we do not.",
    epilog=example(
        "countersign reconcile --peer PACS --since 1d", "countersign reconcile --peer PACS --since 2026-01-01 --fetch"
    ),
)
@admin_data_dir
@click.option("--peer", "ae_title", required=True, metavar="TITLE", help="The sender's AE title.")
@click.option("--address", metavar="ADDRESS", help="Its address, where several have this title.")
@click.option(
    "--since",
    type=_Since(),
    default="1d",
    show_default=True,
    metavar="AGE|DAY|all",
    help="Studies of which days; `all` has those without a date too.",
)
@click.option("--fetch", is_flag=True, help="Have it send what is lacking, by C-MOVE to our own listener.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=60.0, show_default=True, metavar="SECONDS"
)
@as_json
def reconcile(
    ae_title: str, address: str | None, since: date | None, timeout_s: float, *, fetch: bool, json: bool
) -> None:
    """List the studies that a sender has and we do not have, or have fewer instances of, by its own C-FIND.

    With --fetch it is asked to send them to our listener, at the ordinary door: it has to know our AE title, and it is taken as
    any study is. Studies are those whose Study Date is not before the day. The exit status is 1 while something is lacking.
    """
    from gateway.dicom import find, move
    from record import peers, studies

    with administrating() as session:
        peer = peers.find_peer(session, ae_title, address_said(address))
        to, site_id = destination_of(peer, timeout_s), peer.site_id
    held = list(find.studies(to, since.strftime("%Y%m%d") if since else ""))
    with administrating() as session:
        ours = studies.counts_of(session, site_id, [each.study_instance_uid for each in held])
    held = [each if each.instances is not None else _counted(to, each, ours) for each in held]
    lacking = [
        _Lacking(
            each.study_instance_uid,
            each.study_date,
            each.modalities,
            each.instances,
            ours.get(each.study_instance_uid, 0),
        )
        for each in held
        if ours.get(each.study_instance_uid, 0) < (each.instances if each.instances is not None else 1)
    ]
    fetched: dict[str, str] = {}
    for each in lacking if fetch else ():
        try:
            moved = move.fetch(to, each.study_instance_uid)
            fetched[each.study_instance_uid] = f"sent {moved.completed}" + (
                f", {moved.failed} failed" if moved.failed else ""
            )
        except PeerUnavailable as error:
            fetched[each.study_instance_uid] = printable(error.message)
    if json:
        print_json(
            [
                {
                    "study_instance_uid": each.study_instance_uid,
                    "study_date": each.study_date,
                    "modalities": each.modalities,
                    "theirs": each.theirs,
                    "ours": each.ours,
                    "fetched": fetched.get(each.study_instance_uid),
                }
                for each in lacking
            ]
        )
    elif lacking:
        print_table(
            ("STUDY", "DATE", "MODALITIES", "THEIRS", "OURS", *(("FETCHED",) if fetch else ())),
            [
                (
                    *(each.study_instance_uid, each.study_date, each.modalities, each.theirs, each.ours),
                    *((fetched[each.study_instance_uid],) if fetch else ()),
                )
                for each in lacking
            ],
        )
    of = f" since {since}" if since else ""
    say(f"{to.ae_title} has {counted(len(held), 'study', 'studies')}{of}; {_lacking_told(len(lacking), fetch=fetch)}")
    came = all(told.startswith("sent ") and "failed" not in told for told in fetched.values())
    sys.exit(1 if lacking and not (fetch and came) else 0)


def _lacking_told(lacking: int, *, fetch: bool) -> str:
    if not lacking:
        return "nothing is lacking here"
    told = f"{counted(lacking, 'study', 'studies')} or part of {'it' if lacking == 1 else 'them'} {'was' if fetch else 'is'} lacking here"
    return f"{told}, and {'was' if lacking == 1 else 'were'} asked for" if fetch else told


def _counted(to: Destination, held: Held, ours: Mapping[str, int]) -> Held:
    """A study whose archive tells no count, with one; only of what we have as well is it worth asking."""
    from gateway.dicom import find

    if held.study_instance_uid not in ours:
        return held
    return replace(held, instances=find.count_of(to, held.study_instance_uid))
