"""`send` and `echo`: files to somebody's listener, ours or another, and what became of each.

Knows options and where the run on this machine is. Does not know associations or files (`gateway.dicom.send` and
`gateway.dicom.outgoing`), nor how it is told (`sent`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from gateway.commands import example, say, use_usual_folder
from gateway.commands.sent import Account, Journal, counting
from record.settings import valid_ae_title
from record.terminal import printable

if TYPE_CHECKING:
    from gateway.dicom.calling import Destination
    from gateway.dicom.outgoing import Found, Told


_CHUNK = 1 << 16


class _Address(click.ParamType[tuple[str, int]]):
    """HOST:PORT; an IPv6 address stands in brackets."""

    name = "host:port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Host and port."""
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
        if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            self.fail(f"{printable(value)!r} is not HOST:PORT, such as 10.0.0.5:11112.", param, ctx)
        return host, int(port)


class _AeTitle(click.ParamType[str]):
    """An AE title (PS3.5, 6.2)."""

    name = "title"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Without the padding."""
        try:
            return valid_ae_title(str(value))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


_aet = click.option("--aet", type=_AeTitle(), metavar="TITLE", help="The receiver's AE title (default: COUNTERSIGN).")
_calling = click.option(
    "--calling-aet", type=_AeTitle(), metavar="TITLE", default="COUNTERSIGN", show_default=True,
    help="The AE title under which it is sent: the receiver must know it.",
)  # fmt: skip
_data_dir = click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Send to the run in this folder (default: that of `up`)."
)


class _List(click.File):
    """A file, or standard input, which may be closed."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The open file."""
        try:
            return super().convert(value, param, ctx)
        except RuntimeError:
            self.fail("standard input is closed.", param, ctx)


@click.command(
    short_help="Ask whether a listener is there.",
    epilog=example("countersign echo", "countersign echo 10.0.0.5:104 --aet PACS"),
)
@click.argument("to", type=_Address(), metavar="[HOST:PORT]", required=False)
@_aet
@_calling
@_data_dir
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=10.0, show_default=True, metavar="SECONDS"
)
def echo(
    to: tuple[str, int] | None, aet: str | None, calling_aet: str, data_dir: Path | None, timeout_s: float
) -> None:
    """Ask whether a listener is there and takes images from us, by C-ECHO; without an address, the run on this machine.

    The first thing to try when images do not arrive: it says why an association is refused. No image is sent.
    """
    from gateway.dicom.calling import unreachable

    where = _destination(to, aet, calling_aet, data_dir, timeout_s)
    _hush()
    if why := unreachable(where, as_sender=True):
        say(f"{printable(why)}")
        sys.exit(1)
    say(f"{where.ae_title} answers at {where.host} port {where.port}, and takes images from {where.calling_ae_title}")


