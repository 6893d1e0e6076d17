"""Other people's archives for tests: dcmtk's dcmqrscp, which counts and sends, and one that takes commitment reports."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from gateway.dicom.calling import Destination, unreachable
from gateway.launcher.processes import free_port, wait_until
from tests.conftest import missing

ARCHIVE = "ARCHIVE"


@dataclass
class Archive:
    """A running dcmqrscp."""

    port: int

    def store(self, *paths: Path) -> None:
        program = shutil.which("storescu")
        assert program is not None
        for path in paths:
            subprocess.run([program, "-aec", ARCHIVE, "127.0.0.1", str(self.port), str(path)], check=True, timeout=60)


@contextmanager
def archive(folder: Path, *, sends_to: Sequence[tuple[str, int]] = ()) -> Iterator[Archive]:
    """dcmqrscp with an empty store; `sends_to` are AE titles and ports on this machine that it knows."""
    program = shutil.which("dcmqrscp")
    if program is None:
        missing("dcmtk is not installed (apt install dcmtk)")
    port = free_port()
    (folder / "held").mkdir(parents=True)
    hosts = "\n".join(f"h{number} = ({title}, 127.0.0.1, {to})" for number, (title, to) in enumerate(sends_to))
    (folder / "config").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\n{hosts}\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\n{ARCHIVE} {folder / 'held'} RW (200, 1024mb) ANY\nAETable END\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(program), "-c", str(folder / "config")], stdout=log, stderr=log)
    to = Destination("127.0.0.1", port, ARCHIVE, timeout_s=5.0)
    try:
        assert wait_until(lambda: not unreachable(to) or process.poll() is not None, within_s=20)
        yield Archive(port)
    finally:
        process.kill()
        process.wait()


@dataclass
class Told:
    """What an asker of storage commitment was told: event type and data set of each report."""

    port: int
    reports: list[tuple[int, Dataset]] = field(default_factory=list)
    status: int = 0


@contextmanager
def asker(title: str, port: int | None = None) -> Iterator[Told]:
    """A peer that asked for storage commitment and waits for the reports."""
    ae = AE(title)
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    ae.add_supported_context(Verification)
    told = Told(port or free_port())

    def note(event: evt.Event) -> tuple[int, None]:
        told.reports.append((event.event_type, event.event_information))
        return told.status, None

    server = ae.start_server(("127.0.0.1", told.port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, note)])
    try:
        yield told
    finally:
        server.shutdown()
