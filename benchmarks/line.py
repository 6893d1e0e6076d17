"""What the line adds to a reading: seconds, CPU and memory, with an empty record and with 100,000 studies on it.

Runs `countersign up` on a folder of its own, sends phantoms by C-STORE, and reads the stages' times from the record:

- *line*: from the last image's receipt to its draft, less quiet time and less the engine's own time;
- *CPU a reading*: of PostgreSQL and Valkey over the whole run; and of the queue alone (a claim and an end for each phase, with
  a bare Celery job beside it, since that is what is used elsewhere);
- *memory*: PSS of each idle process.

    .venv/bin/python benchmarks/line.py [--studies 100] [--records 100000]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gateway.dicom.send import send
from record import claims, leases, status
from record.db import connect, transaction
from record.models import Reading
from record.queue import celery_app
from record.states import Purpose, ReadingState
from tests.line import Line

STABLE_AFTER_S = 1.0
PASSWORD = "correct horse battery"  # noqa: S105  of a user that lives as long as the benchmark
WARM = 20
TICKS = os.sysconf("SC_CLK_TCK")
STAGES = """
  WITH last AS (
    SELECT s.id, max(i.received_at) AS received, max(i.created_at) AS indexed, max(s.last_image_at) AS quiet_from
    FROM studies s JOIN instances i ON i.study_id = s.id WHERE s.study_instance_uid = ANY(%s) GROUP BY s.id)
  SELECT extract(epoch FROM l.indexed - l.received),
         extract(epoch FROM v.created_at - l.quiet_from) - %s,
         extract(epoch FROM r.prepared_at - v.created_at),
         extract(epoch FROM d.created_at - r.prepared_at) - t.model,
         extract(epoch FROM d.created_at - l.received) - %s - t.model,
         t.model
  FROM last l JOIN study_revisions v ON v.study_id = l.id JOIN readings r ON r.revision_id = v.id
  JOIN drafts d ON d.reading_id = r.id
  JOIN LATERAL (SELECT sum((timing->>'total_s')::float) AS model FROM draft_steps WHERE draft_id = d.id) t ON true
