"""`peers`: who may send, and whether they answer.

Knows options and what is printed. Does not know any rule: those are the verbs of `record.peers`; nor associations.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from gateway.commands import Ordered, admin_data_dir, administrating, as_json, by_command, example, say, site
from record.states import Lane
from record.terminal import counted, print_json, print_table, printable

if TYPE_CHECKING:
    from gateway.dicom.calling import Destination
    from record.models import Peer

_FACTS = (
    *(
        "ae_title",
        "address",
        "certificate_name",
        "port",
        "speaks_tls",
        "lane",
        "strict",
        "asks_count",
        "stable_after_s",
        "max_wait_s",
    ),
    *("max_associations", "created_at"),
)


class _None:
    """What stands for "none of its own"."""


NONE = _None()


class OrNone(click.ParamType[Any]):
    """A value of another type, or the word `none`."""

    def __init__(self, of: click.ParamType[Any]) -> None:
        self.of, self.name = of, of.name

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """The value, or `NONE`."""
        return NONE if value == "none" or value is NONE else self.of.convert(value, param, ctx)


def _whom(command: Callable[..., Any]) -> Callable[..., Any]:
    """Who is meant: a title, and what tells several of this title apart."""
    told = "Where several have this title and address: the name in its certificate."
    for decorate in (
        click.option("--certificate", metavar="NAME", help=told),
        click.argument("address", required=False),
        click.argument("ae_title"),
    ):
        command = decorate(command)
    return command


@click.group(
    "peers", cls=Ordered, short_help="Who may send images.", epilog=example("countersign peers add PACS 10.0.0.9")
)
def peers() -> None:
    """Who may send images: an AE title bound to one IP address, to a name in a certificate, or to both, for one site.

    ADDRESS may be left out where only one sender has the title; `any` is the one that is bound to its certificate alone.

    The listener knows a change within seconds, without a restart. Who was refused, and what to do about it, stands in
    `countersign associations list`.
    """


@peers.command(
    "add",
    short_help="Let a sender in.",
    epilog=example(
        "countersign peers add PACS 10.0.0.9 --port 104",
        "countersign peers add ARCHIVE 10.0.0.12 --lane backfill --max-associations 4",
        "countersign peers add CLINIC --certificate pacs.clinic.example",
    ),
)
@admin_data_dir
@click.argument("ae_title")
@click.argument("address", required=False, default="")
@click.option(
    "--certificate", "certificate_name", default="", metavar="NAME",
    help="It has to come by TLS, with a certificate of this common name, DNS name or URI; from any address if none is said.",
)  # fmt: skip
@click.option(
    "--port", type=click.IntRange(1, 65535),
    help="Where it answers itself: for `peers test`, storage commitment, --count and `reconcile`.",
)  # fmt: skip
@click.option(
    "--tls", "speaks_tls", is_flag=True,
    help="Call it by TLS there, with the certificate of COUNTERSIGN_DICOM_TLS_CERTIFICATE.",
)  # fmt: skip
@click.option(
    "--lane", type=click.Choice([lane.value for lane in Lane]), default=Lane.ROUTINE.value, show_default=True,
    help="How urgent what it sends is; backfill never delays the others.",
)  # fmt: skip
@click.option(
    "--count", "asks_count", is_flag=True,
    help="Ask it how many instances a study has, and take the study as complete as soon as we have as many.",
)  # fmt: skip
@click.option(
    "--stable-after", "stable_after_s", type=click.FloatRange(min=0), metavar="SECONDS",
    help="Quiet time after which its studies are complete, where the run's own does not fit.",
)  # fmt: skip
@click.option(
    "--max-wait", "max_wait_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
    help="The longest that its studies stay open while images keep coming, where the run's own does not fit.",
)  # fmt: skip
@click.option(
    "--max-associations", type=click.IntRange(1, 400), help="How many associations it may have at a time."
)  # fmt: skip
@click.option(
    "--strict", is_flag=True,
    help="Refuse other bytes under a UID that is taken, instead of keeping both for a person to decide.",
)  # fmt: skip
@site
def add_peer(ae_title: str, address: str, lane: str, site: str | None, **options: Any) -> None:
    """Let a sender in, by its AE title and its IP address or certificate; the listener knows it within seconds."""
    from record import peers as records

    with administrating() as session:
        peer = records.add_peer(
            session, site=site, ae_title=ae_title, address=address, lane=Lane(lane), by=by_command(), **options
        )
        name = f" with the certificate of {peer.certificate_name}" if peer.certificate_name else ""
        told = f"{peer.ae_title} may send from {peer.address or 'any address'}{name}"
    click.echo(told, err=True)


@peers.command(
    "change",
    short_help="Change what a sender may do.",
    epilog=example(
        "countersign peers change PACS --port 104 --count",
        "countersign peers change PACS --stable-after none --no-strict",
    ),
)
@admin_data_dir
@_whom
@click.option(
    "--new-address", "address_", metavar="ADDRESS", help="From now on it comes from here; `any` for anywhere."
)
@click.option(
    "--new-certificate", "certificate_name_", metavar="NAME", help="The name it has to show; `none` for none."
)
@click.option(
    "--port", type=OrNone(click.IntRange(1, 65535)), help="Where it answers itself; `none` to call it no more."
)
@click.option("--tls/--no-tls", "speaks_tls", default=None, help="Whether it is called by TLS there.")
@click.option("--lane", type=click.Choice([lane.value for lane in Lane]), help="How urgent what it sends is.")
@click.option("--count/--no-count", "asks_count", default=None, help="Whether it is asked for its count of a study.")
@click.option(
    "--stable-after", "stable_after_s", type=OrNone(click.FloatRange(min=0)), metavar="SECONDS",
    help="Quiet time after which its studies are complete; `none` for the run's own.",
)  # fmt: skip
@click.option(
    "--max-wait", "max_wait_s", type=OrNone(click.FloatRange(min=0, min_open=True)), metavar="SECONDS",
    help="The longest that its studies stay open; `none` for the run's own.",
)  # fmt: skip
@click.option(
    "--max-associations", type=OrNone(click.IntRange(1, 400)), metavar="N",
    help="How many associations it may have at a time; `none` for as many as there are.",
)  # fmt: skip
@click.option("--strict/--no-strict", default=None, help="Whether other bytes under a UID that is taken are refused.")
def change_peer(ae_title: str, address: str | None, certificate: str | None, **options: Any) -> None:
    """Change what a sender may do, or where it comes from; what is not named stays, and so does all that it asked for."""
    from record import peers as records
    from record.errors import InvalidRequest

    empty = {"address": {"any"}, "certificate_name": {"none"}}
    changes = {name.removesuffix("_"): value for name, value in options.items() if value is not None}
    if not changes:
        raise InvalidRequest("Say what to change: `countersign peers change --help` lists it.")
    changes = {name: None if value is NONE else value for name, value in changes.items()}
    changes |= {name: "" for name, words in empty.items() if changes.get(name) in words}
    with administrating() as session:
        peer = records.find_peer(session, ae_title, address_said(address), certificate)
        records.change_peer(session, peer, changes, by=by_command())
    click.echo(f"{peer.ae_title} is changed; the listener knows it within seconds", err=True)


@peers.command("list", short_help="List who may send.", epilog=example("countersign peers list"))
@admin_data_dir
@site
@as_json
def list_peers(site: str | None, *, json: bool) -> None:
    """List who may send, for which site, in which lane, and below each what was said of it besides."""
    from record import peers as records

    with administrating() as session:
        found = records.list_peers(session, site=site)
    if json:
        print_json([{"site": of, **{name: getattr(peer, name) for name in _FACTS}} for peer, of in found])
    elif not found:
        say("Nobody may send yet: `countersign peers add` lets a sender in.")
    else:
        print_table(
            ("AE TITLE", "ADDRESS", "PORT", "SITE", "LANE", "SINCE"),
            [(peer.ae_title, peer.address or "any", peer.port, of, peer.lane, peer.created_at) for peer, of in found],
            [[terms] if (terms := "; ".join(_terms(peer))) else [] for peer, _ in found],
        )


def _terms(peer: Peer) -> Iterator[str]:
    if peer.certificate_name:
        yield f"by TLS, with the certificate of {peer.certificate_name}"
    if peer.stable_after_s is not None:
        yield f"complete after {peer.stable_after_s:g} s without an image"
    if peer.max_wait_s is not None:
        yield f"open for {peer.max_wait_s:g} s at most"
    if peer.max_associations is not None:
        yield f"{counted(peer.max_associations, 'association')} at a time"
    if peer.asks_count:
        yield "asked for its count"
    if peer.strict:
        yield "strict"
    if peer.speaks_tls:
        yield "called by TLS"


@peers.command(
    "test",
    short_help="Ask a sender whether it answers us.",
    epilog=example("countersign peers test PACS", "countersign peers test PACS 10.0.0.9"),
)
@admin_data_dir
@_whom
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=10.0, show_default=True, metavar="SECONDS"
)
def test_peer(ae_title: str, address: str | None, certificate: str | None, timeout_s: float) -> None:
    """Ask a sender, by C-ECHO and C-FIND, whether it answers us at the port it was added with.

    It has to know our AE title at this machine's address. Without C-FIND it can send, but neither `--count` nor `reconcile`
    works with it.
    """
    from gateway.dicom import find
    from gateway.dicom.calling import unreachable
    from record import peers as records
    from record.errors import PeerUnavailable

    with administrating() as session:
        to = destination_of(records.find_peer(session, ae_title, address_said(address), certificate), timeout_s)
    if why := unreachable(to):
        say(f"C-ECHO: {printable(why)}")
        sys.exit(1)
    say(f"C-ECHO: {to.ae_title} answers at {to.host} port {to.port}")
    try:
        find.answers(to)
    except PeerUnavailable as error:
        say(f"C-FIND: {printable(error.message)}")
        sys.exit(1)
    say(f"C-FIND: {to.ae_title} answers")


@peers.command(
    "remove", short_help="Let a sender in no more.", epilog=example("countersign peers remove PACS 10.0.0.9")
)
@admin_data_dir
@_whom
def remove_peer(ae_title: str, address: str | None, certificate: str | None) -> None:
    """Let a sender in no more; the listener knows it within seconds, and an open association ends as it would.

    What it sent stays where it is. What it still waits to be told of (storage commitment) is given up, and can be tried again when
    it is let in anew (`notices retry`). To change a sender, use `peers change`.
    """
    from record import commitments
    from record import peers as records

    with administrating() as session:
        peer = records.find_peer(session, ae_title, address_said(address), certificate)
        waiting = commitments.waiting_of(session, peer)
        records.remove_peer(session, peer, by=by_command())
        told = f"{peer.ae_title} may not send from {peer.address or 'any address'}"
    click.echo(told, err=True)
    if waiting:
        say(f"{counted(waiting, 'storage commitment')} that it waits for cannot be told any more: see `notices list`")


def address_said(address: str | None) -> str | None:
    """An address as it is said of a peer: `any` is none, and None is not said."""
    return "" if address == "any" else address


def destination_of(peer: Peer, timeout_s: float) -> Destination:
    """Where a peer answers, and as whom we call it.

    Raises
    ------
    InvalidRequest
        Nobody said where.
    Misconfigured
        It is called by TLS, and our certificate is not named, or cannot be used.
    """
    from gateway.dicom import tls
    from gateway.dicom.calling import Destination
    from record.errors import InvalidRequest
    from record.settings import TlsSettings, load

    if not peer.port or not peer.address:
        lacks = [*(() if peer.address else ("--new-address ADDRESS",)), *(() if peer.port else ("--port N",))]
        told = f"countersign peers change {shlex.quote(peer.ae_title)} {' '.join(lacks)}"
        raise InvalidRequest(f"It is not known where this sender answers: `{told}`.")
    calling = os.environ.get("COUNTERSIGN_AE_TITLE", "COUNTERSIGN")
    secure = tls.calling(load(TlsSettings)) if peer.speaks_tls else None
    return Destination(peer.address, peer.port, peer.ae_title, calling, timeout_s, secure)
