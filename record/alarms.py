"""Alarms: what in the state of the line needs a person, in a sentence, and what to do about it.

Knows the words, the thresholds, and what a disk or a spool gives cause for. Does not know the rest of the line's state
(`status`), nor who is told. The sentences are keys of the pages' catalogues as well, so the figures in them stand in braces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from record.states import ReasonCode

if TYPE_CHECKING:
    from record.presence import Place, SpoolShown

GIB = 1024**3
CRITICAL_FREE_BYTES, LOW_FREE_BYTES = GIB, 5 * GIB
SPOOL_OLDEST_S = 60.0
SILENT_S, SILENT_TIMES = 3600.0, 2.0
"""A sender is missed when it is silent for longer than both: this, and so many times its longest silence lately."""
STARTING_S = 120.0
"""So long after the start of the line a worker may be on its way, and so long after its own it may load its model."""


class Severity(StrEnum):
    """How soon somebody has to look. A notice is only to be known."""

    CRITICAL = "critical"
    WARNING = "warning"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One thing that needs a person. `text` has the names of `values` in braces; `remedy` says what to do."""

    code: str
    severity: Severity
    text: str
    remedy: str = ""
    command: str = ""
    values: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """What is the matter."""
        return self.text.format(**self.values)


@dataclass(frozen=True, slots=True)
class Kind:
    """What every alarm of one code says."""

    severity: Severity
    text: str
    remedy: str = ""
    command: str = ""


