"""`status`: whether the line is well, what waits, and what needs a person.

Knows how the figures are printed on eighty columns, and what this machine can tell of its own spools and disks while the
database is away. Does not know how a figure is found or what gives cause for an alarm (`record.status`).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.commands import (
    ADMIN_DATA_DIR_HELP,
    NO_SCHEMA,
    PATH,
    administrating,
    as_json,
    example,
    find_environment,
    names_a_database,
    say,
    settings_of_run,
)
from record.errors import Misconfigured
from record.terminal import counted, print_json, print_table, printable

if TYPE_CHECKING:
    from record.alarms import Alarm
    from record.presence import PartShown, Place, SpoolShown
    from record.settings import Base
    from record.status import Status

_COLUMNS = 80
_NO_SCHEMA_OF_OURS = NO_SCHEMA | {"42501"}
"""The programs' role has no right to it: it is somebody else's."""
_STOPPED = "countersign.stopped"
"""Under this name the folder of a stopped run goes from the option to the verb."""
_COLOURS = {
    "critical": "red", "warning": "yellow", "notice": "cyan", "up": "green", "silent": "red", "missing": "red",
    "unknown": "yellow",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Local:
    """What this machine can tell by itself."""

    alarms: tuple[Alarm, ...]
    parts: tuple[PartShown, ...]
    spools: tuple[SpoolShown, ...]
    disks: tuple[Place, ...]

    def as_dict(self) -> dict[str, Any]:
        """As plain values, with each alarm's sentence."""
        told = [{**asdict(one), "sentence": one.sentence} for one in self.alarms]
        return {"well": False, **asdict(self), "alarms": told}


def _find_run(context: click.Context, option: click.Parameter, folder: Path | None) -> None:
    """As for every person's verb; but a run that is stopped still has a spool and disks to tell of."""
    from gateway.launcher.folder import default_folder, stopped_environment_of

    is_usual = folder is None and not context.resilient_parsing and not names_a_database()
    root = default_folder() if is_usual else folder
    found = stopped_environment_of(root) if root else None
    if root is None or found is None:
        find_environment(context, option, folder)
        return
    os.environ.update(found)
    context.meta[_STOPPED] = root.expanduser().resolve()


@click.command(
    short_help="Say whether all is well, what waits, what failed, and what to do.",
    epilog=example("countersign status", "countersign status --json | jq '.alarms[].sentence'"),
)
@click.option("--data-dir", type=PATH, expose_value=False, is_eager=True, callback=_find_run, help=ADMIN_DATA_DIR_HELP)
@click.option("--site", default=None, help="What belongs to a site, of this one alone; the parts are everybody's.")
@click.option(
    "--forget",
    metavar="HOST",
    help="Before that, miss no more which parts are silent on HOST: it was taken away for good.",
)
@as_json
@click.pass_context
def status(context: click.Context, site: str | None, forget: str | None, *, json: bool) -> None:
    """Say whether the line is well, what waits, what failed lately, and what to do about it.

    The exit status is 0 when nothing needs a person, and 1 when something does; a notice is only to be known. While
    PostgreSQL is away, or the run is stopped, it tells what this machine knows of its own spool (COUNTERSIGN_SPOOL) and
    disks.
    """
    stopped: Path | None = context.meta.get(_STOPPED)
    if forget is not None:
        if stopped is not None:
            raise Misconfigured(f"The run in {stopped} is stopped: start it before a part of it is forgotten.")
        _forget(forget)
    settings = settings_of_run()
    found = _look(settings, site) if stopped is None else _local(settings.store, "run_stopped", folder=str(stopped))
    if json:
        print_json(found.as_dict())
    elif isinstance(found, Local):
        _print_local(found)
    else:
        _print(found)
    if isinstance(found, Local) or not found.is_well:
        sys.exit(1)


def _forget(host: str) -> None:
    from record import parts
    from record.errors import NotFound
    from record.presence import Verdict, look

    with administrating() as session:
        shown, *_ = look(session)
        gone = [one for one in shown if one.host == host and one.verdict == Verdict.SILENT and one.kind != "listener"]
        for one in gone:
            parts.forget(session, one.owner)
    if not gone:
        raise NotFound(f"No part that tells of itself is silent on {printable(host)}.")
    say(f"not missed any more on {printable(host)}: {', '.join(one.kind for one in gone)}")


