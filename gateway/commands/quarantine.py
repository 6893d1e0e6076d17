"""`quarantine`: what was refused and kept aside on this machine, and having it taken after all.

Knows options and what is printed: no patient's name or number. Does not know why something was refused (`gateway.quarantine`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.commands import PATH, Ordered, as_json, example, say
from record.errors import CountersignError, InvalidRequest
from record.terminal import counted, print_json, print_table, printable

if TYPE_CHECKING:
    from gateway.quarantine import Kept

RUN_HELP = (
    "An embedded run's folder; it may be up or down. Without it the environment is taken, or, when that has no "
    "COUNTERSIGN_SPOOL, the folder of `countersign up`."
)


_SHORT = 12
"""Of an id, which begins with the time in milliseconds."""
_data_dir = click.option("--data-dir", type=PATH, default=None, help=RUN_HELP)


@click.group(
    "quarantine",
    cls=Ordered,
    short_help="Instances that were refused and kept aside here; take one after all.",
    epilog=example("countersign quarantine list", "countersign quarantine release 019aa3f2"),
)
def quarantine() -> None:
    """Instances that were refused and kept aside, in the spools of this machine.

    What cannot be filed (no identifier, another one than announced, bytes that changed) is answered with a clear status and
    kept here, bounded in bytes: the oldest go first. Nothing else ever removes one but `drop`. ID is a file's id, or as much of its beginning as only one has.
    """


@quarantine.command("list", short_help="List what is kept.", epilog=example("countersign quarantine list --json"))
@_data_dir
@as_json
def list_kept(data_dir: Path | None, *, json: bool) -> None:
    """List what is kept, the oldest first: when, why, from whom, how large."""
    from gateway.quarantine import kept

    found = list(kept(spools(data_dir)))
    if json:
        print_json([_told(one) for one in found])
    elif not found:
        say("Nothing is kept aside.")
    else:
        print_table(
            ("KEPT AT", "FROM", "ADDRESS", "BYTES", "ID"),
            [
                (one.kept_at, told["calling_ae_title"], told["address"], one.size_bytes, one.instance_id.hex[:_SHORT])
                for one in found
                for told in [_told(one)]
            ],
            [[f"{one.why}; spool {one.spool_id}"] for one in found],
        )


@quarantine.command(
    "show", short_help="What one file says of itself.", epilog=example("countersign quarantine show 019aa3f2")
)
@_data_dir
@click.argument("file_id", metavar="ID")
@as_json
def show(file_id: str, data_dir: Path | None, *, json: bool) -> None:
    """Show what one file says of itself: what was announced, what its data set names, and where it lies."""
    from gateway.quarantine import find_kept, identity_of

    one = find_kept(spools(data_dir), file_id)
    identity = identity_of(one)
    told = _told(one) | {"why": one.why, "path": str(one.path)}
    for name in ("sop_class_uid", "sop_instance_uid", "transfer_syntax_uid"):
        told[f"announced_{name}"] = getattr(one.spooled.sop, name) if one.spooled else None
    for name in ("sop_class_uid", "sop_instance_uid", "study_instance_uid", "series_instance_uid"):
        told[name] = getattr(identity, name) if identity else None
    if json:
        print_json(told)
        return
    for name, value in told.items():
        click.echo(f"{name:<30} {printable('-' if value in {None, ''} else value)}")


@quarantine.command(
    "release",
    short_help="Take files after all.",
    epilog=example("countersign quarantine release 019aa3f2", "countersign quarantine release 019aa3f2 019aa3f3"),
)
@_data_dir
@click.argument("file_ids", metavar="ID...", nargs=-1, required=True)
def release(file_ids: tuple[str, ...], data_dir: Path | None) -> None:
    """Take files after all, each under the identity that its own data set names; an indexer makes rows of them.

    One whose bytes changed, or that cannot be read as far as its identifiers, can only be sent again.
    """
    from gateway import quarantine as files

    root, failed = spools(data_dir), 0
    for file_id in file_ids:
        try:
            one = files.find_kept(root, file_id)
            receipt = files.release(root, one)
        except CountersignError as error:
            say(f"{printable(file_id)}: {error.message}")
            failed += 1
        else:
            click.echo(f"{one.instance_id} is taken as {receipt.instance_id}")
    if failed:
        say(f"{counted(failed, 'file')} not taken")
        sys.exit(1)


@quarantine.command(
    "drop", short_help="Remove files for good.", epilog=example("countersign quarantine drop 019aa3f2 --yes")
)
@_data_dir
@click.argument("file_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do it: they will be gone.")
def drop(file_ids: tuple[str, ...], data_dir: Path | None, *, yes: bool) -> None:
    """Remove files for good, as when what they hold was mended and sent again."""
    from gateway.quarantine import find_kept

    if not yes:
        raise InvalidRequest("They would be gone for good: say --yes if that is meant.")
    root = spools(data_dir)
    for one in [find_kept(root, file_id) for file_id in file_ids]:
        one.path.unlink(missing_ok=True)
        click.echo(f"{one.instance_id} is removed", err=True)


def spools(folder: Path | None) -> Path:
    """Where this machine's spools lie: of a run in a folder, up or down; as the environment says; or of the usual run."""
    from gateway.launcher.folder import default_folder, environment_of, holds_run, stopped_environment_of
    from record.settings import ListenerSettings, load

    if folder is None and not os.environ.get("COUNTERSIGN_SPOOL") and holds_run(default_folder()):
        folder = default_folder()
        say(f"on the run in {folder}")
    if folder is None:
        return load(ListenerSettings).spool
    return Path((stopped_environment_of(folder) or environment_of(folder))["COUNTERSIGN_SPOOL"])


def _told(one: Kept) -> dict[str, Any]:
    source = one.spooled.source if one.spooled else None
    return {
        "instance_id": one.instance_id,
        "kept_at": one.kept_at,
        "reason": one.reason,
        "spool": one.spool_id,
        "size_bytes": one.size_bytes,
        "calling_ae_title": source.ae_title if source else None,
        "address": source.address if source else None,
        "received_at": one.spooled.received_at if one.spooled else None,
    }