_CRITICAL, _WARNING, _NOTICE = Severity.CRITICAL, Severity.WARNING, Severity.NOTICE
KINDS: Mapping[str, Kind] = {
    "database_away": Kind(
        _CRITICAL,
        "PostgreSQL does not answer.",
        "Start it, or see DATABASE_URL. What arrives waits in the spools; readings go on by themselves.",
    ),
    "run_stopped": Kind(
        _CRITICAL,
        "The run in {folder} is stopped: no image can be sent here.",
        "Start it.",
        "countersign up --data-dir {folder}",
    ),
    "schema_missing": Kind(
        _CRITICAL, "The database has no schema yet, or another.", "Migrate it.", "countersign migrate"
    ),
    "schema_old": Kind(
        _CRITICAL,
        "The database's schema is {there}; this release needs {needed}.",
        "Migrate it.",
        "countersign migrate",
    ),
    "schema_new": Kind(
        _WARNING,
        "The database's schema is {there}, a later release's; this release brings {own}.",
        "Finish the upgrade: install the later release here too.",
    ),
    "no_listener": Kind(
        _CRITICAL,
        "No listener is running: no image can be sent here.",
        "Start one.",
        "countersign gateway listener",
    ),
    "no_indexer": Kind(
        _CRITICAL,
        "No indexer is running: what arrives waits in the spool, and no listener is heard of.",
        "Start one beside each listener.",
        "countersign gateway indexer",
    ),
    "no_api": Kind(_CRITICAL, "No api is running: nobody can read or sign.", "Start one.", "countersign gateway api"),
    "no_sweep": Kind(
        _CRITICAL,
        "Nothing sweeps: studies are not closed, lost leases not taken back, events not sealed.",
        "Start a sweep, or a worker, which sweeps as well.",
        "countersign gateway sweep",
    ),
    "no_cpu": Kind(
        _CRITICAL, "No cpu worker is running: no study is prepared.", "Start one.", "countersign worker cpu"
    ),
    "no_gpu": Kind(_CRITICAL, "No gpu worker is running: no draft is written.", "Start one.", "countersign worker gpu"),
    "no_courier": Kind(
        _WARNING,
        "No courier is running: nobody is told of storage commitments, and no peer is asked for its count.",
        "Start one.",
        "countersign gateway courier",
    ),
    "part_starting": Kind(
        _NOTICE,
        "The {kind} is starting.",
        "A worker loads its model first. If it takes longer than two minutes, see its log: `up` keeps it in its folder's logs/.",
    ),
    "part_silent": Kind(
        _CRITICAL,
        "The {kind} on {host} has been silent for {age}.",
        "See its log and start it again. If it was taken away for good, have it forgotten.",
        "countersign status --forget {host}",
    ),
    "no_engine": Kind(
        _CRITICAL,
        "No gpu worker has its engine open.",
        "See the gpu worker's log, COUNTERSIGN_MODEL and COUNTERSIGN_ENGINE_URL.",
    ),
    "model_unserved": Kind(
        _WARNING,
        "No worker serves the model {model}, for which readings wait: {count}.",
        "Start a gpu worker with that COUNTERSIGN_MODEL; with another model they are prepared anew after a minute.",
    ),
    "waiting_long": Kind(
        _WARNING,
        "The oldest reading in the lane {lane} has waited {age} for a worker.",
        "See whether workers are up, and how many wait; more workers help.",
    ),
    "receiving_long": Kind(
        _WARNING,
        "A study has been receiving for {age}, longer than it may.",
        "See whether anything sweeps; an operator may close the study now.",
    ),
    "spool_old": Kind(
        _WARNING,
        "Files wait in spool {spool} on {host}: {count}, the oldest for {age}.",
        "See the indexer's log: a full store or a database that is away holds them up, and both pass.",
    ),
    "indexer_failing": Kind(
        _CRITICAL, "The indexer on {host} cannot go on: {reason}.", "See its log. Nothing is lost; it tries again."
    ),
    "disk_full": Kind(
        _CRITICAL,
        "The disk of the {place} on {host} has {free} free; images are refused soon.",
        "Free space, or make the disk larger.",
    ),
    "disk_low": Kind(
        _WARNING, "The disk of the {place} on {host} has {free} free.", "Free space, or make the disk larger."
    ),
    "quarantine": Kind(
        _NOTICE,
        "Files kept aside in quarantine in spool {spool} on {host}: {count}.",
        "See why each is there; have it sent again, or take it after all, or drop it. The oldest go by themselves.",
        "countersign quarantine list",
    ),
    "notices_failed": Kind(
        _WARNING,
        "Requests of senders that could not be taken up, in spool {spool} on {host}: {count}.",
        "See whose they are, and the indexer's log; then `notices retry`, or `notices drop`.",
        "countersign notices list",
    ),
    "peer_silent": Kind(
        _WARNING,
        "The sender {peer} has been silent for {age}; within a fortnight it never was for longer than {usual}.",
        "See whether it sends, and whether it was refused.",
        "countersign associations list --from {peer}",
    ),
    "senders_refused": Kind(
        _WARNING,
        "Within an hour senders were turned away, or something of theirs was refused: {count}.",
        "See who, why, and what to do.",
        "countersign associations list --troubled --hours 1",
    ),
    "readings_failed": Kind(
        _WARNING,
        "Readings that failed in the last 7 days, and nobody reports their studies: {count}.",
        "See the failures below: each reason says what to do.",
    ),
    "lease_losses": Kind(
        _WARNING,
        "Leases lost within an hour, because workers die or freeze: {count}.",
        "See the workers' logs and their machines' memory.",
    ),
    "conflicts": Kind(
        _WARNING,
        "Images in conflict of bytes or identity, whose studies nobody can sign: {count}.",
        "An operator or attending decides on the study's page.",
    ),
    "outdated": Kind(
        _NOTICE, "Open reports that rest on older images than their studies have: {count}.", "Their physicians see it."
    ),
    "unsealed": Kind(
        _WARNING,
        "Events wait for their seal: {count}, the oldest for {age}.",
        "A sweep, or a worker, needs COUNTERSIGN_SECRETS with the seal.key.",
    ),
    "deliveries_dead": Kind(
        _WARNING, "Deliveries that were given up: {count}.", "See the receiver, then queue them again."
    ),
    "commitments_dead": Kind(
        _WARNING,
        "Storage commitments of which nobody could be told: {count}.",
        "See whose they are, and whether those answer (`peers test`); then `notices retry`, or `notices drop`.",
        "countersign notices list",
    ),
    "deletions_wait": Kind(
        _NOTICE,
        "Stored files wait to be removed: {count}, the oldest for {age}.",
        "The sweep removes them; see its log.",
    ),
    "redis_away": Kind(
        _WARNING,
        "Redis does not answer: everything goes on, a little later.",
        "Start it, or see REDIS_URL.",
    ),
    "clock": Kind(
        _WARNING,
        "The clock of {host} differs from the database's by {seconds} s.",
        "Have both machines keep time (NTP).",
    ),
    "versions": Kind(
        _NOTICE, "Parts of several releases run: {versions}.", "Finish the upgrade by starting the older ones anew."
    ),
}
"""Every alarm there is, by its code."""
CODED = frozenset({"kind", "lane", "place", "reason"})
"""Values of an alarm that are codes or words of ours, not names or numbers: a page says them in its language."""
FAILING: Mapping[str, str] = {"store_full": "the store is full", "error": "an error"}
"""Why an indexer cannot go on, by the code that it tells."""