def _look(settings: Base, site: str | None) -> Status | Local:
    from sqlalchemy.exc import DBAPIError

    from record import status as line
    from record.access import commander
    from record.db import connect, is_away, transaction
    from record.queue import Bell
    from record.sites import find_site
    from record.states import Role

    engine = connect(settings.database_url, pool=1)
    try:
        with transaction(engine) as session:
            by = None if site is None else commander(find_site(session, site).id, Role.OPERATOR)
            return line.read(session, by, bell=Bell(settings.redis_url))
    except DBAPIError as error:
        if is_away(error):
            return _local(settings.store, "database_away")
        if str(getattr(error.orig, "sqlstate", "")) in _NO_SCHEMA_OF_OURS:
            return _local(settings.store, "schema_missing")
        raise
    finally:
        engine.dispose()


def _local(store: Path, why: str, **values: str) -> Local:
    from gateway import heartbeat
    from gateway.spool import find
    from record.alarms import alarm, of_places
    from record.presence import PartShown, Place, SpoolShown, listener_verdict

    host = socket.gethostname()
    root = os.environ.get("COUNTERSIGN_SPOOL")
    parts, spools, disks = [], [], []
    for spool in find(Path(root)) if root else []:
        lies = heartbeat.contents_of(spool)
        told = asdict(lies)
        disks.append(Place("spool", host, told.pop("free_bytes")))
        spools.append(SpoolShown(host, spool.spool_id, **told))
        listener = heartbeat.listener_of(spool)
        if listener:
            parts.append(
                PartShown(
                    "listener", host, str(listener.get("owner", "")), str(listener.get("version", "")),
                    listener_verdict(listener), listener["seen_s"], 0.0, port=listener.get("port"),
                    associations=listener.get("associations"),
                )
            )  # fmt: skip
    if store.is_dir():
        disks.append(Place("store", host, heartbeat.free_bytes(store)))
    shown = tuple({(disk.place, disk.free_bytes): disk for disk in disks}.values())
    return Local((alarm(why, **values), *of_places(spools, shown)), tuple(parts), tuple(spools), shown)


def _print(found: Status) -> None:
    where = f"site {found.site}" if found.site else "all sites"
    click.echo(f"{where}, {found.at:%Y-%m-%d %H:%M:%S} UTC, schema {found.revision}")
    _print_alarms(found.alarms)
    _title("Parts")
    _print_parts(found.parts, found.missing)
    _title("Queue")
    _print_queue(found)
    _title("Studies and spools")
    _print_studies(found)
    _print_places(found.spools, found.disks)
    _title("Readings without a draft, last 7 days")
    _print_ended(found)
    _title("Record")
    _print_record(found)
    needs = sum(one.severity != "notice" for one in found.alarms)
    click.echo()
    if needs:
        click.secho(f"{counted(needs, 'thing needs', 'things need')} a person; see the top.", fg="red")
    else:
        click.secho("All is well.", fg="green")


def _print_local(found: Local) -> None:
    _print_alarms(found.alarms)
    _title("This machine")
    _print_parts(found.parts, ())
    _print_places(found.spools, found.disks)


def _title(words: str) -> None:
    click.secho(f"\n{words}", bold=True)


def _print_alarms(alarms: tuple[Alarm, ...]) -> None:
    for one in alarms:
        word = click.style(f"{one.severity.upper():<9}", fg=_COLOURS[one.severity])
        click.echo("\n" + word + _wrapped(printable(one.sentence), " " * 9))
        remedy = f"{one.remedy.removesuffix('.')}: {one.command}" if one.command else one.remedy
        if remedy:
            click.echo(" " * 9 + _wrapped("→ " + remedy, " " * 11))


def _print_parts(parts: tuple[PartShown, ...], missing: tuple[str, ...]) -> None:
    width = min(24, max([len(part.host) for part in parts], default=1))
    for part in parts:
        state = click.style(f"{part.verdict:<8}", fg=_COLOURS[part.verdict])
        host = printable(part.host)[:width]
        click.echo(f"  {part.kind:<9}{state}{host:<{width}}  {_wrapped(', '.join(_told(part)), ' ' * (21 + width))}")
    for kind in missing:
        click.echo(f"  {kind:<9}" + click.style("missing", fg=_COLOURS["missing"]))
    if not parts and not missing:
        click.echo("  nothing is heard of")


