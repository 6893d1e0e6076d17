"""Sites, people, machines and senders: who is who.

Knows options and what is printed. Does not know any rule: those are the verbs of `record.accounts`.
"""

from __future__ import annotations

import secrets
import sys

import click

from gateway.commands import admin_data_dir, administrating
from record.states import Role


@click.group()
def users() -> None:
    """People who sign in."""


@users.command("add")
@admin_data_dir
@click.argument("login")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True)
@click.option("--name", "printed_name", required=True, help="The name as it is printed under a report.")
@click.option("--site", default=None, help="Needed when there are several.")
def add_user(login: str, role: str, printed_name: str, site: str | None) -> None:
    """Add a person.

    The password is the first line of standard input; from a terminal or an empty input one is made and printed last.
    """
    from record import accounts

    given = "" if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    password = given or secrets.token_urlsafe(12)
    with administrating() as session:
        accounts.add_user(
            session, site=site, login=login, printed_name=printed_name, role=Role(role), password=password
        )
    click.echo(f"{login} may sign in as {role}" + ("" if given else "; the password is shown this once:"), err=True)
    if not given:
        click.echo(password)


@click.group()
def tokens() -> None:
    """Machines that call the API."""


@tokens.command("add")
@admin_data_dir
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True)
@click.option("--scope", "scopes", multiple=True, help="What the role alone does not allow, such as drafts:read.")
@click.option("--site", default=None, help="Needed when there are several.")
def add_token(name: str, role: str, scopes: tuple[str, ...], site: str | None) -> None:
    """Add a machine; its token is printed once, last."""
    from record import accounts

    with administrating() as session:
        token = accounts.add_token(session, site=site, name=name, role=Role(role), scopes=scopes)
    click.echo(f"{name} may call the API as {role}; the token is shown this once:", err=True)
    click.echo(token)


@click.group()
def peers() -> None:
    """Who may send images."""


@peers.command("add")
@admin_data_dir
@click.argument("ae_title")
@click.argument("address")
@click.option("--site", default=None, help="Needed when there are several.")
def add_peer(ae_title: str, address: str, site: str | None) -> None:
    """Let a sender in, by its AE title and IP address; the listener knows it within seconds."""
    from record import accounts

    with administrating() as session:
        peer = accounts.add_peer(session, site=site, ae_title=ae_title, address=address)
    click.echo(f"{peer.ae_title} may send from {peer.address}", err=True)
