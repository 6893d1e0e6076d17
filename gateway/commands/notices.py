"""`notices`: what senders asked or told besides images, and what could not be done about it.

Knows options and what is printed. Does not know what a notice sets going, nor how a sender is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from gateway.commands import Ordered, admin_data_dir, administrating, as_json, by_command, example, say
from gateway.commands.quarantine import spools
from record.terminal import counted, print_json, print_table

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from record.access import Principal
    from record.models import Commitment


@click.group(
    "notices",
    cls=Ordered,
    short_help="What senders asked besides images, and nobody could do.",
    epilog=example("countersign notices list", "countersign notices retry"),
)
def notices() -> None:
    """What senders asked or told besides images, and what could not be done about it: nothing of it is thrown away.

    A storage commitment is given up when its sender did not answer for about a day, or is known no more. A notice is not taken up
    when its sender is known no more, or something broke: the indexer's log says what.
    """


@notices.command("list", short_help="List what could not be done.", epilog=example("countersign notices list --json"))
@admin_data_dir
@as_json
def list_notices(*, json: bool) -> None:
    """List the commitments that were given up, and the notices in this machine's spools that could not be taken up."""
    from gateway.notices import failed, said_by
    from record import commitments

    with administrating() as session:
        lines = [_given_up(one, instances) for one, instances in commitments.dead(session)]
    lines += [_not_taken_up(said_by(path)) for path in failed(spools(None))]
    if json:
        print_json(lines)
    elif lines:
        print_table([name.upper() for name in lines[0]], [tuple(line.values()) for line in lines])
    else:
        say("Everything that was asked is done, or under way.")


@notices.command("retry", short_help="Try all of it again.", epilog=example("countersign notices retry"))
@admin_data_dir
def retry() -> None:
    """Try again whatever could not be done: first let the sender in again, or see with `peers test` that it answers."""
    from gateway.notices import failed, try_again
    from record import commitments

    told = _all(commitments.requeue)
    waiting = failed(spools(None))
    for path in waiting:
        try_again(path)
    click.echo(f"{counted(told, 'commitment')} and {counted(len(waiting), 'notice')} are tried again", err=True)


@notices.command("drop", short_help="Let all of it go.", epilog=example("countersign notices drop --yes"))
@admin_data_dir
@click.option("--yes", is_flag=True, help="Do it: the senders will never be told.")
def drop(*, yes: bool) -> None:
    """Let go of whatever could not be done, as when a sender is gone for good; the audit says that it was."""
    from gateway.notices import failed
    from record import commitments
    from record.errors import InvalidRequest

    if not yes:
        raise InvalidRequest("The senders would never be told: say --yes if that is meant.")
    told = _all(commitments.drop)
    waiting = failed(spools(None))
    for path in waiting:
        path.unlink(missing_ok=True)
    click.echo(f"{counted(told, 'commitment')} and {counted(len(waiting), 'notice')} are let go", err=True)


def _all(verb: Callable[[Session, Principal], int]) -> int:
    """Do to all that was given up what is done to some in one transaction; how many there were."""
    total, some = 0, 1
    while some:
        with administrating() as session:
            some = verb(session, by_command())
        total += some
    return total


def _given_up(one: Commitment, instances: int) -> dict[str, Any]:
    return {
        "received_at": one.received_at,
        "kind": "commitment",
        "ae_title": one.ae_title or None,
        "instances": instances,
        "attempts": one.attempts,
        "why": (one.last_code or "error").replace("_", " "),
    }


def _not_taken_up(told: dict[str, Any]) -> dict[str, Any]:
    return {
        "received_at": told.get("received_at"),
        "kind": str(told.get("kind", "unreadable")).replace("_", " "),
        "ae_title": told.get("ae_title"),
        "instances": len(told.get("references") or told.get("instance_uids") or ()),
        "attempts": None,
        "why": "not taken up",
    }
