"""Power cuts: a kill leaves what the system still holds in memory, a cut does not. What was acknowledged is there afterwards.

A file system of its own on a loop device is shut down without a flush while senders send, and mounted again, as after a cut.
Needs root, loop devices and xfsprogs; elsewhere it is skipped with the reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.dicom.send import send
from gateway.indexer import arrival_of
from gateway.launcher.processes import wait_until
from record.errors import InvalidInstance
from tests.instances import encoded, instance, saved
from tests.listeners import AET, Running, listening

pytestmark = pytest.mark.slow
ROUNDS = int(os.environ.get("COUNTERSIGN_POWER_CUTS", "2"))


@contextlib.contextmanager
def disk(folder: Path, kind: str) -> Iterator[Path]:
    """A small file system; whoever is given its mount point may cut its power with `cut`."""
    if os.geteuid() != 0 or not shutil.which("xfs_io") or not shutil.which(f"mkfs.{kind}"):
        pytest.skip("a power cut needs root, xfsprogs and e2fsprogs")
    image, mounted = folder / "disk.img", folder / "disk"
    with image.open("wb") as out:
        out.truncate(400 << 20)
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True)
    mounted.mkdir()
    if subprocess.run(["mount", "-o", "loop", image, mounted], check=False, capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a loop device")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", mounted], check=False)


def cut(mounted: Path) -> None:
    """Nothing that is not on the disk now will ever be."""
    subprocess.run(["xfs_io", "-x", "-c", "shutdown", mounted], check=True)


def mount_again(mounted: Path) -> None:
    assert wait_until(lambda: subprocess.run(["umount", mounted], check=False).returncode == 0, within_s=20)
    subprocess.run(["mount", "-o", "loop", mounted.with_suffix(".img"), mounted], check=True)


def send_until_it_ends(listener: Running, folder: Path, acknowledged: dict[str, tuple[float, str]]) -> None:
    """Send new images one after the other; by UID when each was acknowledged, and its data set's hash."""
    folder.mkdir()
    going = True

    def note(path: Path, status: int | None) -> None:
        nonlocal going
        going = status == 0
        if going:
            acknowledged[path.stem] = (time.monotonic(), digests[path.stem])

    digests: dict[str, str] = {}
    while going:
        sent = [instance(side=100) for _ in range(40)]
        digests |= {ds.SOPInstanceUID: hashlib.sha256(encoded(ds)).hexdigest() for ds in sent}
        paths = [saved(folder, ds) for ds in sent]
        send(paths, "127.0.0.1", listener.port, AET, note, timeout_s=3)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_what_was_acknowledged_survives_a_power_cut(tmp_path: Path, kind: str) -> None:
    with disk(tmp_path, kind) as mounted:
        for number in range(ROUNDS):
            root = mounted / f"spool-{number}"
            acknowledged: dict[str, tuple[float, str]] = {}
            with listening(root, receivers=2) as listener:
                senders = [
                    threading.Thread(
                        target=send_until_it_ends, args=(listener, tmp_path / f"{number}-{n}", acknowledged)
                    )
                    for n in range(3)
                ]
                for each in senders:
                    each.start()
                assert wait_until(lambda: len(acknowledged) >= 60, within_s=60)  # noqa: B023  called at once
                at = time.monotonic()
                cut(mounted)
            for each in senders:
                each.join(60)
            mount_again(mounted)
            promised = {uid: digest for uid, (when, digest) in acknowledged.items() if when < at}
            there = dict(read(path) for path in root.glob("*/ready/*.dcm"))
            assert len(promised) >= 60
            assert {uid: there.get(uid) for uid in promised} == promised


def read(path: Path) -> tuple[str, str]:
    """The SOP Instance UID and the data set's hash of a spooled file; of one that the cut left half-written, its name."""
    try:
        arrival = arrival_of(path)
    except InvalidInstance as error:
        return path.name, str(error.facts.get("reason_code"))
    return arrival.header.sop_instance_uid, arrival.sha256


def test_every_success_follows_a_flush(tmp_path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("watching flushes needs strace")
    with listening(tmp_path / "spool", receivers=1) as listener:
        trace = tmp_path / "trace"
        calls = "trace=fsync,fdatasync,sync_file_range,renameat2,rename,sendto"
        command = ["strace", "-f", "-s", "0", "-o", trace, "-e", calls, "-p", str(listener.process.pid)]
        watching = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert watching.stderr is not None
        assert b"attached" in watching.stderr.readline()
        paths = [saved(tmp_path, instance(side=64)) for _ in range(12)]
        assert set(listener.send(*paths).values()) == {0}
        watching.terminate()
        watching.wait(10)
    made = [found[1] for line in trace.read_text().splitlines() if (found := re.match(r"\d+\s+(\w+)\(", line))]
    steps = "".join({"rename": "r", "renameat2": "r", "fsync": "f", "sendto": "s"}.get(call, "") for call in made)
    assert steps.count("rf") == len(paths), steps
    assert re.fullmatch("s+(rfs){12}s*", steps), "an image is named, flushed, and only then acknowledged"
