"""A listener as a process of its own for tests, and clients that say what no library would."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pynetdicom import AE
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE

from gateway.dicom.calling import answer_of, echo, hold
from gateway.dicom.send import send
from gateway.launcher.processes import free_port, wait_until
from tests.instances import CT, EXPLICIT

AET = "COUNTERSIGN"


@dataclass
class Running:
    """A listener process, its port and its one spool."""

    process: subprocess.Popen
    port: int
    root: Path
    log: Path

    def files(self, room="ready"):
        return sorted((self.root / "00" / room).iterdir())

    def answers(self):
        return echo("127.0.0.1", self.port, AET, 5.0)

    def send(self, *paths, calling_aet="SENDER"):
        """Statuses by file."""
        statuses = {}
        send(paths, "127.0.0.1", self.port, AET, statuses.__setitem__, calling_aet=calling_aet)
        return statuses


@contextmanager
def listening(root, **settings):
    port = free_port()
    told = {"spool": root, "dicom_port": port, "open_peers": 1, "receivers": 1, "min_free_bytes": 1000, **settings}
    environment = {f"COUNTERSIGN_{name.upper()}": str(value) for name, value in told.items()}
    log = root.parent / f"listener-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "gateway", "listener"],
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parents[2],
        )
    running = Running(process, port, root, log)
    try:
        assert wait_until(lambda: b"listener_started" in log.read_bytes() or process.poll() is not None, within_s=30)
        assert process.poll() is None, log.read_text()
        yield running
    finally:
        process.kill()
        process.wait()


def raw_connection(listener):
    return socket.create_connection(("127.0.0.1", listener.port), timeout=10)


def associate(listener, *, calling="SENDER", called=AET, contexts=((CT, EXPLICIT),)):
    ae = AE(calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
    for class_uid, syntax in contexts:
        ae.add_requested_context(class_uid, syntax)
    association = ae.associate("127.0.0.1", listener.port, ae_title=called)
    if not association.is_established and (answer := answer_of(association)) is not None and answer.result:
        association.is_rejected = True  # whether or not pynetdicom's own thread was quick enough to read it
    return association


def store_raw(association, data, *, sop_class_uid=CT, sop_instance_uid="1.2.3", part=1.0, pdu_bytes=4096):
    """A C-STORE of these bytes under any UID, past the client library's own checks; the status, if one comes."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CT, "1.2.3"
    request.DataSet = BytesIO(data)
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    message.command_set["AffectedSOPClassUID"]._value = sop_class_uid
    message.command_set["AffectedSOPInstanceUID"]._value = sop_instance_uid
    hold(association)
    fragments = list(message.encode_msg(1, pdu_bytes))
    for fragment in fragments[: max(1, int(len(fragments) * part))]:
        association.dul.send_pdu(fragment)
    if part < 1:
        assert wait_until(association.dul.to_provider_queue.empty, within_s=5)
        return None
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return response.Status if response else None


def peak_bytes(pid):
    (line,) = [x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
