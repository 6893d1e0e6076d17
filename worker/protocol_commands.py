"""`protocols`: the reading protocols of a site, and which studies they are for.

Knows options and what is printed: of a study its UID alone. Does not know how a protocol is read or matched
(`worker.protocols`), nor where a site's own are kept (`record.protocols`).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from record.errors import InvalidRequest, Misconfigured, NotFound
from record.terminal import (
    Ordered,
    as_json,
    cell,
    example,
    one_transaction,
    print_json,
    print_table,
    printable,
    say,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from record.access import Principal
    from record.models import Site, SiteProtocol
    from worker.protocols import Protocol

_SHORT = 12
"""Hex digits of a digest where a whole one is too long."""
_MOST_BYTES = 1 << 20
_STANDARD_INPUT = Path("-")
FILE = click.Path(path_type=Path, allow_dash=True)
which_site = click.option("--site", default=None, help="Which site; may be left out while there is only one.")


@click.group(
    "protocols",
    cls=Ordered,
    short_help="What the model is asked, for which studies.",
    epilog=example(
        "countersign protocols show general --yaml > mine.yaml",
        "countersign protocols check mine.yaml",
        "countersign protocols match mine.yaml --last 30d",
        "countersign protocols add mine.yaml",
    ),
)
def protocols() -> None:
    """Reading protocols: what is asked of the model, for which kind of study, and which pictures it is given.

    A site uses those that are shipped, its own in the place of shipped ones of the same name, and its own beside them. Of all
    that fit a study the first of `protocols list` is taken. A change holds for every study that is prepared from then on, without a
    restart; a draft says by name, version and digest under which it was made.

    --data-dir names an embedded run's folder; without it the environment is taken, or the folder of `countersign up`.
    """


@protocols.command(
    "list",
    short_help="List a site's protocols in the order in which they are tried.",
    epilog=example("countersign protocols list", "countersign protocols list --site north --json"),
)
@which_site
@as_json
def list_protocols(site: str | None, *, json: bool) -> None:
    """List a site's protocols in the order in which they are tried, then those that are not: hidden, or not to be read."""
    with at_site(site) as (session, at):
        lines = [*_lines(session, at)]
    if json:
        print_json(lines)
        return
    titles = ("NAME", "VERSION", "PRIORITY", "LANGUAGES", "ORIGIN", "DIGEST")
    print_table(titles, [_row(line) for line in lines], [_below(line) for line in lines])


@protocols.command(
    "show",
    short_help="Show one protocol and its history.",
    epilog=example(
        "countersign protocols show general",
        "countersign protocols show mine --version 2",
        "countersign protocols show general --yaml > mine.yaml",
    ),
)
@click.argument("name")
@click.option("--version", type=click.IntRange(min=1), help="A version that is or was the site's own.")
@click.option("--yaml", is_flag=True, help="Print the content alone, as it was given.")
@which_site
def show(name: str, version: int | None, site: str | None, *, yaml: bool) -> None:
    """Show a protocol as it is used at a site, or was: its content, its digest, and when which version was in use."""
    from record import protocols as records

    with at_site(site) as (session, at):
        shown = _shown(session, at, name, version)
        rows = records.history(session, at.id, name)
    if yaml:
        click.echo(shown.text, nl=not shown.text.endswith("\n"))
        return
    facts = {"name": name, "version": shown.version, "origin": shown.origin, "digest": shown.digest} | shown.more
    for title, value in facts.items():
        click.echo(f"{title:<10} {cell(value)}")
    if rows:
        click.echo()
        print_table(
            ("VERSION", "ADDED", "RETIRED", "WHAT", "DIGEST"),
            [(r.version, r.added_at, r.retired_at, "hidden" if r.hides else "own", r.digest[:_SHORT]) for r in rows],
        )
    click.echo()
    for line in shown.text.splitlines():
        click.echo(printable(line))


@protocols.command(
    "check",
    short_help="Say whether files are protocols.",
    epilog=example("countersign protocols check mine.yaml", "countersign protocols check protocols/*.yaml"),
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FILE)
def check(files: tuple[Path, ...]) -> None:
    """Say whether files are protocols that this release can read, and if not, where they are wrong. Needs no database."""
    wrong = 0
    for path in files:
        try:
            _, found = read_protocol(path)
        except Misconfigured as error:
            wrong += 1
            click.echo(error.message, err=True)
        else:
            click.echo(f"OK {found.name} {found.version} {found.digest} {','.join(found.languages)}")
    if wrong:
        sys.exit(1)


