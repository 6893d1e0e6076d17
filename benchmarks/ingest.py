"""How fast images are taken, each durable before its Success: ours beside other receivers, in turns, in one run.

Receivers: `countersign gateway listener`; dcmtk's `storescp --fork` (which flushes nothing); pynetdicom with a handler that
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
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gateway.launcher.processes import free_port, wait_until

EXPLICIT = "1.2.840.10008.1.2.1"
TICKS = os.sysconf("SC_CLK_TCK")
TOKEN = b"7777777777"
DCMTK = "/usr/bin:/usr/local/bin"  # pynetdicom installs scripts of the same names into a virtual environment


@dataclass(frozen=True)
class Kind:
    """A kind of image: its class, and how many are sent to one sender's share of a round."""

    sop_class_uid: str
    rows: int
    columns: int
    images: int


KINDS = {
    "ct": Kind("1.2.840.10008.5.1.4.1.1.2", 512, 512, 400),
    "mr": Kind("1.2.840.10008.5.1.4.1.1.4", 256, 256, 1200),
    "cr": Kind("1.2.840.10008.5.1.4.1.1.1", 2500, 2048, 24),
    "tiny": Kind("1.2.840.10008.5.1.4.1.1.7", 48, 40, 2000),
}


@dataclass(frozen=True)
class Round:
    """What one receiver did with one round."""

    per_s: float
    megabytes_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    peak_mb: float


@dataclass
class Receiver:
    """A receiver that runs: its processes' root, and how to count what it keeps."""

    port: int
    called: str
    pid: int
    stored: Callable[[], int]


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


# --- senders -----------------------------------------------------------------------------------------------------------