ADVICE: Mapping[ReasonCode, str] = {
    ReasonCode.NO_IMAGES: "The study holds no image: there is nothing to do.",
    ReasonCode.FETCHED_AS_PRIOR: "It was fetched as a prior: there is nothing to do.",
    ReasonCode.NO_PROTOCOL: "No protocol is for this kind of study: a physician reports it by hand.",
    ReasonCode.NO_USABLE_FRAMES: "No frame of it can be shown to a model: a physician reports it by hand.",
    ReasonCode.UNDECODABLE: "Its pixels cannot be decoded: have it sent again, or report it by hand.",
    ReasonCode.BLANK_PICTURE: "Its pictures are blank: look at the images, have them sent again, or report by hand.",
    ReasonCode.CHECKS_FAILED: "The draft did not pass the checks: a physician reports it by hand.",
    ReasonCode.UNSUPPORTED: "This kind of study is not read, or not by this model: a physician reports it by hand.",
    ReasonCode.ENGINE_REJECTED: "The engine refuses the prompt: see COUNTERSIGN_MODEL and the gpu worker's log, then read again.",
    ReasonCode.UNUSABLE_FINDINGS: "The model's answer was no report: read again, or report it by hand.",
    ReasonCode.TIMED_OUT: "The engine did not answer in time: see its load, then read again.",
    ReasonCode.ERROR: "Something broke: the worker's log says where. When it is mended, read again.",
    ReasonCode.LEASE_LOST: "Its workers died or froze each time: see their logs and memory, then read again.",
    ReasonCode.NOT_FOUND: "A stored file is missing: run `countersign verify`, restore it, then read again.",
    ReasonCode.NOT_PERMITTED: "The worker may not do what it needs: see its log, then read again.",
}
"""What to do about a reading that ended without a draft, by its reason."""


def advice(reason_code: str | None) -> str:
    """What to do about a reading that ended for this reason."""
    found = next((text for code, text in ADVICE.items() if code == reason_code), None)
    return found or "See the worker's log, then read again."


def alarm(code: str, **values: str | int) -> Alarm:
    """One alarm of a code, with its figures."""
    kind = KINDS[code]
    return Alarm(code, kind.severity, kind.text, kind.remedy, kind.command.format(**values), values)


def of_places(spools: Iterable[SpoolShown], disks: Iterable[Place]) -> Iterator[Alarm]:
    """Alarms of spools and disks alone: a machine can tell them without a database."""
    for spool in spools:
        here = {"spool": spool.spool, "host": spool.host}
        if spool.oldest_s > SPOOL_OLDEST_S and spool.files:
            yield alarm("spool_old", count=spool.files, age=age(spool.oldest_s), **here)
        if spool.quarantine_files:
            yield alarm("quarantine", count=spool.quarantine_files, **here)
        if spool.failed_notices:
            yield alarm("notices_failed", count=spool.failed_notices, **here)
    for disk in disks:
        code = "disk_full" if disk.free_bytes < max(CRITICAL_FREE_BYTES, disk.refused_below_bytes) else "disk_low"
        if disk.free_bytes < LOW_FREE_BYTES:
            yield alarm(code, place=disk.place, host=disk.host, free=size(disk.free_bytes))


def age(seconds: float) -> str:
    """A duration as a person says it."""
    for unit, length_s, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds < most * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def size(count: float) -> str:
    """A number of bytes as a person says it."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