@click.command(
    short_help="Send files and folders to a listener, ours or another.",
    epilog=example(
        "countersign send /media/cd",
        "countersign send /archive --to 10.0.0.5:104 --aet PACS --journal sent.jsonl",
        "countersign send /archive --json | jq -r 'select(.outcome == \"lost\") | .path' | countersign send --list -",
    ),
)
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path), metavar="PATH...")
@click.option(
    "--list",
    "listed",
    type=_List("rb"),
    metavar="FILE",
    help="Send what FILE names too, one a line, or one between two NULs as `find -print0` writes them; - reads them.",
)
@click.option("--to", type=_Address(), metavar="HOST:PORT", help="Whom to send to (default: the run on this machine).")
@_aet
@_calling
@_data_dir
@click.option(
    "--journal", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Remember in FILE what was accepted, and do not send that again: an interrupted transfer goes on.",
)  # fmt: skip
@click.option(
    "--retries",
    type=click.IntRange(0, 100),
    default=3,
    show_default=True,
    help="How often to try again when a connection falls or the receiver is full.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for each answer.",
)
@click.option("--dry-run", is_flag=True, help="Look at the files and say what would be sent; connect to nobody.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a file, and a last one with the summary.")
def send(
    paths: tuple[Path, ...],
    listed: BinaryIO | None,
    to: tuple[str, int] | None,
    aet: str | None,
    calling_aet: str,
    data_dir: Path | None,
    journal: Path | None,
    retries: int,
    timeout_s: float,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send files, and folders with all that is in them, by C-STORE, each as it is encoded, and say what became of each.

    Sending again what the receiver has is harmless: the same bytes change nothing. What a folder holds besides DICOM is
    passed over, and so are hidden files and a DICOMDIR. The exit status is 0 when the receiver has everything, 1 when
    something was refused, lost or cannot be sent, 2 when the command was not understood.
    """
    from gateway.dicom.calling import Destination
    from gateway.dicom.outgoing import find
    from gateway.dicom.send import Retries, deliver

    if not paths and listed is None:
        raise click.UsageError("Say what to send: files, folders, or --list FILE.")
    _hush()
    where = Destination("", 0, "") if dry_run else _destination(to, aet, calling_aet, data_dir, timeout_s)
    named = [*paths] if listed is None else _chained(paths, listed)
    kept = None if journal is None or dry_run else Journal(journal, where)
    found = find(named)
    if dry_run:
        results = _looked_at(found)
    else:
        wanted = kept.is_new if kept else lambda _: True
        results = deliver(found, where, Retries(retries), is_wanted=wanted)
    account = Account(as_json=as_json, total=counting(paths) if listed is None else None)
    with account, contextlib.closing(results):
        for told in results:
            if kept:
                kept.note(told)
            account.tell(told)
    sys.exit(account.close(kept))


def _destination(
    to: tuple[str, int] | None, aet: str | None, calling_aet: str, data_dir: Path | None, timeout_s: float
) -> Destination:
    """The named receiver; else the run in a folder, in the environment, or where `up` keeps one."""
    from gateway.dicom.calling import Destination

    if to is not None:
        return Destination(*to, aet or "COUNTERSIGN", calling_aet, timeout_s)
    if data_dir is not None:
        from gateway.launcher.folder import environment_of

        os.environ.update(environment_of(data_dir))
    elif not os.environ.get("COUNTERSIGN_DICOM_PORT") and not use_usual_folder(say):
        raise click.UsageError("Say whom to send to: HOST:PORT (and --aet), or --data-dir of a run on this machine.")
    from gateway.launcher.readiness import reachable

    host = reachable(os.environ.get("COUNTERSIGN_DICOM_HOST", "127.0.0.1"))
    port = os.environ.get("COUNTERSIGN_DICOM_PORT", "")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise click.UsageError("COUNTERSIGN_DICOM_PORT is no port. Set it, or say --to HOST:PORT.")
    title = aet or os.environ.get("COUNTERSIGN_AE_TITLE", "COUNTERSIGN")
    return Destination(host, int(port), title, calling_aet, timeout_s)


def _chained(paths: Iterable[Path], listed: BinaryIO) -> Iterator[Path]:
    yield from paths
    for name in _names(listed):
        yield Path(os.fsdecode(name))


def _names(listed: BinaryIO) -> Iterator[bytes]:
    """The names of a list as they come: one a line, or, where its beginning holds a NUL, one between two (`find -print0`)."""
    read = getattr(listed, "read1", listed.read)  # what is there: a list may be written while it is read
    held = more = read(_CHUNK)
    while more and not set(held) & set(b"\n\0"):
        held += (more := read(_CHUNK))
    end = b"\0" if b"\0" in held else b"\n"
    while more:
        *names, held = held.split(end)
        yield from filter(None, (_trimmed(name, end) for name in names))
        held += (more := read(_CHUNK))
    yield from filter(None, (_trimmed(name, end) for name in held.split(end)))


def _trimmed(name: bytes, end: bytes) -> bytes:
    return name.rstrip(b"\r") if end == b"\n" else name


def _looked_at(found: Iterable[Found | Told]) -> Generator[Told]:
    from gateway.dicom.outgoing import Outcome, Told, describe
    from gateway.dicom.send import kind_of

    for each in found:
        told = each if isinstance(each, Told) else describe(each)
        if isinstance(told, Told):
            yield told
        else:
            yield Told(told.path, Outcome.LOOKED_AT, kind_of(told), size_bytes=told.size_bytes)


def _hush() -> None:
    """Keep pydicom quiet: it warns, with the value it dislikes, of what is wrong in other people's files: we say what it comes to."""
    warnings.simplefilter("ignore")
    for name in ("pydicom", "pynetdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