def template(kind: Kind) -> tuple[bytes, int]:
    """An encoded data set, and where the ten digits stand that make its SOP Instance UID another one."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = kind.sop_class_uid, f"2.25.9.{TOKEN.decode()}.1"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "2.25.9.1", "2.25.9.1.1"
    ds.PatientName, ds.PatientID, ds.Modality = "Bench^Patient", "P1", "OT"
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = kind.rows, kind.columns, 16, 12, 11
    ds.PixelRepresentation, ds.SamplesPerPixel, ds.PhotometricInterpretation = 0, 1, "MONOCHROME2"
    noise = np.random.default_rng(7).integers(0, 4096, kind.rows * kind.columns, dtype=np.uint16)
    ds.add_new(0x7FE00010, "OW", noise.tobytes())
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    write_dataset(out, ds)
    encoded = out.getvalue()
    return encoded, encoded.index(TOKEN)


def sender(
    receiver: Receiver, kind: Kind, encoded: bytes, uid_at: int, share: int, number: int, barrier: object, told: object
) -> None:
    """Send a share over one association; tells how long each answer took."""
    connection = socket.create_connection(("127.0.0.1", receiver.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    most = associate(connection, receiver.called, kind.sop_class_uid)
    base = (time.time_ns() // 1000 * 16 + number) % 9_000_000_000
    streams = [stream(kind, encoded, uid_at, base + n * 64, most) for n in range(min(share, 64))]
    barrier.wait()  # type: ignore[attr-defined]
    waits = []
    for n in range(share):
        if n >= len(streams):  # encoded anew only where memory does not hold all
            streams[n % 64] = stream(kind, encoded, uid_at, base + n * 64, most)
        began = time.monotonic()
        connection.sendall(streams[n % 64])
        status = answer(connection)
        waits.append(time.monotonic() - began)
        if status:
            raise SystemExit(f"status 0x{status:04x}")
    connection.sendall(struct.pack(">BxI4x", 5, 4))
    connection.recv(10)
    connection.close()
    told.put(waits)  # type: ignore[attr-defined]


def associate(connection: socket.socket, called: str, sop_class_uid: str) -> int:
    """Ask for an association; the longest PDU that the receiver takes."""

    def part(kind: int, body: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(body)) + body

    context = struct.pack(">B3x", 1) + part(0x30, sop_class_uid.encode()) + part(0x40, EXPLICIT.encode())
    user = part(0x51, struct.pack(">I", 1 << 17)) + part(0x52, b"2.25.9")
    body = struct.pack(">H2x", 1) + called.encode().ljust(16) + b"BENCH".ljust(16) + bytes(32)
    body += part(0x10, b"1.2.840.10008.3.1.1.1") + part(0x20, context) + part(0x50, user)
    connection.sendall(struct.pack(">BxI", 1, len(body)) + body)
    kind, field = pdu(connection)
    at = field.find(b"\x51\x00\x00\x04")
    if kind != 2 or at < 0:
        raise SystemExit(f"no association: PDU type {kind}")
    return int(struct.unpack_from(">I", field, at + 4)[0]) or 1 << 17


def stream(kind: Kind, encoded: bytes, uid_at: int, number: int, most: int) -> bytes:
    """One C-STORE, as it goes over the wire."""
    token = b"%010d" % (number % 10_000_000_000)
    uid = f"2.25.9.{token.decode()}.1".encode()
    elements = [(0x0002, padded(kind.sop_class_uid.encode())), (0x0100, b"\x01\0"), (0x0110, b"\x01\0")]
    elements += [(0x0700, b"\0\0"), (0x0800, b"\0\0"), (0x1000, padded(uid))]
    body = b"".join(struct.pack("<HHI", 0, element, len(value)) + value for element, value in elements)
    command = struct.pack("<HHII", 0, 0, 4, len(body)) + body
    out = [struct.pack(">BxIIBB", 4, len(command) + 6, len(command) + 2, 1, 3), command]
    mine = encoded[:uid_at] + token + encoded[uid_at + len(token) :]
    step = most - 6
    for at in range(0, len(mine), step):
        piece = mine[at : at + step]
        last = 2 if at + step >= len(mine) else 0
        out += [struct.pack(">BxIIBB", 4, len(piece) + 6, len(piece) + 2, 1, last), piece]
    return b"".join(out)


def padded(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)


def answer(connection: socket.socket) -> int:
    """The status of the next response."""
    kind, field = pdu(connection)
    at = field.find(struct.pack("<HHI", 0, 0x0900, 2))
    if kind != 4 or at < 0:
        raise SystemExit(f"PDU type {kind} instead of an answer")
    return int(struct.unpack_from("<H", field, at + 8)[0])


def pdu(connection: socket.socket) -> tuple[int, bytes]:
    head = exactly(connection, 6)
    kind, length = struct.unpack(">BxI", head)
    return kind, exactly(connection, length)


def exactly(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        more = connection.recv(count - len(received))
        if not more:
            raise SystemExit("the receiver closed the connection")
        received += more
    return received


# --- receivers ---------------------------------------------------------------------------------------------------------


def receivers(
    folder: Path, processes: int, limit: Path | None, *, indexer: bool
) -> dict[str, Callable[[], contextlib.AbstractContextManager[Receiver]]]:
    """Those that can be had here, ours first."""
    found = {"ours": lambda: ours(folder, processes, indexer=indexer)}
    if storescp := shutil.which("storescp", path=DCMTK):
        found["storescp"] = lambda: dcmtk(folder, storescp)
    found["pynetdicom"] = lambda: plain(folder)
    if limit is not None:
        binary = folder / "limit"
        subprocess.run(["cc", "-O2", "-pthread", "-o", binary, limit], check=True)
        found["bare C"] = lambda: bare(folder, binary)
    return found


@contextlib.contextmanager
def ours(folder: Path, processes: int, *, indexer: bool) -> Iterator[Receiver]:
    port, spool = free_port(), folder / f"spool-{time.monotonic_ns()}"
    told = {
        "SPOOL": str(spool),
        "DICOM_PORT": str(port),
        "OPEN_PEERS": "1",
        "RECEIVERS": str(processes),
        "LOG_LEVEL": "ERROR",
    }
    environment = {**os.environ, **{f"COUNTERSIGN_{name}": value for name, value in told.items()}}
    with started([sys.executable, "-P", "-m", "gateway", "gateway", "listener"], port, environment) as pid:
        beside = draining(folder, spool) if indexer else contextlib.nullcontext(lambda: 0)
        with beside as drained:
            yield Receiver(port, "COUNTERSIGN", pid, lambda: drained() + sum(1 for _ in spool.glob("*/ready/*.dcm")))
    shutil.rmtree(spool, ignore_errors=True)


@contextlib.contextmanager
def draining(folder: Path, spool: Path) -> Iterator[Callable[[], int]]:
    """PostgreSQL and an indexer on a spool; how many rows there are."""
    import psycopg

    from gateway.launcher.folder import State
    from gateway.launcher.processes import StopRequest
    from gateway.launcher.servers import Servers
    from record.migrate import upgrade

    place = folder / f"servers-{time.monotonic_ns()}"
    (place / "logs").mkdir(parents=True)
    place.chmod(0o711)
    servers = Servers(place, place / "logs", State(), durable=True)
    servers.start(StopRequest())
    upgrade(servers.owner_database_url())
    url = servers.database_url()
    environment = {
        **os.environ,
        "DATABASE_URL": url,
        "COUNTERSIGN_SPOOL": str(spool),
        "COUNTERSIGN_STORE": str(place / "store"),
        "COUNTERSIGN_LOG_LEVEL": "ERROR",
    }
    (place / "store").mkdir()
    process = subprocess.Popen([sys.executable, "-P", "-m", "gateway", "gateway", "indexer"], env=environment)
    try:
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as database:
            yield lambda: int(database.execute("SELECT count(*) FROM instances").fetchone()[0])  # type: ignore[index]
    finally:
        process.terminate()
        process.wait(20)
        servers.stop(StopRequest())
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def dcmtk(folder: Path, storescp: str) -> Iterator[Receiver]:
    port, place = free_port(), folder / f"storescp-{time.monotonic_ns()}"
    place.mkdir()
    command = [storescp, "--fork", "-pdu", "131072", "-aet", "STORESCP", "-od", str(place), "+xa", str(port)]
    with started(command, port, {**os.environ, "TCP_NODELAY": "1"}) as pid:
        yield Receiver(port, "STORESCP", pid, lambda: len(os.listdir(place)))
    shutil.rmtree(place, ignore_errors=True)


PLAIN = """
import os, sys
from pynetdicom import AE, evt, AllStoragePresentationContexts, ALL_TRANSFER_SYNTAXES, _config
_config.LOG_HANDLER_LEVEL = "none"
port, folder = int(sys.argv[1]), sys.argv[2]
def store(event):
    path = os.path.join(folder, event.request.AffectedSOPInstanceUID + ".dcm")
    with open(path, "wb") as out:
        out.write(event.encoded_dataset())
        out.flush()
        os.fsync(out.fileno())
    return 0
