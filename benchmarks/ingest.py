"""How fast images are taken, each durable before its Success: ours beside other receivers, in turns, in one run.

Receivers: `countersign gateway listener`; dcmtk's `storescp --fork` (which flushes nothing); Orthanc, where it is installed; pynetdicom with a handler that
writes and flushes each file; and, with `--limit FILE.c`, a bare C receiver that only writes and flushes (compiled here).
Senders are processes that send instances encoded beforehand, wait for each answer as every real sender does, and cost next
to no CPU themselves. Every round sends new instances; what is stored is counted.

    .venv/bin/python benchmarks/ingest.py [--rounds 3] [--scenarios ct:1,ct:4,mr:1,mr:8,cr:1] [--indexer] [--limit limit_scp.c]

`--indexer` runs PostgreSQL and an indexer beside our listener, and tells how fast it drains.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.receivers import Receiver, cpu_s, peak_mb, receivers
from benchmarks.senders import KINDS, Kind, sender, template
from gateway.launcher.processes import wait_until


@dataclass(frozen=True)
class Round:
    """What one receiver did with one round."""

    per_s: float
    megabytes_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    peak_mb: float


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--scenarios", default="ct:1,ct:4,mr:1,mr:8,cr:1")
    asked.add_argument("--only", default="", help="of the receivers, by name, separated by commas")
    asked.add_argument("--receivers", type=int, default=0, help="our receiving processes (0: as by itself)")
    asked.add_argument("--indexer", action="store_true", help="PostgreSQL and an indexer beside our listener")
    asked.add_argument("--limit", type=Path, help="source of a bare C receiver, run as PORT fsync FOLDER 131072 1")
    chosen = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="ingest-", dir=os.environ.get("COUNTERSIGN_BENCH_FOLDER")) as place:
        folder = Path(place)
        os.chmod(folder, 0o711)  # noqa: S103  the servers' account passes through
        known = receivers(folder, chosen.receivers, chosen.limit, indexer=chosen.indexer)
        names = [name for name in known if not chosen.only or name in chosen.only.split(",")]
        print(
            f"{'':<10}{'receiver':<12}{'images/s':>9}{'MB/s':>7}{'p50 ms':>8}{'p99 ms':>8}{'CPU ms':>8}{'peak MB':>9}  ours is"
        )
        for scenario in chosen.scenarios.split(","):
            kind, _, senders = scenario.partition(":")
            found: dict[str, list[Round]] = {name: [] for name in names}
            for number in range(chosen.rounds):
                for name in names if number % 2 == 0 else names[::-1]:
                    found[name].append(one_round(known[name], KINDS[kind], int(senders)))
            tell(scenario, found)


def tell(scenario: str, found: dict[str, list[Round]]) -> None:
    ours = next(iter(found))
    for name, rounds in found.items():
        middle = [statistics.median(getattr(one, field) for one in rounds) for field in Round.__dataclass_fields__]
        ratio = statistics.median(a.per_s / b.per_s for a, b in zip(found[ours], rounds, strict=True))
        said = "" if name == ours else f"  {ratio:.2f} of it"
        figures = (
            f"{middle[0]:>9.0f}{middle[1]:>7.0f}{middle[2]:>8.2f}{middle[3]:>8.2f}{middle[4]:>8.2f}{middle[5]:>9.0f}"
        )
        print(f"{scenario if name == ours else '':<10}{name:<12}{figures}{said}", flush=True)


def one_round(start: Callable[[], contextlib.AbstractContextManager[Receiver]], kind: Kind, senders: int) -> Round:
    encoded, uid_at = template(kind)
    share = max(4, kind.images // senders)
    with start() as receiver:
        before, cpu = receiver.stored(), cpu_s(receiver.pid)
        context = multiprocessing.get_context("fork")
        barrier, told = context.Barrier(senders + 1), context.SimpleQueue()
        processes = [
            context.Process(target=sender, args=(receiver, kind, encoded, uid_at, share, n, barrier, told), daemon=True)
            for n in range(senders)
        ]
        for each in processes:
            each.start()
        barrier.wait()
        began = time.monotonic()
        waits = [wait for _ in processes for wait in told.get()]
        took = time.monotonic() - began
        for each in processes:
            each.join()
        used = cpu_s(receiver.pid) - cpu
        peak = peak_mb(receiver.pid)
        count = senders * share
        if not wait_until(lambda: receiver.stored() - before >= count, within_s=60):
            raise SystemExit(f"{receiver.stored() - before} of {count} were stored")
    waits.sort()
    return Round(
        count / took,
        count * len(encoded) / took / 1e6,
        1000 * waits[len(waits) // 2],
        1000 * waits[int(len(waits) * 0.99)],
        1000 * used / count,
        peak,
    )


if __name__ == "__main__":
    threading.stack_size(1 << 20)
    main()
