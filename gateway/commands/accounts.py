"""Sites, people, machines and senders: who is who.

Knows options and what is printed. Does not know any rule: those are the verbs of `record.accounts` and `record.sites`.
"""

from __future__ import annotations

import secrets
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from gateway.commands import Ordered, admin_data_dir, administrating, as_json, example, site
from gateway.commands.output import print_json, print_table
from record.errors import InvalidRequest
from record.states import Lane, Role

if TYPE_CHECKING:
    from record.access import Principal

_LONGEST_LINE = 1 << 16
"""Bytes of a line that is read as a password; far beyond what `record.accounts` takes."""
ROLES = click.Choice([role.value for role in Role])
MACHINES = click.Choice([role.value for role in Role if role not in {Role.RESIDENT, Role.ATTENDING}])


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
@click.option("--language", default="en", show_default=True, help="The language of its reports, such as en, es or zh.")
def add_site(name: str, language: str) -> None:
    """Add a site; from then on commands ask for --site where it matters."""
    from record import sites as records

    with administrating() as session:
        added = records.add_site(session, name=name, language=language, by=_by())
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
    "users",
    cls=Ordered,
    short_help="People who sign in.",
    epilog=example('countersign users add lee --role attending --name "Dr. Ana Lee"'),
)
def users() -> None:
    """People who sign in: each has one login, one role and one site.

    A resident edits and declares preliminary, an attending also signs, an operator retries readings and decides conflicts,
    an auditor reads the audit, an admin manages accounts. Nobody is ever deleted, since reports bear their names: who
    leaves is disabled.
    """


@users.command(
    "add",
    short_help="Add a person.",
    epilog=example(
        'countersign users add lee --role attending --name "Dr. Ana Lee"',
        'pass show lee | countersign users add lee --role attending --name "Dr. Ana Lee"',
    ),
)
@admin_data_dir
@click.argument("login")
@click.option("--role", type=ROLES, required=True, help="What the person may do.")
@click.option("--name", "printed_name", required=True, help="The name as it is printed under a report.")
@site
def add_user(login: str, role: str, printed_name: str, site: str | None) -> None:
    """Add a person.

    The password is the first line of standard input, so that it stands in no list of processes; from a terminal or an empty
    input one is made and printed last. The name is printed under what the person signs.
    """
    from record import accounts

    password, made = _password()
    with administrating() as session:
        accounts.add_user(
            session, site=site, login=login, printed_name=printed_name, role=Role(role), password=password, by=_by()
        )
    _tell_password(f"{login} may sign in as {role}", password, made=made)


@users.command("list", short_help="List everybody who has a login.", epilog=example("countersign users list"))
@admin_data_dir
@site
@as_json
def list_users(site: str | None, *, json: bool) -> None:
    """List everybody who has a login, and whether they may sign in."""
    from record import accounts

    with administrating() as session:
        found = accounts.list_users(session, site=site)
    now = datetime.now(UTC)

    def state(disabled_at: datetime | None, locked_until: datetime | None) -> str:
        return "disabled" if disabled_at else "locked" if locked_until and locked_until > now else "active"

    if json:
        print_json(
            [
                {
                    "login": user.login,
                    "printed_name": user.printed_name,
                    "role": user.role,
                    "site": of,
                    "state": state(user.disabled_at, user.locked_until),
                    "created_at": user.created_at,
                    "disabled_at": user.disabled_at,
                    "locked_until": user.locked_until,
                }
                for user, of in found
            ]
        )
        return
    print_table(
        ("LOGIN", "NAME", "ROLE", "SITE", "STATE", "SINCE"),
        [(u.login, u.printed_name, u.role, of, state(u.disabled_at, u.locked_until), u.created_at) for u, of in found],
    )


@users.command("disable", short_help="Let a person in no more.", epilog=example("countersign users disable lee"))
@admin_data_dir
@click.argument("login")
def disable_user(login: str) -> None:
    """Let a person in no more: their sessions end at once, on every machine. What they signed stays theirs."""
    from record import accounts

    with administrating() as session:
        accounts.disable_user(session, login, by=_by())
    click.echo(f"{login} is signed out and may not sign in", err=True)


@users.command(
    "enable", short_help="Let a disabled or locked person in again.", epilog=example("countersign users enable lee")
)
@admin_data_dir
@click.argument("login")
def enable_user(login: str) -> None:
    """Let a disabled person in again, or one who is locked after ten wrong passwords. The password stays what it was."""
    from record import accounts

    with administrating() as session:
        accounts.enable_user(session, login, by=_by())
    click.echo(f"{login} may sign in", err=True)


@users.command(
    "password", short_help="Give a person another password.", epilog=example("countersign users password lee")
)
@admin_data_dir
@click.argument("login")
def set_password(login: str) -> None:
    """Give a person another password, because the former one was forgotten or seen; whoever uses it is signed out.

    The password is the first line of standard input; from a terminal or an empty input one is made and printed last.
    """
    from record import accounts

    password, made = _password()
    with administrating() as session:
        accounts.set_password(session, login, password, by=_by())
    _tell_password(f"{login} has another password", password, made=made)