ae = AE("PLAIN")
ae.maximum_pdu_size = 131072
for cx in AllStoragePresentationContexts:
    ae.add_supported_context(cx.abstract_syntax, ALL_TRANSFER_SYNTAXES)
ae.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, store)])
"""


@contextlib.contextmanager
def plain(folder: Path) -> Iterator[Receiver]:
    port, place = free_port(), folder / f"plain-{time.monotonic_ns()}"
    place.mkdir()
    with started([sys.executable, "-P", "-c", PLAIN, str(port), str(place)], port, dict(os.environ)) as pid:
        yield Receiver(port, "PLAIN", pid, lambda: len(os.listdir(place)))
    shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def bare(folder: Path, binary: Path) -> Iterator[Receiver]:
    port, place = free_port(), folder / f"bare-{time.monotonic_ns()}"
    place.mkdir()
    with started([str(binary), str(port), "fsync", str(place), "131072", "1"], port, dict(os.environ)) as pid:
        yield Receiver(port, "BARE", pid, lambda: len(os.listdir(place)))
    shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def started(command: Sequence[str], port: int, environment: dict[str, str]) -> Iterator[int]:
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        if not wait_until(lambda: answers(port), within_s=30):
            raise SystemExit(f"{command[0]} does not listen")
        time.sleep(0.5)
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def tree(pid: int) -> list[int]:
    """A process and everything below it."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{each}/task"):
                found += map(int, Path(f"/proc/{each}/task/{task}/children").read_text().split())
    return found


def cpu_s(pid: int) -> float:
    """CPU of a process tree, with what its ended children used."""
    total = 0.0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15])) / TICKS
    return total


def peak_mb(pid: int) -> float:
    """The largest resident set of the tree's processes, added up."""
    total = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return total / 1024


if __name__ == "__main__":
    threading.stack_size(1 << 20)
    main()
