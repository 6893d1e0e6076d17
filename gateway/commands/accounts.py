"""People and machines: who is who.

Knows options and what is printed. Does not know any rule: those are the verbs of `record.accounts`.
"""

from __future__ import annotations

import secrets
import sys
from datetime import UTC, datetime, timedelta

import click

from gateway.commands import Ordered, admin_data_dir, administrating, as_json, by_command, example, site
from record.errors import InvalidRequest
from record.states import Role
from record.terminal import print_json, print_table

_LONGEST_LINE = 1 << 16
"""Bytes of a line that is read as a password; far beyond what `record.accounts` takes."""
ROLES = click.Choice([role.value for role in Role])
MACHINES = click.Choice([role.value for role in Role if role not in {Role.RESIDENT, Role.ATTENDING}])


@click.group(
    "users",
    cls=Ordered,
    short_help="People who sign in.",
    epilog=example('countersign users add lee --role attending --name "Dr. Ana Lee"'),
)
def users() -> None:
    """People who sign in: each has one login, one role and one site.

    A resident edits and declares preliminary, an attending also signs, an operator retries readings and decides conflicts,
    an auditor reads the audit, an admin sees the state of the line. Nobody is ever deleted, since reports bear their names: who
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
            session,
            site=site,
            login=login,
            printed_name=printed_name,
            role=Role(role),
            password=password,
            by=by_command(),
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
        accounts.disable_user(session, login, by=by_command())
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
        accounts.enable_user(session, login, by=by_command())
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
        accounts.set_password(session, login, password, by=by_command())
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
            session, site=site, name=name, role=Role(role), scopes=scopes, expires_at=until, by=by_command()
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
        accounts.revoke_token(session, site=site, name=name, by=by_command())
    click.echo(f"{name} may not call the API; it is refused within five seconds", err=True)


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