@click.group(
    "tokens",
    cls=Ordered,
    short_help="Machines that call the API.",
    epilog=example("countersign tokens add board --role dashboard --expires 90"),
)
def tokens() -> None:
    """Machines that call the API: each has a token of one role at one site.

    A token is shown once, when it is added; only its hash is stored. Give each machine its own, so that one can be revoked
    without the others.
    """


@tokens.command(
    "add",
    short_help="Add a machine.",
    epilog=example("countersign tokens add board --role dashboard --scope drafts:read --expires 90 > board.token"),
)
@admin_data_dir
@click.argument("name")
@click.option("--role", type=MACHINES, required=True, help="What the machine may do.")
@click.option("--scope", "scopes", multiple=True, help="What the role alone does not allow, such as drafts:read.")
@click.option(
    "--expires", type=click.IntRange(1, 36500), metavar="DAYS", help="Revoke it by itself after so many days."
)
@site
def add_token(name: str, role: str, scopes: tuple[str, ...], expires: int | None, site: str | None) -> None:
    """Add a machine; its token is printed once, last. A dashboard sees drafts only with --scope drafts:read."""
    from record import accounts

    until = datetime.now(UTC) + timedelta(days=expires) if expires else None
    with administrating() as session:
        token = accounts.add_token(
            session, site=site, name=name, role=Role(role), scopes=scopes, expires_at=until, by=_by()
        )
    click.echo(f"{name} may call the API as {role}; the token is shown this once:", err=True)
    click.echo(token)


@tokens.command("list", short_help="List all tokens, never their secrets.", epilog=example("countersign tokens list"))
@admin_data_dir
@site
@as_json
def list_tokens(site: str | None, *, json: bool) -> None:
    """List all tokens, revoked and expired ones too, since events name them. Never a secret: nobody stores it."""
    from record import accounts

    with administrating() as session:
        found = accounts.list_tokens(session, site=site)
    now = datetime.now(UTC)

    def state(revoked_at: datetime | None, expires_at: datetime | None) -> str:
        return "revoked" if revoked_at else "expired" if expires_at and expires_at <= now else "active"

    if json:
        print_json(
            [
                {
                    "name": token.name,
                    "role": token.role,
                    "scopes": token.scopes,
                    "site": of,
                    "state": state(token.revoked_at, token.expires_at),
                    "created_at": token.created_at,
                    "expires_at": token.expires_at,
                    "revoked_at": token.revoked_at,
                }
                for token, of in found
            ]
        )
        return
    print_table(
        ("NAME", "ROLE", "SCOPES", "SITE", "STATE", "SINCE", "EXPIRES", "REVOKED"),
        [
            (
                *(t.name, t.role, ",".join(t.scopes), of, state(t.revoked_at, t.expires_at)),
                *(t.created_at, t.expires_at, t.revoked_at),
            )
            for t, of in found
        ],
    )


@tokens.command("revoke", short_help="Let a machine in no more.", epilog=example("countersign tokens revoke board"))
@admin_data_dir
@click.argument("name")
@site
def revoke_token(name: str, site: str | None) -> None:
    """Let a machine in no more; every API process refuses its token within five seconds. Its name stays on record."""
    from record import accounts

    with administrating() as session:
        accounts.revoke_token(session, site=site, name=name, by=_by())
    click.echo(f"{name} may not call the API; it is refused within five seconds", err=True)


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
@site
def add_peer(ae_title: str, address: str, lane: str, stable_after_s: float | None, site: str | None) -> None:
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
            by=_by(),
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
                    "created_at": peer.created_at,
                }
                for peer, of in found
            ]
        )
        return
    print_table(
        ("AE TITLE", "ADDRESS", "SITE", "LANE", "STABLE AFTER", "SINCE"),
        [(p.ae_title, p.address, of, p.lane, p.stable_after_s, p.created_at) for p, of in found],
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
        records.remove_peer(session, ae_title=ae_title, address=address, by=_by())
    click.echo(f"{ae_title} may not send from {address}", err=True)


def _by() -> Principal:
    """Who is on record for what these commands change."""
    from record.access import commander

    return commander(None, Role.ADMIN)


def _password() -> tuple[str, bool]:
    """A password from standard input, else one of our own; whether it is ours."""
    given = _first_line()
    return given or secrets.token_urlsafe(12), not given


def _first_line() -> str:
    """The first line of standard input; empty where that is a terminal, or closed."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return ""
    try:
        return sys.stdin.buffer.readline(_LONGEST_LINE).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise InvalidRequest("The first line of standard input is no UTF-8 text; nothing was changed.") from None
    except OSError as error:  # a folder, or open for writing alone
        raise InvalidRequest(f"Standard input cannot be read ({error.strerror}); nothing was changed.") from None


def _tell_password(what: str, password: str, *, made: bool) -> None:
    click.echo(what + ("; the password is shown this once:" if made else ""), err=True)
    if made:
        click.echo(password)