@protocols.command(
    "add",
    short_help="Use a protocol of the site's own.",
    epilog=example(
        "countersign protocols add mine.yaml",
        "countersign protocols add mine.yaml --site north",
        "countersign protocols add --shipped general",
    ),
)
@click.argument("file", required=False, type=FILE)
@click.option("--shipped", metavar="NAME", help="Instead of a file: use a shipped one again that was hidden.")
@which_site
def add(file: Path | None, shipped: str | None, site: str | None) -> None:
    """Use a protocol of the site's own from now on, in the place of one of the same name; `-` is the standard input.

    A changed protocol needs a greater version. Try it first: `protocols match FILE` says which studies it would be for.
    """
    from record import protocols as records
    from worker.protocols import load_all

    if (file is None) == (shipped is None):
        raise click.UsageError("Say either FILE or --shipped NAME.")
    if file is None:
        with at_site(site) as (session, at):
            found = _shipped_of(str(shipped))
            name, version, digest = found.name, found.version, found.digest
            records.unhide(session, at.id, name=name, version=version, digest=digest, by=_by(at))
        say(f"the shipped {found.name} version {found.version} is used again")
        return
    text, found = read_protocol(file)
    replaced = next((each for each in load_all() if each.name == found.name), None)
    if replaced is not None and found.version <= replaced.version and found.digest != replaced.digest:
        raise InvalidRequest(
            f"{found.name} version {replaced.version} is shipped: give this one a greater version, or another name."
        )
    with at_site(site) as (session, at):
        name, version, digest = found.name, found.version, found.digest
        added = records.add(session, at.id, name=name, version=version, digest=digest, text=text, by=_by(at))
        instead = f" instead of the shipped version {replaced.version}" if replaced is not None else ""
        if (former := added.replaced) is not None:
            instead = "" if former.hides else f" instead of version {former.version}"
    if not added.is_new:
        say(f"{found.name} version {added.protocol.version} is in use already, with this content: nothing was changed")
        return
    say(f"{found.name} version {found.version} is used{instead} for studies that are prepared from now on")


@protocols.command(
    "retire",
    short_help="Use a protocol no more.",
    epilog=example("countersign protocols retire mine", "countersign protocols retire general --hide"),
)
@click.argument("name")
@click.option("--hide", is_flag=True, help="Leave the shipped one of this name out as well.")
@which_site
def retire(name: str, site: str | None, *, hide: bool) -> None:
    """Use a protocol of the site's own no more, or with --hide none of this name. What was drafted under it stays as it is."""
    from record import protocols as records
    from worker.protocols import load_all

    shipped = next((each for each in load_all() if each.name == name), None)
    with at_site(site) as (session, at):
        own = next((row for row in records.live(session, at.id) if row.name == name and not row.hides), None)
        if own is None and not hide and shipped is not None:
            raise InvalidRequest(
                f"{name} is a shipped protocol, and this site has none of its own of this name: --hide leaves it out."
            )
        if own is not None or not hide:
            records.retire(session, at.id, name, by=_by(at))
        if hide:
            found = _shipped_of(name)
            records.hide(session, at.id, name=name, version=found.version, digest=found.digest, by=_by(at))
    gone = f"{name} version {own.version}" if own is not None else f"the shipped {name}"
    if shipped is not None and not hide:
        say(f"{gone} is used no more; from now on the shipped version {shipped.version} is")
    else:
        say(
            f"{gone} is used no more; its studies go to the next of `countersign protocols list` that fits, if one does"
        )


@dataclass(frozen=True, slots=True)
class _Shown:
    text: str
    version: int
    digest: str
    origin: str
    more: dict[str, str]