"""


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--studies", type=int, default=100)
    asked.add_argument("--records", type=int, default=100_000)
    chosen = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="line-") as folder:
        os.chmod(folder, 0o711)  # noqa: S103  the servers' account passes through
        line = Line(Path(folder), "--stable-after", str(STABLE_AFTER_S), "--open-peers", "--quiet")
        try:
            run(line, Path(folder), chosen.studies, chosen.records)
        finally:
            line.close()


def run(line: Line, folder: Path, studies: int, records: int) -> None:
    state = json.loads((folder / "data/run/state.json").read_text())
    line.command("users", "add", "bench", "--role", "attending", "--name", "Bench", stdin=f"{PASSWORD}\n")
    superuser = f"postgresql://postgres:{state['passwords']['postgres:postgres']}@127.0.0.1:{state['ports']['postgres']}/countersign"
    with psycopg.connect(superuser, autocommit=True) as database:
        measure(line, folder / "warm", 3, database)
        columns = {"few": measure_all(line, folder / "few", studies, database, state)}
        have = database.execute("SELECT count(*) FROM studies").fetchone()[0]
        archive(database, records - have)
        columns[f"{records:,}"] = measure_all(line, folder / "many", studies, database, state)
    show(columns)


def measure_all(
    line: Line, folder: Path, studies: int, database: psycopg.Connection, state: dict[str, Any]
) -> dict[str, float]:
    found: dict[str, float] = {}
    found |= {f"memory, idle: {name} (MB)": size for name, size in memory(state, line.process.pid).items()}
    found |= measure(line, folder, studies, database)
    found |= queue(state["environment"])
    found |= polls(line)
    found |= pages(line, state["environment"])
    return found


def measure(line: Line, folder: Path, studies: int, database: psycopg.Connection) -> dict[str, float]:
    """Send studies one after the other, and read from the record how long each stage took."""
    made = line_phantoms(folder, studies)
    servers = server_pids(line.process.pid)
    idle_s = 5.0
    before = cpu_s(servers)
    time.sleep(idle_s)
    idle = (cpu_s(servers) - before) / idle_s
    before, began = cpu_s(servers), time.monotonic()
    for uid, path in made.items():
        send([path], line.host, line.dicom_port, line.aet)
        time.sleep(0.45)  # no queue: what is measured is the line, not the model
        assert uid
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        rows = database.execute(STAGES, (list(made), STABLE_AFTER_S, STABLE_AFTER_S)).fetchall()
        if len(rows) == studies:
            break
        time.sleep(0.5)
    assert len(rows) == studies, f"{len(rows)} of {studies} drafts"
    used = cpu_s(servers) - before - idle * (time.monotonic() - began)
    columns = [[float(v) for v in column] for column in zip(*rows, strict=True)]
    names = ("image → row", "quiet → closed", "closed → prepared", "prepared → draft, less model", "line", "model")
    found: dict[str, float] = {}
    for name, values in zip(names, columns, strict=True):
        found[f"{name}: p50 (ms)"] = 1000 * statistics.median(values)
        found[f"{name}: p95 (ms)"] = 1000 * quantile(values, 0.95)
    found["CPU of PostgreSQL and Valkey a study, above idle (ms)"] = 1000 * used / studies
    found["CPU of PostgreSQL and Valkey, idle (ms a second)"] = 1000 * idle
    return found


def queue(environment: dict[str, str], count: int = 200) -> dict[str, float]:
    """CPU of one reading's way through the queue: claim, end, claim, beat, end; and of a bare Celery job."""
    engine = connect(environment["DATABASE_URL"], pool=1)
    from sqlalchemy import select, text

    with transaction(engine) as session:  # their own model, so that no worker of the line takes them
        old = session.scalars(select(Reading).where(Reading.purpose == Purpose.PRIMARY).limit(1)).one()
        site, study, revision = old.site_id, old.study_id, old.revision_id
        pids = [session.execute(text("SELECT pg_backend_pid()")).scalar()]
    held = []
    with transaction(engine) as session:
        for _ in range(count + WARM):
            reading = Reading(
                site_id=site, study_id=study, revision_id=revision, purpose=Purpose.REPLAY, lane="routine", lane_order=1,
                rank=0, state="preparing", token=1, lease_owner="bench", lease_until=text("now() + interval '5 minutes'"),
            )  # fmt: skip
            session.add(reading)
            session.flush()
            held.append(claims.Claim(reading.id, 1, ReadingState.PREPARING, study, site, revision, 0, None, None))
    before, own = 0.0, 0.0
    for number, claim in enumerate(held):
        if number == WARM:
            before, own = cpu_s(pids), time.process_time()
        with transaction(engine) as session:  # finds nothing: the line's workers must not be robbed
            claims.claim_prepare(session, "bench", 30, max_prepared=64, model="bench")
        with transaction(engine) as session:
            claims.finish_prepare(
                session,
                claim,
                protocol="p",
                protocol_version="1",
                protocol_digest="d",
                model="bench",
                pictures=[],
                omitted=[],
            )
        with transaction(engine) as session:
            drafting = claims.claim_draft(session, "bench", 30, model="bench")
        assert drafting is not None
        with transaction(engine) as session:
            leases.extend(session, [drafting], 30)
        with transaction(engine) as session:
            claims.finish_done(session, drafting)
    own, server = time.process_time() - own, cpu_s(pids) - before
    engine.dispose()
    job = bare_celery(environment["REDIS_URL"], count)
    total = 1000 * (own + server) / count
    return {
        "CPU a reading, verbs: our process (ms)": 1000 * own / count,
        "CPU a reading, verbs: PostgreSQL (ms)": 1000 * server / count,
        "CPU of one Celery wake-up, both sides (ms)": job,
        "CPU a reading, Celery + PostgreSQL (ms)": total + 2 * job,
        "ratio to a bare Celery job": (total + 2 * job) / job,
    }


def bare_celery(redis_url: str, count: int) -> float:
    """Milliseconds of CPU that one job without work costs its sender and its worker (threads, one slot)."""
    app = celery_app(redis_url)
    code = (
        "import os, sys; from record.queue import celery_app; app = celery_app(os.environ['BENCH_REDIS'])\n"
        "@app.task(name='bench.nothing')\ndef nothing(): pass\n"
        "app.worker_main(['--quiet', 'worker', '--pool=threads', '--concurrency=1', '--queues=bench', '--without-gossip',"
        " '--without-mingle', '--without-heartbeat', '--loglevel=ERROR'])"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"BENCH_REDIS": redis_url}, stdout=subprocess.DEVNULL
    )
    try:
        from redis import Redis

        redis = Redis.from_url(redis_url)

        def ring(times: int) -> float:
            began = time.process_time()
            for _ in range(times):
                app.send_task("bench.nothing", queue="bench", retry=False, ignore_result=True)
            spent = time.process_time() - began
            while redis.llen("bench"):
                time.sleep(0.02)
            time.sleep(0.3)
            return spent

        ring(20)
        before = cpu_s([worker.pid])
        sender = ring(count)
        return 1000 * (sender + cpu_s([worker.pid]) - before) / count
    finally:
        worker.terminate()
        worker.wait()


