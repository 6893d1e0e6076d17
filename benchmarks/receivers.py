"""Receivers that run beside ours, each on a folder and a port of its own, and what they cost."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

from gateway.launcher.processes import free_port, wait_until

if TYPE_CHECKING:
    from gateway.launcher.servers import Servers

TICKS = os.sysconf("SC_CLK_TCK")
POSTGRESQL_INDEX = Path("/usr/share/orthanc/plugins/libOrthancPostgreSQLIndex.so")
DCMTK = "/usr/bin:/usr/local/bin"  # pynetdicom installs scripts of the same names into a virtual environment


@dataclass
class Receiver:
    """A receiver that runs: its processes' root, and how to count what it keeps."""

    port: int
    called: str
    pid: int
    stored: Callable[[], int]


def receivers(
    folder: Path, processes: int, limit: Path | None, *, indexer: bool
) -> dict[str, Callable[[], contextlib.AbstractContextManager[Receiver]]]:
    """Those that can be had here, ours first."""
    found = {"ours": lambda: ours(folder, processes, indexer=indexer)}
    if storescp := shutil.which("storescp", path=DCMTK):
        found["storescp"] = lambda: dcmtk(folder, storescp)
    found["pynetdicom"] = lambda: plain(folder)
    if orthanc := shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"):
        found["Orthanc"] = lambda: archive(folder, orthanc)
        if POSTGRESQL_INDEX.exists():
            found["Orthanc+PG"] = lambda: archive_on_postgresql(folder, orthanc)
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

    from record.migrate import upgrade

    with database(folder) as (servers, place):
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
            with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as rows:
                yield lambda: int(rows.execute("SELECT count(*) FROM instances").fetchone()[0])  # type: ignore[index]
        finally:
            process.terminate()
            process.wait(20)


@contextlib.contextmanager
def database(folder: Path) -> Iterator[tuple[Servers, Path]]:
    """A PostgreSQL that flushes, and the folder it is in."""
    from gateway.launcher.folder import State
    from gateway.launcher.processes import StopRequest
    from gateway.launcher.servers import Servers

    place = folder / f"servers-{time.monotonic_ns()}"
    (place / "logs").mkdir(parents=True)
    place.chmod(0o711)
    servers = Servers(place, place / "logs", State(), durable=True)
    servers.start(StopRequest())
    try:
        yield servers, place
    finally:
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


@contextlib.contextmanager
def archive(folder: Path, orthanc: str, index: dict[str, object] | None = None) -> Iterator[Receiver]:
    """Orthanc with its own SQLite or another index, flushing as it does by itself."""
    port, web, place = free_port(), free_port(), folder / f"orthanc-{time.monotonic_ns()}"
    place.mkdir()
    told = {
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "HttpPort": web,
        "RemoteAccessAllowed": False,
        "StorageDirectory": str(place),
        "IndexDirectory": str(place),
        "DicomAlwaysAllowStore": True,
        "StorageCompression": False,
        "SynchronousCMove": False,
        **(index or {"Plugins": []}),
    }
    (folder / "orthanc.json").write_text(json.dumps(told))

    def stored() -> int:
        with urlopen(f"http://127.0.0.1:{web}/statistics", timeout=30) as answer:
            return int(json.load(answer)["CountInstances"])

    with started([orthanc, str(folder / "orthanc.json")], port, {**os.environ, "TCP_NODELAY": "1"}) as pid:
        yield Receiver(port, "ORTHANC", pid, stored)
    shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def archive_on_postgresql(folder: Path, orthanc: str) -> Iterator[Receiver]:
    """Orthanc with its index in PostgreSQL."""
    with database(folder) as (servers, _):
        uri = servers.owner_database_url().replace("+psycopg", "")
        told: dict[str, object] = {
            "PostgreSQL": {"EnableIndex": True, "EnableStorage": False, "ConnectionUri": uri},
            "Plugins": [str(POSTGRESQL_INDEX)],
        }
        with archive(folder, orthanc, told) as receiver:
            yield receiver


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
        if not wait_until(lambda: answers(port), within_s=60):
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