def _shown(session: Session, at: Site, name: str, version: int | None) -> _Shown:
    """The version that is asked for, else what is in use, else what is shipped and left out."""
    from record import protocols as records
    from worker.protocols import load_all
    from worker.site_protocols import read_row, shipped_texts

    rows = [row for row in records.history(session, at.id, name) if not row.hides]
    row = next((r for r in rows if (r.retired_at is None if version is None else r.version == version)), None)
    shipped = next((each for each in load_all() if each.name == name and version in {None, each.version}), None)
    if row is not None:
        read = read_row(row)
        more = _facts(read) if not isinstance(read, Misconfigured) else {"problem": "this release cannot read it"}
        return _Shown(row.text or "", row.version, row.digest, "own" if row.retired_at is None else "retired", more)
    if shipped is not None:
        hidden = any(row.hides for row in records.live(session, at.id) if row.name == name)
        origin = "hidden" if hidden else "shipped"
        return _Shown(shipped_texts()[name], shipped.version, shipped.digest, origin, _facts(shipped))
    if rows and version is None:
        raise NotFound(f"{name} is not in use at this site; its last version was {rows[0].version}: say --version.")
    of = f" with the version {version}" if version is not None else ""
    raise NotFound(f"This site has no protocol {name!r}{of}. `countersign protocols list` has all.")


def _facts(protocol: Protocol) -> dict[str, str]:
    return {
        "title": protocol.title,
        "priority": str(protocol.priority),
        "languages": ", ".join(protocol.languages),
    }


def _lines(session: Session, at: Site) -> Iterator[dict[str, Any]]:
    from worker.protocols import load_all
    from worker.site_protocols import site_protocols

    found = site_protocols(session, at.id)
    readable = found.own.keys() - found.unreadable.keys()
    for each in found.tried:
        row = found.own[each.name] if each.name in readable else None
        yield _line(each, each.name, "own" if row else "shipped", row)
    shipped = {each.name: each for each in load_all()}
    for name, why in found.unreadable.items():
        instead = "; the shipped one is used instead" if name in shipped else ""
        yield _line(None, name, "own", found.own[name]) | {
            "problem": f"this release cannot read it{instead}: {why.message}"
        }
    for name in sorted(found.hidden):
        if name in shipped:
            yield _line(shipped[name], name, "hidden", None)
        else:
            yield _line(None, name, "hidden", None) | {"problem": "this release has no such protocol any more"}


def _line(protocol: Protocol | None, name: str, origin: str, row: SiteProtocol | None) -> dict[str, Any]:
    return {
        "name": name,
        "version": protocol.version if protocol else row.version if row else None,
        "priority": protocol.priority if protocol else None,
        "languages": [*protocol.languages] if protocol else [],
        "origin": origin,
        "title": protocol.title if protocol else "",
        "digest": protocol.digest if protocol else row.digest if row else None,
        "added_at": row.added_at if row else None,
        "problem": None,
    }


def _row(line: dict[str, Any]) -> tuple[object, ...]:
    digest = (line["digest"] or "")[:_SHORT]
    return (line["name"], line["version"], line["priority"], ",".join(line["languages"]), line["origin"], digest)


def _below(line: dict[str, Any]) -> list[str]:
    return [told for told in (line["title"], " ".join((line["problem"] or "").split())) if told]


def _shipped_of(name: str) -> Protocol:
    from worker.protocols import load_all

    found = next((each for each in load_all() if each.name == name), None)
    if found is None:
        raise NotFound(f"No protocol {name!r} is shipped. `countersign protocols list` has all.")
    return found


def read_protocol(path: Path) -> tuple[str, Protocol]:
    """A file's text, or that of the standard input for `-`, and what it says.

    Raises
    ------
    Misconfigured
        It cannot be read, or is no protocol.
    """
    from worker.protocols import load

    origin = "standard input" if path == _STANDARD_INPUT else printable(path)
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if path == _STANDARD_INPUT else path.open("rb") as opened:
            content = opened.read(_MOST_BYTES + 1)
        text = content[:_MOST_BYTES].decode("utf-8-sig", errors="strict" if len(content) <= _MOST_BYTES else "ignore")
    except OSError as error:
        raise Misconfigured(f"{origin} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise Misconfigured(f"{origin} is no text in UTF-8.") from None
    try:
        return text, load(text, origin=origin)
    except Misconfigured as error:  # which may repeat a key of the file
        raise Misconfigured("\n".join(map(printable, error.message.splitlines()))) from None


@contextlib.contextmanager
def at_site(site: str | None) -> Iterator[tuple[Session, Site]]:
    """One transaction on the run's record, and the site that is meant."""
    from record.settings import Base, load
    from record.sites import find_site

    with one_transaction(load(Base).database_url) as session:
        yield session, find_site(session, site)


def _by(at: Site) -> Principal:
    from record.access import commander
    from record.states import Role

    return commander(at.id, Role.ADMIN)
