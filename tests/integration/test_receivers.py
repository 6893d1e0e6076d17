"""Several receiving processes on one port: what they share, and what becomes of them when one dies."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

import pytest

from gateway.dicom.send import send
from gateway.indexer import arrival_of
from gateway.launcher.processes import wait_until
from tests.instances import instance, saved
from tests.listeners import AET, Running, associate, listening

pytestmark = pytest.mark.slow


def children(listener: Running) -> list[int]:
    return sorted(
        map(int, Path(f"/proc/{listener.process.pid}/task/{listener.process.pid}/children").read_text().split())
    )


def lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def stored(listener: Running) -> dict[str, set[str]]:
    """SOP Instance UIDs by spool."""
    return {
        spool.name: {arrival_of(path).header.sop_instance_uid for path in (spool / "ready").glob("*.dcm")}
        for spool in sorted(listener.root.iterdir())
        if (spool / "ready").is_dir()
    }


def test_senders_are_spread_over_the_processes_and_every_image_is_there(tmp_path: Path) -> None:
    with listening(tmp_path / "spool", receivers=2) as listener:
        sent = [[instance(side=64) for _ in range(6)] for _ in range(6)]
        paths = [[saved(tmp_path, ds) for ds in share] for share in sent]
        open_now = [associate(listener) for _ in range(4)]  # each process has some
        senders = [threading.Thread(target=listener.send, args=share) for share in paths]
        for each in senders:
            each.start()
        for each in senders:
            each.join(60)
        for each in open_now:
            each.release()
        kept = stored(listener)
        assert set().union(*kept.values()) == {ds.SOPInstanceUID for share in sent for ds in share}
        assert all(kept[name] for name in ("00", "01")), "each has a spool of its own"


def test_one_limit_holds_for_all_of_them(tmp_path: Path) -> None:
    with listening(tmp_path / "spool", receivers=2, max_associations=3) as listener:
        taken = [associate(listener) for _ in range(3)]
        assert all(each.is_established for each in taken)
        assert associate(listener).is_rejected
        taken[0].release()
        assert wait_until(listener.answers, within_s=5)
        for each in taken[1:]:
            each.release()


def test_one_that_dies_gets_a_successor_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    with listening(tmp_path / "spool", receivers=2, max_associations=4) as listener:
        acknowledged: set[str] = set()

        def keep_sending(number: int) -> None:
            folder = tmp_path / str(number)
            folder.mkdir()
            paths = [saved(folder, instance(side=100)) for _ in range(40)]
            for path in paths:
                statuses: dict[Path, int | None] = {}
                send([path], "127.0.0.1", listener.port, AET, statuses.__setitem__, timeout_s=5)
                if statuses.get(path) == 0:
                    acknowledged.add(path.stem)

        senders = [threading.Thread(target=keep_sending, args=(n,)) for n in range(3)]
        for each in senders:
            each.start()
        killed = set()
        for _ in range(4):
            assert wait_until(lambda: len(children(listener)) == 2, within_s=10)
            victim = children(listener)[len(killed) % 2]
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
            assert wait_until(lambda: victim not in children(listener), within_s=10)  # noqa: B023  called at once
        for each in senders:
            each.join(120)
        assert wait_until(lambda: len(children(listener)) == 2, within_s=10)
        assert wait_until(listener.answers, within_s=10), "what a dead process had counts no more"
        assert len(killed) == 4
        assert len(acknowledged) >= 60
        assert acknowledged <= set().union(*stored(listener).values())


def test_a_parent_that_is_killed_takes_them_along_and_the_port_is_free(tmp_path: Path) -> None:
    with listening(tmp_path / "spool", receivers=2) as listener:
        assert wait_until(lambda: len(children(listener)) == 2, within_s=10)
        pids = children(listener)
        listener.process.kill()
        listener.process.wait()
        assert wait_until(lambda: not any(map(lives, pids)), within_s=5)
        assert not listener.answers()


def test_all_end_in_good_order(tmp_path: Path) -> None:
    with listening(tmp_path / "spool", receivers=3) as listener:
        assert wait_until(lambda: len(children(listener)) == 3, within_s=10)
        pids, association = children(listener), associate(listener)
        listener.process.send_signal(signal.SIGTERM)
        assert listener.process.wait(10) == 0
        assert not any(map(lives, pids))
        assert wait_until(lambda: not association.is_established, within_s=5)
        assert list(listener.root.glob("*/listener.json")) == [], "none of them is missed"


def test_a_spool_that_cannot_be_used_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    with pytest.raises(AssertionError, match="cannot be made or written"), listening(tmp_path / "spool", receivers=2):
        pass