def polls(line: Line) -> dict[str, float]:
    """The API's answers as dashboards and people ask for them."""
    import httpx

    operator = line.command("tokens", "add", f"bench-{time.time_ns()}", "--role", "operator").strip().splitlines()[-1]
    found: dict[str, float] = {}
    with httpx.Client(base_url=line.url, headers={"Authorization": f"Bearer {line.token}"}, timeout=60) as board:
        tag = board.get("/api/v1/studies").headers["etag"]
        for name, address, headers in (
            ("the worklist, 50 rows", "/api/v1/studies", {}),
            ("the same, not changed (304)", "/api/v1/studies", {"If-None-Match": tag}),
            ("open drafts alone", "/api/v1/studies?report_state=draft", {}),
        ):
            found[f"{name}: p50 (ms)"] = p50(lambda a=address, h=headers: board.get(a, headers=h))
    with httpx.Client(base_url=line.url, headers={"Authorization": f"Bearer {operator}"}, timeout=60) as person:
        for name, asked in (
            ("search by name", {"patient_name": "family17 given"}),
            ("search by Patient ID", {"patient_id": "A1*"}),
        ):
            found[f"{name}: p50 (ms)"] = p50(
                lambda b=asked: person.post("/api/v1/studies/search", json=b).raise_for_status()
            )
        found["/metrics, first in ten seconds (ms)"] = p50(lambda: person.get("/metrics").raise_for_status(), times=1)
    return found


def pages(line: Line, environment: dict[str, str]) -> dict[str, float]:
    """The worklist's tabs as a physician's browser asks for them, and the state of the line."""
    import httpx

    found: dict[str, float] = {}
    with httpx.Client(base_url=line.url, timeout=60) as browser:
        browser.post("/sign-in", data={"login": "bench", "password": PASSWORD}, headers={"Origin": line.url})
        for tab in ("to_read", "not_ready", "preliminary", "signed", "attention", "all"):
            address = f"/?tab={tab}"
            assert "bench" in browser.get(address).raise_for_status().text.lower()
            found[f"page, {tab}: p50 (ms)"] = p50(lambda a=address: browser.get(a).raise_for_status())
    engine = connect(environment["DATABASE_URL"], pool=1)

    def look() -> None:
        with transaction(engine) as session:
            status.read(session)

    look()
    found["status: p50 (ms)"] = p50(look)
    engine.dispose()
    return found


def p50(ask: Callable[[], object], times: int = 30) -> float:
    """Median of the answers' times in milliseconds."""
    spent = []
    for _ in range(times):
        began = time.monotonic()
        ask()
        spent.append(1000 * (time.monotonic() - began))
    return statistics.median(spent)


def archive(database: psycopg.Connection, more: int) -> None:
    """Put studies on record that are over and done with."""
    began = time.monotonic()
    script = (Path(__file__).parent / "archive.sql").read_text()
    for name, value in (("more", str(more)), ("tag", f"'{os.getpid()}'")):
        script = script.replace(f":{name}", value)
    database.execute(script)
    database.execute("VACUUM (ANALYZE)")  # what autovacuum would do meanwhile is not the line's
    print(f"{more:,} studies put on record in {time.monotonic() - began:.0f} s", file=sys.stderr)


def line_phantoms(folder: Path, studies: int) -> dict[str, Path]:
    """Phantom studies of one image: UID → folder."""
    told = subprocess.run(
        [sys.executable, "-P", "-m", "worker", "phantoms", str(folder), "--count", str(studies), "--views", "1"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    lines = [json.loads(one) for one in told.splitlines()]
    return {one["study_instance_uid"]: folder / f"{number:04d}" for number, one in enumerate(lines, 1)}


def memory(state: dict[str, Any], up: int) -> dict[str, float]:
    """PSS of each part and its children, in MB."""
    names = {pid: name for name, pid in state["pids"].items()} | {up: "up"}
    found: dict[str, float] = {}
    for pid in descendants(up):
        owner = pid
        while owner not in names and owner != up:
            owner = parent(owner)
        name = names[owner] if owner != up or pid == up else Path(f"/proc/{pid}/comm").read_text().strip()
        found[name] = found.get(name, 0) + pss(pid)
    return dict(sorted(found.items()))


def server_pids(up: int) -> list[int]:
    """The processes of PostgreSQL and Valkey; backends come and go, so those that are reaped count as their parent's."""
    return [
        pid for pid in descendants(up) if Path(f"/proc/{pid}/comm").read_text().strip() in {"postgres", "valkey-server"}
    ]


def descendants(pid: int) -> Iterator[int]:
    yield pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield from descendants(int(child))


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def pss(pid: int) -> float:
    for row in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if row.startswith("Pss:"):
            return int(row.split()[1]) / 1024
    return 0.0


def cpu_s(pids: list[int]) -> float:
    """User and system seconds of processes and of the children they have waited for."""
    spent = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except FileNotFoundError:
            continue
        spent += sum(int(v) for v in fields[11:15])
    return spent / TICKS


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def show(columns: dict[str, dict[str, float]]) -> None:
    names = list(columns)
    print(f"{'':58}" + "".join(f"{name:>12}" for name in names) + f"{'ratio':>8}")
    for row in columns[names[0]]:
        values = [columns[name].get(row, float("nan")) for name in names]
        print(
            f"{row:58}" + "".join(f"{v:12.1f}" for v in values) + f"{values[-1] / values[0]:8.2f}" if values[0] else row
        )


if __name__ == "__main__":
    main()