def _told(part: PartShown) -> Iterator[str]:
    from record.alarms import age

    if part.verdict != "up":
        yield f"seen {age(part.seen_s)} ago"
        process = part.owner.removeprefix(f"{part.host}:").partition(":")[0]  # as `record.owner` names it
        if process.isdecimal():
            yield f"process {process}"
    if part.kind == "gpu" and part.verdict == "up" and not part.model:
        yield "its engine is not open"
    if part.model:
        yield printable(part.model) + (f" on {printable(part.device)}" if part.device else "")
    if part.slots is not None and part.busy is not None:
        yield f"{part.busy} of {part.slots} busy"
    if part.port is not None:
        yield f"port {part.port}" + (f", by TLS {part.tls_port}" if part.tls_port is not None else "")
    if part.associations is not None:
        yield f"{counted(part.associations, 'association')} open"
    if part.failing:
        yield f"failing: {part.failing.replace('_', ' ')}"
    if part.version:
        yield f"release {part.version}"


def _print_queue(found: Status) -> None:
    from record.alarms import age
    from record.states import Lane, ReadingState

    states = (ReadingState.QUEUED, ReadingState.PREPARING, ReadingState.PREPARED, ReadingState.DRAFTING)
    rows = []
    for lane in Lane:
        here = {one.state: one for one in found.queue if one.lane == lane}
        oldest_s = max((one.oldest_s or 0.0 for one in here.values()), default=0.0)
        counts = [here[state].count if state in here else 0 for state in states]
        stumbled = sum(one.stumbled for one in here.values())
        rows.append([f"  {lane}", *counts, stumbled, age(oldest_s) if oldest_s else None])
    print_table(["  lane", *states, "failed before", "oldest waits"], rows)


def _print_studies(found: Status) -> None:
    from record.alarms import age

    receiving = found.receiving
    oldest = f", the oldest for {age(receiving.oldest_s)}" if receiving.oldest_s is not None else ""
    click.echo(f"  receiving {receiving.count}{oldest}")
    about = "about " if found.studies_estimated else ""
    others = [f"{about}{count} {state}" for state, count in sorted(found.studies.items()) if state != "receiving"]
    if others:
        click.echo("  " + ", ".join(others))


def _print_places(spools: tuple[SpoolShown, ...], disks: tuple[Place, ...]) -> None:
    from record.alarms import age, size

    for spool in spools:
        waits = f", {size(spool.bytes)}, the oldest for {age(spool.oldest_s)}" if spool.files else ""
        aside = f"; {spool.quarantine_files} in quarantine" if spool.quarantine_files else ""
        files = counted(spool.files, "file waits", "files wait")
        line = f"spool {spool.spool} on {printable(spool.host)}: {files}{waits}{aside}"
        click.echo("  " + _wrapped(line, "    "))
    for disk in disks:
        click.echo(f"  disk of the {disk.place} on {printable(disk.host)}: {size(disk.free_bytes)} free")


def _print_ended(found: Status) -> None:
    from record.alarms import advice

    for reason in found.reasons:
        words = (reason.reason_code or "no reason").replace("_", " ")
        click.echo(f"  {reason.count} {reason.state}: {words}; {reason.unattended} without a report")
        click.echo("    " + _wrapped("→ " + advice(reason.reason_code), " " * 6))
    for one in found.ended[:10]:
        when = f"{one.ended_at:%m-%d %H:%M}" if one.ended_at else "-"
        end = printable(one.study_instance_uid)
        click.echo(f"  {when}  {one.state:<9} {printable(one.modality) or '-':<4} {one.reason_code or '-'}")
        click.echo(f"    study {end}")
    if not found.reasons:
        click.echo("  none")


def _print_record(found: Status) -> None:
    from record.alarms import size

    redis = {None: "not configured", True: "up", False: "away"}[found.redis]
    wakeups = ", ".join(f"{count} in {queue}" for queue, count in found.wakeups.items())
    deliveries = ", ".join(f"{count} {state}" for state, count in found.deliveries.items()) or "none waits"
    for line in (
        f"database {size(found.database_bytes)}; Redis {redis}" + (f" ({wakeups})" if wakeups else ""),
        f"seals up to {found.seal_position}, {counted(found.unsealed, 'event')} not sealed yet",
        f"{counted(found.conflicts, 'conflict')} to decide, {counted(found.outdated, 'outdated report')}",
        *(f"conflict in study {printable(one.study_instance_uid)}" for one in found.conflicting),
        f"{counted(found.lease_losses, 'lease')} lost within an hour",
        f"deliveries: {deliveries}; stored files to remove {found.deletions}",
    ):
        click.echo("  " + _wrapped(line, "  "))


def _wrapped(words: str, indent: str) -> str:
    import textwrap

    return textwrap.fill(
        words, _COLUMNS, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    ).lstrip()
