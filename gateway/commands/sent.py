"""What became of each file, told while it happens: lines, a bar on a terminal, JSON for machines; and the journal.

Knows the words for outcomes and the form of the journal. Does not know how a file is sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click

from gateway.commands import say
from record.terminal import counted, print_json, printable

if TYPE_CHECKING:
    from gateway.dicom.calling import Destination
    from gateway.dicom.outgoing import Outgoing, Told

_WORDS = {
    "accepted": "accepted",
    "refused": "refused",
    "no_context": "not taken in its form",
    "lost": "lost on the way",
    "unsent": "not sent",
    "unusable": "cannot be sent",
    "unreadable": "cannot be read",
    "not_dicom": "no DICOM, passed over",
    "passed_over": "passed over",
    "sent_before": "sent before",
    "looked_at": "would be sent",
}
_QUIET = frozenset({"accepted", "sent_before", "looked_at", "passed_over"})
"""What a person at a terminal need not be told file by file."""


class Account:
    """Tells what became of each file while it happens, and the sum at the end."""

    def __init__(self, *, as_json: bool, total: Count | None) -> None:
        self._as_json = as_json
        self._began = time.monotonic()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._bytes = 0
        self._interrupted = self._for_good = False
        self._total = total
        self._bar = click.progressbar(
            length=None, iterable=iter(()), label="sending", file=sys.stderr, show_pos=True,
            hidden=not sys.stderr.isatty(),
        ) if sys.stderr.isatty() else None  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        if self._bar is not None:
            self._bar.render_finish()
            self._clear()
        self._interrupted = kind is KeyboardInterrupt
        return self._interrupted

    def tell(self, told: Told) -> None:
        """One file's end."""
        self._counts[told.outcome, _said(told)] += 1
        self._bytes += told.size_bytes if told.outcome == "accepted" else 0
        self._for_good |= told.permanent
        if self._as_json:
            print_json(
                {
                    "path": str(told.path),
                    "outcome": told.outcome,
                    "status": None if told.status is None else f"0x{told.status:04X}",
                    "why": told.why or None,
                }
            )
        elif self._bar is None or told.outcome not in _QUIET or told.status:
            self._clear()
            click.echo(f"{_WORDS[told.outcome]}: {printable(told.path)}{_because(_said(told))}")
        if self._bar is not None:
            if self._total is not None and self._total.is_set():
                self._bar.length = self._total.count
            self._bar.update(1)

    def close(self, journal: Journal | None = None) -> int:
        """Tell the sum, and what a journal lacks; the exit status."""
        from gateway.dicom.outgoing import FAILURES, Outcome

        outcomes: Counter[str] = Counter()
        for (outcome, _), count in self._counts.items():
            outcomes[outcome] += count
        failed = sum(outcomes[outcome] for outcome in FAILURES)
        duration_s = time.monotonic() - self._began
        nothing = not outcomes.keys() - {Outcome.NOT_DICOM, Outcome.PASSED_OVER}
        lacks = journal.lacks if journal is not None else 0
        if self._as_json:
            summary = {**dict(sorted(outcomes.items())), "bytes": self._bytes, "duration_s": round(duration_s, 3)}
            summary |= {"not_in_journal": lacks} if lacks else {}
            print_json({"summary": summary | {"interrupted": self._interrupted}})
        else:
            self._sum_up(outcomes, duration_s)
        if journal is not None and lacks:
            say(
                f"the journal {printable(journal.path)} could not be written ({journal.why}): {lacks} of the files that "
                "were accepted are not in it and would be sent again, which changes nothing with the receiver"
            )
        if self._interrupted:
            say("interrupted: what was accepted is safe with the receiver; send the rest again")
            return 130
        if nothing:
            say("nothing to send was found")
        if self._for_good:
            say(
                "that is refused every time until the reason above is changed; until then sending it again is of no use"
            )
        elif outcomes[Outcome.LOST] or outcomes[Outcome.UNSENT]:
            say("when that is mended, send the same again: what the receiver has already changes nothing")
        return 1 if failed or nothing or lacks else 0

    def _sum_up(self, outcomes: Counter[str], duration_s: float) -> None:
        from record.alarms import size

        accepted = f"{size(self._bytes)} accepted" if outcomes["accepted"] else "nothing sent"
        say(f"{counted(outcomes.total(), 'file')}, {accepted} in {duration_s:.1f} s" + ":" * bool(outcomes))
        width = len(str(max(self._counts.values(), default=0)))
        for (outcome, why), count in sorted(self._counts.items(), key=lambda line: -line[1]):
            say(f"  {count:{width}} {_WORDS[outcome]}{_because(why)}")

    def _clear(self) -> None:
        if self._bar is not None:
            click.echo("\r\x1b[K", nl=False, err=True)


class Journal:
    """What was accepted by this receiver, one line a file; a file that changed since is another.

    A disk that is full ends no transfer: `lacks` counts the accepted files that are not in it, `why` says the reason.
    """

    def __init__(self, path: Path, to: Destination) -> None:
        self.path, self.lacks, self.why = path, 0, ""
        self._to = f"{to.host}:{to.port}/{to.ae_title}"
        self._done: set[bytes] = set()
        self._marks: dict[Path, list[object]] = {}
        try:
            self._torn = False  # whether the last line was cut short: by a full disk, or by whoever ended that run
            with contextlib.suppress(FileNotFoundError), path.open("rb") as lines:
                for line in lines:
                    self._done.add(_digest(line.strip()))
                    self._torn = not line.endswith(b"\n")
            self._out = path.open("ab", buffering=0)
        except OSError as error:
            raise click.UsageError(f"The journal {printable(path)} cannot be used: {error.strerror}.") from None

    def is_new(self, one: Outgoing) -> bool:
        """Whether this file, as it is now, was not yet accepted."""
        mark = [self._to, os.path.abspath(one.path), one.size_bytes, one.modified_ns]
        self._marks = {one.path: mark}
        return _digest(json.dumps(mark).encode()) not in self._done

    def note(self, told: Told) -> None:
        """Remember a file that was accepted just now."""
        mark = self._marks.pop(told.path, None)
        if mark is None or told.outcome != "accepted":
            return
        line = b"\n" * self._torn + json.dumps(mark).encode() + b"\n"
        try:
            written = self._out.write(line) or 0
        except OSError as error:
            self.lacks, self.why = self.lacks + 1, error.strerror or type(error).__name__
            return
        self._torn = written < len(line)
        if self._torn:
            self.lacks, self.why = self.lacks + 1, "the disk is full"


def _digest(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=16).digest()


class Count(threading.Event):
    """How many files there are, known some time after the first were sent."""

    count = 0


def counting(paths: Iterable[Path]) -> Count | None:
    """Count in the background, for the bar; nothing waits for it."""
    from gateway.dicom.outgoing import find

    if not sys.stderr.isatty():
        return None
    counted = Count()

    def count() -> None:
        counted.count = sum(1 for _ in find(paths))
        counted.set()

    threading.Thread(target=count, daemon=True).start()
    return counted


def _said(told: Told) -> str:
    """Why, with the receiver's status where there is one."""
    return f"0x{told.status:04X} {told.why}" if told.status else told.why


def _because(why: str) -> str:
    return f" ({printable(why)})" if why else ""
